"""Parity: how much the outputs of two backends differ, and how much they may differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sr.backends.base import Backend
from sr.backends.parity import Parity
from sr.fitting import fitted_size
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


# Y-PSNR in dB against the hr pictures of a test set that a precision may lose against fp32.
MAX_LOSS_DB = {"fp32": 0.001, "fp16": 0.01, "bf16": 0.1, "int8": 0.1}


CHART_SIZES = ((192, 256), (97, 131))  # (height, width) of what `parity` runs: one even, one odd


def chart(*, height: int, width: int) -> Image:
    """Return a picture of all kinds of content, the same each time: uint8 RGB (H, W, 3).

    Waves of rising frequency, smooth gradients, hard edges of all colours, noise.
    """
    y, x = np.mgrid[:height, :width].astype(np.float64)
    radius = (x**2 + y**2) * math.pi / (2 * max(height, width))  # pi a pixel at the far end
    picture = np.stack([127.5 + 127.5 * np.cos(radius + third) for third in (0, 2, 4)], axis=2)
    top, left = height // 2, width // 2
    picture[:top, left:] = np.stack([x, y, x + y], axis=2)[:top, left:] * 255 / (height + width)
    blocks = np.stack([x // bit % 2 for bit in (3, 6, 12)], axis=2) * 255
    picture[top:, :left] = blocks[top:, :left]
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    picture[top:, left:] = noise[top:, left:]
    return picture.round().astype(np.uint8)


def parity(backend: Backend, reference: Backend, *, largest: int = max(CHART_SIZES[0])) -> Parity:
    """Run charts through both backends and compare: the short form of `benchmarks.parity`.

    Args:
        backend: the one to check.
        reference: the one to check against, with the same scale.
        largest: side in lr pixels of a batch that both take.

    Raises:
        BackendError: one of them failed.
    """
    model = reference.info.model
    sizes = [fitted_size(min(height, largest), min(width, largest), model) for height, width in CHART_SIZES]
    batches = [chart(height=height, width=width) for height, width in sizes]
    first, second = (_flat(one.run(batch[None] for batch in batches)) for one in (backend, reference))
    found = difference(first, second)
    info = reference.info
    return Parity(
        against=f"{info.name} {info.model.precision} on {info.device.partition(',')[0]}",
        psnr_db=None if math.isinf(found.psnr) else round(found.psnr, 2),
        max_levels=found.max_levels,
        share=float(f"{found.share:.3g}"),
    )


def _flat(results: Iterable[Image]) -> Image:
    return np.concatenate([result.ravel() for result in results])


# The tiling contract: tiled output equals whole-picture output, except where float kernels round differently
# for different shapes.
MAX_TILING_LEVELS, MAX_TILING_SHARE = 1, 1e-4


def tiles_match(found: Difference) -> bool:
    """Return whether a tiled output meets the contract against the whole-picture output."""
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
