"""Picture file <-> array: the interface.

Owns what a picture is, what each output format can hold, and encoding. Decoding is
`sr.image_decode`'s, what happens to EXIF, XMP and ICC data `sr.image_metadata`'s.
"""

from __future__ import annotations

import errno
import io
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sr.errors import ImageError
from sr.files import atomic_write
from sr.image_alpha import bleed_under_transparency, within_neighbours
from sr.image_decode import decode, one_line, printable
from sr.image_metadata import Metadata, add_to_tiff, is_grey_profile, resized_exif

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "OUTPUT_FORMATS",
    "PICTURE_SUFFIXES",
    "Metadata",
    "OutputFormat",
    "Picture",
    "WriteOptions",
    "bleed_under_transparency",
    "check_output",
    "read_picture",
    "within_neighbours",
    "write_picture",
]

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"})

# The largest stills that a camera makes are the pixel shift composites of 100 megapixel sensors
# (23,296 x 17,472 = 407 million). Decoding takes 4 bytes per pixel in Pillow and 3 in the array, so
# 3.2 GB here, whereas 50 bytes of a hostile header can ask for 4 billion pixels.
DEFAULT_MAX_PIXELS = 450_000_000

# zlib level. A bicubic x3 of Kodak's kodim05 (1530x1017), Pillow 13 with zlib-ng, one core:
# level 1: 2.20 MB in 0.17 s, 2: 2.16 MB in 0.17 s, 3: 2.10 MB in 0.22 s, 6: 2.00 MB in 0.63 s, 9: 1.96 MB
# in 2.2 s. Choosing the row filters alone is 0.11 s. Run-length coding (zlib strategy 3) makes
# 2.12 MB in 0.16 s, but 30 times the size where a texture repeats.
DEFAULT_PNG_LEVEL = 1

# The same picture as lossless WebP: method 0 at effort 0: 1.68 MB in 0.11 s, method 4 at 0: 1.28 MB in
# 0.35 s, method 4 at 80, which Pillow takes: 1.27 MB in 1.4 s. Lossy at quality 95: method 2: 0.32 MB
# in 0.10 s, method 4: the same size in 0.21 s.
_WEBP_LOSSLESS = {"lossless": True, "exact": True, "method": 0, "quality": 0}
_WEBP_LOSSY_METHOD = 2

# The same picture as TIFF: uncompressed 4.67 MB, LZW with differences 2.47 MB in 0.08 s (5.09 MB without),
# deflate with differences 2.29 MB in 0.36 s.
_TIFF_PREDICTOR, _DIFFERENCES = 317, 2
# libtiff's result is held in memory before it is written, and its size is not known beforehand.
_LARGEST_COMPRESSED_TIFF = 1 << 30

_UINT32_MAX = (1 << 32) - 1


@dataclass(frozen=True)
class OutputFormat:
    """What one file format can hold."""

    name: str  # as Pillow calls it
    longest_side_px: int
    largest_bytes: int | None = None  # of uncompressed pixels, where file positions have 32 bits
    alpha: bool = True
    grey: bool = True
    icc: bool = True
    largest_exif: int = _UINT32_MAX >> 1  # bytes, 0 if the format has none
    largest_xmp: int = _UINT32_MAX >> 1


