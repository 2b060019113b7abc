"""`srup export`: weights to ONNX files, TensorRT engines and Triton model repositories."""

from __future__ import annotations

from pathlib import Path

import click

from sr.cli import options, options_engine
from sr.cli.export_request import ExportRequest
from sr.cli.export_triton import export_repository, serving
from sr.cli.help import GroupedCommand
from sr.cli.progress import phase_lines
from sr.errors import require_extra

GROUPS = {
    "Output": ("onnx", "trt", "trt_rtx", "triton", "output"),
    "Network": (
        "weights",
        "model_range",
        "model_order",
        "scales",
        "precision",
        "attention",
        "io",
        "calibrate",
        "restore",
        "licence",
        "data_note",
    ),
    "Engines": ("targets", "tile", "batch", "builder_level", "tiling_level", "static", "compatible"),
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
    help="A .safetensors file, a preset whose shipped weights to use, or another program's network (ONNX, "
    ".pth, .safetensors); for engines and Triton also an ONNX file of srup.",
)
@options.conventions
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
    "--restore",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="0..1",
    help="Strength of restoration, of weights that have a partner for it; engines take steps of 0.25.  "
    "[default: 0]",
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
@options.as_record(ExportRequest)
def command(request: ExportRequest) -> None:
    """Export trained weights to ONNX, to TensorRT engines, or for a Triton server.

    ONNX files are folded and checked; a model card (.md) is written beside each. Engines of the
    presets that ship are built without PyTorch; TensorRT-RTX engines without a GPU.
    """
    request.check()
    if request.onnx:
        _export_onnx(request)
    if request.triton:
        export_repository(request)
    if request.backends:
        from sr.cli.report_engines import export_engines

        export_engines(request)


def _export_onnx(request: ExportRequest) -> None:
    """Write ONNX files and their cards; print the path and size of each."""
    require_extra("torch", "torch", "safetensors", "onnx", "onnxscript", purpose="srup export --onnx")
    from deploy.export import ExportSpec, export_files

    spec = ExportSpec(
        request.precision or "fp32",
        request.io,
        request.attention,
        request.calibrate,
        request.licence,
        request.data_note,
        request.restore,
        request.conventions,
    )
    folder = request.output or Path()
    for path in export_files(
        request.weights, request.scales, folder, spec, note=_note, cards=True, progress=phase_lines()
    ):
        click.echo(f"{path}  {path.stat().st_size / 1e6:.2f} MB")


def _note(text: str) -> None:
    click.echo(f"Note: {text}", err=True)
