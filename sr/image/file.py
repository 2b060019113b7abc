"""Reading and writing whole picture files."""

from __future__ import annotations

import errno
import io
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import BinaryIO, cast

from sr.errors import ImageError
from sr.files import atomic_write
from sr.image.animate import write_animation
from sr.image.decode import (
    HEAD_BYTES,
    PictureSequence,
    decode,
    format_of,
    holds_several,
    one_line,
    opened_file,
    printable,
)
from sr.image.deep import write_deep
from sr.image.encode import encode
from sr.image.formats import (
    AVIF,
    GIF,
    PNG,
    OutputFormat,
    WriteOptions,
    fitting_format,
)
from sr.image.formats.tiff import TiffAppender
from sr.image.picture import Frame, Picture, to_8_bits

PICTURE_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif"}
)

# What may hold several pictures, and what keeps them all. PNG is missing: it is what others become, and
# holds an animation too.
_SUFFIXES_OF_SEVERAL = frozenset({".gif", ".webp", ".avif", ".tif", ".tiff"})
_SUFFIX_FOR_SEVERAL = {"GIF": ".gif", "WebP": ".webp", "AVIF": ".avif", "TIFF": ".tif"}

SPOOLED_BYTES = 64 * 2**20  # the files of most cameras; what is larger goes to the disk

# The largest stills that a camera makes are the pixel shift composites of 100 megapixel sensors
# (23,296 x 17,472 = 407 million). Decoding takes 4 bytes per pixel in Pillow and 3 in the array, so
# 3.2 GB here, whereas 50 bytes of a hostile header can ask for 4 billion pixels.
DEFAULT_MAX_PIXELS = 450_000_000

# 1 / 2.2, in the unit of a PNG's gAMA chunk: near enough to sRGB's curve (PNG specification, section 13.13).
_SRGB_GAMMA = 45_455


class _CheckedFile(io.BufferedRandom):
    """A file whose descriptor Pillow cannot reach, so that every write goes through Python.

    Pillow's C code takes a short write for success, so a full disk could cut a file unnoticed.
    """

    def fileno(self) -> int:
        """Refuse."""
        raise io.UnsupportedOperation("Pillow is to write through Python")


