"""The noise of a picture, told by colours: texture is nearly the same in all channels, noise is not.

In patches with little texture, noise is what most frequencies share (after Chen, Zhu and Heng, ICCV 2015, who
take the directions of the patches' covariance). Noise that is the same in all channels cannot be told from
texture and is not looked for; nor is noise of few pixels, as flat parts count as free of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sr.image.block_dct import SIDE, block_dct

_MOST_PATCHES, _FEWEST_PATCHES = 16384, 128
_FEWEST_SHARE = 64  # one patch in so many must be unclipped: fewer tell little of the picture
_WEAK_SHARE = 4  # one patch in so many, those that vary least, is looked at
_OF_WEAK = 0.9  # what patches that vary least have of the noise; measured for 3 to 10 levels
_CLIPPED = 2  # levels from black and white, where noise is cut off
# Share of the mean that the smallest variance of white noise has at least; that of patterns is near 0.
_WHITE = 0.63
# Standard errors by which the smallest of 63 sample variances, one per frequency, lies below their mean.
_LOWEST = 2.4
_OPPONENT = np.array([1, -2, 1], np.float32) / np.sqrt(np.float32(6))  # of unit length: noise keeps its size


def colour_noise(pixels: NDArray) -> float:
    """Return the deviation of the noise of a picture in levels of 255; 0 for grey and very small ones.

    Args:
        pixels: uint8 or uint16, (H, W) or (H, W, 3).
    """
    if pixels.ndim == 2 or min(pixels.shape[:2]) < SIDE:
        return 0.0
    colours = _patches(pixels)
    largest = np.iinfo(pixels.dtype).max
    edge = _CLIPPED * largest // 255
    unclipped = ((colours > edge) & (colours < largest - edge)).all((1, 2))
    patches = np.einsum("ncp,c->np", colours[unclipped], _OPPONENT * np.float32(255 / largest))
    if len(patches) < max(_FEWEST_PATCHES, len(colours) // _FEWEST_SHARE):
        return 0.0
    count = len(patches) // _WEAK_SHARE
    weak = patches[np.argpartition(patches.var(1), count)[:count]]
    # Texture has the largest variances; without them the mean of the others is their median.
    variances = np.sort(block_dct(weak.reshape(-1, SIDE, SIDE))[:, 1:].var(0))
    last = np.arange(len(variances))
    means = np.cumsum(variances) / (last + 1)
    medians = (variances[last // 2] + variances[(last + 1) // 2]) / 2  # of each beginning, as the means
    alike = int(np.flatnonzero(means <= medians)[-1])
    expected = means[alike] * (1 - _LOWEST * np.sqrt(2 / count))  # of white noise, by so many patches
    white = variances[0] > _WHITE * expected
    return float(np.sqrt(means[alike])) / _OF_WEAK if white else 0.0


def _patches(pixels: NDArray) -> NDArray:
    """Return patches from all over a picture, (N, 3, px)."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (SIDE, SIDE), axis=(0, 1))
    step = max(1, round(np.sqrt(windows.shape[0] * windows.shape[1] / _MOST_PATCHES)))
    return windows[::step, ::step].reshape(-1, 3, SIDE * SIDE)
