"""Which picture file formats there are: one `FormatSpec` each, in `FORMATS`, from which every list is made.

To add a format, write a module with its `FormatSpec` and put that into `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr.errors import ImageError
from sr.image.formats.avif import AVIF
from sr.image.formats.bmp import BMP
from sr.image.formats.gif import GIF
from sr.image.formats.jpeg import JPEG
from sr.image.formats.options import TIFF_COMPRESSIONS, WriteOptions
from sr.image.formats.png import PNG
from sr.image.formats.spec import FormatSpec
from sr.image.formats.tiff import TIFF
from sr.image.formats.webp import WEBP

if TYPE_CHECKING:
    from sr.image.picture import MultiImage

FORMATS: dict[str, FormatSpec] = {
    "PNG": PNG,
    "JPEG": JPEG,
    "WebP": WEBP,
    "AVIF": AVIF,
    "TIFF": TIFF,
    "BMP": BMP,
    "GIF": GIF,
}


_OF_ALL_FORMATS = ("depth",)  # options that concern every output


def read_suffixes() -> tuple[str, ...]:
    """Return how names of picture files that are read usually end, e.g. ".png"."""
    return tuple(suffix for spec in FORMATS.values() for suffix in spec.read_suffixes)


def write_suffixes() -> tuple[str, ...]:
    """Return how names of outputs can end."""
    return tuple(suffix for spec in FORMATS.values() for suffix in spec.write_suffixes)


def format_of_suffix(suffix: str) -> FormatSpec | None:
    """Return the format in which outputs of such names are written, None if there is none."""
    lowered = suffix.lower()
    return next((spec for spec in FORMATS.values() if lowered in spec.write_suffixes), None)


def concerned_formats(option: str) -> str:
    """Name the formats that an encoding option concerns, e.g. "JPEG, WebP and AVIF"."""
    return _listed([spec.name for spec in FORMATS.values() if option in spec.options], "and")


def refuse_unconcerned(suffixes: Iterable[str], **given: Any) -> None:
    """Refuse options that concern none of the outputs.

    Args:
        suffixes: of the outputs, e.g. ".webp".
        given: as in `write_options`.

    Raises:
        ImageError: there is such an option; the message names it and the formats.
    """
    specs = [format_of_suffix(suffix) for suffix in suffixes]
    known = [spec for spec in specs if spec is not None]
    if not known or len(known) < len(specs):
        return
    for name, value in given.items():
        if name in _OF_ALL_FORMATS:
            continue
        if value is not None and not any(name in spec.options for spec in known):
            flag, written = name.replace("_", "-"), _listed(sorted({spec.name for spec in known}), "and")
            raise ImageError(
                f"--{flag} concerns {concerned_formats(name)}, but the output is {written}; leave it out"
            )


def write_options(*suffixes: str, **given: Any) -> WriteOptions:
    """Make options from what the user gave; None is not given.

    Args:
        suffixes: of the outputs, if they are known.
        given: `png_level`, `quality`, `subsampling`, `lossless`, `tiff_compression` ("lzw", ...),
            `depth` (8).

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
    same = {name: given[name] for name in ("png_level", "subsampling", "depth") if name in given}
    return replace(options, webp_lossless=given.get("lossless", "quality" not in given), **same)


def fitting_format(
    path: Path,
    name: str,
    *,
    height: int,
    width: int,
    alpha: bool,
    sixteen_bit: bool = False,
    multi_image: MultiImage = "",
) -> FormatSpec:
    """Return the format that the suffix names if such a picture fits into it.

    Args:
        path: of the output.
        name: the path as it is to be printed.
        height: rows.
        width: columns.
        alpha: whether any pixel is not opaque.
        sixteen_bit: whether there are 16 bits per channel, which are reduced where the format has 8.
        multi_image: "frames" or "pages" if there are several, else empty.

    Raises:
        ImageError: the format is unknown, or holds no such picture.
    """
    suffix = path.suffix.lower()
    spec = format_of_suffix(suffix)
    if spec is None:
        raise ImageError(
            f"{name}: no format that can be written has the suffix {suffix!r}; "
            f"use one of {' '.join(write_suffixes())}"
        )
    _refuse_too_large(spec, name, height=height, width=width, alpha=alpha, sixteen_bit=sixteen_bit)
    if alpha and not spec.alpha:
        others = [
            other.write_suffixes[0] for other in FORMATS.values() if other.alpha and other.colours is None
        ]
        raise ImageError(f"{name}: {spec.name} cannot hold transparency; use {_listed(others, 'or')}")
    if multi_image and spec.multi_image != multi_image:
        others = [other.write_suffixes[0] for other in FORMATS.values() if other.multi_image == multi_image]
        raise ImageError(
            f"{name}: {spec.name} cannot hold several {multi_image}; use {_listed(others, 'or')}"
        )
    return spec


def _refuse_too_large(
    spec: FormatSpec, name: str, *, height: int, width: int, alpha: bool, sixteen_bit: bool
) -> None:
    size = {"height": height, "width": width, "samples": (4 if alpha else 3) * (2 if sixteen_bit else 1)}
    if limit := _exceeded_limit(spec, **size):
        fitting = [
            other.write_suffixes[0]
            for other in FORMATS.values()
            if not _exceeded_limit(other, **size) and (other.alpha or not alpha) and other.colours is None
        ]
        remedy = f"use {_listed(fitting, 'or')}" if fitting else "choose a smaller size"
        raise ImageError(f"{name}: {width}x{height} is too large, {limit}; {remedy}")


def _exceeded_limit(spec: FormatSpec, *, height: int, width: int, samples: int) -> str:
    """Return the limit of a format that a picture of so many bytes per pixel exceeds; empty if none."""
    size = height * width * samples
    if max(height, width) > spec.longest_side_px:
        return f"{spec.name} has at most {spec.longest_side_px:,} pixels a side"
    if spec.largest_px is not None and height * width > spec.largest_px:
        return f"{spec.name} has at most {spec.largest_px:,} pixels"
    if spec.largest_bytes is not None and size > spec.largest_bytes:
        return f"{size:,} bytes do not fit into a {spec.name} file of 4 GiB"
    return ""


def _listed(names: Iterable[str], conjunction: str) -> str:
    *first, last = names
    return f"{', '.join(first)} {conjunction} {last}" if first else last
