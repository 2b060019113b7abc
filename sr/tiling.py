"""Pure tile arithmetic: how a picture is cut into tiles and which tile writes which pixel.

All coordinates are lr pixels. The two axes are independent, so each is described on its own. Nothing
here knows about arrays, files or models.

A tile reads `length` pixels from `start`; of the result it writes the pixels `keep_start` to
`keep_stop`. Consecutive tiles overlap by at least two halos and the seam lies in the middle of the
overlap, so each pixel is written once, by the tile in which it lies deepest, and never closer than
a halo to a tile edge that is not a border of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from sr.errors import TilingError

MIN_HALOS_PER_TILE = 4  # with fewer, more than three quarters of the work would be thrown away

# Shapes of tiles where a backend is fastest with few of them, as shares of the largest side: height, width.
# With these, 1920x1080 and 3840x2160 cause 1.03 times the work of equal tiles of at most 512 px, as with all
# 16 pairs of the four shares, and 1020x678 causes 1.16 times; with squares alone it is 1.17 for 1920x1080.
LADDER = ((1, 1), (3 / 4, 1), (3 / 4, 3 / 4), (1 / 2, 1 / 2), (1 / 4, 1 / 4))


@dataclass(frozen=True)
class TileSpec:
    """How to tile.

    Attributes:
        tile: largest side of a tile in lr pixels, halo included.
        halo: lr pixels at each inner edge of a tile whose result is not used.
        equalise: shrink the tiles of an axis to equal, smallest size; off where the backend wants
            one fixed shape.
    """

    tile: int
    halo: int
    equalise: bool = True

    def __post_init__(self) -> None:
        if self.halo < 0:
            raise TilingError(f"halo is {self.halo}, need at least 0")
        if self.tile < max(1, MIN_HALOS_PER_TILE * self.halo):
            raise TilingError(
                f"tile {self.tile} is too small for halo {self.halo}: "
                f"need at least {max(1, MIN_HALOS_PER_TILE * self.halo)} (--tile), or a smaller --halo"
            )


@dataclass(frozen=True)
class Span:
    """One tile on one axis: reads [start, start + length), writes [keep_start, keep_stop)."""

    start: int
    length: int
    keep_start: int
    keep_stop: int


@dataclass(frozen=True)
class Tile:
    """One tile: its rows and its columns."""

    rows: Span
    columns: Span


@dataclass(frozen=True)
class TileGrid:
    """All tiles of a picture, row by row; every tile has the same height and width."""

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __iter__(self) -> Iterator[Tile]:
        return (Tile(rows, columns) for rows in self.rows for columns in self.columns)

    @property
    def tile_height(self) -> int:
        """Height of every tile in lr pixels."""
        return self.rows[0].length

    @property
    def tile_width(self) -> int:
        """Width of every tile in lr pixels."""
        return self.columns[0].length

    @property
    def work(self) -> float:
        """Pixels that tiles read, halos included, for each pixel of the picture; 1 is none twice."""
        height, width = self.rows[-1].keep_stop, self.columns[-1].keep_stop
        return len(self) * self.tile_height * self.tile_width / (height * width)


def tile_grid(height: int, width: int, spec: TileSpec) -> TileGrid:
    """Cut a picture of `height` x `width` lr pixels into tiles.

    Raises:
        TilingError: the picture is empty.
    """
    if height < 1 or width < 1:
        raise TilingError(f"cannot tile a picture of {width}x{height} px")
    return TileGrid(rows=_spans(height, spec), columns=_spans(width, spec))


def constant_grid(height: int, width: int, spec: TileSpec) -> TileGrid | None:
    """Cut a picture into tiles of the shape of `LADDER` that causes the least work; None if none fits."""
    spec = replace(spec, equalise=False)
    grids = [
        TileGrid(_spans(height, replace(spec, tile=rows)), _spans(width, replace(spec, tile=columns)))
        for rows, columns in ladder(spec)
        if rows <= height and columns <= width
    ]
    return min(grids, key=lambda grid: grid.work, default=None)


def ladder(spec: TileSpec) -> list[tuple[int, int]]:
    """Return height and width of the shapes of `LADDER` that the halo allows, the largest first."""
    least = max(1, MIN_HALOS_PER_TILE * spec.halo)
    shapes = [(int(rows * spec.tile), int(columns * spec.tile)) for rows, columns in LADDER]
    return [shape for shape in shapes if min(shape) >= least]


def _spans(size: int, spec: TileSpec) -> tuple[Span, ...]:
    if size <= spec.tile:
        return (Span(0, size, 0, size),)
    step = spec.tile - 2 * spec.halo
    count = -(-(size - 2 * spec.halo) // step)
    if spec.equalise:
        tile = -(-(size - 2 * spec.halo) // count) + 2 * spec.halo
        starts = [index * (size - tile) // (count - 1) for index in range(count)]
    else:
        tile = spec.tile
        starts = [min(index * step, size - tile) for index in range(count)]
    seams = [(after + before + tile) // 2 for before, after in pairwise(starts)]
    edges = [0, *seams, size]
    return tuple(Span(start, tile, edges[index], edges[index + 1]) for index, start in enumerate(starts))