_PNG = OutputFormat("PNG", longest_side_px=(1 << 31) - 1)  # PNG specification, section 11.2.1
# libjpeg's JPEG_MAX_DIMENSION, though the format has 16 bits: Pillow 13 writes 65,500 and fails at
# 65,501. A JPEG segment has 65,533 bytes, of which XMP's name takes 29 (ISO 10918-1; XMP part 3).
_JPEG = OutputFormat("JPEG", longest_side_px=65_500, alpha=False, largest_exif=65_533, largest_xmp=65_504)
_WEBP = OutputFormat("WEBP", longest_side_px=16_383, grey=False)  # RFC 9649, section 2.6
_TIFF = OutputFormat("TIFF", longest_side_px=_UINT32_MAX >> 1, largest_bytes=_UINT32_MAX - (1 << 24))
_BMP = OutputFormat(
    "BMP",
    longest_side_px=_UINT32_MAX >> 1,
    largest_bytes=_UINT32_MAX - (1 << 24),
    alpha=False,
    icc=False,
    largest_exif=0,
    largest_xmp=0,
)
OUTPUT_FORMATS: Mapping[str, OutputFormat] = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _WEBP,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": _BMP,
}


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture the right way up. Arrays may be read-only."""

    pixels: NDArray[np.uint8]  # (H, W, 3) RGB or (H, W) grey
    alpha: NDArray[np.uint8] | None = None  # (H, W), 0 is transparent; not premultiplied
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])

    @property
    def grey(self) -> bool:
        """Whether there is one channel."""
        return self.pixels.ndim == 2

    @property
    def transparent(self) -> bool:
        """Whether any pixel is not opaque; what `check_output` wants to know as `alpha`."""
        return self.alpha is not None and bool((self.alpha < 255).any())


@dataclass(frozen=True)
class WriteOptions:
    """How pictures are encoded; each format takes what concerns it."""

    png_level: int = DEFAULT_PNG_LEVEL  # 0 (fast) to 9 (small)
    jpeg_quality: int = 95  # 0 to 100, never with chroma subsampling
    webp_lossless: bool = True
    webp_quality: int = 95  # 0 to 100, if not lossless
    tiff_compression: str | None = "tiff_lzw"  # or "tiff_adobe_deflate", or None


class _CheckedFile(io.BufferedRandom):
    """A file whose descriptor Pillow cannot reach, so that every write goes through Python.

    Pillow's C code takes a short write for success, so a full disk could cut a file unnoticed.
    """

    def fileno(self) -> int:
        """Refuse."""
        raise io.UnsupportedOperation("Pillow is to write through Python")


def read_picture(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
    """Read a picture: upright, 8 bits per channel, RGB or grey; the content decides on the format.

    The orientation is that of the EXIF data, or else that of the XMP data. Of a JPEG with further
    pictures behind it (MPO) the first is read.

    Args:
        path: PNG, JPEG, WebP, TIFF, BMP or GIF with one frame.
        max_pixels: a picture with more is refused before it is decoded.

    Raises:
        ImageError: the file is missing, damaged or no picture, or holds what would have to be
            reduced: more than 8 bits, CMYK or Lab colour, several frames, channels without meaning.
    """
    pixels, alpha, metadata = decode(path, max_pixels=max_pixels)
    return Picture(pixels, alpha, metadata)


def write_picture(path: Path, picture: Picture, *, options: WriteOptions | None = None) -> None:
    """Write a picture whole or not at all; the suffix decides on the format.

    Metadata is kept where the format can hold it: WebP has no grey profile, BMP only the resolution,
    JPEG no EXIF or XMP data above 64 KB. Grey pixels with an RGB profile are written as RGB.

    Raises:
        ImageError: as `check_output`, or the file cannot be written.
    """
    kind = _checked_format(path, height=picture.height, width=picture.width, alpha=picture.transparent)
    options = options or WriteOptions()
    arguments, exif, xmp = _save_arguments(kind, picture, options)
    try:
        with atomic_write(path) as temporary, _CheckedFile(io.FileIO(temporary, "w+")) as file:
            _pillow_image(picture, kind).save(file, kind.name, **arguments)
            if kind is _TIFF:
                add_to_tiff(file, exif=exif, xmp=xmp)
    except (OSError, ValueError, OverflowError, MemoryError, RuntimeError, struct.error) as error:
        code = error.errno if isinstance(error, OSError) else None
        remedy = {
            errno.ENOENT: "create the folder first",
            errno.ENOSPC: "free some space or choose another folder",
            errno.EFBIG: "choose another folder or a smaller picture",
            errno.ENAMETOOLONG: "choose a shorter name",
        }.get(code or 0, "choose another folder or format")
        raise ImageError(f"{printable(path)}: cannot be written ({one_line(error)}); {remedy}") from error


def check_output(path: Path, *, height: int, width: int, alpha: bool) -> None:
    """Check, before the work starts, that a picture of this size could be written to `path`.

    Args:
        path: its folder may be missing if it can be created.
        height: rows of the result.
        width: columns of the result.
        alpha: whether the result has pixels that are not opaque.

    Raises:
        ImageError: the format is unknown, too small for the picture or has no transparency, or the
            folder cannot be written.
    """
    _checked_format(path, height=height, width=width, alpha=alpha)
    name = printable(path)
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
        raise ImageError(f"{name}: cannot be written ({one_line(error)}); choose another folder") from error
    if not writable:
        raise ImageError(f"{name}: the folder {printable(folder)} cannot be written; choose another folder")


def _checked_format(path: Path, *, height: int, width: int, alpha: bool) -> OutputFormat:
    """Return the format that the suffix names if a picture like this fits into it."""
    name, suffix = printable(path), path.suffix.lower()
    kind = OUTPUT_FORMATS.get(suffix)
    if kind is None:
        known = " ".join(OUTPUT_FORMATS)
        raise ImageError(
            f"{name}: no format that can be written has the suffix {suffix!r}; use one of {known}"
        )
    if max(height, width) > kind.longest_side_px:
        raise ImageError(
            f"{name}: {width}x{height} is too large, {kind.name} has at most {kind.longest_side_px:,} pixels "
            "a side; use .png or .tif"
        )
    size = height * width * (4 if alpha else 3)
    if kind.largest_bytes is not None and size > kind.largest_bytes:
        raise ImageError(
            f"{name}: {width}x{height} is too large, {size:,} bytes do not fit into a {kind.name} file "
            "of 4 GiB; use .png"
        )
    if alpha and not kind.alpha:
        raise ImageError(f"{name}: {kind.name} cannot hold transparency; use .png, .webp or .tif")
    return kind


def _pillow_image(picture: Picture, kind: OutputFormat) -> Image.Image:
    """Wrap the arrays as the image to be saved."""
    pixels, profile = picture.pixels, picture.metadata.icc_profile
    if picture.grey and kind.icc and profile is not None and not is_grey_profile(profile):
        pixels = np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
    if picture.alpha is not None and kind.alpha:
        pixels = np.dstack((pixels, picture.alpha))
    return Image.fromarray(pixels)


def _save_arguments(
    kind: OutputFormat, picture: Picture, options: WriteOptions
) -> tuple[dict[str, Any], bytes | None, bytes | None]:
    """Return Pillow's arguments; and the EXIF and XMP data that fit, which for TIFF are added after."""
    metadata = picture.metadata
    exif, xmp = metadata.exif or b"", metadata.xmp or b""
    exif = exif if len(exif) <= kind.largest_exif else b""
    xmp = xmp if len(xmp) <= kind.largest_xmp else b""
    exif = exif and resized_exif(exif, height=picture.height, width=picture.width)
    arguments: dict[str, Any] = {} if metadata.dpi is None else {"dpi": metadata.dpi}
    profile = metadata.icc_profile
    if profile is not None and kind.icc and (kind.grey or not is_grey_profile(profile)):
        arguments["icc_profile"] = profile
    if kind is _PNG:
        text = PngInfo()
        if xmp:
            text.add_itxt("XML:com.adobe.xmp", xmp)
        arguments |= {"compress_level": options.png_level, "exif": exif, "pnginfo": text}
    elif kind is _JPEG:
        arguments |= {"quality": options.jpeg_quality, "subsampling": 0, "exif": exif, "xmp": xmp}
    elif kind is _WEBP:
        lossy = {"quality": options.webp_quality, "method": _WEBP_LOSSY_METHOD}
        arguments |= {**(_WEBP_LOSSLESS if options.webp_lossless else lossy), "exif": exif, "xmp": xmp}
    elif kind is _TIFF and options.tiff_compression and picture.pixels.nbytes <= _LARGEST_COMPRESSED_TIFF:
        arguments |= {"compression": options.tiff_compression, "tiffinfo": {_TIFF_PREDICTOR: _DIFFERENCES}}
    return arguments, exif, xmp
