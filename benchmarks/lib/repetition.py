"""A backend that costs nothing, to measure the work around the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from sr.backends.base import Backend, BackendInfo, Batch, default_tile
from sr.backends.ort import read_metadata
from sr.network.modelfile import shipped_onnx


class Repetition(Backend):
    """Pixel repetition, the cheapest upscaler."""

    def __init__(self, scale: int) -> None:
        metadata = read_metadata(shipped_onnx(scale=scale))
        self.info = BackendInfo("repeat", "none", metadata, default_tile(scale), default_batch=1)

    def run(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Repeat each pixel of uint8 (N, H, W, 3) `scale` times both ways."""
        scale = self.info.model.scale
        for batch in batches:
            number, height, width, channels = batch.shape
            repeated = np.empty((number, height, scale, width * scale, channels), batch.dtype)
            rows = np.empty((number, height, width, scale, channels), batch.dtype)
            rows[:] = batch[:, :, :, None]
            repeated[:] = rows.reshape(number, height, 1, width * scale, channels)
            yield repeated.reshape(number, height * scale, width * scale, channels)
