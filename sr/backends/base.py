"""The interface of all backends, and the records that describe an opened one and a request for one."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from sr.errors import BackendError, OutOfDeviceMemoryError, one_line
from sr.network.descriptor import ModelDescriptor, Precision
from sr.network.ends import Conventions
from sr.stitching import TileBatch
from sr.tiling import MIN_HALOS_PER_TILE

if TYPE_CHECKING:
    from sr.backends.tensorrt.request import EngineBuilder

Batch = NDArray[Any]  # uint8, or uint16 if the backend takes it

# Largest side of a tile, in lr and in hr pixels: larger tiles are hardly faster and take more memory, see
# benchmarks/results/tiling.json. At x4, tiles of 512 lr px take 745 MiB and tiles of 384 take 310.
_TILE_LR_PX, _TILE_HR_PX = 512, 1536
_SMALLEST_TILE = 64  # below, a tile is mostly halo
_HALOS_PER_TILE = 8  # so that what tiles read twice is less than what they read once

# In messages of ONNX Runtime, OpenVINO and PyTorch, whose exceptions have no type of their own.
_OUT_OF_MEMORY = re.compile(
    r"bad.alloc|can.t alloc|allocate (\d+ bytes of )?memory|out of memory|not enough memory", re.IGNORECASE
)

# Allocators round up, and the counted bytes leave out conversions to and from 8 bits: ONNX Runtime used 1.4
# to 2.4 times the counted bytes at x2, 2.8 to 3.8 times at x3, 3.0 to 3.8 times at x4; PyTorch 1.9 to 2.4.
_USED_PER_COUNTED_BYTE = 4


def default_tile(scale: int) -> int:
    """Return the side in lr pixels of the tile that suits most devices."""
    return min(_TILE_LR_PX, max(_SMALLEST_TILE, _TILE_HR_PX // scale))


def suitable_tile(model: ModelDescriptor) -> int:
    """Return the side in lr pixels of the tile that suits most devices and the halo of a model."""
    usual = default_tile(model.scale)
    return max(usual, _HALOS_PER_TILE * model.halo) if model.tiles_exact else usual


def tile_within(memory: int, model: ModelDescriptor) -> int:
    """Return the side in lr pixels of the tile for a CPU with `memory` free bytes, in steps of 64.

    Half of the memory is for one tile, and half for the pictures. Where tiles cannot be exact, the largest
    one that fits has the fewest edges.
    """
    fitting = isqrt(memory // 2 // tile_memory(model, 1)) // _SMALLEST_TILE * _SMALLEST_TILE
    most = suitable_tile(model) if model.tiles_exact else fitting
    return min(most, fitting) if fitting else _SMALLEST_TILE


def tile_memory(model: ModelDescriptor, pixels: int) -> int:
    """Return about how many bytes a runtime on the CPU uses for a tile of so many lr pixels."""
    return _USED_PER_COUNTED_BYTE * model.activation_bytes_per_lr_px * pixels


@dataclass(frozen=True)
class BackendInfo:
    """What a caller needs to know of an opened backend.

    Attributes:
        name: of the backend, as on the command line.
        device: in words, e.g. "CPU, 4 threads".
        model: description of the model.
        default_tile: side in lr pixels of the tile that suits the device.
        default_batch: number of tiles at once that suits the device.
        why: reason for this backend and device; empty if both were named.
        constant_tiles: the backend is fastest with few shapes (see `sr.tiling.ladder`).
        max_tile: largest side of a tile in lr pixels that the backend takes; None is any.
        max_batch: largest number of tiles of `max_tile` at once that the backend takes; None is any.
        max_small_batch: largest number of smaller ones; None is `max_batch`.
        sixteen_bit: the backend also takes uint16 batches, in [0, 65535], and yields uint16.
    """

    name: str
    device: str
    model: ModelDescriptor
    default_tile: int
    default_batch: int
    why: str = ""
    constant_tiles: bool = False
    max_tile: int | None = None
    max_batch: int | None = None
    max_small_batch: int | None = None
    sixteen_bit: bool = False


@dataclass(frozen=True)
class Workload:
    """The pictures for which a backend is opened, as far as they are known.

    Attributes:
        pictures: how many; a page or frame is one.
        lr_px: lr pixels of all of them together.
    """

    pictures: int
    lr_px: int


@dataclass(frozen=True)
class BackendRequest:
    """The settings with which a backend is opened.

    Attributes:
        scale: of the shipped model; unused if `model` is given.
        device: "auto", "cpu", "cuda", the number of a GPU, or several: "0,1".
        model: model file in place of the shipped one.
        tile: largest side in lr pixels of the tiles to come, if known.
        batch: largest number of tiles at once to come, if known.
        build_progress: called with phase and share done during the build of an engine; first with the reason.
        engine_dir: folder of TensorRT engines; None is the one in the user's cache folder.
        precision: to compute in; None leaves it to the backend and the model.
        builder: builds TensorRT engines that the folder lacks; without one they are an error.
        conventions: of a model file that is not ours, as the user states them.
        restore: strength of restoration, from 0 to 1; above 0 the model has a partner, see `sr.network.pair`.
        work: pictures to come, from which "auto" tells whether a slower start pays; None if unknown.
    """

    scale: int
    device: str = "auto"
    model: Path | None = None
    tile: int | None = None
    batch: int | None = None
    build_progress: Callable[[str, float], None] | None = None
    engine_dir: Path | None = None
    precision: Precision | None = None
    builder: EngineBuilder | None = None
    conventions: Conventions | None = None
    restore: float = 0.0
    work: Workload | None = None


def gpu_indices(device: str) -> tuple[int, ...]:
    """Return the GPUs of a device: "cuda" is the first, "0,1" are two, "cpu" is none.

    Raises:
        BackendError: there is no such device.
    """
    if device == "cpu":
        return ()
    if device in ("auto", "cuda"):
        return (0,)
    numbers = device.split(",")
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise BackendError(f"there is no device {device!r}; use auto, cpu, cuda, or GPUs by number: 0 or 0,1")
    indices = tuple(map(int, numbers))
    if len(set(indices)) < len(indices):
        raise BackendError(f"device {device!r} names a GPU twice")
    return indices


class Backend(ABC):
    """Runs batches of tiles through one model on one device; a context manager."""

    info: BackendInfo

    @abstractmethod
    def run(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Upscale batches in order; may read ahead.

        Takes uint8 RGB (N, H, W, 3) in [0, 255] and yields uint8 (N, scale*H, scale*W, 3); with
        `info.sixteen_bit` also uint16 in [0, 65535]. The caller must not change a batch before its
        result arrives.

        Raises:
            OutOfDeviceMemoryError: memory ran out; `info` now has a smaller largest batch or tile.
            BackendError: the device failed.
        """

    def write(self, batches: Iterable[TileBatch | None]) -> Iterator[TileBatch]:
        """Upscale batches in order and write each result to its place; yield a batch once it is written.

        Where the next item is None, no batch is ready yet: first all results are written that are under way.

        Raises:
            OutOfDeviceMemoryError, BackendError: as `run`.
        """
        remaining, started, ended = iter(batches), deque[TileBatch](), False

        def until_none() -> Iterator[Batch]:
            nonlocal ended
            for batch in remaining:
                if batch is None:
                    return
                started.append(batch)
                yield batch.pixels
            ended = True

        while not ended:
            results = self.run(until_none())
            # However this ends, batches in flight must end with it.
            with closing(results) if isinstance(results, Generator) else nullcontext():
                for result in results:
                    batch = started.popleft()
                    for place, upscaled in zip(batch.places, result, strict=False):
                        place.write(upscaled)
                    yield batch

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Batch:
        """Return an array for an output, its content undefined, that `write` is fast at writing to."""
        return np.empty(shape, dtype)

    @property
    def notes(self) -> tuple[str, ...]:
        """Events so far that the user should know of, one sentence each."""
        return ()

    def failure(self, library: str, error: Exception, shape: tuple[int, ...]) -> BackendError:
        """Return what a library's exception means for a batch of `shape`, (N, H, W, 3).

        If memory ran out, the largest batch or tile in `info` is lowered.
        """
        if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
            return self._out_of_memory(shape)
        return BackendError(f"{library} failed on a batch of shape {shape}: {one_line(error)}")

    def _out_of_memory(self, shape: tuple[int, ...]) -> BackendError:
        """Lower the largest batch or tile below `shape`, (N, H, W, 3), unless the size is fixed."""
        count, side, model = shape[0], max(shape[1:3]), self.info.model
        if model.ends.size is None:
            if count > 1:
                self.info = replace(self.info, max_batch=count // 2)
                return OutOfDeviceMemoryError(f"memory ran out for {count} tiles of {side} px")
            smallest = max(_SMALLEST_TILE, MIN_HALOS_PER_TILE * model.receptive_field_radius)
            if side > smallest:
                self.info = replace(self.info, max_tile=max(smallest, side // 2))
                return OutOfDeviceMemoryError(f"memory ran out for a tile of {side} px")
        return BackendError(
            f"memory ran out for a tile of {side} px; free some memory, or use a smaller --tile (and --halo)"
        )

    def close(self) -> None:  # noqa: B027  most backends have nothing to free
        """Free what the backend holds; it cannot run afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
