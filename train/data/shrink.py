"""Shrinking by the filters that programs use, each centred: what they give lies where bicubic's lies."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Values of the encoded picture for each level, and back: sRGB (IEC 61966-2-1).
_LEVELS = np.arange(256) / 255
LINEAR_OF_LEVEL = np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4).astype(
    np.float32
)


def _keys(x: Array, a: float = -0.5) -> Array:
    """Keys' cubic (IEEE Trans. ASSP 29(6), 1981), that of MATLAB; also known as Catmull-Rom."""
    return np.where(
        x <= 1,
        (a + 2) * x**3 - (a + 3) * x**2 + 1,
        np.where(x < 2, a * (x**3 - 5 * x**2 + 8 * x - 4), 0.0),
    )


def _mitchell(x: Array) -> Array:
    """Return the cubic with B = C = 1/3 (Mitchell and Netravali, SIGGRAPH 1988)."""
    return np.where(
        x <= 1,
        7 * x**3 - 12 * x**2 + 16 / 3,
        np.where(x < 2, -7 / 3 * x**3 + 12 * x**2 - 20 * x + 32 / 3, 0.0),
    )


def _lanczos(x: Array) -> Array:
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


def _triangle(x: Array) -> Array:
    return np.maximum(0, 1 - x)


def _box(x: Array) -> Array:
    return (x < 0.5).astype(np.float64)


# Kernel of the distance in lr pixels, and its radius.
_KERNELS: dict[str, tuple[Callable[[Array], Array], float]] = {
    "bicubic": (_keys, 2),
    "lanczos": (_lanczos, 3),
    "area": (_box, 0.5),
    "bilinear": (_triangle, 1),
    "mitchell": (_mitchell, 2),
    "linear-light": (_keys, 2),  # bicubic of linear light, as few programs do it
}
FILTERS = tuple(_KERNELS)


@lru_cache(maxsize=512)
def taps(name: str, *, scale: int, sigma: float) -> tuple[float, ...]:
    """Return the weights of an lr pixel over hr pixels, an axis, symmetric around its centre.

    Args:
        name: one of `FILTERS`, widened by the scale against aliasing.
        sigma: of a Gaussian blur before it, in lr pixels; 0 for none.
    """
    kernel, radius = _KERNELS[name]
    reach = math.ceil(radius * scale + 4 * sigma * scale)
    # Distances from the centre of an lr pixel, which lies between two hr pixels if the scale is even.
    distance = np.arange(-reach, reach + 1) + (0.5 if scale % 2 == 0 else 0.0)
    weights = kernel(np.abs(distance) / scale)
    if sigma:
        blur = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (sigma * scale)) ** 2)
        weights = np.convolve(weights, blur / blur.sum(), mode="same")
    weights = weights[:-1] if scale % 2 == 0 else weights
    while not weights[0] and not weights[-1] and len(weights) > scale:
        weights = weights[1:-1]
    return tuple(weights / weights.sum())


def shrink(image: NDArray[np.uint8], name: str, *, scale: int, sigma: float = 0.0) -> NDArray[np.float32]:
    """Shrink uint8 (scale * H, scale * W, 3) to float32 (H, W, 3) in [0, 255], not clipped.

    Borders are mirrored, as MATLAB does. For `name` and `sigma` see `taps`.
    """
    linear = name == "linear-light"
    weights = np.asarray(taps(name, scale=scale, sigma=sigma), np.float32)
    pixels = LINEAR_OF_LEVEL[image] if linear else image.astype(np.float32)
    pixels = _along_columns(_along_rows(pixels, weights, scale), weights, scale)
    return _encoded(pixels) if linear else pixels


def _along_rows(image: NDArray[np.float32], weights: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    length, count = len(image), len(image) // scale
    before = (len(weights) - scale) // 2
    rows = np.arange(-before, length + before) % (2 * length)
    padded = image[np.minimum(rows, 2 * length - 1 - rows)]  # mirrored; several times faster than numpy.pad
    result = np.zeros((count, *image.shape[1:]), np.float32)
    for offset, weight in enumerate(weights):
        result += weight * padded[offset : offset + scale * (count - 1) + 1 : scale]
    return result


def _along_columns(
    image: NDArray[np.float32], weights: NDArray[np.float32], scale: int
) -> NDArray[np.float32]:
    return _along_rows(image.transpose(1, 0, 2), weights, scale).transpose(1, 0, 2)


def _encoded(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    clipped = np.clip(linear, 0, 1)
    return 255 * np.where(
        clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** np.float32(1 / 2.4) - 0.055
    )
