"""Very large picture files -> bands of rows, through libvips, the `vips` extra.

Rows are decoded once, from the top; rows that two bands share are kept. The pixels equal those of
`sr.image.open_picture`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

from sr.errors import ImageError, printable
from sr.image.formats import FORMATS
from sr.image.picture import Pixels
from sr.image.refusals import complaint
from sr.image.source import REDUCED, Header, losses, upright_metadata
from sr.image.vips import vips_library

_SKIPPED_ROWS = 64  # at once, on the way to the first band
_LEVEL, _HALF_LEVEL = 257, 128  # levels of 16 bits in one of 8, see `sr.image.picture.to_8_bits`
_TYPES = {"uchar": "uint8", "ushort": "uint16"}


class BandReader:
    """A picture file that is read from top to bottom; a context manager.

    Most files are decoded row by row. If a picture is stored turned, libvips first decodes a copy into its
    temporary folder. It holds interlaced PNGs and progressive JPEGs whole in memory.

    Attributes:
        height: rows, of the upright picture.
        width: columns.
        channels: 1 to 4; 2 and 4 are with alpha.
        dtype: "uint8" or "uint16".
        metadata: that fit upright pixels.
        notes: what of the file is left out or reduced, for the user to read.
    """

    def __init__(self, path: Path, header: Header) -> None:
        """Open a file whose header has been read.

        Raises:
            ImageError: the file cannot be read.
            MissingExtraError: pyvips is not installed.
        """
        self._name, self._format = printable(path), header.format
        self._vips = vips_library(f"{self._name}: reading a picture that is too large for the memory")
        with ExitStack() as opened:
            try:
                file = opened.enter_context(path.open("rb"))
            except OSError as error:
                raise ImageError(
                    f"{self._name}: cannot be read ({error.strerror}); give another file"
                ) from error
            self.metadata, orientation = upright_metadata(
                header.metadata, grey=header.channels < 3, orientation=header.orientation
            )
            self.notes = header.notes + losses(header.metadata, self.metadata)
            image = self._opened(file.fileno(), orientation)
            if image.format == "ushort" and not header.sixteen_bit:  # asked for
                image = ((image + _HALF_LEVEL) / _LEVEL).floor().cast("uchar")
                self.notes += (REDUCED,)
            if image.format not in _TYPES or not 1 <= image.bands <= 4:
                raise ImageError(
                    f"{self._name}: {image.bands} channels of type {image.format}, need grey or RGB of "
                    "8 or 16 bits; convert it first"
                )
            self._files = opened.pop_all()
        self.height, self.width, self.channels = image.height, image.width, image.bands
        self.dtype = _TYPES[image.format]
        self._region = self._vips.Region.new(image)
        self._start, self._kept = 0, self._empty(0)

    def _opened(self, descriptor: int, orientation: int) -> Any:
        os.lseek(descriptor, 0, os.SEEK_SET)
        source = self._vips.Source.new_from_descriptor(descriptor)
        load = getattr(self._vips.Image, FORMATS[self._format].vips_loader)
        turned = 2 <= orientation <= 8
        try:
            image = load(source, access="random" if turned else "sequential", fail_on="error")
            if turned:
                image = image.copy()
                image.set_type(self._vips.GValue.gint_type, "orientation", orientation)
                image = image.autorot()
        except self._vips.Error as error:
            raise self._damaged(error) from error
        return image

    def _damaged(self, error: Exception) -> ImageError:
        return ImageError(f"{self._name}: {complaint(error, self._format)}")

    def rows(self, start: int, stop: int) -> Pixels:
        """Return rows (stop - start, W, C); neither number may be less than in the call before.

        Raises:
            ImageError: the file is damaged.
        """
        end = self._start + len(self._kept)
        while end < start:
            step = min(_SKIPPED_ROWS, start - end)
            self._fetched(end, end + step)
            self._start, self._kept, end = end + step, self._empty(0), end + step
        new = self._fetched(end, stop) if stop > end else self._empty(0)
        self._kept = np.concatenate((self._kept[start - self._start :], new))
        self._start = start
        return self._kept[: stop - start]

    def bands(self, rows: int) -> Iterator[Pixels]:
        """Yield the whole picture by so many rows.

        Raises:
            ImageError: the file is damaged.
        """
        for top in range(0, self.height, rows):
            yield self.rows(top, min(top + rows, self.height))

    def _fetched(self, start: int, stop: int) -> Pixels:
        try:
            data = self._region.fetch(0, start, self.width, stop - start)
        except self._vips.Error as error:
            raise self._damaged(error) from error
        return np.frombuffer(data, self.dtype).reshape(stop - start, self.width, self.channels)

    def _empty(self, rows: int) -> Pixels:
        return np.empty((rows, self.width, self.channels), self.dtype)

    def close(self) -> None:
        """Close the file."""
        self._region = None
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
