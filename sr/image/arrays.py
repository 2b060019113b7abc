"""Pillow's many modes -> RGB or grey arrays of 8 bits, with or without alpha.

Owns palettes, colour keys and the conversion of CMYK. Works by strips, to hold the pixels once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from sr.image.picture import Pixels, Pixels8

_STRIP_PIXELS = 1 << 20  # pixels that are converted at once, a few MiB

# Pillow's mode -> the mode that is read from it. What is missing here is refused.
MODES: Mapping[str, str] = {
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
    "CMYK": "RGB",
}
# EXIF orientation -> (swap the axes, then step along the rows, and along the columns).
TURNS: Mapping[int, tuple[bool, int, int]] = {
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}

BY_PROFILE = "CMYK, converted to sRGB through its profile"
BY_COMPLEMENT = "CMYK without a usable profile, converted as R = (1 - C)(1 - K) and so on"

_Convert = Callable[[Image.Image], Image.Image]


def arrays(image: Image.Image, *, png_bits: int | None) -> tuple[Pixels8, Pixels8 | None, tuple[str, ...]]:
    """Convert to (H, W, 3) or (H, W), and alpha (H, W) or None; and say what had to change.

    Args:
        image: loaded, of a mode in `MODES`.
        png_bits: bits per channel if it is a PNG.
    """
    mode = MODES[image.mode]
    convert, notes = _converter(image, mode)
    palette = _palette(image) if mode in ("P", "PA") else None  # (256, 4)
    key = _colour_key(image, mode, png_bits)
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
        strip = np.asarray(part if part.mode == mode else convert(part))
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
    return pixels, alpha, notes


def turned(array: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation to (H, W) or (H, W, 3)."""
    if orientation not in TURNS:
        return array
    swap, row_step, column_step = TURNS[orientation]
    result = array.swapaxes(0, 1) if swap else array
    return np.ascontiguousarray(result[::row_step, ::column_step])


def _converter(image: Image.Image, mode: str) -> tuple[_Convert, tuple[str, ...]]:
    """Return how strips are converted to `mode`, and what the user should know of it."""

    def plain(part: Image.Image) -> Image.Image:
        return part.convert(mode)

    if image.mode != "CMYK":
        return plain, ()
    transform = _cmyk_transform(image.info.get("icc_profile"))
    if transform is None:
        return plain, (BY_COMPLEMENT,)  # which is what Pillow computes
    return lambda part: transform.apply(part), (BY_PROFILE,)


def _cmyk_transform(profile: object) -> ImageCms.ImageCmsTransform | None:
    """Make the transform from a CMYK profile to sRGB: relative colorimetric, black point compensated.

    This is what Adobe's programs take unless told otherwise.
    """
    if not isinstance(profile, bytes) or profile[16:20] != b"CMYK":
        return None
    try:
        return ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            "CMYK",
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError):
        return None


def _palette(image: Image.Image) -> Pixels8:
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


def _colour_key(image: Image.Image, mode: str, png_bits: int | None) -> NDArray[np.intp] | None:
    """Return the grey value or colour that stands for transparency in an L or RGB picture, or None."""
    transparency = image.info.get("transparency")
    if mode not in ("L", "RGB") or transparency is None:
        return None
    key = np.atleast_1d(np.array(transparency, np.intp))
    if png_bits is not None and mode == "L":
        # Pillow scales grey of fewer bits to 8 bits, but not the key that belongs to it.
        largest = (1 << png_bits) - 1
        return (key & largest) * (255 // largest)
    return key & 255  # PNG specification, section 11.3.2.1: further bits do not count
