"""Picture file -> pictures.

Owns the frames and pages of files that hold several. Nothing is reduced silently, as Pillow cuts 16-bit
colour to 8 bits.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from sr.errors import ImageError, SrupError, printable
from sr.image.compression import LOSSLESS
from sr.image.content import known_format, opened_file, refuse_raw
from sr.image.formats.spec import HEAD_BYTES
from sr.image.picture import Frame, MultiImage, Picture, to_8_bits
from sr.image.pillow import PILLOW_LIMITS_LIFTED
from sr.image.refusals import unreadable
from sr.image.source import REDUCED, Header, OpenedFile, Source


@dataclass(frozen=True)
class PictureSequence:
    """A file with several pictures, which `frames` decodes one after the other."""

    path: Path
    format: str  # in words, e.g. "GIF"
    kind: MultiImage  # "frames" of an animation, or "pages"
    count: int
    height: int  # of the first
    width: int
    max_pixels: int  # each may have
    plays: int = 0  # how often an animation is shown, 0 is without end
    file: BinaryIO | None = None  # the content, if it is not at `path`
    depth: int | None = None  # 8 reduces 16 bits per channel

    def frames(self) -> Iterator[Frame]:
        """Decode the pictures in order; only one is held.

        Raises:
            ImageError: the file is damaged, or a picture in it cannot be read.
        """
        with _opened(self.path, self.max_pixels, self.file, self.depth) as source:
            # One strength for all frames: block edges, which only some may show, are not sought.
            found = source.compression()
            frames = found == LOSSLESS and self.kind == "frames"
            compression = replace(found, detail="an animation") if frames else found
            for index in range(self.count):
                with PILLOW_LIMITS_LIFTED:
                    frame = source.frame(index)
                picture = replace(frame.picture, compression=compression)
                yield replace(frame, picture=_of_depth(picture, self.depth))


def decode(
    path: Path, file: BinaryIO | None = None, *, max_pixels: int, depth: int | None = None
) -> Picture | PictureSequence:
    """Read a file that holds one picture; of one that holds several, say what they are.

    With `file`, that is read, and `path` is what messages call it.

    Raises:
        ImageError: see `sr.image.open_picture`.
        MissingExtraError: 16 bits per channel without pyvips.
    """
    with _opened(path, max_pixels, file, depth) as source, PILLOW_LIMITS_LIFTED:
        if source.count == 1:
            picture = replace(source.frame(0).picture, compression=source.compression())
            return _of_depth(picture, depth)
        height, width = source.size()
        return PictureSequence(
            path,
            source.format,
            source.multi_image,
            source.count,
            height,
            width,
            max_pixels,
            source.plays,
            file,
            depth,
        )


def _of_depth(picture: Picture, depth: int | None) -> Picture:
    """Round 16 bits per channel to 8 if that is asked for, with a note."""
    if depth != 8 or not picture.sixteen_bit:
        return picture
    alpha = None if picture.alpha is None else to_8_bits(picture.alpha)
    notes = (*picture.notes, REDUCED)
    return replace(picture, pixels=to_8_bits(picture.pixels), alpha=alpha, notes=notes)


def read_header(path: Path, file: BinaryIO | None = None, *, depth: int | None = None) -> Header:
    """Read what a file says of its first picture; no size is too large.

    With `file`, that is read, and `path` is what messages call it. With `depth` 8, a picture of 16 bits per
    channel is one that is to be read as 8.

    Raises:
        ImageError: the file is missing, damaged or no picture, or of a kind that is not read.
    """
    with _opened(path, sys.maxsize, file) as source, PILLOW_LIMITS_LIFTED:
        header = replace(source.header(), compression=source.compression())
        return replace(header, sixteen_bit=False) if depth == 8 else header


class _LeftOpen:
    """A file that stays open when Pillow closes it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        pass


@contextmanager
def _opened(
    path: Path, max_pixels: int, content: BinaryIO | None = None, depth: int | None = None
) -> Iterator[Source]:
    """Open a picture file; if it cannot be read, or the memory is too small, that becomes an `ImageError`."""
    name = printable(path)
    try:
        own = None if content is None else cast(BinaryIO, _LeftOpen(content))
        with opened_file(path) if own is None else nullcontext(own) as file:
            if content is None:
                refuse_raw(path)
            file.seek(0)
            head = file.read(HEAD_BYTES)
            file.seek(0)
            spec = known_format(head, name)
            with PILLOW_LIMITS_LIFTED:
                source = spec.reader(OpenedFile(file, head, name, spec.name, max_pixels, depth))
            try:
                yield source
            finally:
                source.close()
    except SrupError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to decode it; free some or shrink it first") from error
    except OSError as error:
        raise ImageError(f"{name}: {unreadable(error)}") from error
