"""Measure the smallest halo with which tiles match the whole picture, and record it in the weights.

Runs the uint8 ONNX export of a weights file on ONNX Runtime over real pictures, in tiles of four
halos and of 256 px. With --write, the halo plus a margin is stored in the weights file.

    python -m benchmarks.halo sr/weights/small_x3.safetensors photo.png ... [--write]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from deploy.export import ExportSpec, export_onnx
from deploy.verify import Difference, difference, smallest_halo
from sr.image import read_picture
from sr.network.checkpoint import load_weights, save_weights
from sr.tiling import MIN_HALOS_PER_TILE, TileSpec
from sr.upscale import Upscaler

MARGIN = 2  # lr px on top of the measured halo, for other pictures
WIDE_TILE = 256  # in addition to the smallest tile that a halo allows, which has the most seams


@click.command(help=__doc__)
@click.argument("weights", type=click.Path(path_type=Path, exists=True))
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--write", is_flag=True, help="Store the halo in WEIGHTS.")
def main(weights: Path, pictures: tuple[Path, ...], write: bool) -> None:
    halo = measured_halo(weights, pictures)
    if write:
        save_weights(weights, replace(load_weights(weights), halo=halo))


def measured_halo(weights: Path, pictures: Sequence[Path]) -> int:
    """Return the halo in lr pixels that suffices for all pictures, plus a margin; print each picture's."""
    radius = load_weights(weights).config.receptive_field_radius
    halos = []
    with tempfile.TemporaryDirectory() as scratch:
        onnx_file = export_onnx(weights, Path(scratch), ExportSpec())
        with Upscaler(model=onnx_file, backend="onnx") as upscaler:
            for path in pictures:
                mismatch = mismatch_of(upscaler, read_picture(path).pixels)
                halos.append(smallest_halo(mismatch, radius=radius))
                found = mismatch(halos[-1])
                click.echo(
                    f"{path.name}: halo {halos[-1]}: {found.max_levels} level(s), share {found.share:.1e}"
                )
    halo = min(radius, max(halos) + MARGIN)
    click.echo(f"halo {halo} with a margin of {MARGIN}; receptive-field radius {radius}")
    return halo


def mismatch_of(upscaler: Upscaler, picture: np.ndarray) -> Callable[[int], Difference]:
    """Return the difference of tiled and whole output of one picture as a function of the halo."""
    upscaler.spec = TileSpec(tile=max(picture.shape), halo=0)
    whole = upscaler(picture)

    def mismatch(halo: int) -> Difference:
        found = []
        for tile in (MIN_HALOS_PER_TILE * halo, max(WIDE_TILE, MIN_HALOS_PER_TILE * halo)):
            upscaler.spec = TileSpec(tile=tile, halo=halo)
            found.append(difference(upscaler(picture), whole))
        return max(found, key=lambda one: (one.max_levels, one.share))

    return mismatch


if __name__ == "__main__":
    main()
