"""Make a pair: measure which strength suits which damage, and write the partner with that table in it.

BASE and TRAINED are weights of the same network, TRAINED went on from BASE with degraded pictures. PICTURES
are hr pictures that neither is measured on afterwards: of training or validation. The partner is written as
NAME-restore beside a copy of the base, both as weights and as ONNX files; with --calibrate also in int8.

    python -m benchmarks.pair base_x2.safetensors trained_x2.safetensors PICTURES -o models
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.lib.damage import Damaged, bicubic_lr, coded, jpeg, noisy
from benchmarks.lib.options import Script
from benchmarks.real import Pixels, cut
from deploy.export import ExportSpec, export_onnx
from sr.image import is_picture, read_picture
from sr.image.compression import LOSSLESS
from sr.image.noise import colour_noise
from sr.metrics import psnr_y
from sr.network.checkpoint import Weights, load_weights, save_weights
from sr.network.pair import STEPS, STRENGTHS, Restores, blended, partner_of, restored_name, weights_sha256
from sr.upscale import Upscaler

QUALITIES = (20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 93, 95, 97, 99, 100)
NOISES = (3, 4, 5, 6, 8, 10, 15, 20)  # levels of 255
# What libjpeg, libwebp and Pillow (for AVIF) take where nothing is said; tools that hide the tables hardly
# take better ones.
USUAL_QUALITY = 75
# dB by which a strength between may be worse than both ends; else only the ends are used.
_MOST_LOST = 0.1
# dB that a strength must gain over the base: for less, pictures stay what the base makes of them.
_WORTH = 0.05
# A picture as it is, and smaller by these factors: contours that are steeper want less restoration.
_SMALLER = (1, 2, 3)
# Sides of each, from its middle, in hr and in lr pixels: more pictures tell more than larger ones.
_MOST_SIDE, _MOST_LR_SIDE = 288, 240


def derived(files: Sequence[Path], pictures: Sequence[Pixels], *, scale: int, base: str) -> Restores:
    """Measure the table of a pair.

    Args:
        files: one ONNX file for each of `STRENGTHS`.
        pictures: hr, their sides multiples of the scale.
        scale: upscaling factor.
        base: sha256 of the weights of the base.
    """

    def measured(damage: Callable[[Pixels], Damaged]) -> tuple[float, NDArray[np.float64]]:
        """Return the median of the qualities that are read, and the mean PSNR of each strength."""
        damaged = [damage(bicubic_lr(hr, scale)) for hr in pictures]
        gains = [
            [psnr_y(upscale(lr.pixels), hr, scale=scale) for lr, hr in zip(damaged, pictures, strict=True)]
            for upscale in networks
        ]
        stated = [
            colour_noise(lr.pixels) if lr.compression == LOSSLESS else lr.compression.quality or 0.0
            for lr in damaged
        ]
        return round(float(np.median(stated)), 1), np.mean(gains, axis=1)

    networks = [Upscaler(model=file, backend="onnx") for file in files]
    try:
        files_of = {
            "jpeg": jpeg,
            "webp": partial(coded, kind="WEBP"),
            "avif": partial(coded, kind="AVIF"),
        }
        found = {
            kind: [measured(partial(damage, quality=quality)) for quality in QUALITIES]
            for kind, damage in files_of.items()
        }
        found["noise"] = [measured(partial(noisy, sigma=sigma)) for sigma in NOISES]
    finally:
        for network in networks:
            network.close()
    psnrs = [psnr for rows in found.values() for _, psnr in rows]
    steps = STEPS if all(psnr.min() >= min(psnr[0], psnr[-1]) - _MOST_LOST for psnr in psnrs) else 1
    best = {
        kind: {
            quality: STRENGTHS[:: STEPS // steps][suited(psnr[:: STEPS // steps])] for quality, psnr in rows
        }
        for kind, rows in found.items()
    }
    usual = QUALITIES.index(USUAL_QUALITY)
    return Restores(
        base,
        {kind: tuple(sorted(rows.items())) for kind, rows in best.items()},
        {kind: found[kind][usual][0] for kind in files_of},
        steps,
    )


def suited(psnr: NDArray[np.float64]) -> int:
    """Return the index of the best strength, from PSNRs by strength; 0 if it hardly gains over the base."""
    return int(psnr.argmax()) if psnr.max() >= psnr[0] + _WORTH else 0


def make_pair(
    base: Path, trained: Path, pictures: Sequence[Path], output: Path, *, halo: int | None = None
) -> Path:
    """Write the pair into a folder; return the partner's weights. The halo is at least that of the base."""
    output.mkdir(parents=True, exist_ok=True)
    low, high = load_weights(base), load_weights(trained)
    kept = output / f"{low.preset}_x{low.config.scale}.safetensors"
    if kept.resolve() != base.resolve():
        shutil.copyfile(base, kept)
    partner = kept.with_name(f"{restored_name(low.preset)}_x{low.config.scale}.safetensors")
    halos = [each for each in (halo, high.halo, low.halo) if each is not None]
    high = replace(
        high,
        preset=restored_name(low.preset),
        halo=max(halos, default=None),
        licence=low.licence,
    )
    files = _strengths(kept, high, output / "between")
    images = [part for path in pictures for part in _middles(path, low.config.scale)]
    restores = derived(files, images, scale=low.config.scale, base=weights_sha256(kept))
    shutil.rmtree(output / "between")
    save_weights(partner, replace(high, restores=restores.to_dict()))
    return partner


