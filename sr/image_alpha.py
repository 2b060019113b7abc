"""Transparency: what a network sees under it, and what it may make of it.

Files hold any colour where they are fully transparent, mostly black, which would draw a dark halo
round every cut-out. And a network rings beside the hard edges that alpha has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Float32 = NDArray[np.float32]
_Samples = NDArray[Any]  # uint8 or uint16


def within_neighbours(upscaled: _Samples, alpha: _Samples, *, scale: int) -> _Samples:
    """Clip upscaled alpha to what the 3x3 neighbourhood of each lr pixel spans.

    So what is transparent, or opaque, all around stays exactly so.

    Args:
        upscaled: uint8 or uint16, (scale*H, scale*W), contiguous.
        alpha: as `upscaled`, (H, W), what it was upscaled from.
        scale: upscaling factor.
    """
    height, width = alpha.shape
    blocks = upscaled.reshape(height, scale, width, scale)
    low = _over_neighbours(np.minimum, alpha)[:, None, :, None]
    high = _over_neighbours(np.maximum, alpha)[:, None, :, None]
    return np.clip(blocks, low, high).reshape(upscaled.shape)


def _over_neighbours(pick: np.ufunc, alpha: _Samples) -> _Samples:
    """Return the extreme of each 3x3 neighbourhood, picture borders repeated, (H, W)."""
    rows = np.pad(alpha, ((1, 1), (0, 0)), mode="edge")
    rows = pick(pick(rows[:-2], rows[1:-1]), rows[2:])
    columns = np.pad(rows, ((0, 0), (1, 1)), mode="edge")
    return pick(pick(columns[:, :-2], columns[:, 1:-1]), columns[:, 2:])


def bleed_under_transparency(pixels: _Samples, alpha: _Samples) -> _Samples:
    """Give fully transparent pixels a colour that continues the visible ones.

    Pull-push over an image pyramid (Gortler et al., "The Lumigraph", SIGGRAPH 1996, section 3.6.2),
    weighted by alpha. Needs about 12 bytes per pixel in all.

    Args:
        pixels: uint8 or uint16, (H, W, 3) or (H, W).
        alpha: as the pixels, (H, W).

    Returns:
        An array like `pixels`, equal to it wherever alpha > 0; `pixels` itself where nothing, or
        everything, is transparent.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    result = pixels.copy()
    colour = result.reshape(*alpha.shape, -1)  # (H, W, C), a view
    below = _filled(*_halved(colour, alpha))
    for rows, columns, part in _doubled(below, *alpha.shape):
        target, mask = colour[rows, columns], hidden[rows, columns, None]
        np.copyto(target, np.rint(part).astype(pixels.dtype), where=mask)
    return result


def _filled(colour: _Float32, weight: _Float32) -> _Float32:
    """Fill in the colour where the weight is 0, from coarser and coarser copies."""
    empty = weight == 0
    if not empty.any():
        return colour
    result = colour.copy()
    below = _filled(*_halved(colour, weight))
    for rows, columns, part in _doubled(below, *weight.shape):
        np.copyto(result[rows, columns], part, where=empty[rows, columns, None])
    return result


def _halved(colour: NDArray[Any], weight: NDArray[Any]) -> tuple[_Float32, _Float32]:
    """Average 2x2 blocks: (H, W, C) and (H, W) to half the size, rounded up."""
    height, width = (weight.shape[0] + 1) // 2, (weight.shape[1] + 1) // 2
    sums = np.zeros((height, width, colour.shape[2]), np.float32)
    total = np.zeros((height, width), np.float32)
    for phase in np.ndindex(2, 2):
        part = weight[phase[0] :: 2, phase[1] :: 2].astype(np.float32)
        rows, columns = part.shape
        total[:rows, :columns] += part
        sums[:rows, :columns] += colour[phase[0] :: 2, phase[1] :: 2] * part[..., None]
    sums /= np.where(total == 0, 1, total)[..., None]
    total /= 4
    return sums, total


def _doubled(colour: _Float32, height: int, width: int) -> Iterator[tuple[slice, slice, _Float32]]:
    """Interpolate bilinearly to `height` x `width`, in four parts, each with the place it belongs to."""
    for row in (0, 1):
        half = _shifted(colour, axis=0, phase=row, length=height)
        for column in (0, 1):
            part = _shifted(half, axis=1, phase=column, length=width)
            yield slice(row, None, 2), slice(column, None, 2), part


def _shifted(colour: _Float32, *, axis: int, phase: int, length: int) -> _Float32:
    """Interpolate every second position of an axis of `length`: a quarter before or after its source."""
    index = np.arange((length - phase + 1) // 2)
    beside = np.clip(index + (2 * phase - 1), 0, colour.shape[axis] - 1)
    part = colour.take(index, axis) * np.float32(0.75)
    part += colour.take(beside, axis) * np.float32(0.25)
    return part
