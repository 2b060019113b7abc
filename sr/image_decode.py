"""Picture file -> arrays.

Owns which picture files are read and which are refused, how Pillow's many modes become RGB or grey
with or without alpha, and the one-line errors for all that can be wrong with a file. Nothing is
reduced in silence: Pillow itself cuts 16-bit colour to 8 bits without a word.
"""

from __future__ import annotations

import errno
import struct
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from sr.errors import ImageError
from sr.image_metadata import Metadata, exif_from_tiff, fitting_icc_profile, upright_exif, upright_xmp

_STRIP_PIXELS = 1 << 20  # pixels that are converted at once, a few MiB

_READERS: Mapping[str, type[ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,  # not Pillow's factory: the previews that cameras append are no animation
    "WebP": WebPImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
}
# Pillow's mode -> the mode that is read from it. What is missing here is refused.
_MODES: Mapping[str, str] = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "P": "P",
    "PA": "PA",
    "RGB": "RGB",
    "YCbCr": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
}
# EXIF orientation -> (swap the axes, then step along the rows, and along the columns).
_TURNS: Mapping[int, tuple[bool, int, int]] = {
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}
_BITS_PER_SAMPLE, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _X_RESOLUTION = 258, 338, 339, 282  # TIFF 6.0


_Pixels = NDArray[np.uint8]


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


def decode(path: Path, *, max_pixels: int) -> tuple[_Pixels, _Pixels | None, Metadata]:
    """Read a file's pixels, uint8 (H, W, 3) or (H, W), alpha (H, W) and metadata; see `read_picture`."""
    name, kind = printable(path), None
    try:
        with path.open("rb") as file, _PILLOW_LIMITS_LIFTED:
            head = file.read(32)
            file.seek(0)
            kind = _kind(head, name)
            with _READERS[kind](file) as image:
                _refuse_unfit(image, kind, head, name, max_pixels)
                image.load()
                return _decoded(image, kind, head, file)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to decode it; free some or shrink it first") from error
    except Exception as error:  # what Pillow raises on damaged files is not limited to a few
        raise ImageError(f"{name}: {_complaint(error, kind)}") from error


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


def _kind(head: bytes, name: str) -> str:
    """Tell the format by the first bytes of the file."""
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
    readable = ", ".join(list(_READERS)[:-1])
    raise ImageError(f"{name}: not a picture in a format that is read; convert it to one of {readable}")


def _refuse_unfit(image: ImageFile, kind: str, head: bytes, name: str, max_pixels: int) -> None:
    """Refuse, before decoding, what is too large or would have to be reduced."""
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} are {width * height:,} pixels, the limit is {max_pixels:,}; "
            f"if you trust the file, allow them with --max-pixels {width * height}"
        )
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        what = "pages" if kind == "TIFF" else "frames"
        raise ImageError(f"{name}: a {kind} with {frames} {what}, need one; split it into single pictures")
    problem = _unfit_depth(image, kind, head)
    if problem is None and image.mode not in _MODES:
        problem = f"{image.mode} pixels"
    if problem is not None:
        remedy = "convert it to sRGB first" if image.mode in ("CMYK", "LAB") else "convert it first"
        raise ImageError(f"{name}: a {kind} with {problem}, need 8-bit RGB or grey; {remedy}")


def _unfit_depth(image: ImageFile, kind: str, head: bytes) -> str | None:
    """Say what of the samples would be lost. Pillow itself reduces 16-bit colour without a word."""
    if kind == "PNG" and head[24] == 16:  # bit depth; `_kind` has seen to it that IHDR comes first
        return "16 bits per channel"
    if not isinstance(image, TiffImageFile):
        return None
    bits = _tag_values(image, _BITS_PER_SAMPLE)
    if any(value > 8 for value in bits):
        return f"{max(bits)} bits per channel"
    if any(value not in (1, 4) for value in _tag_values(image, _SAMPLE_FORMAT)):  # unsigned, undefined
        return "signed or floating-point channels"
    extra = _tag_values(image, _EXTRA_SAMPLES)
    if 0 in extra or len(extra) > 1:
        return "extra channels that are neither colour nor transparency"
    return None


def _tag_values(image: TiffImageFile, tag: int) -> tuple[int, ...]:
    value = image.tag_v2.get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def _decoded(
    image: ImageFile, kind: str, head: bytes, file: BinaryIO
) -> tuple[_Pixels, _Pixels | None, Metadata]:
    """Take arrays and metadata from a loaded Pillow image and turn them upright."""
    pixels, alpha = _arrays(image, kind, head)
    metadata, orientation = _metadata(image, file, grey=pixels.ndim == 2)
    if isinstance(image, TiffImageFile):
        orientation = 1  # Pillow has applied it
    return _turned(pixels, orientation), None if alpha is None else _turned(alpha, orientation), metadata


