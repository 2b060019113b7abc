"""The `srup` command: each subcommand parses, calls the library, and prints.

Imports nothing heavy at module level; `srup --help` loads click and little else.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sr import __version__, options
from sr.errors import SrupError, require_extra


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
            raise click.ClickException(" ".join(str(error).splitlines())) from error
        except OSError as error:
            if error.filename is None:  # a broken pipe, for example: click knows what to do
                raise
            raise click.ClickException(f"{error.filename}: {error.strerror}") from error


@click.group(cls=SrupGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="srup")
def main() -> None:
    """Super-resolution: upscale pictures, export the networks that do it, train them."""


@main.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INPUT...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File or folder.  [default: beside INPUT]"
)
@options.scale
@options.backend
@options.device
@options.tile
@options.halo
@options.batch
@options.model
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["png", "jpg", "webp", "tif", "bmp"]),
    help="Format of outputs that are not named with -o.  [default: png]",
)
@click.option(
    "--png-level", type=click.IntRange(0, 9), help="PNG compression: 0 none, 9 smallest.  [default: fast]"
)
@options.max_pixels
def upscale(
    inputs: tuple[Path, ...],
    output: Path | None,
    suffix: str | None,
    png_level: int | None,
    max_pixels: int | None,
    **upscaler_options: Any,
) -> None:
    """Upscale pictures, or folders of pictures.

    in.png becomes in_x2.png beside it; a folder becomes FOLDER_x2 beside it, with the same tree
    inside. Colour profile, EXIF and transparency are kept, orientation is applied.
    """
    from sr.folders import plan_jobs
    from sr.image import DEFAULT_MAX_PIXELS, WriteOptions
    from sr.report import report_files
    from sr.upscale import Upscaler

    with Upscaler(**upscaler_options) as upscaler:
        jobs = plan_jobs(inputs, output, scale=upscaler.scale, suffix=suffix and f".{suffix}")
        write_options = WriteOptions() if png_level is None else WriteOptions(png_level=png_level)
        failed = report_files(
            jobs, upscaler, write_options=write_options, max_pixels=max_pixels or DEFAULT_MAX_PIXELS
        )
    sys.exit(1 if failed else 0)


@main.command()
@click.option("--onnx", is_flag=True, required=True, help="Write ONNX files.")
@click.option(
    "--weights",
    default="small",
    show_default=True,
    metavar="CKPT|PRESET",
    help="A .safetensors file, or the preset whose shipped weights to take.",
)
@options.scales
@click.option(
    "--io",
    type=click.Choice(["uint8", "float32"]),
    default="uint8",
    show_default=True,
    help="uint8: NHWC, 0 to 255, conversions in the graph. float32: NCHW, 0 to 1.",
)
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True)
@click.option(
    "--attention",
    type=click.Choice(["frozen", "dynamic"]),
    default="frozen",
    show_default=True,
    help="frozen: constant gates, folded away; tiles match. dynamic: gates from the picture.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path(), help="Folder.  [default: .]")
def export(
    onnx: bool, weights: str, scales: tuple[int, ...], io: Any, precision: Any, attention: str, output: Path
) -> None:
    """Export trained weights to ONNX: folded, checked, with metadata."""
    require_extra("torch", "torch", "safetensors", "onnx", "onnxscript", purpose="srup export")
    from deploy.export import ExportSpec, export_files

    spec = ExportSpec(precision=precision, io=io, attention=attention)
    for path in export_files(weights, scales, output, spec):
        click.echo(f"{path}  {path.stat().st_size / 1e6:.2f} MB")


@main.command()
@click.option("--model", metavar="PRESET|PATH", help="Describe a model: parameters, multiply-adds, training.")
@options.scale
def info(model: str | None, scale: int | None) -> None:
    """Show what is installed, or describe a model."""
    from sr.report import print_environment, print_model

    if model is None:
        print_environment()
    else:
        print_model(model, scale=scale)


@main.command()
@click.argument("hr_folder", type=click.Path(path_type=Path))
@options.scales
@click.option("--exclude", multiple=True, metavar="STEM", help="Leave out pictures of this name.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("pairs"),
    show_default=True,
    help="Folder.",
)
def prepare(hr_folder: Path, scales: tuple[int, ...], exclude: tuple[str, ...], output: Path) -> None:
    """Make lr pictures by MATLAB-exact bicubic, and the JSON list of pairs."""
    from train.data import make_pairs

    for scale in scales or (2, 3, 4):
        pair_list, count = make_pairs(hr_folder, output, scale=scale, exclude=frozenset(exclude))
        click.echo(f"{pair_list}  {count} pairs")


@main.command(name="eval")
@click.option("--list", "pair_list", type=click.Path(path_type=Path), required=True, help="JSON pair list.")
@options.scale
@options.backend
@options.device
@options.model
def evaluate_command(pair_list: Path, **upscaler_options: Any) -> None:
    """Measure PSNR and SSIM of a model on a list of pairs."""
    from sr.upscale import Upscaler
    from train.evaluate import evaluate

    with Upscaler(**upscaler_options) as upscaler:
        quality = evaluate(upscaler, pair_list, scale=upscaler.scale)
    click.echo(
        f"{quality.pictures} pictures  PSNR Y {quality.psnr_y:.3f} dB  RGB {quality.psnr_rgb:.3f} dB  "
        f"SSIM Y {quality.ssim_y:.4f}"
    )


@main.command()
@click.option("--train-list", type=click.Path(path_type=Path), required=True, help="JSON pair list.")
@click.option(
    "--val-list", "val_lists", type=click.Path(path_type=Path), multiple=True, help="May be repeated."
)
@click.option("--run-dir", type=click.Path(path_type=Path), required=True, help="Checkpoints and metrics.")
@click.option("--upscale-factor", "scale", type=click.IntRange(1), default=2, show_default=True)
@click.option("--preset", default="small", show_default=True)
@click.option("--loss", default="l1", show_default=True)
@click.option("--total-epochs", type=int, default=100, show_default=True)
@click.option("--patches-per-picture", type=int, default=16, show_default=True, help="In each epoch.")
@click.option("--batch-size", type=int, default=16, show_default=True)
@click.option("--patch-size", type=int, default=24, show_default=True, help="lr pixels.")
@click.option("--lr", "learning_rate", type=float, default=1e-3, show_default=True, help="Learning rate.")
@click.option("--lr-schedule", type=click.Choice(["cosine", "step"]), default="cosine", show_default=True)
@click.option("--lr-halve-step", type=int, default=60, show_default=True, help="Epochs, for 'step'.")
@click.option("--val-every", type=int, default=5, show_default=True, help="Epochs.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--compile/--no-compile", default=False, help="Train through torch.compile.")
@click.option(
    "--init-weights", type=click.Path(path_type=Path), help="Start from these; other scales share the trunk."
)
@click.option("--freeze-attention", is_flag=True, help="Train with gates fixed to their running mean.")
@click.option("--data-note", default="", help="What the data are, for the model's metadata.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --run-dir.")
def train(scale: int, preset: str, resume: bool, **settings: Any) -> None:
    """Train a network, on CUDA where there is a device, else on the CPU."""
    require_extra("train", "torch", "safetensors", purpose="srup train")
    from sr.model import preset_config
    from train.config import TrainConfig
    from train.loop import Trainer

    config = TrainConfig(model=preset_config(preset, scale=scale), preset=preset, **settings)
    trainer = Trainer(config, log=click.echo)
    if resume:
        trainer.resume()
    trainer.run()


if __name__ == "__main__":
    main()
