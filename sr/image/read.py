"""Reading picture files, and streams."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from sr.errors import ImageError, one_line, printable
from sr.image.content import known_format
from sr.image.decode import PictureSequence, decode
from sr.image.formats.spec import HEAD_BYTES
from sr.image.picture import Picture

SPOOLED_BYTES = 64 * 2**20  # the files of most cameras; larger ones go to the disk

# The largest stills that a camera makes are the pixel shift composites of 100 megapixel sensors
# (23,296 x 17,472 = 407 million). Decoding takes 4 bytes per pixel in Pillow and 3 in the array, so
# 3.2 GB here, whereas 50 bytes of a hostile header can ask for 4 billion pixels.
DEFAULT_MAX_PIXELS = 450_000_000


def spooled(stream: BinaryIO, name: str) -> BinaryIO:
    """Read a picture from a stream to its end, so that `open_picture` can read it as often as needed.

    Readers move back and forth in a file, those of 16 bits need a descriptor, and an animation is opened
    twice. So the content is kept: in memory up to `SPOOLED_BYTES`, beyond that in a nameless temporary file
    that vanishes whatever happens. A stream that does not begin like a picture is not read to its end.

    Args:
        stream: need not be seekable.
        name: what messages call it.

    Raises:
        ImageError: it is empty, no picture, or cannot be read or kept.
    """
    spool = SpooledTemporaryFile(SPOOLED_BYTES)  # noqa: SIM115  it is the result
    try:
        head = stream.read(HEAD_BYTES)
        if not head:
            raise ImageError(f"{name}: is empty; what should have written a picture into it wrote nothing")
        known_format(head, name)
        spool.write(head)
        shutil.copyfileobj(stream, spool)
    except BaseException as error:
        spool.close()
        if isinstance(error, OSError | ValueError):
            raise ImageError(f"{name}: cannot be read ({one_line(error)}); try it with a file") from error
        raise
    return cast(BinaryIO, spool)


def open_picture(
    path: Path,
    file: BinaryIO | None = None,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    depth: int | None = None,
) -> Picture | PictureSequence:
    """Read a picture, or say what an animation or a file of several pages holds.

    Pictures come upright, RGB or grey, with 8 bits per channel or, from PNG and TIFF, 16. CMYK is converted
    to sRGB, see `sr.image.arrays`. The content decides on the format; the EXIF data, or else the XMP data,
    on the orientation. The first picture of an MPO is read, and each page of a TIFF in its highest
    resolution.

    Args:
        path: PNG, JPEG, WebP, AVIF, TIFF, BMP or GIF.
        file: seekable; what to read in place of `path`, which then is what messages call it.
        max_pixels: a picture with more is refused before it is decoded.
        depth: 8 reduces 16 bits per channel to 8, with a note; None keeps them.

    Raises:
        ImageError: the file is missing, damaged or no picture, or holds what would have to be
            reduced: more than 16 bits, floating-point numbers, Lab colour, channels without meaning.
        MissingExtraError: it has 16 bits per channel and pyvips is not installed.
    """
    return decode(path, file, max_pixels=max_pixels, depth=depth)


def read_picture(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
    """Read the picture of a file that holds only one; see `open_picture`.

    Raises:
        ImageError: there are several, or as `open_picture`.
        MissingExtraError: as `open_picture`.
    """
    picture = open_picture(path, max_pixels=max_pixels)
    if isinstance(picture, PictureSequence):
        raise ImageError(
            f"{printable(path)}: a {picture.format} with {picture.count} {picture.kind}, need one; "
            "split it into single pictures"
        )
    return picture