def spooled(stream: BinaryIO, name: str) -> BinaryIO:
    """Read a picture from a stream to its end, for `open_picture` to read as often as need be.

    Readers go back and forth in a file, those of 16 bits need a descriptor, and an animation is opened
    twice. So a stream is kept: in memory up to `SPOOLED_BYTES`, beyond that in a nameless
    temporary file, of which nothing stays whatever happens. What is no picture is not read to its end.

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
        format_of(head, name)
        spool.write(head)
        shutil.copyfileobj(stream, spool)
    except BaseException as error:
        spool.close()
        if isinstance(error, OSError | ValueError):
            raise ImageError(f"{name}: cannot be read ({one_line(error)}); try it with a file") from error
        raise
    return cast(BinaryIO, spool)


def suffix_for_several(path: Path, file: BinaryIO | None = None) -> str | None:
    """Return the suffix of the format that keeps all pictures of an animation or of pages; else None.

    Headers are read, of files whose name says that they may hold several. What is damaged or
    cannot be read gives None too: reading the picture will say so.

    Args:
        path: of the picture; not opened if `file` is given.
        file: its content.
    """
    if file is None and path.suffix.lower() not in _SUFFIXES_OF_SEVERAL:
        return None
    try:
        with opened_file(path) if file is None else nullcontext(file) as opened:
            return _SUFFIX_FOR_SEVERAL.get(holds_several(opened) or "")
    except (OSError, ValueError, LookupError, struct.error, ImageError):
        return None


def open_picture(
    path: Path, file: BinaryIO | None = None, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Picture | PictureSequence:
    """Read a picture, or say what an animation or a file of several pages holds.

    Pictures come upright, RGB or grey, with 8 bits per channel or, from PNG and TIFF, 16. CMYK is
    converted to sRGB, see `sr.image.arrays`. The content decides on the format, the EXIF data on the
    orientation, or else the XMP data. Of a JPEG with further pictures behind it (MPO) the first is
    read, of a TIFF each page in its highest resolution.

    Args:
        path: PNG, JPEG, WebP, AVIF, TIFF, BMP or GIF.
        file: seekable; what to read in place of `path`, which then is what messages call it.
        max_pixels: a picture with more is refused before it is decoded.

    Raises:
        ImageError: the file is missing, damaged or no picture, or holds what would have to be
            reduced: more than 16 bits, floating-point numbers, Lab colour, channels without meaning.
        MissingExtraError: it has 16 bits per channel and pyvips is not installed.
    """
    return decode(path, file, max_pixels=max_pixels)


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


def write_picture(
    path: Path, picture: Picture, *, options: WriteOptions | None = None, stream: BinaryIO | None = None
) -> tuple[str, ...]:
    """Write a picture whole or not at all; the suffix decides on the format.

    With `stream`, it goes there when it is encoded, and `path` is what messages call it.

    Metadata is kept where the format can hold it: WebP has no grey profile, BMP only the resolution,
    GIF none, JPEG no EXIF or XMP data above 64 KB. Grey pixels with an RGB profile are written as
    RGB. 16 bits per channel are rounded to 8 where the format has no more, GIF has 256 colours.

    Returns:
        What was reduced, for the user to read.

    Raises:
        ImageError: as `check_output`, or the file cannot be written.
        MissingExtraError: 16 bits per channel and pyvips is not installed.
    """
    kind = fitting_format(
        path,
        printable(path),
        height=picture.height,
        width=picture.width,
        alpha=picture.transparent,
        deep=picture.deep,
    )
    with _written(path, stream) as open_file:
        _write_one(open_file, _fitted(picture, kind), kind, options or WriteOptions())
    return _reductions(picture, kind)


def write_sequence(
    path: Path,
    sequence: PictureSequence,
    frames: Iterable[Frame],
    *,
    options: WriteOptions | None = None,
    stream: BinaryIO | None = None,
) -> tuple[str, ...]:
    """Write the frames of an animation, or pages, whole or not at all; `frames` is read one by one.

    Args:
        path: the suffix decides on the format: PNG, WebP, AVIF and GIF hold frames, TIFF pages.
        sequence: what the frames were made of; its count and number of plays are taken.
        frames: as many; frames of an animation all of one size.
        options: of the encoder.
        stream: as in `write_picture`.

    Returns:
        What was reduced, for the user to read.

    Raises:
        ImageError: the format cannot hold them, the file cannot be written, or what `frames` raises.
    """
    options = options or WriteOptions()
    name, notes = printable(path), dict[str, None]()
    kind = fitting_format(path, name, height=1, width=1, alpha=False, several=sequence.kind)
    if kind is AVIF and sequence.plays:
        notes["an AVIF animation repeats without end"] = None

    def checked() -> Iterator[Frame]:
        for frame in frames:
            picture = frame.picture
            fitting_format(
                path,
                name,
                height=picture.height,
                width=picture.width,
                alpha=picture.transparent,
                deep=picture.deep,
            )
            notes.update(dict.fromkeys(picture.notes + _reductions(picture, kind)))
            yield replace(frame, picture=_fitted(picture, kind))

    with _written(path, stream) as open_file:
        if sequence.kind == "pages":
            with open_file(_CheckedFile) as file:
                appender = TiffAppender(file)
                for frame in checked():
                    appender.add(_page(frame.picture, kind, options))
        else:
            with open_file(_CheckedFile) as file:
                write_animation(
                    file, checked(), count=sequence.count, plays=sequence.plays, kind=kind, options=options
                )
    return tuple(notes)


_OpenFile = Callable[[type[io.BufferedRandom]], AbstractContextManager[io.BufferedRandom]]


@contextmanager
def _written(path: Path, stream: BinaryIO | None) -> Iterator[_OpenFile]:
    """Give a function that opens the file to be written; what goes wrong becomes an `ImageError`."""
    try:
        if stream is None:
            with atomic_write(path) as temporary:
                yield lambda kind: kind(io.FileIO(temporary, "w+"))
        else:  # encoders go back in what they have written, and of what fails nothing is to arrive
            with TemporaryFile() as spool:
                yield lambda kind: kind(io.FileIO(os.dup(spool.fileno()), "w+"))
                spool.seek(0)
                shutil.copyfileobj(spool, stream)
                stream.flush()
    except BrokenPipeError:  # whoever was to read the stream has gone, which is no failure of ours
        raise
    except (OSError, ValueError, OverflowError, MemoryError, RuntimeError, struct.error) as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: Exception) -> ImageError:
    code = error.errno if isinstance(error, OSError) else None
    remedy = {
        errno.ENOENT: "create the folder first",
        errno.ENOSPC: "free some space or choose another folder",
        errno.EFBIG: "choose another folder or a smaller picture",
        errno.ENAMETOOLONG: "choose a shorter one (-o, or --suffix in a folder)",
    }.get(code or 0, "choose another folder or format")
    if isinstance(error, MemoryError):
        remedy = "free some memory, or choose a smaller size"
    return ImageError(f"{printable(path)}: cannot be written ({one_line(error)}); {remedy}")


def _write_one(open_file: _OpenFile, picture: Picture, kind: OutputFormat, options: WriteOptions) -> None:
    if picture.deep:
        with open_file(io.BufferedRandom) as file:
            write_deep(file, picture, kind, options)
    else:
        with open_file(_CheckedFile) as file:
            encode(file, picture, kind, options)


def _page(picture: Picture, kind: OutputFormat, options: WriteOptions) -> bytes:
    """Return a TIFF file of one page."""
    if picture.deep:
        with TemporaryFile() as deep:
            write_deep(deep, picture, kind, options)
            deep.seek(0)
            return deep.read()
    buffer = BytesIO()
    encode(buffer, picture, kind, options)
    return buffer.getvalue()


def _fitted(picture: Picture, kind: OutputFormat) -> Picture:
    """Round to 8 bits what the format cannot hold with 16."""
    if not picture.deep or kind.deep:
        return picture
    alpha = None if picture.alpha is None else to_8_bits(picture.alpha)
    return replace(picture, pixels=to_8_bits(picture.pixels), alpha=alpha)


def _reductions(picture: Picture, kind: OutputFormat) -> tuple[str, ...]:
    """Say what of a picture a format cannot hold and the user may miss."""
    notes = []
    if picture.deep and not kind.deep:
        notes.append(f"16 bits per channel, written as 8: {kind.name} holds no more here")
    if kind is GIF and not picture.grey:
        notes.append("reduced to the 256 colours of a GIF")
    chunks = dict(picture.metadata.png_chunks)
    gamma = int.from_bytes(chunks.get(b"gAMA", b""), "big") or _SRGB_GAMMA
    untagged = picture.metadata.icc_profile is None and b"sRGB" not in chunks
    if kind is not PNG and (b"cICP" in chunks or (untagged and abs(gamma - _SRGB_GAMMA) > 1000)):
        notes.append(f"the colour description of the PNG (gAMA or cICP) is lost in {kind.name}")
    return tuple(notes)


def check_output(
    path: Path,
    *,
    height: int,
    width: int,
    alpha: bool,
    deep: bool = False,
    several: str = "",
    stream: BinaryIO | None = None,
) -> None:
    """Check, before the work starts, that a picture of this size could be written to `path`.

    Args:
        path: its folder may be missing if it can be created.
        height: rows of the result.
        width: columns of the result.
        alpha: whether the result has pixels that are not opaque.
        deep: whether the result has 16 bits per channel.
        several: "frames" or "pages" if the result has several, else empty.
        stream: where it goes in place of `path`, of which only the suffix counts then.

    Raises:
        ImageError: the format is unknown, too small for the picture or has no transparency, or the
            folder cannot be written.
    """
    name = printable(path)
    fitting_format(path, name, height=height, width=width, alpha=alpha, deep=deep, several=several)
    if stream is not None:
        return
    try:
        if path.is_dir():
            raise ImageError(f"{name}: is a folder; give a file name")
        folder = path.absolute().parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise ImageError(f"{name}: {printable(folder)} is not a folder; choose another folder")
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise _unwritable(path, error) from error
    if not writable:
        raise ImageError(f"{name}: the folder {printable(folder)} cannot be written; choose another folder")
