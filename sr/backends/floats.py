"""Between batches of integers (N, H, W, 3) and what a model with float32 IO takes and gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr.backends.base import Batch


def floats_from_batch(batch: Batch) -> NDArray[np.float32]:
    """Convert integers (N, H, W, 3) to (N, 3, H, W) in [0, 1]."""
    scaled = batch.transpose(0, 3, 1, 2) / np.float32(np.iinfo(batch.dtype).max)
    return np.ascontiguousarray(scaled, np.float32)


def batch_from_floats(result: NDArray[np.float32], dtype: np.dtype[Any]) -> Batch:
    """Convert (N, 3, H, W), about [0, 1], to integers (N, H, W, 3), rounded and clipped."""
    largest = np.iinfo(dtype).max
    scaled = np.rint(result * np.float32(largest))
    return np.ascontiguousarray(scaled.clip(0, largest).astype(dtype).transpose(0, 2, 3, 1))
