"""Bicubic resizing that equals MATLAB's `imresize(image, scale, 'bicubic')`.

Owns the degradation that super-resolution is trained and measured with: Keys' cubic kernel with
a = -0.5, antialiased when shrinking, symmetric borders, height before width, and for uint8 images
a rounding after each of the two passes.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from sr.errors import ImageError


def bicubic_resize(image: NDArray, *, scale: float | Fraction) -> NDArray:
    """Resize an image by `scale`, to ceil(scale * H) by ceil(scale * W), as MATLAB does.

    Args:
        image: (H, W) or (H, W, C). uint8 is rounded after each pass and stays uint8; floating
            point images keep their dtype and are neither rounded nor clipped.
        scale: factor, > 0. Use a `Fraction` for factors such as 1/3.

    Raises:
        ImageError: the image is empty, has another dtype, or the scale is not positive.
    """
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ImageError(f"cannot resize an array of shape {image.shape}, need (H, W) or (H, W, C)")
    if image.dtype != np.uint8 and image.dtype.kind != "f":
        raise ImageError(f"cannot resize an array of dtype {image.dtype}, need uint8 or floating point")
    if not scale > 0:
        raise ImageError(f"cannot resize by {scale}, need a positive factor")
    rows = _resize_axis(image, axis=0, scale=scale)
    return _resize_axis(rows, axis=1, scale=scale)


def modulo_crop(image: NDArray, *, scale: int) -> NDArray:
    """Cut the bottom and right edge so that H and W are multiples of `scale`; returns a view."""
    height, width = (image.shape[0] // scale) * scale, (image.shape[1] // scale) * scale
    if not height or not width:
        raise ImageError(f"a {image.shape[1]}x{image.shape[0]} picture is smaller than the scale {scale}")
    return image[:height, :width]


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel, a = -0.5 (IEEE Trans. ASSP 29(6), 1981, eq. 15)."""
    near = np.abs(x)
    near2, near3 = near**2, near**3
    inner = (1.5 * near3 - 2.5 * near2 + 1) * (near <= 1)
    outer = (-0.5 * near3 + 2.5 * near2 - 4 * near + 2) * ((near > 1) & (near <= 2))
    return inner + outer


def _contributions(
    length: int, out_length: int, scale: float
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return weights and source indices, each (out_length, taps)."""
    stretch = min(scale, 1.0)  # shrinking widens the kernel: antialiasing
    kernel_width = 4.0 / stretch
    centre = np.arange(1, out_length + 1) / scale + 0.5 * (1 - 1 / scale)  # 1-based, as the original
    left = np.floor(centre - kernel_width / 2)
    taps = math.ceil(kernel_width) + 2
    indices = left[:, None] + np.arange(taps)
    weights = stretch * _cubic(stretch * (centre[:, None] - indices))
    weights /= weights.sum(axis=1, keepdims=True)
    mirror = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    sources = mirror[(indices.astype(np.intp) - 1) % (2 * length)]
    used = np.any(weights != 0, axis=0)
    return weights[:, used], sources[:, used]


def _resize_axis(image: NDArray, *, axis: int, scale: float | Fraction) -> NDArray:
    length = image.shape[axis]
    out_length = math.ceil(scale * length)
    if scale == 1:
        return image.copy() if axis == 0 else image
    weights, sources = _contributions(length, out_length, float(scale))
    shape = [1] * image.ndim
    shape[axis] = out_length
    out_shape = list(image.shape)
    out_shape[axis] = out_length
    total = np.zeros(out_shape, np.float64)
    for tap in range(weights.shape[1]):  # at most 4 / scale + 2 taps
        total += weights[:, tap].reshape(shape) * np.take(image, sources[:, tap], axis=axis)
    if image.dtype == np.uint8:
        return np.clip(np.floor(total + 0.5), 0, 255).astype(np.uint8)
    return total.astype(image.dtype)
