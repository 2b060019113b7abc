"""TensorRT and TensorRT-RTX: one backend, which receives the one that built its engines.

Owns how large batches may be, which GPU takes which batch, what happens when memory runs out, and
which tiles are computed again because fp16 overflowed.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sr.backends.base import Backend, BackendInfo, Batch, suitable_tile
from sr.backends.tensorrt.capacity import Capacity, smaller, suitable_batch
from sr.backends.tensorrt.cuda import Cuda
from sr.backends.tensorrt.device import Slot, TrtDevice
from sr.backends.tensorrt.kernels import KernelFile
from sr.backends.tensorrt.modules import TensorRt
from sr.backends.tensorrt.pinned import PinnedPool
from sr.errors import BackendError, OutOfDeviceMemoryError
from sr.network.descriptor import ModelDescriptor
from sr.stitching import Place, TileBatch

# Share of the free device memory for buffers: contexts and kernels need some as well, and a
# display may take more later. If it is too much after all, `run` continues with smaller batches.
MEMORY_SHARE = 0.9


@dataclass(frozen=True)
class TrtSettings:
    """How to run.

    Attributes:
        model: metadata of the ONNX file that the engines were built from.
        tile: largest side of a tile in lr pixels; None is the default.
        batch: number of tiles at once; None chooses it by the GPU.
        gpu_names: names of the GPUs by index.
        host_code: allow engines to bring the runtime of their own TensorRT version.
        fallback: opens the backend that computes the tiles whose fp16 output is not finite; None if
            there is no file for it.
        kernel_files: keep the kernels that TensorRT-RTX compiles, by GPU.
    """

    model: ModelDescriptor
    tile: int | None = None
    batch: int | None = None
    gpu_names: Mapping[int, str] | None = None
    host_code: bool = False
    fallback: Callable[[], Backend] | None = None
    kernel_files: Mapping[int, KernelFile] = field(default_factory=dict)


class TrtBackend(Backend):
    """Engines for one network, each on its GPU; consecutive batches go to one after the other."""

    def __init__(
        self, plans: Mapping[int, bytes], settings: TrtSettings, *, trt: TensorRt, cudart: Any
    ) -> None:
        """Load engines.

        Args:
            plans: the serialized engine for each GPU, by its index.
            settings: how to run.
            trt: that built them.
            cudart: `cuda.bindings.runtime`.

        Raises:
            BackendError: a GPU or an engine does not work, or memory is short even for small tiles.
        """
        self._settings, self._name = settings, trt.backend.name
        self._devices: list[TrtDevice] = []
        self._pool = PinnedPool(Cuda(cudart, min(plans)))
        self._fallback: Backend | None = None
        self._notes: list[str] = []
        self._redone = 0
        self._running = False
        try:
            for index, plan in plans.items():
                device = TrtDevice(
                    index,
                    plan,
                    trt,
                    cudart,
                    pool=self._pool,
                    host_code=settings.host_code,
                    kernel_file=settings.kernel_files.get(index),
                )
                self._devices.append(device)
            self._adopt(self._fitting_capacity())
        except BaseException:
            with contextlib.suppress(BackendError):  # the first failure matters
                self.close()
            raise

    @property
    def notes(self) -> tuple[str, ...]:
        """Events that cost time or quality: smaller batches, tiles computed again."""
        notes = [*self._notes]
        if self._redone:
            notes.append(f"fp16 overflowed in {self._redone} tiles; they were computed in fp32 on the CPU")
        return tuple(notes)

    def run(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Upscale batches in order, several at a time; each result is an array of its own.

        Raises:
            OutOfDeviceMemoryError, BackendError: as `write`.
        """
        results: deque[Batch] = deque()
        scale = self._settings.model.scale

        def placed() -> Iterator[TileBatch]:
            for batch in batches:
                count, height, width, channels = batch.shape
                results.append(np.empty((count, height * scale, width * scale, channels), batch.dtype))
                yield TileBatch([*batch], [Place(tile) for tile in results[-1]], count)

        with contextlib.closing(self.write(placed())) as written:
            for _ in written:
                yield results.popleft()

    def write(self, batches: Iterable[TileBatch | None]) -> Generator[TileBatch, None, None]:
        """Upscale batches in order, several at a time; see `Backend.write`.

        Raises:
            OutOfDeviceMemoryError: memory ran out; `info` has a smaller largest batch or tile now.
            BackendError: the device failed, or memory ran out for the smallest tile.
        """
        if self._running:
            raise RuntimeError("this backend is running; finish or close that run first")
        if not self._devices:
            raise BackendError("the backend is closed")
        self._running = True
        flying: deque[tuple[TrtDevice, Slot]] = deque()  # oldest first
        devices = itertools.cycle(self._devices)
        try:
            for batch in batches:
                if batch is None:
                    while flying:
                        yield self._collected(*flying.popleft())
                    continue
                device = next(devices)
                while (slot := device.submit(batch)) is None:
                    yield self._collected(*flying.popleft())
                flying.append((device, slot))
            while flying:
                yield self._collected(*flying.popleft())
        except OutOfDeviceMemoryError as error:
            self._shrink(error)
            raise
        finally:
            self._running = False
            for device in self._devices:
                device.drain()  # its failure is the one being raised, or the next call meets it

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Batch:
        """Return memory that a GPU can write to, if it is for RGB of 8 bits and there is some."""
        array = self._pool.array(shape) if len(shape) == 3 and dtype == np.uint8 else None
        return super().empty(shape, dtype) if array is None else array

    def _collected(self, device: TrtDevice, slot: Slot) -> TileBatch:
        """Return the batch of a slot once it is written; the fallback computes tiles that are not finite."""
        batch, finite = device.collect(slot)
        for at in map(int, np.flatnonzero(~finite)):
            (upscaled,) = self._open_fallback().run([replace(batch, tiles=[batch.tiles[at]]).pixels])
            batch.places[at].write(upscaled[0])
            self._redone += 1
        return batch

    def _open_fallback(self) -> Backend:
        if self._fallback is None:
            if self._settings.fallback is None:
                raise BackendError(
                    "the network's output is not finite in fp16, and there is no fp32 file of this model "
                    "beside it; run the fp32 file with --model"
                )
            self._fallback = self._settings.fallback()
        return self._fallback

    def needed_bytes(self, capacity: Capacity) -> int:
        """Return the device memory that a capacity takes, on the GPU that needs most.

        Raises:
            BackendError: the engine does not take such batches.
        """
        return max(device.needed_bytes(capacity) for device in self._devices)

    # --- memory ---------------------------------------------------------------------------------

    def _fitting_capacity(self) -> Capacity:
        """Return the largest capacity that suits the GPUs, and that engines and free memory allow."""
        settings, engines = self._settings, [device.largest for device in self._devices]
        wanted = suitable_tile(settings.model) if settings.tile is None else settings.tile
        tile = settings.model.side_within(min(wanted, *(largest.tile for largest in engines)))
        cache = min(device.l2_bytes() for device in self._devices)
        static = self._devices[0].static_batch
        batch = settings.batch or static or suitable_batch(settings.model, tile, l2_bytes=cache)
        first = Capacity(min(batch, *(largest.batch for largest in engines)), tile)
        free = [MEMORY_SHARE * device.free_bytes() for device in self._devices]
        for capacity in (first, *smaller(first, settings.model)):
            if all(d.needed_bytes(capacity) <= room for d, room in zip(self._devices, free, strict=True)):
                if capacity != first and (settings.tile or settings.batch):
                    self._notes.append(f"the GPU has free memory for {capacity}, not for {first}")
                return capacity
        mib = min(free) / MEMORY_SHARE / 2**20
        raise BackendError(
            f"the GPU has too little free memory, {mib:.0f} MiB, even for {capacity}; "
            "close other programs that use the GPU, or use --backend onnx"
        )

    def _shrink(self, error: OutOfDeviceMemoryError) -> None:
        """Go to the next smaller capacity.

        Raises:
            BackendError: there is none.
        """
        following = next(smaller(self._capacity, self._settings.model), None)
        if following is None:
            raise BackendError(
                f"{error}, even for {self._capacity}; close other programs that use the GPU"
            ) from error
        self._notes.append(f"{error} for {self._capacity}; went on with {following}")
        self._adopt(following)

    def _adopt(self, capacity: Capacity) -> None:
        for device in self._devices:
            device.resize(capacity)
        self._capacity = capacity
        names = self._settings.gpu_names or {}
        gpus = (f"GPU {d.index} {names.get(d.index, '')}".strip() for d in self._devices)
        self.info = BackendInfo(
            name=self._name,
            device=" and ".join(gpus),
            model=self._settings.model,
            default_tile=capacity.tile,
            default_batch=capacity.batch,
            why=self.info.why if hasattr(self, "info") else "",
            constant_tiles=True,
            max_tile=capacity.tile,
            max_batch=capacity.batch,
            max_small_batch=min(device.largest.batch for device in self._devices),
        )

    def close(self) -> None:
        """Free everything on all devices; closing twice does nothing.

        Raises:
            BackendError: something could not be freed; the rest was.
        """
        devices, self._devices = self._devices, []
        failure = ""
        for device in devices:
            try:
                device.close()
            except BackendError as error:
                failure = failure or str(error)
        if self._fallback is not None:
            self._fallback.close()
            self._fallback = None
        failure = failure or self._pool.close()
        if failure:
            raise BackendError(failure)
