"""Picture file -> pictures.

Owns which picture files are read and which are refused, the frames and pages of those that hold
several, and the one-line errors for all that can be wrong with a file. Nothing is reduced in
silence: Pillow itself cuts 16-bit colour to 8 bits without a word.
"""

from __future__ import annotations

import errno
import stat
import struct
import sys
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from sr.errors import ImageError, SrupError, TooLargeError
from sr.image.arrays import MODES, TURNS, arrays, turned
from sr.image.deep import read_deep
from sr.image.formats.avif import avif_notes
from sr.image.formats.gif import GifCanvas, parsed_gif
from sr.image.formats.png import kept_chunks
from sr.image.formats.tiff import TiffPage, page_metadata, tiff_pages
from sr.image.metadata import Metadata, fitting_icc_profile, upright_exif, upright_xmp
from sr.image.picture import Frame, Picture

_READERS: Mapping[str, type[ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,  # not Pillow's factory: the previews that cameras append are no animation
    "WebP": WebPImageFile,
    "AVIF": AvifImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
}
_BY_ROWS = ("PNG", "JPEG", "TIFF")  # that libvips reads row by row
_CHANNELS = {"L": 1, "LA": 2, "P": 3, "PA": 4, "RGB": 3, "RGBA": 4}
_RGB, _YCBCR = 2, 6  # photometric interpretation of a TIFF
HEAD_BYTES = 32  # tell the format
_WEBP_ANIMATED = 0x02  # of the flags in VP8X, RFC 9649, section 2.7
_X_RESOLUTION = 282
_IPTC_RESOURCE = 0x0404  # of the Photoshop segment of a JPEG


class _PillowLimits:
    """Lifts Pillow's own pixel limit and hushes its warnings while any thread reads.

    Both are process-wide. So they are put back when the last of the threads has finished: each
    putting back what it found would leave them off for good when two overlap.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._pixels: int | None = None
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._pixels, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                self._warnings.__exit__(None, None, None)
                Image.MAX_IMAGE_PIXELS = self._pixels


_PILLOW_LIMITS_LIFTED = _PillowLimits()


@dataclass(frozen=True)
class Header:
    """What a file says of its first picture, before any pixel is decoded."""

    format: str  # in words, e.g. "TIFF"
    count: int  # pictures in the file
    height: int  # as stored
    width: int
    channels: int  # with alpha
    deep: bool  # 16 bits per channel
    metadata: Metadata  # as stored
    orientation: int = 0  # that goes before that of the metadata, 0 if nothing does
    problem: str = ""  # why its rows cannot be read one after the other; empty if they can

    @property
    def pixels(self) -> int:
        """How many there are."""
        return self.height * self.width


@dataclass(frozen=True)
class PictureSequence:
    """A file with several pictures, which `frames` decodes one after the other."""

    path: Path
    format: str  # in words, e.g. "GIF"
    kind: str  # "frames" of an animation, or "pages"
    count: int
    height: int  # of the first
    width: int
    max_pixels: int  # each may have
    plays: int = 0  # how often an animation is shown, 0 is without end
    file: BinaryIO | None = None  # the content, if it is not at `path`

    def frames(self) -> Iterator[Frame]:
        """Decode the pictures in order; only one is held.

        Raises:
            ImageError: the file is damaged, or a picture in it cannot be read.
        """
        with _opened(self.path, self.max_pixels, self.file) as source:
            for index in range(self.count):
                with _PILLOW_LIMITS_LIFTED:
                    frame = source.frame(index)
                yield frame


def decode(path: Path, file: BinaryIO | None = None, *, max_pixels: int) -> Picture | PictureSequence:
    """Read a file that holds one picture; of one that holds several, say what they are.

    With `file`, that is read, and `path` is what messages call it.

    Raises:
        ImageError: see `sr.image.read_picture`.
        MissingExtraError: 16 bits per channel without pyvips.
    """
    with _opened(path, max_pixels, file) as source, _PILLOW_LIMITS_LIFTED:
        if source.count == 1:
            return source.frame(0).picture
        height, width = source.size()
        kind, count = source.several, source.count
        return PictureSequence(
            path, source.format, kind, count, height, width, max_pixels, source.plays, file
        )


def read_header(path: Path) -> Header:
    """Read what a file says of its first picture; no size is too large.

    Raises:
        ImageError: the file is missing, damaged or no picture, or of a kind that is not read.
    """
    with _opened(path, sys.maxsize) as source, _PILLOW_LIMITS_LIFTED:
        return source.header()


def holds_several(file: BinaryIO) -> str | None:
    """Return the format of a file that holds several pictures, e.g. "GIF", by its headers; else None.

    Raises:
        ImageError: it is no picture.
        ValueError: it is damaged.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    kind = format_of(head, "")
    several = {
        "GIF": lambda: len(parsed_gif(file, at_most=2).frames) > 1,
        "TIFF": lambda: len(tiff_pages(file)) > 1,
        "WebP": lambda: head[12:16] == b"VP8X" and bool(head[20] & _WEBP_ANIMATED),
        "AVIF": lambda: head[8:12] == b"avis",
    }
    return kind if kind in several and several[kind]() else None


def printable(path: Path) -> str:
    """Return a path as given, with line breaks and the like escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(path)
    )


def one_line(error: BaseException) -> str:
    """Return an exception's text on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


class _Source(ABC):
    """An open picture file."""

    several = "frames"
    plays = 0

    def __init__(self, file: BinaryIO, head: bytes, name: str, kind: str, max_pixels: int) -> None:
        self._file, self._head, self._name, self.format = file, head, name, kind
        self._max_pixels = max_pixels
        self._image: ImageFile | None = None

    def close(self) -> None:
        if self._image is not None:
            self._image.close()

    @property
    @abstractmethod
    def count(self) -> int:
        """How many pictures there are."""

    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Return rows and columns of the first, before it is turned upright."""

    @abstractmethod
    def frame(self, index: int) -> Frame:
        """Decode one picture."""

    @abstractmethod
    def header(self) -> Header:
        """Describe the first picture."""

    def _opened_image(self) -> ImageFile:
        self._file.seek(0)
        self._image = _READERS[self.format](self._file)
        return self._image

    def _refuse_large(self, height: int, width: int) -> None:
        """Refuse, before decoding, what is too large."""
        if width * height > self._max_pixels:
            raise TooLargeError(
                f"{self._name}: {width}x{height} are {width * height:,} pixels, the limit is "
                f"{self._max_pixels:,}; if you trust the file, allow them with --max-pixels {width * height}"
            )

    def _refuse_mode(self, mode: str) -> None:
        if mode not in MODES:
            self._refuse(
                f"{mode} pixels", "convert it to sRGB first" if mode == "LAB" else "convert it first"
            )

    def _refuse(self, problem: str, remedy: str = "convert it first") -> None:
        raise ImageError(f"{self._name}: a {self.format} with {problem}, need RGB or grey; {remedy}")


class _PillowSource(_Source):
    """A file of any format but TIFF."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        is_png = self.format == "PNG"
        # Before Pillow opens it, which reads animations on from where it stopped.
        self._chunks = kept_chunks(self._file) if is_png else ()
        self._notes = avif_notes(self._file, self._name) if self.format == "AVIF" else ()
        self._bits = self._head[24] if is_png else None  # `format_of` has seen to where IHDR is
        image = self._opened_image()
        self._refuse_large(image.height, image.width)
        self._frames = int(getattr(image, "n_frames", 1))
        # An APNG may begin with a picture for programs that do not animate.
        self._first = int(self._frames > 1 and bool(image.info.get("default_image")))
        self.plays = int(image.info.get("loop", 0))

    @property
    def count(self) -> int:
        return self._frames - self._first

    def size(self) -> tuple[int, int]:
        assert self._image is not None
        return self._image.height, self._image.width

    def frame(self, index: int) -> Frame:
        image = self._image
        assert image is not None
        if self._frames > 1:
            if self._bits == 16:
                self._refuse("several frames of 16 bits per channel")
            image.seek(index + self._first)
        if self._bits != 16:
            self._refuse_mode(image.mode)
        image.load()
        metadata = replace(_stored_metadata(image), png_chunks=self._chunks)
        duration_ms = float(image.info.get("duration") or 0)
        if self._bits == 16:
            self._image = image = None  # what Pillow has made of it is of no use
            pixels, alpha = read_deep(self._file, self._name, None)
            return Frame(_upright(Picture(pixels, alpha, metadata), turn=True))
        pixels, alpha, notes = arrays(image, png_bits=self._bits)
        picture = Picture(pixels, alpha, metadata, self._notes + notes)
        if self._frames > 1 and not picture.transparent:  # decoders of animations add it in any case
            picture = replace(picture, alpha=None)
        return Frame(_upright(picture, turn=True), duration_ms)

    def header(self) -> Header:
        image, deep = self._image, self._bits == 16
        assert image is not None
        if not deep:
            self._refuse_mode(image.mode)
        mode = image.mode if deep else MODES[image.mode]
        problem = "" if self.format in _BY_ROWS else f"a {self.format}"
        if mode in ("P", "PA") or image.mode == "CMYK":
            problem = f"of {image.mode} pixels"
        return Header(
            self.format,
            self.count,
            *self.size(),
            channels=_CHANNELS.get(mode, 1) + (mode in ("L", "RGB") and "transparency" in image.info),
            deep=deep,
            metadata=replace(_stored_metadata(image), png_chunks=self._chunks),
            problem=problem,
        )


class _GifSource(_Source):
    """A GIF with several frames."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._gif = parsed_gif(self._file)
        self.plays = self._gif.plays
        self._refuse_large(self._gif.height, self._gif.width)
        self._canvas: GifCanvas | None = None

    @property
    def count(self) -> int:
        return len(self._gif.frames)

    def size(self) -> tuple[int, int]:
        return self._gif.height, self._gif.width

    def frame(self, index: int) -> Frame:
        if index == 0 or self._canvas is None:
            self._canvas = GifCanvas(self._file, self._gif)
        frame = self._gif.frames[index]
        self._refuse_large(frame.height, frame.width)  # it can exceed what is seen of it
        pixels = self._canvas.shown(frame)
        alpha = None if (pixels[..., 3] == 255).all() else np.ascontiguousarray(pixels[..., 3])
        return Frame(Picture(np.ascontiguousarray(pixels[..., :3]), alpha), frame.duration_ms)

    def header(self) -> Header:
        return Header(self.format, self.count, *self.size(), 4, False, Metadata(), problem="an animation")


class _TiffSource(_Source):
    """A TIFF file. What its pages are is read from their directories."""

    several = "pages"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._pages = tiff_pages(self._file)
        self._refuse_unfit(self._pages[0])

    @property
    def count(self) -> int:
        return len(self._pages)

    def size(self) -> tuple[int, int]:
        return self._pages[0].height, self._pages[0].width

    def frame(self, index: int) -> Frame:
        page = self._pages[index]
        self._refuse_unfit(page)
        if page.deep:  # of which Pillow knows not all kinds
            pixels, alpha = read_deep(self._file, self._name, page)
            picture = Picture(pixels, alpha, page_metadata(self._file, page))
            return Frame(_upright(picture, turn=True, orientation=page.orientation))
        image = self._image or self._opened_image()
        if page.index:
            image.seek(page.index)
        self._refuse_mode(image.mode)
        image.load()
        pixels, alpha, notes = arrays(image, png_bits=None)
        picture = Picture(pixels, alpha, page_metadata(self._file, page), notes)
        # Pillow has turned the pixels, after the same tags.
        return Frame(_upright(picture, turn=False, orientation=page.orientation))

    def header(self) -> Header:
        page = self._pages[0]
        known = page.photometric <= _RGB or page.photometric == _YCBCR
        return Header(
            self.format,
            self.count,
            *self.size(),
            channels=max(1, len(page.bits)),
            deep=page.deep,
            metadata=page_metadata(self._file, page),
            orientation=page.orientation,
            problem="" if known else "neither grey nor RGB",
        )

    def _refuse_unfit(self, page: TiffPage) -> None:
        self._refuse_large(page.height, page.width)
        if page.problem is not None:
            self._refuse(page.problem)


def _source(file: BinaryIO, head: bytes, name: str, kind: str, max_pixels: int) -> _Source:
    """Return what reads a file of this format."""
    if kind == "TIFF":
        return _TiffSource(file, head, name, kind, max_pixels)
    if kind == "GIF" and len(parsed_gif(file).frames) > 1:
        return _GifSource(file, head, name, kind, max_pixels)
    return _PillowSource(file, head, name, kind, max_pixels)


class _LeftOpen:
    """A file that stays open when Pillow closes it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        pass


@contextmanager
def _opened(path: Path, max_pixels: int, content: BinaryIO | None = None) -> Iterator[_Source]:
    """Open a picture file; what goes wrong until it is closed becomes an `ImageError`."""
    name, kind = printable(path), None
    try:
        own = None if content is None else cast(BinaryIO, _LeftOpen(content))
        with opened_file(path) if own is None else nullcontext(own) as file:
            file.seek(0)
            head = file.read(HEAD_BYTES)
            file.seek(0)
            kind = format_of(head, name)
            with _PILLOW_LIMITS_LIFTED:
                source = _source(file, head, name, kind, max_pixels)
            try:
                yield source
            finally:
                source.close()
    except SrupError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to decode it; free some or shrink it first") from error
    except Exception as error:  # what Pillow raises on damaged files is not limited to a few
        raise ImageError(f"{name}: {_complaint(error, kind)}") from error


def opened_file(path: Path) -> BinaryIO:
    """Open a file; not a pipe or a device, which may never begin, or never end.

    Raises:
        ImageError: it is one.
        OSError: it cannot be opened.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ImageError(f"{printable(path)}: is a pipe or a device, no file; pipe it into srup upscale -")
    return path.open("rb")


def format_of(head: bytes, name: str) -> str:
    """Tell the format by the first bytes of the file.

    Raises:
        ImageError: it is no picture, or none that is read; `name` names it.
    """
    if not head:
        raise ImageError(f"{name}: the file is empty; get an intact copy")
    for start, kind in (
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "PNG"),
        (b"\xff\xd8\xff", "JPEG"),
        ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
        ((b"GIF87a", b"GIF89a"), "GIF"),
        (b"BM", "BMP"),
    ):
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp" and (head[8:12] in (b"avif", b"avis") or b"avif" in head[16:]):
        return "AVIF"
    readable = ", ".join(list(_READERS)[:-1])
    raise ImageError(f"{name}: not a picture in a format that is read; convert it to one of {readable}")


def _stored_metadata(image: ImageFile) -> Metadata:
    """Return what Pillow found beside the pixels."""
    info = image.info
    exif = info.get("exif")
    if exif is None and "Raw profile type exif" in info:  # what ImageMagick writes into a PNG
        try:
            exif = bytes.fromhex("".join(str(info["Raw profile type exif"]).split("\n")[3:]))
        except ValueError:
            exif = None
    resources = info.get("photoshop")
    return Metadata(
        icc_profile=_bytes(info.get("icc_profile")),
        exif=_bytes(exif),
        xmp=_bytes(info.get("xmp")),
        dpi=_dpi(image),
        iptc=_bytes(resources.get(_IPTC_RESOURCE)) if isinstance(resources, dict) else None,
    )


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) and value else None


def _upright(picture: Picture, *, turn: bool, orientation: int = 0) -> Picture:
    """Fit the metadata to upright pixels, and turn these unless that is done.

    Args:
        picture: with metadata as stored.
        turn: whether the pixels are still to be turned.
        orientation: what goes before that of the metadata, 0 if nothing.
    """
    metadata, orientation = upright_metadata(picture.metadata, grey=picture.grey, orientation=orientation)
    if not turn:
        return replace(picture, metadata=metadata)
    alpha = None if picture.alpha is None else turned(picture.alpha, orientation)
    return replace(picture, pixels=turned(picture.pixels, orientation), alpha=alpha, metadata=metadata)


def upright_metadata(stored: Metadata, *, grey: bool, orientation: int = 0) -> tuple[Metadata, int]:
    """Fit stored metadata to upright pixels, grey or RGB; also return the orientation that they had.

    `orientation` goes before that of the metadata, 0 if nothing does.
    """
    exif, xmp = stored.exif, stored.xmp
    if exif is not None:
        exif, of_exif = upright_exif(exif)
        orientation = orientation or of_exif
    if xmp is not None:
        xmp, of_xmp = upright_xmp(xmp)
        orientation = orientation or of_xmp
    swapped = TURNS.get(orientation, (False,))[0]
    profile = stored.icc_profile
    metadata = replace(
        stored,
        exif=exif,
        xmp=xmp,
        icc_profile=fitting_icc_profile(profile, grey=grey) if profile is not None else None,
        dpi=stored.dpi[::-1] if stored.dpi is not None and swapped else stored.dpi,
    )
    return metadata, orientation


def _dpi(image: ImageFile) -> tuple[float, float] | None:
    """Return the resolution if it is stated and sane; JPEG holds at most 16 bits of it."""
    try:
        if isinstance(image, JpegImageFile) and image.info.get("jfif_unit") not in (1, 2):  # inch, cm
            stated = _X_RESOLUTION in image.getexif()  # of what is missing, Pillow makes 72 dpi
        else:
            stated = True
        x, y = (float(value) for value in image.info["dpi"])
    except (ArithmeticError, LookupError, SyntaxError, TypeError, ValueError, struct.error):
        return None
    return (x, y) if stated and 0 < x < 1 << 16 and 0 < y < 1 << 16 else None


def _complaint(error: Exception, kind: str | None) -> str:
    """Turn what Python or Pillow raised into what is wrong and what to do."""
    reason = one_line(error)
    code = error.errno if isinstance(error, OSError) else None
    if code is not None or kind is None:
        remedy = {
            errno.ENOENT: "check the name",
            errno.EISDIR: "give a picture file",
            errno.EACCES: "check its permissions",
        }.get(code or 0, "give another file")
        return f"cannot be read ({reason}); {remedy}"
    if "truncated" in reason.lower():
        return f"the file ends before the picture does (truncated {kind}); get a whole copy"
    if any(hint in reason for hint in ("nsupported", "not supported", "cannot handle", "unknown pixel mode")):
        return f"a kind of {kind} that is not read ({reason}); convert it to an 8-bit PNG first"
    return f"damaged or truncated {kind} ({reason}); get an intact copy"
