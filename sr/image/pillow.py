"""Files that Pillow decodes: pixels, metadata, and its process-wide limits."""

from __future__ import annotations

import ctypes
import logging
import struct
import threading
import warnings
from dataclasses import replace

from PIL import Image, PngImagePlugin, _imaging
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from sr.image.arrays import MODES, arrays
from sr.image.keeping import COMMENT
from sr.image.metadata import Metadata
from sr.image.picture import Frame, Picture
from sr.image.source import Header, OpenedFile, Source, upright

_CHANNELS = {"L": 1, "LA": 2, "P": 3, "PA": 4, "RGB": 3, "RGBA": 4}
_X_RESOLUTION = 282
_MOST_TEXT_BYTES = 64 * 2**20  # of a profile or text in a PNG, decompressed; Pillow's own limit is 1 MiB
_LIBTIFF_HANDLERS = ("TIFFSetErrorHandler", "TIFFSetWarningHandler")
_IPTC_RESOURCE = 0x0404  # of the Photoshop segment of a JPEG


def _set_libtiff_handlers(handlers: dict[str, int | None]) -> dict[str, int | None]:
    """Set what libtiff inside Pillow calls with its messages, by default stderr; return what it was.

    Where its functions cannot be reached, as on Windows, nothing is set.
    """
    try:
        library = ctypes.CDLL(_imaging.__file__)
        found: dict[str, int | None] = {}
        for name, handler in handlers.items():
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            found[name] = setter(handler)
    except (OSError, AttributeError):
        return {}
    return found


class _PillowLimits:
    """Lifts Pillow's own limits and hushes its warnings, and those of libtiff, while any thread reads.

    All are process-wide, so they are put back when the last of the threads has finished: if each
    put back what it found, they would stay off for good when two overlap.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._limits: tuple[int | None, int] = (None, 0)
        self._warnings = warnings.catch_warnings()
        self._handlers: dict[str, int | None] = {}

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
                Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, _MOST_TEXT_BYTES
                self._handlers = _set_libtiff_handlers(dict.fromkeys(_LIBTIFF_HANDLERS))
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                self._warnings.__exit__(None, None, None)
                Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = self._limits
                _set_libtiff_handlers(self._handlers)


PILLOW_LIMITS_LIFTED = _PillowLimits()
logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it logs comes as an exception, too


class PillowSource(Source):
    """A file that one of Pillow's plugins reads."""

    def __init__(
        self,
        opened: OpenedFile,
        plugin: type[ImageFile],
        *,
        notes: tuple[str, ...] = (),
        rows_problem: str | None = None,
    ) -> None:
        """Read the header.

        Args:
            opened: the file.
            plugin: of Pillow.
            notes: about reductions that are already known.
            rows_problem: why its rows cannot be read one after the other, empty if they can; its format by
                default.

        Raises:
            ImageError: it has too many pixels, is damaged, or of a variant that is not supported.
        """
        super().__init__(opened)
        self._notes = notes
        self._rows_problem = f"a {self.format}" if rows_problem is None else rows_problem
        self._plugin = plugin
        self.reopen()
        self.refuse_large(self._image.height, self._image.width)
        with self.decoding():
            self._frames = int(getattr(self._image, "n_frames", 1))
            # An APNG may begin with a picture for programs that do not animate.
            self._first = int(self._frames > 1 and bool(self._image.info.get("default_image")))
            self.plays = int(self._image.info.get("loop", 0))

    def reopen(self) -> None:
        """Read the header anew and forget decoded pixels."""
        self._file.seek(0)
        with self.decoding():
            self._image = self._plugin(self._file)

    def close(self) -> None:
        """Free the image."""
        self._image.close()

    @property
    def count(self) -> int:
        """How many pictures there are."""
        return self._frames - self._first

    def size(self) -> tuple[int, int]:
        """Return rows and columns as stored."""
        return self._image.height, self._image.width

    def frame(self, index: int) -> Frame:
        """Decode one picture."""
        image = self._image
        if self._frames > 1:
            with self.decoding():
                image.seek(index + self._first)
        self.refuse_mode(image.mode)
        with self.decoding():
            image.load()
        metadata = self.stored_metadata()
        pixels, alpha, notes = arrays(image, png_bits=self.png_bits)
        picture = Picture(pixels, alpha, metadata, self._notes + notes)
        if self._frames > 1 and not picture.transparent:  # decoders of animations add it in any case
            picture = replace(picture, alpha=None)
        return Frame(upright(self.shown(picture), turn=True), float(image.info.get("duration") or 0))

    def shown(self, picture: Picture) -> Picture:
        """Return the part of the stored pixels that is the picture: all."""
        return picture

    def header(self) -> Header:
        """Describe the first picture."""
        image = self._image
        self.refuse_mode(image.mode)
        mode, problem = MODES[image.mode], self._rows_problem
        if mode in ("P", "PA") or image.mode == "CMYK":
            problem = f"of {image.mode} pixels"
        return Header(
            self.format,
            self.count,
            *self.size(),
            channels=_CHANNELS[mode] + (mode in ("L", "RGB") and "transparency" in image.info),
            sixteen_bit=False,
            metadata=self.stored_metadata(),
            notes=self._notes,
            problem=problem,
        )

    @property
    def png_bits(self) -> int | None:
        """Bits per channel if it is a PNG."""
        return None

    def stored_metadata(self) -> Metadata:
        """Return what stands beside the pixels, as stored."""
        return stored_metadata(self._image)

    def refuse_mode(self, mode: str) -> None:
        """Refuse pixels of a kind that cannot be kept.

        Raises:
            ImageError: they are.
        """
        if mode not in MODES:
            self.refuse(f"{mode} pixels", "convert it to sRGB first" if mode == "LAB" else "convert it first")


