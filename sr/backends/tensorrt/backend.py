"""TensorRT and TensorRT-RTX: one backend, which receives the module.

Owns how large batches may be, which GPU takes which batch, what happens when memory runs out, and
which tiles are computed again because fp16 overflowed.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sr.backends.base import Backend, BackendInfo, Batch, default_tile
from sr.backends.tensorrt.device import Slot, TrtDevice
from sr.backends.tensorrt.kernels import KernelFile
from sr.backends.tensorrt.runtime import Capacity
from sr.errors import BackendError, OutOfDeviceMemoryError
from sr.network.descriptor import ModelDescriptor
from sr.tiling import MIN_HALOS_PER_TILE

# Share of the free device memory for buffers: contexts, graphs and kernels need some as well, and a
# display may take more later. If it is too much after all, `run` continues with smaller batches.
MEMORY_SHARE = 0.9

_SMALLEST_TILE = 64  # below, a tile is mostly halo


@dataclass(frozen=True)
class TrtSettings:
    """How to run.

    Attributes:
        name: of the backend, as on the command line.
        model: metadata of the ONNX file that the engines were built from.
        tile: largest side of a tile in lr pixels; None is the default.
        batch: largest number of tiles at once; None is that of the engine.
        gpu_names: names of the GPUs by index.
        cuda_graph: run batches of the full shape as CUDA graphs.
        host_code: allow engines to bring the runtime of their own TensorRT version.
        fallback: opens the backend that computes the tiles whose fp16 output is not finite; None if
            there is no file for it.
        kernel_files: keep the kernels that TensorRT-RTX compiles, by GPU.
    """

    name: str
    model: ModelDescriptor
    tile: int | None = None
    batch: int | None = None
    gpu_names: Mapping[int, str] | None = None
    cuda_graph: bool = True
    host_code: bool = False
    fallback: Callable[[], Backend] | None = None
    kernel_files: Mapping[int, KernelFile] = field(default_factory=dict)


class TrtBackend(Backend):
    """Engines for one network, each on its GPU; consecutive batches go to one after the other."""

    def __init__(
        self, plans: Mapping[int, bytes], settings: TrtSettings, *, module: Any, cudart: Any
    ) -> None:
        """Load engines.

        Args:
            plans: the serialized engine for each GPU, by its index.
            settings: how to run.
            module: the imported `tensorrt` or `tensorrt_rtx`.
            cudart: `cuda.bindings.runtime`.

        Raises:
            BackendError: a GPU or an engine does not work, or memory is short even for small tiles.
        """
        self._settings = settings
        self._devices: list[TrtDevice] = []
        self._fallback: Backend | None = None
        self._notes: list[str] = []
        self._redone = 0
        self._running = False
        try:
            for index, plan in plans.items():
                device = TrtDevice(
                    index,
                    plan,
                    module,
                    cudart,
                    cuda_graph=settings.cuda_graph,
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
        """Events that cost time or quality: smaller batches, no graphs, tiles computed again."""
        notes = self._notes + [note for device in self._devices for note in device.notes]
        if self._redone:
            notes.append(f"fp16 overflowed in {self._redone} tiles; they were computed in fp32 on the CPU")
        return tuple(notes)

    def run(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Upscale batches in order, several at a time; each result is an array of its own.

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
        try:
            for number, batch in enumerate(batches):
                device = self._devices[number % len(self._devices)]
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

    def _collected(self, device: TrtDevice, slot: Slot) -> Batch:
        """Return the result of a slot; the fallback computes tiles that are not finite."""
        batch, upscaled, finite = device.collect(slot)
        if finite.all():
            return upscaled
        fallback = self._open_fallback()
        for at in np.flatnonzero(~finite):
            (upscaled[at : at + 1],) = fallback.run([batch[at : at + 1]])
            self._redone += 1
        return upscaled

    def _open_fallback(self) -> Backend:
        if self._fallback is None:
            if self._settings.fallback is None:
                raise BackendError(
                    "the network's output is not finite in fp16, and there is no fp32 file of this model "
                    "beside it; run the fp32 file with --model"
                )
            self._fallback = self._settings.fallback()
        return self._fallback

    # --- memory ---------------------------------------------------------------------------------

    def _fitting_capacity(self) -> Capacity:
        """Return the largest capacity that the engines allow and all devices have memory for."""
        settings, engines = self._settings, [device.largest for device in self._devices]
        wanted = default_tile(settings.model.scale) if settings.tile is None else settings.tile
        tile = min(wanted, *(largest.tile for largest in engines))
        batch = min(largest.batch for largest in engines)
        first = Capacity(batch if settings.batch is None else min(batch, settings.batch), tile)
        free = [MEMORY_SHARE * device.free_bytes() for device in self._devices]
        for capacity in self._from(first):
            if all(d.needed_bytes(capacity) <= room for d, room in zip(self._devices, free, strict=True)):
                if capacity != first and (settings.tile or settings.batch):
                    self._notes.append(f"the GPU has free memory for {capacity}, not for {first}")
                return capacity
        mib = min(free) / MEMORY_SHARE / 2**20
        raise BackendError(
            f"the GPU has too little free memory, {mib:.0f} MiB, even for {capacity}; "
            "close other programs that use the GPU, or use --backend onnx"
        )

    def _from(self, capacity: Capacity) -> Iterator[Capacity]:
        """Yield `capacity` and ever smaller ones: the batch halves down to 1, then the tile."""
        yield capacity
        while capacity.batch > 1:
            capacity = replace(capacity, batch=capacity.batch // 2)
            yield capacity
        # A tile of four radii can be cut with any halo up to `--halo exact`.
        smallest = max(_SMALLEST_TILE, MIN_HALOS_PER_TILE * self._settings.model.receptive_field_radius)
        while capacity.tile > smallest:
            capacity = replace(capacity, tile=max(smallest, capacity.tile // 2))
            yield capacity

    def _shrink(self, error: OutOfDeviceMemoryError) -> None:
        """Go to the next smaller capacity.

        Raises:
            BackendError: there is none.
        """
        _, smaller, *_ = (*self._from(self._capacity), None, None)
        if smaller is None:
            raise BackendError(
                f"{error}, even for {self._capacity}; close other programs that use the GPU"
            ) from error
        self._notes.append(f"{error} for {self._capacity}; went on with {smaller}")
        self._adopt(smaller)

    def _adopt(self, capacity: Capacity) -> None:
        for device in self._devices:
            device.resize(capacity)
        self._capacity = capacity
        names = self._settings.gpu_names or {}
        gpus = (f"GPU {d.index} {names.get(d.index, '')}".strip() for d in self._devices)
        self.info = BackendInfo(
            name=self._settings.name,
            device=" and ".join(gpus),
            model=self._settings.model,
            default_tile=capacity.tile,
            default_batch=capacity.batch,
            why=self.info.why if hasattr(self, "info") else "",
            fixed_tiles=True,
            max_tile=capacity.tile,
            max_batch=capacity.batch,
        )

    def close(self) -> None:
        """Free everything on all devices; closing twice does nothing.

        Raises:
            BackendError: something could not be freed; the rest was.
        """
        devices, self._devices = self._devices, []
        failure = ""
        for device in devices:
            self._notes += device.notes
            try:
                device.close()
            except BackendError as error:
                failure = failure or str(error)
        if self._fallback is not None:
            self._fallback.close()
            self._fallback = None
        if failure:
            raise BackendError(failure)
