"""Tiles cut from pictures into batches, and the places in outputs that their results go to: arrays alone.

A row of tiles reads a row of the picture; several arrays of one picture (colours and alpha) run together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sr.tiling import Span, Tile, TileGrid

Pixels = NDArray[Any]  # uint8 or uint16
RowsOf = Callable[[Span], Sequence[Pixels]]  # arrays (length, W, 3) or (length, W) of a row of tiles


@dataclass(frozen=True, eq=False)
class Place:
    """Where the result of a tile goes, and which part of it.

    Attributes:
        pixels: the pixels to write, (h, w, 3) or (h, w): a view of an output.
        top: first row of the part in the upscaled tile, in hr pixels.
        left: its first column.
    """

    pixels: Pixels
    top: int = 0
    left: int = 0

    def write(self, upscaled: Pixels) -> None:
        """Write the part of an upscaled tile (sH, sW, 3); grey gets the mean of the three."""
        height, width = self.pixels.shape[:2]
        part = upscaled[self.top : self.top + height, self.left : self.left + width]
        if self.pixels.ndim == 3:
            self.pixels[:] = part
        else:
            wide = np.uint16 if part.dtype == np.uint8 else np.uint32
            self.pixels[:] = (part.sum(axis=2, dtype=wide) + 1) // 3  # rounded


@dataclass(frozen=True, eq=False)
class TileBatch:
    """Tiles that run together.

    Attributes:
        tiles: (H, W, 3) or grey (H, W), all of one height, width and type; must not change before the
            results arrive.
        places: where each result goes.
        count: how many tiles to run; those beyond `tiles` fill the batch up to a shape that is in use
            already, and nothing becomes of them.
    """

    tiles: Sequence[Pixels]
    places: Sequence[Place]
    count: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape to run, (count, H, W, 3)."""
        height, width = self.tiles[0].shape[:2]
        return (self.count, height, width, 3)

    @property
    def pixels(self) -> Pixels:
        """The tiles, copied into one array of `shape`; black fills it up."""
        batch = np.empty(self.shape, self.tiles[0].dtype)
        self.fill(batch)
        batch[len(self.tiles) :] = 0
        return batch

    def fill(self, batch: Pixels) -> None:
        """Copy the tiles to the front of an array (N, H, W, 3); grey fills all channels."""
        for slot, tile in enumerate(self.tiles):
            batch[slot] = tile if tile.ndim == 3 else tile[:, :, None]


class Cut(NamedTuple):
    """A tile of one of the arrays of a picture, to be run.

    Attributes:
        owner: the picture, as the caller knows it.
        tile: the tile.
        item: which of the arrays that run together it belongs to.
        pixels: (H, W, 3) or (H, W).
        place: of its result.
    """

    owner: Any
    tile: Tile
    item: int
    pixels: Pixels
    place: Place


PixelsAt = Callable[[Tile, int, tuple[int, ...]], Pixels]
"""Returns where to write what a tile owns: of a tile, its array, and () or (3,), the array's channels."""


@dataclass(frozen=True)
class Batching:
    """How many tiles run together.

    Attributes:
        count: tiles of a grid, for its height and width.
        constant: fill batches up, with tiles of the next picture where they have the same shape.
    """

    count: Callable[[int, int], int]
    constant: bool


def cuts(
    owner: Any, grid: TileGrid, rows_of: RowsOf, pixels_at: PixelsAt, *, scale: int, first: int = 0
) -> Iterator[Cut]:
    """Cut rows of tiles from `first` on."""
    for rows in grid.rows[first:]:
        items = rows_of(rows)
        for columns in grid.columns:
            tile = Tile(rows, columns)
            top, left = ((span.keep_start - span.start) * scale for span in (rows, columns))
            for item, pixels in enumerate(items):
                part = pixels[:, columns.start : columns.start + columns.length]
                place = Place(pixels_at(tile, item, pixels.shape[2:]), top, left)
                yield Cut(owner, tile, item, part, place)


def batches(
    sources: Iterable[Cut | None], batching: Batching
) -> Iterator[tuple[list[Cut], TileBatch] | None]:
    """Put tiles together; None among them ends a batch and is passed on."""
    waiting: list[Cut] = []
    for cut in sources:
        if waiting and (cut is None or not _joins(cut, waiting[0], constant=batching.constant)):
            yield _batch(waiting, batching)
            waiting = []
        if cut is None:
            yield None
            continue
        waiting.append(cut)
        if len(waiting) == batching.count(*cut.pixels.shape[:2]):
            yield _batch(waiting, batching)
            waiting = []
    if waiting:
        yield _batch(waiting, batching)


def _joins(cut: Cut, first: Cut, *, constant: bool) -> bool:
    if not constant:
        return cut.owner is first.owner
    return cut.pixels.shape[:2] == first.pixels.shape[:2] and cut.pixels.dtype == first.pixels.dtype


def _batch(joined: list[Cut], batching: Batching) -> tuple[list[Cut], TileBatch]:
    count = batching.count(*joined[0].pixels.shape[:2]) if batching.constant else len(joined)
    return joined, TileBatch([cut.pixels for cut in joined], [cut.place for cut in joined], count)


def owned(tile: Tile, output: Pixels, scale: int) -> Pixels:
    """Return the view of an output (sH, sW, 3) or (sH, sW) that a tile owns."""
    rows, columns = tile.rows, tile.columns
    return output[
        rows.keep_start * scale : rows.keep_stop * scale,
        columns.keep_start * scale : columns.keep_stop * scale,
    ]


def owned_shape(tile: Tile, scale: int) -> tuple[int, int]:
    """Return height and width, in hr pixels, of what a tile owns."""
    rows, columns = tile.rows, tile.columns
    return (rows.keep_stop - rows.keep_start) * scale, (columns.keep_stop - columns.keep_start) * scale