def stored_metadata(image: ImageFile) -> Metadata:
    """Return what Pillow found beside the pixels."""
    info = image.info
    resources = info.get("photoshop")
    return Metadata(
        icc_profile=_bytes(info.get("icc_profile")),
        exif=_bytes(info.get("exif")),
        xmp=_bytes(info.get("xmp")),
        dpi=_dpi(image),
        iptc=_bytes(resources.get(_IPTC_RESOURCE)) if isinstance(resources, dict) else None,
        aspect=_aspect(image),
        text=comment_text(info.get("comment")),
    )


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) and value else None


def comment_text(value: object) -> tuple[tuple[str, str], ...]:
    """Return the comment of a GIF or a JPEG, of whatever encoding, as a text."""
    if not isinstance(value, bytes) or not value.strip(b"\0 "):
        return ()
    try:
        return ((COMMENT, value.decode("utf-8")),)
    except UnicodeDecodeError:
        return ((COMMENT, value.decode("latin-1")),)


def _aspect(image: ImageFile) -> tuple[float, float] | None:
    """Return the density of pixels along x and y without a unit, if they are not square."""
    info = image.info
    stated = info.get("jfif_density") if info.get("jfif_unit") == 0 else info.get("aspect")
    try:
        x, y = (float(value) for value in stated or ())
    except (TypeError, ValueError):
        return None
    return (x, y) if x > 0 and y > 0 and x != y else None


def _dpi(image: ImageFile) -> tuple[float, float] | None:
    """Return the resolution if it is stated and sane; JPEG holds at most 16 bits of it."""
    try:
        if isinstance(image, JpegImageFile) and image.info.get("jfif_unit") not in (1, 2):  # inch, cm
            stated = _X_RESOLUTION in image.getexif()  # if it is missing, Pillow makes up 72 dpi
        else:
            stated = True
        x, y = (float(value) for value in image.info["dpi"])
    except (ArithmeticError, LookupError, SyntaxError, TypeError, ValueError, struct.error):
        return None
    return (x, y) if stated and 0 < x < 1 << 16 and 0 < y < 1 << 16 else None
