"""The interface that every backend has, and what a backend says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sr.modelfile import ModelMetadata

Batch = NDArray[np.uint8]

# Largest tile, in lr and in hr pixels a side: beyond them time hardly falls and memory grows; what these
# take is in benchmarks/results/tiling.json. At x4, tiles of 512 lr px took 745 MiB where 384 take 310.
_TILE_LR_PX, _TILE_HR_PX = 512, 1536


def default_tile(scale: int) -> int:
    """Return the side in lr pixels of the tile that suits most devices."""
    return min(_TILE_LR_PX, max(64, _TILE_HR_PX // scale))


@dataclass(frozen=True)
class BackendInfo:
    """What a caller needs to know of an opened backend.

    Attributes:
        name: of the backend, as on the command line.
        device: what runs, in words, e.g. "CPU, 4 threads".
        model: metadata of the model.
        default_tile: side in lr pixels of the tile that suits the device.
        default_batch: number of tiles that suits the device.
        why: why this backend and device were chosen, where they were not named; else empty.
        fixed_tiles: the backend wants tiles of one shape (see `TileSpec.equalise`).
    """

    name: str
    device: str
    model: ModelMetadata
    default_tile: int
    default_batch: int
    why: str = ""
    fixed_tiles: bool = False


class Backend(ABC):
    """Runs batches of tiles through one model on one device; a context manager."""

    info: BackendInfo

    @abstractmethod
    def run(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Upscale batches in order; may read ahead.

        Takes uint8 RGB (N, H, W, 3) in [0, 255] and yields uint8 (N, scale*H, scale*W, 3). A batch
        that was given must not be changed until its result has come.

        Raises:
            BackendError: the device failed.
        """

    def close(self) -> None:  # noqa: B027  most backends have nothing to free
        """Free what the backend holds; it cannot run afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
