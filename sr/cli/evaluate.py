"""`srup eval`: PSNR and SSIM of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from sr.cli import options
from sr.cli.help import GroupedCommand

EXAMPLES = (
    "srup eval --list pairs/val/Set5/x2.json",
    "srup eval --list pairs/val/Set14/x3.json --scale 3 --model best.onnx",
)


@click.command(name="eval", cls=GroupedCommand, examples=EXAMPLES)
@click.option("--list", "pair_list", type=click.Path(path_type=Path), required=True, help="JSON pair list.")
@options.scale
@options.backend
@options.precision
@options.device
@options.model
def command(
    pair_list: Path,
    scale: int | None,
    backend: str,
    precision: Literal["fp32", "fp16", "bf16", "int8"] | None,
    device: str,
    model: Path | None,
) -> None:
    """Measure PSNR and SSIM of a model on a list of pairs."""
    from sr.cli.report_engines import engine_builder
    from sr.network.modelkind import check_model_file
    from sr.upscale import Upscaler
    from train.evaluate import evaluate

    if model is not None:
        check_model_file(model)
    with Upscaler(
        scale=scale,
        backend=backend,
        precision=precision,
        device=device,
        model=model,
        builder=engine_builder(),
    ) as upscaler:
        quality = evaluate(upscaler, pair_list, scale=upscaler.scale)
    click.echo(
        f"{quality.pictures} pictures  PSNR Y {quality.psnr_y:.3f} dB  RGB {quality.psnr_rgb:.3f} dB  "
        f"SSIM Y {quality.ssim_y:.4f}  RGB {quality.ssim_rgb:.4f}"
    )
