"""One engine on one GPU: streams, slots of buffers, contexts.

Owns the order of work on the device. A batch goes through a slot: it is copied into the slot's pinned
memory, uploaded on one stream, computed on a second and downloaded on a third; events make each step
wait for the one before. With three slots, copy-in, compute and copy-out of consecutive batches overlap.
What a tile owns of an output that lies in page-locked memory goes there in one strided copy by the GPU;
only other outputs (grey, or more than that memory holds) are copied by the host.

There are no CUDA graphs. They pay where a batch is enqueued more slowly than it is computed ("enqueue-bound",
NVIDIA's TensorRT performance guide), and cost a context and a capture for each slot and shape. Our networks
are about 25 launches, 0.1 to 0.2 ms that overlap with the batch before. A tile of 512 lr pixels at x2 takes
0.26 ms or more on an H100 and 0.9 ms on an RTX 4090 (`benchmarks.predict`), and smaller ones run together.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from sr.backends.tensorrt.capacity import Capacity
from sr.backends.tensorrt.contexts import Execution, Shape
from sr.backends.tensorrt.cuda import Cuda, Resources
from sr.backends.tensorrt.kernels import KernelFile
from sr.backends.tensorrt.modules import TensorRt
from sr.backends.tensorrt.pinned import PinnedPool
from sr.backends.tensorrt.runtime import LoadedEngine
from sr.errors import BackendError
from sr.network.ends import FINITE_NAME, INPUT_NAME, OUTPUT_NAME
from sr.stitching import Place, TileBatch
from sr.tiling import LADDER

SLOTS = 3  # one batch uploads while one computes and one downloads
_CONTEXTS = max(len(LADDER), SLOTS + 1)  # one for each shape; a further shape takes the oldest's


@dataclass
class Slot:
    """The resources of one batch in flight; `host` and `device` are buffers by tensor name."""

    host: dict[str, NDArray[np.uint8]]  # of the output only once it is needed
    device: dict[str, int]
    uploaded: Any
    computed: Any
    downloaded: Any
    batch: TileBatch | None = None  # in flight
    copied: list[int] = field(default_factory=list)  # tiles of the batch that the host has yet to copy


P = ParamSpec("P")
R = TypeVar("R")


def _on_device(
    method: Callable[Concatenate[TrtDevice, P], R],
) -> Callable[Concatenate[TrtDevice, P], R]:
    """Let a method run with its GPU as the current device; the one before is restored."""

    @functools.wraps(method)
    def run(self: TrtDevice, /, *arguments: P.args, **settings: P.kwargs) -> R:
        with self._cuda.current():
            return method(self, *arguments, **settings)

    return run


class TrtDevice:
    """An engine, loaded on one GPU.

    Attributes:
        largest: batch that the engine takes.
        capacity: the largest batch that buffers are made for.
        scale: upscaling factor.
    """

    def __init__(
        self,
        index: int,
        plan: bytes,
        trt: TensorRt,
        cudart: Any,
        *,
        pool: PinnedPool,
        host_code: bool = False,
        kernel_file: KernelFile | None = None,
    ) -> None:
        """Load a serialized engine on the GPU that CUDA counts as `index`.

        Args:
            index: of the GPU.
            plan: what `build_serialized_network` returned.
            trt: that built it.
            cudart: `cuda.bindings.runtime`.
            pool: memory of outputs that the GPU writes to directly.
            host_code: the engine may bring its own TensorRT runtime.
            kernel_file: keeps the kernels that TensorRT-RTX compiles.

        Raises:
            OutOfDeviceMemoryError: the GPU has no room for the engine.
            BackendError: there is no such GPU, or the engine does not load or is not one of ours.
        """
        self.index = index
        self._cuda, self._pool = Cuda(cudart, index), pool
        self._slots: list[Slot] = []
        self._contexts: dict[Shape, Execution] = {}  # the one that ran last is last
        self._streams, self._buffers = (Resources(self._cuda) for _ in range(2))
        self._engine: LoadedEngine | None = None
        self._scratch = self._scratch_size = self._planned_scratch = 0
        self._closed = False
        try:
            self._open(plan, trt, host_code, kernel_file)
        except BaseException:
            with contextlib.suppress(BackendError):  # the first failure matters
                self.close()
            raise

    @_on_device
    def _open(self, plan: bytes, trt: TensorRt, host_code: bool, kernel_file: KernelFile | None) -> None:
        flags = self._cuda.cudart.cudaStreamNonBlocking
        self._upload, self._compute, self._download = (
            self._streams.get("cudaStreamCreateWithFlags", flags) for _ in range(3)
        )
        self._engine = LoadedEngine(
            plan, trt, device=self.index, host_code=host_code, kernel_file=kernel_file
        )
        self._measuring = self._engine.contexts.new(self._compute, runs=False)
        self.capacity = self.largest = self._engine.largest
        (_, height, _, _), _ = self._measuring.measure(self._engine.smallest)
        self.scale = height // self._engine.smallest[1]

    # --- memory ---------------------------------------------------------------------------------

    @_on_device
    def free_bytes(self) -> int:
        """Return the free memory of the GPU."""
        free, _ = self._cuda.call("cudaMemGetInfo")
        return int(free)

    @property
    def static_batch(self) -> int | None:
        """Number of tiles that the engine has a profile of its own for, or None."""
        shape = self._loaded.static_shape
        return None if shape is None else shape[0]

    def l2_bytes(self) -> int:
        """Return the size of the GPU's L2 cache."""
        attribute = self._cuda.cudart.cudaDeviceAttr.cudaDevAttrL2CacheSize
        return int(self._cuda.call("cudaDeviceGetAttribute", attribute, self.index))

    @_on_device
    def needed_bytes(self, capacity: Capacity) -> int:
        """Return the device memory that `capacity` takes: the buffers of all slots, and scratch.

        Raises:
            BackendError: the engine does not take such batches.
        """
        return SLOTS * sum(self._sizes(capacity.shape).values()) + self._measured(
            self._measuring, capacity.shape
        )

    @_on_device
    def resize(self, capacity: Capacity) -> None:
        """Free the buffers; from now on they are made for `capacity`.

        Raises:
            BackendError: the device failed.
        """
        failures = self.drain() + self._free_buffers()
        self.capacity = capacity
        self._planned_scratch = self._measured(self._measuring, capacity.shape)
        _raise_first(failures)

    def _free_buffers(self) -> list[str]:
        for execution in self._contexts.values():
            if self._engine is not None:
                self._engine.contexts.drop(execution)
        self._contexts, self._slots = {}, []
        self._scratch = self._scratch_size = 0
        return [self._buffers.free()]

    def _sizes(self, shape: Shape) -> dict[str, int]:
        """Return the bytes of each tensor of the engine for a batch of this shape (N, H, W, 3)."""
        elements = {
            INPUT_NAME: math.prod(shape),
            OUTPUT_NAME: math.prod(shape) * self.scale**2,
            FINITE_NAME: self.largest.batch,  # of small tiles there may be more than of this shape
        }
        itemsizes = self._loaded.itemsizes
        return {name: elements[name] * itemsize for name, itemsize in itemsizes.items()}

    @property
    def _loaded(self) -> LoadedEngine:
        if self._engine is None:
            raise BackendError("the backend is closed")
        return self._engine

    def _measured(self, execution: Execution, shape: Shape) -> int:
        """Return the bytes of scratch memory that a batch of this shape takes."""
        output, scratch = execution.measure(shape)
        n, height, width, channels = shape
        if output != (n, height * self.scale, width * self.scale, channels):
            raise BackendError(f"the engine makes {output} of {shape}, which is not x{self.scale}")
        return scratch

    def _execution(self, shape: Shape) -> Execution:
        """Return a context that is ready to run a shape. All share scratch memory: they run in turn."""
        execution = self._contexts.pop(shape, None)
        if execution is None:
            if len(self._contexts) < _CONTEXTS:
                execution = self._loaded.contexts.new(self._compute)
            else:
                # More contexts than slots: the oldest one's run is done.
                execution = self._contexts.pop(next(iter(self._contexts)))
            execution.set_profile(self._loaded.profile_of(shape), self._compute)
            self._prepare(execution, shape)
        self._contexts[shape] = execution
        return execution

    def _prepare(self, execution: Execution, shape: Shape) -> None:
        """Prepare a context for a shape. Contexts share the scratch memory, because they run in turn."""
        needed = self._measured(execution, shape)
        if needed > self._scratch_size or not self._scratch:
            size = max(needed, self._planned_scratch, 1)
            self._scratch = int(self._buffers.get("cudaMalloc", size))  # the smaller one stays in use
            self._scratch_size = size
        execution.prepare(shape, self._scratch, self._scratch_size)

    def _free_slot(self) -> Slot | None:
        """Return a slot with nothing in flight, or a new one; None if all slots are in flight."""
        for slot in self._slots:
            if slot.batch is None:
                return slot
        if len(self._slots) == SLOTS:
            return None
        sizes, cudart = self._sizes(self.capacity.shape), self._cuda.cudart
        order, wait = cudart.cudaEventDisableTiming, cudart.cudaEventBlockingSync
        uploaded, computed, downloaded = (
            self._buffers.get("cudaEventCreateWithFlags", flags) for flags in (order, order, order | wait)
        )
        device = {name: int(self._buffers.get("cudaMalloc", size)) for name, size in sizes.items()}
        host = {name: self._buffers.pinned(size) for name, size in sizes.items() if name != OUTPUT_NAME}
        self._slots.append(Slot(host, device, uploaded, computed, downloaded))
        return self._slots[-1]

    # --- running --------------------------------------------------------------------------------

    @_on_device
    def submit(self, batch: TileBatch) -> Slot | None:
        """Start uploading, computing and downloading a batch; None if all slots are in flight.

        Raises:
            OutOfDeviceMemoryError: there is not enough memory for the buffers, or to run.
            BackendError: the device failed.
        """
        if not self.capacity.holds(batch.shape):
            raise BackendError(f"a batch of shape {batch.shape} is larger than the planned {self.capacity}")
        slot = self._free_slot()
        if slot is None:
            return None
        slot.batch = batch
        call = self._cuda.call
        self._start_upload(slot, batch)
        call("cudaEventRecord", slot.uploaded, self._upload)
        call("cudaStreamWaitEvent", self._compute, slot.uploaded, 0)
        execution = self._execution(batch.shape)
        execution.set_addresses(slot.device)
        execution.enqueue(self._compute)
        call("cudaEventRecord", slot.computed, self._compute)
        call("cudaStreamWaitEvent", self._download, slot.computed, 0)
        self._start_download(slot, batch)
        call("cudaEventRecord", slot.downloaded, self._download)
        return slot

    def _start_upload(self, slot: Slot, batch: TileBatch) -> None:
        """Upload the tiles; those that fill the batch up are whatever is there."""
        shape = (len(batch.tiles), *batch.shape[1:])
        pinned, size = slot.host[INPUT_NAME], math.prod(shape)
        batch.fill(pinned[:size].reshape(shape))
        to_device = self._cuda.cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        target = slot.device[INPUT_NAME]
        self._cuda.call("cudaMemcpyAsync", target, pinned.ctypes.data, size, to_device, self._upload)

    def _start_download(self, slot: Slot, batch: TileBatch) -> None:
        """Download what each tile owns, to its place if that is page-locked, and whether it is finite."""
        call, to_host = self._cuda.call, self._cuda.cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        row, size = self._row_and_tile_bytes(batch)
        slot.copied = []
        for at, place in enumerate(batch.places):
            source = slot.device[OUTPUT_NAME] + at * size
            if self._is_direct(place):
                height, width = place.pixels.shape[:2]
                source += place.top * row + 3 * place.left
                to, of = (place.pixels.ctypes.data, place.pixels.strides[0]), (source, row)
                call("cudaMemcpy2DAsync", *to, *of, 3 * width, height, to_host, self._download)
            else:
                slot.copied.append(at)
        for _, run in groupby(enumerate(slot.copied), key=lambda each: each[1] - each[0]):
            (_, first), *others = run
            target, source = self._host_output(slot).ctypes.data, slot.device[OUTPUT_NAME]
            part, length = first * size, (1 + len(others)) * size
            call("cudaMemcpyAsync", target + part, source + part, length, to_host, self._download)
        if FINITE_NAME in slot.host:
            pinned, size = slot.host[FINITE_NAME], 4 * len(batch.tiles)
            source = slot.device[FINITE_NAME]
            call("cudaMemcpyAsync", pinned.ctypes.data, source, size, to_host, self._download)

    def _row_and_tile_bytes(self, batch: TileBatch) -> tuple[int, int]:
        """Return the bytes of a row of an upscaled tile, and of all of its rows."""
        _, height, width, channels = batch.shape
        row = width * self.scale * channels
        return row, height * self.scale * row

    def _is_direct(self, place: Place) -> bool:
        return place.pixels.ndim == 3 and self._pool.holds(place.pixels)

    def _host_output(self, slot: Slot) -> NDArray[np.uint8]:
        """Return pinned memory of a slot for upscaled tiles; most runs need none."""
        if OUTPUT_NAME not in slot.host:
            slot.host[OUTPUT_NAME] = self._buffers.pinned(self._sizes(self.capacity.shape)[OUTPUT_NAME])
        return slot.host[OUTPUT_NAME]

    @_on_device
    def collect(self, slot: Slot) -> tuple[TileBatch, NDArray[np.bool_]]:
        """Wait for the batch of a slot, see that it is written, and free the slot.

        Returns the batch that was given, and for each of its tiles whether the network's output was finite.

        Raises:
            BackendError: the device failed.
        """
        if slot.batch is None:
            raise BackendError("the backend was closed while it was running")
        self._cuda.call("cudaEventSynchronize", slot.downloaded)
        batch = slot.batch
        row, size = self._row_and_tile_bytes(batch)
        for at in slot.copied:
            tile = slot.host[OUTPUT_NAME][at * size : (at + 1) * size]
            batch.places[at].write(tile.reshape(size // row, row // 3, 3))
        finite = np.ones(len(batch.tiles), np.bool_)
        if FINITE_NAME in slot.host:
            finite = slot.host[FINITE_NAME].view(np.float32)[: len(batch.tiles)] > 0
        slot.batch = None
        return batch, finite

    def drain(self) -> list[str]:
        """Wait until nothing is in flight, and drop the results; return messages of failures."""
        failures = []
        if any(slot.batch is not None for slot in self._slots):
            for stream in (self._upload, self._compute, self._download):
                try:
                    with self._cuda.current():
                        self._cuda.call("cudaStreamSynchronize", stream)
                except BackendError as error:
                    failures.append(str(error))
        for slot in self._slots:
            slot.batch = None
        return failures

    # --- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Free everything: contexts, buffers, engine, streams; closing twice does nothing.

        Raises:
            BackendError: something could not be freed; the rest was.
        """
        if self._closed:
            return
        self._closed = True
        failures = self.drain()
        try:
            with self._cuda.current():
                failures += self._free_all()
        except BackendError as error:  # the device does not become current: free what can be freed
            failures += [str(error), *self._free_all()]
        _raise_first(failures)

    def _free_all(self) -> list[str]:
        if self._engine is not None:
            self._engine.free()
            self._engine = None
        return [*self._free_buffers(), self._streams.free()]


def _raise_first(failures: list[str]) -> None:
    if failure := next(filter(None, failures), ""):
        raise BackendError(failure)
