"""Measure the smallest halo with which tiles match the whole picture, and record it in the weights.

--model is trained weights of ours, whose uint8 ONNX export is run, or a network of another program. It runs
on ONNX Runtime over real pictures, in tiles of four halos and of 256 px. With --write, the halo plus a margin
is stored in weights of ours. For other networks, what srup measured on synthetic pictures is printed beside.

    python -m benchmarks.halo --model sr/weights/small_x3.safetensors photo.png ... [--write]
    python -m benchmarks.halo --model 4x_foo.onnx photo.png ...
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.lib.models import NamedModel, model_option, named_model
from benchmarks.lib.options import Script
from deploy.export import ExportSpec, export_onnx
from deploy.verify import Difference, difference, smallest_halo, tiles_match
from sr.errors import ModelError
from sr.image import read_picture
from sr.network.checkpoint import load_weights, save_weights
from sr.tiling import MIN_HALOS_PER_TILE, TileSpec
from sr.upscale import Upscaler

MARGIN = 2  # lr px on top of the measured halo, for other pictures
WIDE_TILE = 256  # in addition to the smallest tile that a halo allows, which has the most seams


@click.command(cls=Script, help=__doc__)
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@model_option
@click.option("--write", is_flag=True, help="Store the halo in weights of ours.")
def main(pictures: tuple[Path, ...], model: Path | None, write: bool) -> None:
    if model is None:
        raise click.UsageError("name weights, or a network of another program, with --model")
    named = named_model(model)
    if named.runnable.suffix == ".safetensors":
        halo = measured_halo(model, pictures)
        if write:
            save_weights(model, replace(load_weights(model), halo=halo))
        return
    if write:
        raise click.UsageError(f"{model} is no file of trained weights of ours; drop --write")
    print_halo_of_other(named, pictures)


def measured_halo(weights: Path, pictures: Sequence[Path]) -> int:
    """Return the halo in lr pixels that suffices for all pictures, plus a margin; print each picture's."""
    radius = load_weights(weights).config.receptive_field_radius
    with tempfile.TemporaryDirectory() as scratch:
        onnx_file = export_onnx(weights, Path(scratch), ExportSpec())
        with Upscaler(model=onnx_file, backend="onnx") as upscaler:
            halos = [smallest for smallest, _ in halos_of(upscaler, pictures, lambda _: radius)]
    halo = min(radius, max(halos) + MARGIN)
    click.echo(f"halo {halo} with a margin of {MARGIN}; receptive-field radius {radius}")
    return halo


def print_halo_of_other(named: NamedModel, pictures: Sequence[Path]) -> None:
    """Print the halo of each picture, at most a quarter of its shorter side, and the one that srup uses.

    Raises:
        ModelError: the network takes one size only, so that a picture cannot be run whole.
    """
    found = named.descriptor
    if found.ends.size is not None:
        raise ModelError(
            f"{named.path}: takes pictures of one size only, which cannot be compared with tiles"
        )

    def limit(picture: NDArray[np.uint8]) -> int:
        return max(1, min(picture.shape[:2]) // MIN_HALOS_PER_TILE)

    with Upscaler(model=named.onnx, backend="onnx") as upscaler:
        info = upscaler.backend.info  # else networks whose tiles are not exact would get pictures whole
        upscaler.backend.info = replace(info, model=replace(info.model, tiles_exact=True))
        enough = [fits for _, fits in halos_of(upscaler, pictures, limit)]
    word = "tiles are exact" if found.tiles_exact else "tiles are not exact"
    click.echo(f"srup uses {found.halo}, measured on synthetic pictures: {word}")
    if not all(enough):
        click.echo("in some pictures no halo that their size allows is enough")


def halos_of(
    upscaler: Upscaler, paths: Sequence[Path], limit: Callable[[NDArray[np.uint8]], int]
) -> Iterable[tuple[int, bool]]:
    """Yield the smallest halo of each picture, up to a limit, and whether it is enough; print them."""
    for path in paths:
        picture = read_picture(path).pixels
        mismatch = mismatch_of(upscaler, picture)
        halo = smallest_halo(mismatch, radius=limit(picture))
        found = mismatch(halo)
        click.echo(f"{path.name}: halo {halo}: {found.max_levels} level(s), share {found.share:.1e}")
        yield halo, tiles_match(found)


def mismatch_of(upscaler: Upscaler, picture: NDArray[np.uint8]) -> Callable[[int], Difference]:
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
