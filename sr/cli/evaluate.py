"""`srup eval`: PSNR and SSIM of a model."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Literal

import click

from sr.cli import options
from sr.cli.console import terminal
from sr.cli.help import GroupedCommand

EXAMPLES = (
    "srup eval Set5/HR --scale 2",
    "srup eval --list pairs/val/Set14/x3.json --scale 3 --model best.onnx",
)


@click.command(name="eval", cls=GroupedCommand, examples=EXAMPLES)
@click.argument("hr_folder", type=click.Path(path_type=Path), required=False)
@click.option("--list", "pair_list", type=click.Path(path_type=Path), help="JSON pair list.")
@options.scale
@options.backend
@options.precision
@options.device
@options.model
def command(
    hr_folder: Path | None,
    pair_list: Path | None,
    scale: int | None,
    backend: str,
    precision: Literal["fp32", "fp16", "bf16", "int8"] | None,
    device: str,
    model: Path | None,
) -> None:
    """Measure PSNR and SSIM of a model on a folder of hr pictures or a list of pairs.

    The lr pictures of HR_FOLDER are made by MATLAB's bicubic, unless the data set has its own.
    """
    from sr.backends.specs import model_suffixes
    from sr.cli.building import build_engine
    from sr.image.content import left_out_words
    from sr.network.modelkind import check_model_file
    from sr.upscale import Upscaler
    from train.data.patches import left_out
    from train.evaluate import evaluate, evaluate_folder

    if (hr_folder is None) == (pair_list is None):
        raise click.UsageError("give HR_FOLDER or --list")
    problems, kinds = list[str](), Counter[str]()
    if model is not None:
        check_model_file(model, model_suffixes())
    with Upscaler(
        scale=scale,
        backend=backend,
        precision=precision,
        device=device,
        model=model,
        builder=build_engine,
    ) as upscaler:
        if pair_list is not None:
            quality = evaluate(upscaler, pair_list, scale=upscaler.scale)
        elif hr_folder is not None:
            measured = evaluate_folder(upscaler, hr_folder, scale=upscaler.scale)
            quality, problems, kinds = measured.means, measured.problems, measured.left_out
    click.echo(
        f"{quality.pictures} pictures  PSNR Y {quality.psnr_y:.3f} dB  RGB {quality.psnr_rgb:.3f} dB  "
        f"SSIM Y {quality.ssim_y:.4f}  RGB {quality.ssim_rgb:.4f}"
        f"{left_out_words(kinds)}"
    )
    if problems:
        terminal.message(left_out(problems))
        sys.exit(1)
