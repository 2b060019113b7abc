"""Tiles cut from pictures into batches, and what a backend makes of them put together. Work on arrays alone.

A row of tiles reads a row of the picture; several arrays of one picture (colours and alpha) run together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from itertools import islice
from typing import NamedTuple

import numpy as np

from sr.image.picture import Pixels
from sr.tiling import Span, Tile, TileGrid

Run = Callable[[Iterator[Pixels]], Iterator[Pixels]]  # batches (N, H, W, 3) in, (N, sH, sW, 3) out, in order
RowsOf = Callable[[Span], Sequence[Pixels]]  # arrays (length, W, 3) or (length, W) of a row of tiles


class _Cut(NamedTuple):
    """A tile of one of the arrays, to be run."""

    tile: Tile
    item: int
    rows: Pixels  # (length, W, 3) or (length, W)


class TileResult(NamedTuple):
    """What a backend made of one tile.

    Attributes:
        tile: the tile.
        item: which of the arrays that run together it belongs to.
        channels: () for a grey array, (3,) for RGB.
        upscaled: (sH, sW, 3), halo included.
    """

    tile: Tile
    item: int
    channels: tuple[int, ...]
    upscaled: Pixels


def run_tiles(
    run: Run, grid: TileGrid, rows_of: RowsOf, *, batch: int, first: int = 0
) -> Generator[list[TileResult], None, None]:
    """Run the rows of tiles from `first` on, `batch` tiles at once; yield the results of each batch."""
    started: deque[tuple[Tile, int, tuple[int, ...]]] = deque()

    def cuts() -> Iterator[_Cut]:
        for rows in grid.rows[first:]:
            items = rows_of(rows)
            for columns in grid.columns:
                yield from (_Cut(Tile(rows, columns), item, pixels) for item, pixels in enumerate(items))

    def batches() -> Iterator[Pixels]:
        remaining = cuts()
        while part := list(islice(remaining, batch)):
            started.extend((cut.tile, cut.item, cut.rows.shape[2:]) for cut in part)
            yield _batch(part, grid)

    results = run(batches())
    # However this ends, batches in flight must end with it.
    with closing(results) if isinstance(results, Generator) else nullcontext():
        for result in results:
            yield [TileResult(*started.popleft(), upscaled) for upscaled in result]


def _batch(cuts: Sequence[_Cut], grid: TileGrid) -> Pixels:
    """Copy tiles into a batch (N, tile_height, tile_width, 3); grey fills all channels."""
    batch = np.empty((len(cuts), grid.tile_height, grid.tile_width, 3), cuts[0].rows.dtype)
    for slot, (tile, _, rows) in enumerate(cuts):
        part = rows[:, tile.columns.start : tile.columns.start + tile.columns.length]
        batch[slot] = part if part.ndim == 3 else part[:, :, None]
    return batch


def stitch(result: TileResult, output: Pixels, scale: int) -> None:
    """Write what a tile owns of its result to its place in the output (sH, sW, 3) or (sH, sW)."""
    rows, columns = result.tile.rows, result.tile.columns
    place = output[
        rows.keep_start * scale : rows.keep_stop * scale,
        columns.keep_start * scale : columns.keep_stop * scale,
    ]
    _keep(result, place, scale)


def owned_part(result: TileResult, scale: int) -> Pixels:
    """Return a copy of what a tile owns of its result, (h, w, 3) or (h, w)."""
    spans = (result.tile.rows, result.tile.columns)
    height, width = ((span.keep_stop - span.keep_start) * scale for span in spans)
    part = np.empty((height, width, *result.channels), result.upscaled.dtype)
    _keep(result, part, scale)
    return part


def _keep(result: TileResult, place: Pixels, scale: int) -> None:
    """Write the part that a tile owns of its result to `place`; grey gets the mean."""
    rows, columns = result.tile.rows, result.tile.columns
    part = result.upscaled[
        (rows.keep_start - rows.start) * scale : (rows.keep_stop - rows.start) * scale,
        (columns.keep_start - columns.start) * scale : (columns.keep_stop - columns.start) * scale,
    ]
    if place.ndim == 3:
        place[:] = part
    else:
        wide = np.uint16 if part.dtype == np.uint8 else np.uint32
        place[:] = (part.sum(axis=2, dtype=wide) + 1) // 3  # the mean of three, rounded
