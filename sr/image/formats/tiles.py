"""A large picture as tiles of a TIFF: how rows of pixels become tiles, and how one is encoded.

Tiles are encoded by libtiff, through libvips. Layout: TIFF 6.0, section 15.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sr.image.directories import Tags, TiffReader
from sr.image.picture import Pixels
from sr.image.sixteen_bit import TIFF_COMPRESSIONS_OF_VIPS
from sr.image.vips import vips_library

# What GDAL, tifffile and libtiff's own tools take. A row of tiles of which pixels are missing is held in
# memory: at 80,000 pixels RGB 61 MB, twice that at 512.
TILE_PX = 256

TILE_OFFSETS, TILE_BYTES = 324, 325


class PlacedTile(NamedTuple):
    """A tile of the file, cut off where the picture ends."""

    number: int  # row by row
    pixels: Pixels  # (h, w, C), at most TILE_PX a side


@dataclass(frozen=True)
class TiledLayout:
    """How a picture is cut into the tiles of a file."""

    height: int
    width: int
    channels: int
    dtype: str  # "uint8" or "uint16"
    compression: str | None  # as `WriteOptions.tiff_compression`
    tile: int = TILE_PX

    @property
    def across(self) -> int:
        """Tiles in a row."""
        return -(-self.width // self.tile)

    @property
    def count(self) -> int:
        """Tiles in all."""
        return self.across * -(-self.height // self.tile)

    @property
    def raw_bytes(self) -> int:
        """Size of the pixels."""
        return self.height * self.width * self.channels * np.dtype(self.dtype).itemsize


class Mosaic:
    """Joins parts of a picture to tiles of a file; holds less than a row of these.

    Parts come band by band from the top, those of a band from left to right and of equal height.
    """

    def __init__(self, layout: TiledLayout) -> None:
        self._layout = layout
        self._above = self._below = self._pending = self._rows_of(0)

    def add(self, part: Pixels, *, row: int, column: int) -> Iterator[PlacedTile]:
        """Take a part (h, w, C) and yield the tiles that are whole now.

        The first part of all begins where a row of tiles does.
        """
        layout, tile = self._layout, self._layout.tile
        bottom, right = row + part.shape[0], column + part.shape[1]
        if column == 0:
            self._above = self._below
            self._below = self._rows_of(0 if bottom == layout.height else bottom % tile)
            self._pending = self._rows_of(len(self._above) + len(part))[:, :0]
        top, left = row - len(self._above), column - self._pending.shape[1]
        block = np.hstack((self._pending, np.vstack((self._above[:, column:right], part))))
        whole_rows = len(block) - len(self._below)
        whole_columns = block.shape[1] if right == layout.width else right // tile * tile - left
        self._below[:, left:right] = block[whole_rows:]
        self._pending = block[:, whole_columns:].copy()
        for y in range(0, whole_rows, tile):
            for x in range(0, whole_columns, tile):
                index = (top + y) // tile * layout.across + (left + x) // tile
                yield PlacedTile(index, block[y : min(y + tile, whole_rows), x : x + tile])

    def _rows_of(self, height: int) -> Pixels:
        return np.empty((height, self._layout.width, self._layout.channels), self._layout.dtype)


def encoded_tile(pixels: Pixels, layout: TiledLayout) -> tuple[Tags, bytes]:
    """Encode pixels (h, w, C) of at most a tile, continued to a whole one at their borders.

    Returns:
        The directory of a TIFF file that holds this tile alone, and the tile's bytes.

    Raises:
        MissingExtraError: pyvips is not installed.
    """
    vips, side = vips_library("writing tiles"), layout.tile
    height, width, channels = pixels.shape
    whole = np.pad(pixels, ((0, side - height), (0, side - width), (0, 0)), mode="edge")
    sixteen_bit = layout.dtype == "uint16"
    image = vips.Image.new_from_memory(whole.data, side, side, channels, "ushort" if sixteen_bit else "uchar")
    names = ("grey16", "rgb16") if sixteen_bit else ("b-w", "srgb")
    data = image.copy(interpretation=names[channels > 2]).tiffsave_buffer(
        compression=TIFF_COMPRESSIONS_OF_VIPS[layout.compression],
        predictor="horizontal",
        tile=True,
        tile_width=side,
        tile_height=side,
        keep="none",
    )
    reader = TiffReader(data)
    tags = reader.tags(reader.first)[0]
    (offset,), (size,) = (reader.numbers(tags[tag]) for tag in (TILE_OFFSETS, TILE_BYTES))
    return tags, data[offset : offset + size]
