"""Lossless pictures that were JPEGs or are noisy: how many are found, and how many clean ones too.

Of each of the clean PHOTOGRAPHS, as it is and at half its size, a crop is taken for the clean pictures, one
for each quality, a JPEG (4:2:0) cut off its grid of blocks, and one for each noise. Drawings are
counted likewise.

    python -m benchmarks.traces photographs/*.png --size 320
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.lib.damage import bicubic_lr, jpeg, noisy
from benchmarks.lib.options import Script, store_option
from benchmarks.lib.results import store_result
from benchmarks.real import cut
from sr.image import read_picture
from sr.image.compression import traces_in
from train.drawings import drawing

Pixels = NDArray[np.uint8]

NOISES = (2, 3, 5, 10, 20)  # levels of 255
QUALITIES = (10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 95)
_DRAWINGS, _FIRST_DRAWING = 36, 200  # seeds that no training uses
_BLOCK = 8  # px
_SEED = 7


def run(pictures: Iterable[Pixels], *, size: int) -> dict[str, Any]:
    """Count clean and damaged pictures, and which of them count as JPEGs, or as noisy.

    Args:
        pictures: clean, (H, W, 3).
        size: of the crops, px.
    """
    random = np.random.default_rng(_SEED)
    clean: list[float | None] = []
    found: dict[int, list[float | None]] = {quality: [] for quality in QUALITIES}
    noises: dict[int, list[float | None]] = {sigma: [] for sigma in NOISES}
    for whole in pictures:
        for pixels in (whole, bicubic_lr(cut(whole, 2), 2)):
            clean += [traces_in(pixels).quality, traces_in(_crop(pixels, size, random)).quality]
            for quality, stated in found.items():
                top, left = random.integers(0, _BLOCK, 2)
                damaged = jpeg(_crop(pixels, size + _BLOCK, random), quality).pixels
                stated.append(traces_in(damaged[top : top + size, left : left + size]).quality)
            for sigma, deviations in noises.items():
                seen = traces_in(noisy(_crop(pixels, size, random), sigma).pixels)
                deviations.append(seen.quality if seen.kind == "noise" else None)
    return {
        "size": size,
        "clean": len(clean),
        "mistaken": sum(each is not None for each in clean),
        "qualities": {str(quality): _summary(stated) for quality, stated in found.items()},
        "noises": {str(sigma): _summary(stated) for sigma, stated in noises.items()},
    }


def _summary(stated: list[float | None]) -> dict[str, float | None]:
    """Return the share that is found, and what is stated of these: 5 %, median, 95 %."""
    found = [each for each in stated if each is not None]
    low, median, high = np.quantile(found, (0.05, 0.5, 0.95)).tolist() if found else (None,) * 3
    return {"found": len(found) / len(stated), "low": low, "median": median, "high": high}


def _crop(pixels: Pixels, size: int, random: np.random.Generator) -> Pixels:
    top, left = (int(random.integers(0, max(1, side - size + 1))) for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + size, left : left + size])


def _read(paths: Iterable[Path]) -> Iterator[Pixels]:
    return (cut(read_picture(path).pixels, 1) for path in paths)


def _drawn() -> Iterator[Pixels]:
    return (np.asarray(drawing(_FIRST_DRAWING + seed)) for seed in range(_DRAWINGS))


def _line(name: str, figures: dict[str, Any]) -> str:
    qualities, noises = (
        "  ".join(f"{stated}: {each['found']:.0%}" for stated, each in figures[kind].items())
        for kind in ("qualities", "noises")
    )
    mistaken = f"{figures['mistaken']} of {figures['clean']} clean ones mistaken"
    return f"{name}, {mistaken}; found JPEGs {qualities}; noise {noises}"


@click.command(cls=Script, help=__doc__)
@click.argument(
    "photographs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option("--size", type=click.IntRange(96), default=320, show_default=True, help="Of the crops, in px.")
@store_option
def main(photographs: tuple[Path, ...], size: int, store: bool) -> None:
    figures = {
        name: run(pictures, size=size)
        for name, pictures in (("photographs", _read(photographs)), ("drawings", _drawn()))
    }
    for name, each in figures.items():
        click.echo(_line(name, each))
    if store:
        store_result("traces", figures)


if __name__ == "__main__":
    main()
