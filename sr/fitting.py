"""How a picture is fitted to the sizes that a network takes: continued at its edges, and cut into tiles.

Our networks take any size, and pictures stay as they are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from sr.image.picture import Pixels
from sr.network.descriptor import ModelDescriptor
from sr.tiling import MIN_HALOS_PER_TILE, Span, TileGrid, TileSpec, tile_grid


def fitted_size(height: int, width: int, model: ModelDescriptor) -> tuple[int, int]:
    """Return height and width, in lr pixels, that a picture is continued to before a network gets it."""
    least = model.ends.size or (model.minimum, model.minimum)
    return _fitted(height, least[0], model.multiple), _fitted(width, least[1], model.multiple)


def _fitted(size: int, least: int, multiple: int) -> int:
    return -(-max(size, least) // multiple) * multiple


def fitted(pixels: Pixels, model: ModelDescriptor) -> Pixels:
    """Return (H, W) or (H, W, 3) continued at the bottom and on the right by its mirror image."""
    height, width = pixels.shape[:2]
    to_height, to_width = fitted_size(height, width, model)
    if (to_height, to_width) == (height, width):
        return pixels
    missing = [(0, to_height - height), (0, to_width - width)] + [(0, 0)] * (pixels.ndim - 2)
    return np.pad(pixels, missing, mode="symmetric")


def fitted_grid(height: int, width: int, spec: TileSpec, model: ModelDescriptor) -> TileGrid:
    """Return the tiles for a picture of this size, continued as `fitted` does.

    Tiles begin at multiples of `model.multiple`, and have the size of a network that takes one size only.
    """
    height, width = fitted_size(height, width, model)
    unit = model.multiple
    if model.ends.size is not None:
        spec = replace(spec, equalise=False)
        sides: tuple[int, int] = model.ends.size
    else:
        sides = (spec.tile, spec.tile)
    halo = math.ceil(spec.halo / unit)
    grids = [
        tile_grid(
            height // unit,
            width // unit,
            replace(spec, tile=max(1, side // unit, MIN_HALOS_PER_TILE * halo), halo=halo),
        )
        for side in sides
    ]
    return TileGrid(_times(grids[0].rows, unit), _times(grids[1].columns, unit))


def _times(spans: tuple[Span, ...], unit: int) -> tuple[Span, ...]:
    return tuple(
        Span(span.start * unit, span.length * unit, span.keep_start * unit, span.keep_stop * unit)
        for span in spans
    )
