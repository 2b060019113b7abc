"""Parity: how far two ways of upscaling the same picture are apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sr.metrics import psnr

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Difference:
    """How two uint8 images differ.

    Attributes:
        max_levels: largest difference of a value, in levels of 255.
        share: of values that differ at all, in [0, 1].
        psnr: dB, of one against the other; inf if equal.
    """

    max_levels: int
    share: float
    psnr: float


def difference(first: Image, second: Image) -> Difference:
    """Compare two uint8 arrays of the same shape.

    Raises:
        ImageError: the shapes differ.
    """
    ratio = psnr(first, second)
    levels = np.abs(first.astype(np.int16) - second.astype(np.int16))
    return Difference(int(levels.max()), float(np.count_nonzero(levels) / levels.size), ratio)


# The tiling contract: tiled output equals whole-picture output but for float kernels that round
# differently for different shapes.
MAX_TILING_LEVELS, MAX_TILING_SHARE = 1, 1e-4


def tiles_match(found: Difference) -> bool:
    """Say whether a tiled output meets the contract against the whole-picture output."""
    return found.max_levels <= MAX_TILING_LEVELS and found.share <= MAX_TILING_SHARE


def smallest_halo(mismatch: Callable[[int], Difference], *, radius: int) -> int:
    """Return the smallest halo with which tiles match the whole picture.

    Args:
        mismatch: of the tiled output with a given halo (lr pixels) against the whole-picture output.
        radius: receptive-field radius, with which tiles match by construction: the upper bound.

    The difference falls as the halo grows, so the search bisects.
    """
    low, high = 1, radius
    while low < high:
        middle = (low + high) // 2
        if tiles_match(mismatch(middle)):
            high = middle
        else:
            low = middle + 1
    return low
