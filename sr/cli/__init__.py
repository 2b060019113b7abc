"""The `srup` command: each subcommand parses, calls the library, and prints.

Imports nothing heavy at module level; `srup --help` loads click and little else.
"""

from __future__ import annotations

import errno
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from sr.cli import options, options_engine, options_train
from sr.cli.debug import show_traceback
from sr.errors import SrupError, require_extra
from sr.version import __version__


class SrupGroup(click.Group):
    """Turns errors into one line on stderr and exit status 1, in this one place.

    An `OSError` that names a file (no such folder, no permission, disk full) is the environment's
    fault as well.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except SrupError as error:
            show_traceback(error)
            raise click.ClickException(" ".join(str(error).splitlines())) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read has gone: click knows what to do
                raise
            show_traceback(error)
            where = error.filename or "standard output, or a file without a name"
            raise click.ClickException(f"{where}: {error.strerror or error}") from error
        except KeyboardInterrupt:
            from sr.jobs.interrupt import INTERRUPTED

            click.echo("stopped", err=True)
            sys.exit(INTERRUPTED)


@click.group(cls=SrupGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="srup")
def main() -> None:
    """Super-resolution: upscale pictures, export the networks that do it, train them."""


@main.command(cls=options.GroupedCommand)
@click.argument("inputs", nargs=-1, required=True, type=options.PathOrStream(), metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    type=options.PathOrStream(),
    help="File or folder; - is standard output.  [default: beside INPUT]",
)
@options.factor
@click.option(
    "--size",
    type=options.Size(),
    metavar="WxH",
    help="Exact size of the output in pixels; of 3840x or x2160 the other side follows.",
)
@click.option(
    "--long-side", type=click.IntRange(1), metavar="N", help="Exact longer side of the output in pixels."
)
@click.option("--linear", is_flag=True, help="Resample to the exact size in linear light.")
@options.backend
@options.precision
@options.device
@options.tile
@options.halo
@options.batch
@options.model
@options.format_
@options.encoding
@options.max_pixels
@options.low_memory
@options_engine.engine_dir
@options.skip_existing
@options.overwrite
@click.option(
    "--suffix", metavar="TEXT", help="Added to the names of outputs.  [default: _x<scale>, or the size]"
)
@click.option("--include", multiple=True, metavar="GLOB", help="Of folders, take only these; repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Of folders, leave these out; repeatable.")
@click.option("--dry-run", is_flag=True, help="List what would be written, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each picture.")
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Write a page to look at: outputs beside nearest and bicubic, under a slider.",
)
def upscale(
    inputs: tuple[Any, ...], dry_run: bool, as_json: bool, compare: Path | None, **given: Any
) -> None:
    """Upscale pictures, or folders of pictures.

    in.png becomes in_x2.png beside it; a folder becomes FOLDER_x2 beside it, with the same tree
    inside; - is standard input, and goes to standard output. Colour profile, EXIF and transparency
    are kept, orientation is applied.
    """
    from sr.cli.report import print_plan, report_comparison, report_files
    from sr.cli.report_engines import build_progress, engine_builder
    from sr.cli.request import UpscaleOrder
    from sr.cli.streams import reserved_stdout

    order = UpscaleOrder.checked(inputs, dry_run=dry_run, compare=compare, **given)
    plan = order.plan
    if dry_run or not (plan.jobs or compare):  # opening a backend may take minutes
        if dry_run or not as_json:
            print_plan(plan)
        return
    with reserved_stdout() if order.to_stdout else nullcontext():
        with build_progress() as progress:
            upscaler = order.open(build_progress=progress, builder=engine_builder())
        with upscaler:
            results = report_files(
                plan,
                upscaler,
                write_options=order.write_options,
                max_pixels=order.max_pixels,
                low_memory=order.low_memory,
                as_json=as_json,
            )
    if compare is not None:
        report_comparison(compare, plan, results, upscaler, max_pixels=order.max_pixels, as_json=as_json)
    sys.exit(1 if any(result.error is not None for result in results) else 0)


@main.command()
@click.option("--onnx", is_flag=True, help="Write ONNX files.")
@click.option(
    "--weights",
    default="small",
    show_default=True,
    metavar="CKPT|PRESET",
    help="A .safetensors file, or the preset whose shipped weights to take; for engines also an ONNX file.",
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
    help="Of the convolutions.  [default: fp32 for ONNX, fp16 for engines]",
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
@options_engine.building
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder.  [default: . for ONNX, srup/engines in the user's cache folder for engines]",
)
def export(
    onnx: bool,
    trt: bool,
    trt_rtx: bool,
    weights: str,
    scales: tuple[int, ...],
    io: Any,
    precision: Any,
    attention: str,
    calibrate: Path | None,
    output: Path | None,
    **settings: Any,
) -> None:
    """Export trained weights: to ONNX, folded and checked; to TensorRT engines.

    Engines of the presets that ship are built without PyTorch; TensorRT-RTX engines without a GPU.
    """
    from sr.cli.report_engines import check_building, export_engines

    if not (onnx or trt or trt_rtx):
        raise click.UsageError("say what to make: --onnx, --trt or --trt-rtx, or several")
    check_building(trt=trt, trt_rtx=trt_rtx, settings=settings)
    if not onnx and (io, attention) != ("uint8", "frozen"):
        raise click.UsageError("engines have uint8 IO and frozen attention; --io and --attention need --onnx")
    if (precision == "int8") != (calibrate is not None):
        raise click.UsageError("--precision int8 and --calibrate need each other")
    if precision == "int8" and (trt or trt_rtx or io != "uint8"):
        raise click.UsageError("int8 is for ONNX files with uint8 IO")
    if onnx:
        require_extra("torch", "torch", "safetensors", "onnx", "onnxscript", purpose="srup export --onnx")
        from deploy.export import ExportSpec, export_files

        spec = ExportSpec(precision or "fp32", io, attention, calibrate)
        for path in export_files(weights, scales, output or Path(), spec):
            click.echo(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
    backends = [name for name, asked in (("trt", trt), ("trt-rtx", trt_rtx)) if asked]
    if backends:
        export_engines(
            backends, weights, scales, precision=precision or "fp16", folder=output, settings=settings
        )


@main.command()
@click.option("--model", metavar="PRESET|PATH", help="Describe a model: parameters, multiply-adds, training.")
@options.scale
@click.option("--engines", is_flag=True, help="List the TensorRT engines that were built.")
@click.option("--prune", is_flag=True, help="With --engines: remove stale ones, after saying which.")
@options_engine.engine_dir
def info(model: str | None, scale: int | None, engines: bool, prune: bool, engine_dir: Path | None) -> None:
    """Show what is installed, describe a model, or list engines."""
    from sr.cli.report import print_environment, print_model
    from sr.cli.report_engines import print_engines

    if (prune or engine_dir) and not engines:
        raise click.UsageError("--prune and --engine-dir need --engines")
    if engines:
        print_engines(engine_dir, prune=prune)
    elif model is None:
        print_environment()
    else:
        print_model(model, scale=scale)


@main.command()
@click.argument("hr_folder", type=click.Path(path_type=Path))
@click.option(
    "--scale",
    "scales",
    type=click.IntRange(min=1),
    multiple=True,
    default=(2, 3, 4),
    show_default=True,
    help="Upscaling factor; repeat it for several.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder.  [default: pairs/train; with --whole pairs/val/NAME]",
)
@click.option("--exclude", multiple=True, metavar="STEM", help="Leave out pictures of this name.")
@click.option("--patch-size", type=click.IntRange(min=1), help="Side in hr pixels.  [default: 192]")
@click.option(
    "--stride", type=click.IntRange(min=1), help="From patch to patch, hr pixels.  [default: patch size]"
)
@click.option(
    "--min-variance",
    type=click.FloatRange(min=0),
    help="Drop patches whose luma varies less, in squared levels of 255.  [default: 0]",
)
@click.option(
    "--min-detail",
    type=click.FloatRange(min=0),
    help="Drop patches of which bicubic misses less: variance of the luma's difference.  [default: 0]",
)
@click.option("--whole", is_flag=True, help="Whole pictures, for a test set; nothing is dropped.")
@click.option("--overwrite", is_flag=True, help="Replace pairs that are there; remove stale patches.")
def prepare(hr_folder: Path, exclude: tuple[str, ...], whole: bool, **settings: Any) -> None:
    """Make pairs from hr pictures: lr by MATLAB-exact bicubic, patches of both, JSON lists.

    HR_FOLDER is a folder of pictures, or a data set laid out as DIV2K is: its lr pictures are taken
    as they are. Killed and started again, only what is missing is made.
    """
    from sr.cli.report import picture_progress
    from train.prepare.make import PrepareSpec
    from train.prepare.make import prepare as prepare_pairs

    settings = {name: value for name, value in settings.items() if value}
    if whole and settings.keys() & {"patch_size", "stride", "min_variance", "min_detail"}:
        raise click.UsageError("--whole cuts no patches; leave out --patch-size, --stride and --min-...")
    try:
        spec = PrepareSpec(hr_folder, exclude=frozenset(exclude), whole=whole, **settings)
    except SrupError as error:
        raise click.UsageError(str(error)) from error
    with picture_progress() as progress:
        prepared = prepare_pairs(spec, progress=progress)
    for line in prepared.lines():
        click.echo(line)


@main.command(name="eval")
@click.option("--list", "pair_list", type=click.Path(path_type=Path), required=True, help="JSON pair list.")
@options.scale
@options.backend
@options.precision
@options.device
@options.model
def evaluate_command(pair_list: Path, **upscaler_options: Any) -> None:
    """Measure PSNR and SSIM of a model on a list of pairs."""
    from sr.cli.report_engines import engine_builder
    from sr.upscale import Upscaler
    from train.evaluate import evaluate

    with Upscaler(**upscaler_options, builder=engine_builder()) as upscaler:
        quality = evaluate(upscaler, pair_list, scale=upscaler.scale)
    click.echo(
        f"{quality.pictures} pictures  PSNR Y {quality.psnr_y:.3f} dB  RGB {quality.psnr_rgb:.3f} dB  "
        f"SSIM Y {quality.ssim_y:.4f}  RGB {quality.ssim_rgb:.4f}"
    )


@main.command(cls=options_train.GroupedCommand)
@options_train.training
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="TOML file of settings, named as the options; options given here go before it.",
)
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint, with its settings.")
@click.option(
    "--processes",
    type=click.IntRange(1),
    help="Processes to share the work.  [default: one for each visible GPU; 1 on a CPU]",
)
def train(config_file: Path | None, resume: bool, processes: int | None, **settings: Any) -> None:
    """Train a network, on all GPUs that are visible, else on the CPU."""
    require_extra("train", "torch", "safetensors", purpose="srup train")
    from train.run import run_training

    given = {name: value for name, value in settings.items() if value not in (None, ())}
    sys.exit(run_training(given, config_file=config_file, resume=resume, processes=processes, log=click.echo))


if __name__ == "__main__":
    main()
