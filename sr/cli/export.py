"""`srup export`: weights to ONNX files, TensorRT engines and Triton model repositories."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from sr.cli import options, options_engine
from sr.cli.export_triton import check_serving, export_repository, serving
from sr.cli.help import GroupedCommand
from sr.errors import require_extra

GROUPS = {
    "Output": ("onnx", "trt", "trt_rtx", "triton", "output"),
    "Network": ("weights", "scales", "precision", "attention", "io", "calibrate", "licence", "data_note"),
    "Engines": ("targets", "tile", "batch", "builder_level", "compatible"),
    "Triton": ("plans", "halo"),
}
EXAMPLES = (
    "srup export --onnx --weights best.safetensors -o models",
    "srup export --trt-rtx --scale 3 --gpu rtx4090",
)


@click.command(cls=GroupedCommand, groups=GROUPS, examples=EXAMPLES)
@click.option("--onnx", is_flag=True, help="Write ONNX files.")
@click.option(
    "--weights",
    default="small",
    show_default=True,
    metavar="CKPT|PRESET",
    help="A .safetensors file, or a preset whose shipped weights to use; for engines and Triton also an ONNX "
    "file.",
)
@options.scales
@click.option(
    "--io",
    type=click.Choice(["uint8", "float32"]),
    default="uint8",
    show_default=True,
    help="uint8: NHWC, 0 to 255, conversions in the graph. float32: NCHW, 0 to 1.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="Precision of the convolutions.  [default: fp32 for ONNX, fp16 for engines]",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="For int8: lr pictures on which the ranges of activations are measured.",
)
@click.option(
    "--attention",
    type=click.Choice(["frozen", "dynamic"]),
    default="frozen",
    show_default=True,
    help="frozen: constant gates, folded away; tiles match. dynamic: gates from the picture.",
)
@click.option(
    "--licence",
    metavar="TEXT",
    help="Licence of the weights, for metadata and model card.  [default: that of the weights file, if any]",
)
@click.option(
    "--data-note",
    metavar="TEXT",
    help="What the training data are, for metadata and model card.  [default: that of the weights file]",
)
@options_engine.building
@serving
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Output folder.  [default: . for ONNX, srup/engines in the user's cache folder for "
    "engines; Triton needs one]",
)
def command(
    onnx: bool,
    trt: bool,
    trt_rtx: bool,
    triton: bool,
    weights: str,
    scales: tuple[int, ...],
    io: Literal["uint8", "float32"],
    precision: Literal["fp32", "fp16", "int8"] | None,
    attention: str,
    calibrate: Path | None,
    licence: str | None,
    data_note: str | None,
    output: Path | None,
    targets: tuple[int, ...],
    tile: int | None,
    batch: int | None,
    builder_level: int | None,
    compatible: bool,
    plans: tuple[Path, ...],
    halo: int | None,
) -> None:
    """Export trained weights to ONNX, to TensorRT engines, or for a Triton server.

    ONNX files are folded and checked; a model card (.md) is written beside each. Engines of the
    presets that ship are built without PyTorch; TensorRT-RTX engines without a GPU.
    """
    from sr.cli.report_engines import EngineOptions, check_building, export_engines

    options = EngineOptions(targets, tile, batch, builder_level, compatible)
    if not (onnx or trt or trt_rtx or triton):
        raise click.UsageError("choose an output: --onnx, --trt or --trt-rtx, or several; or --triton")
    served = {"plans": plans, "tile": tile, "batch": batch, "halo": halo}
    check_building(options, served, trt=trt, trt_rtx=trt_rtx, triton=triton)
    check_serving(triton=triton, others=(onnx, trt, trt_rtx), precision=precision, output=output)
    if not onnx and (io, attention) != ("uint8", "frozen"):
        raise click.UsageError("engines have uint8 IO and frozen attention; --io and --attention need --onnx")
    if (precision == "int8") != (calibrate is not None):
        raise click.UsageError("--precision int8 and --calibrate need each other")
    if not onnx and (licence, data_note) != (None, None):
        raise click.UsageError("--licence and --data-note need --onnx")
    if precision == "int8" and (trt or trt_rtx or io != "uint8"):
        raise click.UsageError("int8 is for ONNX files with uint8 IO")
    if onnx:
        require_extra("torch", "torch", "safetensors", "onnx", "onnxscript", purpose="srup export --onnx")
        from deploy.export import ExportSpec, export_files

        spec = ExportSpec(precision or "fp32", io, attention, calibrate, licence, data_note)
        for path in export_files(weights, scales, output or Path(), spec, note=_note, cards=True):
            click.echo(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
    if triton and output is not None:
        export_repository(weights, scales, output, served)
    backends = [name for name, asked in (("trt", trt), ("trt-rtx", trt_rtx)) if asked]
    if backends:
        export_engines(
            backends, weights, scales, precision=precision or "fp16", folder=output, options=options
        )


def _note(text: str) -> None:
    click.echo(f"Note: {text}", err=True)
