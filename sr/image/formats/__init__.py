"""What each output format can hold, and the options of its encoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sr.errors import ImageError

# zlib level. Level 1 is made by `sr.image.deflate`, which has its figures. The others are Pillow's: of a
# bicubic x3 of Kodak's kodim05 (1530x1017), Pillow 13 with zlib-ng, one core, it makes at level 2: 2.16 MB
# in 0.17 s, 3: 2.10 MB in 0.22 s, 6: 2.00 MB in 0.63 s, 9: 1.96 MB in 2.2 s.
DEFAULT_PNG_LEVEL = 1

# The same picture as lossy WebP: 0.32 MB in 0.10 s.
DEFAULT_QUALITY = 95
# AV1 at 90 without chroma subsampling differs from its source by 46 dB, as JPEG does at 95
# (1401x789, libavif 1.4.2 with aom, speed 8: 0.17 MB in 0.6 s; speed 6: 0.15 MB in 2.0 s).
DEFAULT_AVIF_QUALITY = 90

_UINT32_MAX = (1 << 32) - 1


@dataclass(frozen=True)
class OutputFormat:
    """What one file format can hold."""

    name: str  # as Pillow calls it
    longest_side_px: int
    largest_px: int | None = None
    largest_bytes: int | None = None  # of uncompressed pixels, where file positions have 32 bits
    alpha: bool = True
    grey: bool = True
    deep: bool = False  # 16 bits per channel
    several: str = ""  # "frames" or "pages", where a file can hold them
    icc: bool = True
    largest_exif: int = _UINT32_MAX >> 1  # bytes, 0 if the format has none
    largest_xmp: int = _UINT32_MAX >> 1


PNG = OutputFormat("PNG", longest_side_px=(1 << 31) - 1, deep=True, several="frames")  # PNG, section 11.2.1
# libjpeg's JPEG_MAX_DIMENSION, though the format has 16 bits: Pillow 13 writes 65,500 and fails at
# 65,501. A JPEG segment has 65,533 bytes, of which XMP's name takes 29 (ISO 10918-1; XMP part 3).
JPEG = OutputFormat("JPEG", longest_side_px=65_500, alpha=False, largest_exif=65_533, largest_xmp=65_504)
WEBP = OutputFormat("WEBP", longest_side_px=16_383, grey=False, several="frames")  # RFC 9649, section 2.6
# What libavif decodes unless told otherwise (avif.h, AVIF_DEFAULT_IMAGE_DIMENSION_LIMIT and _SIZE_LIMIT).
AVIF = OutputFormat("AVIF", longest_side_px=32_768, largest_px=16_384 * 16_384, several="frames")
TIFF = OutputFormat(
    "TIFF",
    longest_side_px=_UINT32_MAX >> 1,
    largest_bytes=_UINT32_MAX - (1 << 24),
    deep=True,
    several="pages",
)
BMP = OutputFormat(
    "BMP",
    longest_side_px=_UINT32_MAX >> 1,
    largest_bytes=_UINT32_MAX - (1 << 24),
    alpha=False,
    icc=False,
    largest_exif=0,
    largest_xmp=0,
)
GIF = OutputFormat(
    "GIF", longest_side_px=65_535, several="frames", icc=False, largest_exif=0, largest_xmp=0
)  # GIF89a, section 18
OUTPUT_FORMATS: Mapping[str, OutputFormat] = {
    ".png": PNG,
    ".jpg": JPEG,
    ".jpeg": JPEG,
    ".webp": WEBP,
    ".avif": AVIF,
    ".tif": TIFF,
    ".tiff": TIFF,
    ".bmp": BMP,
    ".gif": GIF,
}

TIFF_COMPRESSIONS: Mapping[str, str | None] = {
    "lzw": "tiff_lzw",
    "deflate": "tiff_adobe_deflate",
    "none": None,
}
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


@dataclass(frozen=True)
class WriteOptions:
    """How pictures are encoded; each format takes what concerns it."""

    png_level: int = DEFAULT_PNG_LEVEL  # 0 (fast) to 9 (small)
    jpeg_quality: int = DEFAULT_QUALITY  # 0 to 100
    webp_lossless: bool = True
    webp_quality: int = DEFAULT_QUALITY  # 0 to 100, if not lossless
    avif_quality: int = DEFAULT_AVIF_QUALITY  # 0 to 100
    subsampling: str = "4:4:4"  # of the chroma in JPEG and AVIF, one of SUBSAMPLINGS
    tiff_compression: str | None = "tiff_lzw"  # or "tiff_adobe_deflate", or None


# Option of the command line -> the formats that it concerns.
_CONCERNS: Mapping[str, tuple[OutputFormat, ...]] = {
    "png_level": (PNG,),
    "quality": (JPEG, WEBP, AVIF),
    "subsampling": (JPEG, AVIF),
    "lossless": (WEBP,),
    "tiff_compression": (TIFF,),
}


def refuse_unconcerned(suffixes: Iterable[str], **given: Any) -> None:
    """Refuse options that concern none of the outputs.

    Args:
        suffixes: of the outputs, e.g. ".webp".
        given: as in `write_options`.

    Raises:
        ImageError: there is such an option; the message names it and the formats.
    """
    kinds = {OUTPUT_FORMATS.get(suffix.lower()) for suffix in suffixes}
    for name, value in given.items():
        if value is not None and kinds and None not in kinds and kinds.isdisjoint(_CONCERNS[name]):
            flag, names = name.replace("_", "-"), " and ".join(known.name for known in _CONCERNS[name])
            written = " and ".join(sorted(kind.name for kind in kinds if kind is not None))
            raise ImageError(f"--{flag} concerns {names}, but the output is {written}; leave it out")


def write_options(*suffixes: str, **given: Any) -> WriteOptions:
    """Make options from what the user gave; None is not given.

    Args:
        suffixes: of the outputs, if they are known.
        given: `png_level`, `quality`, `subsampling`, `lossless`, `tiff_compression` ("lzw", ...).

    Raises:
        ImageError: an option contradicts another, or concerns none of the outputs.
    """
    refuse_unconcerned(suffixes, **given)
    given = {name: value for name, value in given.items() if value is not None}
    if given.get("lossless") and "quality" in given:
        raise ImageError("--lossless and --quality contradict each other; leave one out")
    options = WriteOptions()
    if "quality" in given:
        quality = given["quality"]
        options = replace(options, jpeg_quality=quality, webp_quality=quality, avif_quality=quality)
    if "tiff_compression" in given:
        options = replace(options, tiff_compression=TIFF_COMPRESSIONS[given["tiff_compression"]])
    same = {name: given[name] for name in ("png_level", "subsampling") if name in given}
    return replace(options, webp_lossless=given.get("lossless", "quality" not in given), **same)


def fitting_format(
    path: Path, name: str, *, height: int, width: int, alpha: bool, deep: bool = False, several: str = ""
) -> OutputFormat:
    """Return the format that the suffix names if such a picture fits into it.

    Args:
        path: of the output.
        name: the path as it is to be printed.
        height: rows.
        width: columns.
        alpha: whether any pixel is not opaque.
        deep: whether there are 16 bits per channel, which are reduced where the format has 8.
        several: "frames" or "pages" if there are several, else empty.

    Raises:
        ImageError: the format is unknown, or holds no such picture.
    """
    suffix = path.suffix.lower()
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
    if kind.largest_px is not None and height * width > kind.largest_px:
        raise ImageError(
            f"{name}: {width}x{height} is too large, {kind.name} has at most {kind.largest_px:,} pixels; "
            "use .png or .tif"
        )
    size = height * width * (4 if alpha else 3) * (2 if deep else 1)
    if kind.largest_bytes is not None and size > kind.largest_bytes:
        raise ImageError(
            f"{name}: {width}x{height} is too large, {size:,} bytes do not fit into a {kind.name} file "
            "of 4 GiB; use .png"
        )
    if alpha and not kind.alpha:
        raise ImageError(f"{name}: {kind.name} cannot hold transparency; use .png, .webp, .avif or .tif")
    if several and kind.several != several:
        others = ".tif" if several == "pages" else ".png, .webp, .avif or .gif"
        raise ImageError(f"{name}: {kind.name} cannot hold several {several}; use {others}")
    return kind