def _arrays(image: ImageFile, kind: str, head: bytes) -> tuple[_Pixels, _Pixels | None]:
    """Convert to (H, W, 3) or (H, W), and alpha (H, W); by strips, to hold the pixels once."""
    mode = _MODES[image.mode]
    palette = _palette(image) if mode in ("P", "PA") else None  # (256, 4)
    key = _colour_key(image, mode, kind, head)
    grey = mode in ("L", "LA") or (palette is not None and bool((palette[:, :1] == palette[:, 1:3]).all()))
    has_alpha = (
        mode[-1] == "A" or key is not None or (palette is not None and bool((palette[:, 3] < 255).any()))
    )
    width, height = image.size
    pixels = np.empty((height, width) if grey else (height, width, 3), np.uint8)
    alpha = np.empty((height, width), np.uint8) if has_alpha else None
    step = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        part = image.crop((0, rows.start, width, rows.stop))
        strip = np.asarray(part if part.mode == mode else part.convert(mode))
        channels = strip.reshape(*strip.shape[:2], -1)  # (h, W, C)
        if palette is not None:
            coloured = palette[channels[..., 0]]
            opacity = coloured[..., 3] if mode == "P" else channels[..., 1]
            channels = coloured[..., :3]
        elif key is not None:
            opacity = np.where((channels == key).all(axis=-1), 0, 255)
        else:
            opacity = channels[..., -1]
        pixels[rows] = channels[..., 0] if grey else channels[..., :3]
        if alpha is not None:
            alpha[rows] = opacity
    return pixels, alpha


def _palette(image: ImageFile) -> _Pixels:
    """Return the palette as (256, 4) RGBA; missing entries are opaque black, as in Pillow."""
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 3] = 255
    colours = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
    palette[: len(colours), :3] = colours
    transparency = image.info.get("transparency")
    if isinstance(transparency, int):
        palette[transparency, 3] = 0
    elif isinstance(transparency, bytes):
        palette[: len(transparency), 3] = np.frombuffer(transparency[:256], np.uint8)
    return palette


def _colour_key(image: ImageFile, mode: str, kind: str, head: bytes) -> NDArray[np.intp] | None:
    """Return the grey value or colour that stands for transparency in an L or RGB picture, or None."""
    transparency = image.info.get("transparency")
    if mode not in ("L", "RGB") or transparency is None:
        return None
    key = np.atleast_1d(np.array(transparency, np.intp))
    if kind == "PNG" and mode == "L":
        # Pillow scales grey of fewer bits to 8 bits, but not the key that belongs to it.
        largest = (1 << head[24]) - 1
        return (key & largest) * (255 // largest)
    return key & 255  # PNG specification, section 11.3.2.1: further bits do not count


def _turned(array: _Pixels, orientation: int) -> _Pixels:
    """Apply an EXIF orientation to (H, W) or (H, W, 3)."""
    if orientation not in _TURNS:
        return array
    swap, row_step, column_step = _TURNS[orientation]
    turned = array.swapaxes(0, 1) if swap else array
    return np.ascontiguousarray(turned[::row_step, ::column_step])


def _metadata(image: ImageFile, file: BinaryIO, *, grey: bool) -> tuple[Metadata, int]:
    """Return what is kept, and the orientation that the pixels are stored in (0 if unknown)."""
    info = image.info
    exif, xmp, profile = info.get("exif"), info.get("xmp"), info.get("icc_profile")
    if isinstance(image, TiffImageFile):
        exif = exif_from_tiff(file)
    elif exif is None and "Raw profile type exif" in info:  # what ImageMagick writes into a PNG
        try:
            exif = bytes.fromhex("".join(str(info["Raw profile type exif"]).split("\n")[3:]))
        except ValueError:
            exif = None
    orientation = 0
    if isinstance(exif, bytes):
        exif, orientation = upright_exif(exif)
    if isinstance(xmp, bytes):
        xmp, xmp_orientation = upright_xmp(xmp)
        orientation = orientation or xmp_orientation
    dpi = _dpi(image)
    return Metadata(
        icc_profile=fitting_icc_profile(profile, grey=grey) if isinstance(profile, bytes) else None,
        exif=exif if isinstance(exif, bytes) else None,
        xmp=xmp if isinstance(xmp, bytes) and xmp else None,
        dpi=dpi[::-1] if dpi is not None and _TURNS.get(orientation, (False,))[0] else dpi,
    ), orientation


def _dpi(image: ImageFile) -> tuple[float, float] | None:
    """Return the resolution if it is stated and sane; JPEG holds at most 16 bits of it."""
    try:
        if isinstance(image, TiffImageFile):
            stated = _X_RESOLUTION in image.tag_v2  # of what is missing, Pillow makes 1 dpi
        elif isinstance(image, JpegImageFile) and image.info.get("jfif_unit") not in (1, 2):  # inch, cm
            stated = _X_RESOLUTION in image.getexif()  # and here 72
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