def _strengths(base: Path, partner: Weights, folder: Path) -> list[Path]:
    """Write an ONNX file for each strength into a folder."""
    folder.mkdir(exist_ok=True)
    save_weights(folder / "partner.safetensors", partner)
    low, high = (
        export_onnx(base, folder, ExportSpec()),
        export_onnx(folder / "partner.safetensors", folder, ExportSpec()),
    )
    files = []
    for strength in STRENGTHS:
        files.append(folder / f"{strength:g}.onnx")
        files[-1].write_bytes(blended(low, high, strength))
    return files


def _middles(path: Path, scale: int) -> Iterator[Pixels]:
    pixels, most = read_picture(path).pixels, min(_MOST_SIDE, scale * _MOST_LR_SIDE)
    for factor in _SMALLER:
        smaller = bicubic_lr(cut(pixels, factor), factor)
        top, left = (max(0, (side - most) // 2) for side in smaller.shape[:2])
        yield cut(smaller[top : top + most, left : left + most], scale)


@click.command(cls=Script, help=__doc__)
@click.argument("base", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("trained", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--calibrate", type=click.Path(path_type=Path, exists=True, file_okay=False), help="For int8.")
@click.option(
    "--halo",
    type=click.IntRange(1),
    help="Of the partner's tiles, as `benchmarks.halo --model TRAINED` measures it.",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False))
def main(
    base: Path,
    trained: Path,
    pictures: tuple[Path, ...],
    calibrate: Path | None,
    halo: int | None,
    output: Path,
) -> None:
    found = [file for path in pictures for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    partner = make_pair(base, trained, [file for file in found if is_picture(file)], output, halo=halo)
    kept = partner.with_name(partner.name.replace("-restore", ""))
    for kind, rows in load_weights(partner).restores["strengths"].items():
        click.echo(f"{kind}: " + ", ".join(f"{quality:g}: {strength:g}" for quality, strength in rows))
    for spec in (ExportSpec(), ExportSpec(io="float32"), ExportSpec(precision="fp16")):
        click.echo("\n".join(str(export_onnx(weights, output, spec)) for weights in (kept, partner)))
    if calibrate is not None:
        for strength in partner_of(kept).restores.available[:-1]:
            spec = ExportSpec(precision="int8", calibration=calibrate, restore=strength)
            click.echo(export_onnx(kept, output, spec))
        click.echo(export_onnx(partner, output, ExportSpec(precision="int8", calibration=calibrate)))


if __name__ == "__main__":
    main()
