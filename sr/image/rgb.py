"""Any picture as uint8 RGB, as training and measuring need it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sr.errors import ImageError, printable
from sr.image.picture import Picture, to_8_bits
from sr.image.read import read_picture

_BAND_PIXELS = 1 << 20  # are composited at once: a few MiB


def read_rgb(
    path: Path, *, background: int | None = None, max_pixels: int = sys.maxsize
) -> NDArray[np.uint8]:
    """Read a picture as `srup upscale` does, and reduce it to uint8 RGB (H, W, 3), upright.

    16 bits per channel are rounded to 8, grey becomes three equal channels, and no size is too large
    unless `max_pixels` says so. Pixels that are not opaque are refused, because no network sees them as
    they are stored.

    Args:
        path: of any format that is read.
        background: grey level, 0 to 255, on which pixels that are not opaque are laid in place of
            refusing them.
        max_pixels: a picture with more is refused before it is decoded.

    Raises:
        ImageError: it cannot be read, holds several pictures, or has transparent pixels.
        MissingExtraError: it has 16 bits per channel and pyvips is not installed.
    """
    picture = read_picture(path, max_pixels=max_pixels)
    if not picture.transparent:
        return _rgb(picture)
    if background is None:
        raise ImageError(
            f"{printable(path)}: has transparent pixels, need opaque ones; lay it on a background first"
        )
    return _composited(picture, background)


def _rgb(picture: Picture) -> NDArray[np.uint8]:
    pixels = to_8_bits(picture.pixels)
    return np.dstack([pixels] * 3) if picture.grey else pixels


def _composited(picture: Picture, background: int) -> NDArray[np.uint8]:
    """Lay a picture with alpha on a background, rounded to the nearest level."""
    assert picture.alpha is not None
    result, alpha = _rgb(picture).copy(), to_8_bits(picture.alpha)
    step = max(1, _BAND_PIXELS // picture.width)
    for top in range(0, picture.height, step):
        rows = slice(top, top + step)
        opacity = alpha[rows, :, None].astype(np.uint32)  # (h, W, 1)
        mixed = result[rows] * opacity + background * (255 - opacity)
        result[rows] = (mixed + 127) // 255
    return result
