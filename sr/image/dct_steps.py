"""The quality of the JPEG from which pixels come, told by the steps in their DCT coefficients.

The coefficients of a decoded JPEG are multiples of its quantisation table, but for the rounding of pixels.
So each of libjpeg's tables has a likelihood (after Fan and de Queiroz, IEEE Trans. Image Processing 12(2),
2003); tables of others are taken as the most likely of libjpeg's. What the thresholds were chosen by is in
benchmarks/README.md, "Pictures that were JPEGs".
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sr.image.block_dct import SIDE, block_dct
from sr.image.jpeg_tables import LUMA_TABLES, QUALITIES

_FEWEST = 3  # blocks along a side; fewer do not tell
_MOST_BLOCKS = 4096  # that are looked at
_FEWEST_UNCLIPPED = 16  # blocks; with fewer, clipped ones are looked at too
_LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # of JFIF

_BIN, _BINS = 0.25, 640  # width of the bins into which coefficients are counted, and their number
_FIRST_BIN = 6  # smaller coefficients may be rounding alone
_ROUNDING = 0.4  # deviation of a coefficient by the rounding of pixels
_ASTRAY = 0.05  # share of coefficients that keep to no step

# Logarithms of likelihoods against no steps. Clean photographs and drawings have at most 0.
_LEAST, _LEAST_EACH = 20.0, 0.05


def stepped_quality(pixels: NDArray, corners: Iterable[tuple[int, int]]) -> float | None:
    """Return the quality of the JPEG from which a picture comes; None if its coefficients have no steps.

    Args:
        pixels: uint8 or uint16, (H, W) or (H, W, 3).
        corners: top and left, in px, at which the first block may begin.
    """
    if min(pixels.shape[:2]) < _FEWEST * SIDE:
        return None
    best, quality = _LEAST, None
    for top, left in dict.fromkeys(corners):
        counts = _counts(pixels[top:, left:])
        used = counts.any(0)
        likelihoods = np.einsum("fb,bs->fs", counts[:, used], _likelihoods()[used])  # (64, 255)
        # A picture that was turned by 90 degrees has the table of the other direction.
        of_tables = likelihoods[np.arange(64), _tables() - 1].sum(1)  # (200,)
        most = int(of_tables.argmax())
        if of_tables[most] > max(best, _LEAST_EACH * counts.sum()):
            best, quality = float(of_tables[most]), float(QUALITIES[most % len(QUALITIES)])
    return quality


def _counts(pixels: NDArray) -> NDArray[np.float32]:
    """Return how many coefficients of each frequency are in each bin, (64, bins); equal blocks count once."""
    coefficients = np.abs(block_dct(_blocks(pixels)))
    bins = np.minimum((coefficients / _BIN).astype(np.int64), _BINS - 1)
    bins[:, 0] = 0  # the mean
    bins = bins[np.unique(bins @ _hash(), return_index=True)[1]]
    places = (bins + np.arange(64) * _BINS).ravel()
    counts = np.bincount(places, minlength=64 * _BINS).reshape(64, _BINS).astype(np.float32)
    counts[:, :_FIRST_BIN] = counts[:, -1] = 0
    return counts


def _blocks(pixels: NDArray) -> NDArray[np.float32]:
    """Return the luma of blocks, (N, 8, 8), in levels of 255, without clipped pixels if enough have none."""
    down, across = (side // SIDE for side in pixels.shape[:2])
    whole = pixels[: down * SIDE, : across * SIDE].reshape(down, SIDE, across, SIDE, -1)
    blocks = whole.swapaxes(1, 2).reshape(down * across, SIDE, SIDE, whole.shape[-1])
    blocks = blocks[:: -(-len(blocks) // _MOST_BLOCKS)]
    largest = np.iinfo(pixels.dtype).max
    unclipped = ((blocks > 0) & (blocks < largest)).all((1, 2, 3))
    if np.count_nonzero(unclipped) >= _FEWEST_UNCLIPPED:
        blocks = blocks[unclipped]
    levels = blocks * np.float32(255 / largest)
    return levels[..., 0] if levels.shape[-1] == 1 else np.einsum("nyxc,c->nyx", levels, _LUMA_WEIGHTS)


@cache
def _tables() -> NDArray[np.int64]:
    """Return libjpeg's tables and the same turned, (200, 64)."""
    turned = LUMA_TABLES.reshape(-1, SIDE, SIDE).swapaxes(1, 2).reshape(-1, 64)
    return np.concatenate([LUMA_TABLES, turned])


@cache
def _likelihoods() -> NDArray[np.float32]:
    """Return the logarithm of each bin's likelihood under each step, 1 to 255, against none: (bins, 255)."""
    centre = (np.arange(_BINS)[:, None] + 0.5) * _BIN
    step = np.arange(1, 256)
    variance = _ROUNDING**2 + _BIN**2 / 12
    off = centre - step * np.round(centre / step)
    near = np.exp(-(off**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    return np.log(_ASTRAY + (1 - _ASTRAY) * step * near).astype(np.float32)


@cache
def _hash() -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(-(2**50), 2**50, 64)
