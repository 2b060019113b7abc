"""One engine on one GPU: streams, slots of buffers, CUDA graphs.

Owns the order of work on the device. A batch goes through a slot: it is copied into the slot's pinned
memory, uploaded on one stream, computed on a second and downloaded on a third; events make each step
wait for the one before. With three slots, copy-in, compute and copy-out of
consecutive batches overlap.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from sr.backends.base import Batch
from sr.backends.tensorrt.cuda import Cuda, Resources
from sr.backends.tensorrt.kernels import KernelFile
from sr.backends.tensorrt.runtime import Capacity, Execution, LoadedEngine, Shape
from sr.errors import BackendError
from sr.network.ends import FINITE_NAME, INPUT_NAME, OUTPUT_NAME

SLOTS = 3  # one batch uploads while one computes and one downloads


@dataclass
class Slot:
    """The resources of one batch in flight; `host` and `device` are buffers by tensor name."""

    host: dict[str, NDArray[np.uint8]]
    device: dict[str, int]
    uploaded: Any
    computed: Any
    downloaded: Any
    execution: Execution | None = None  # at the full shape, with this slot's addresses
    graph: Any = None
    batch: Batch | None = None  # in flight


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
        notes: events that the user should know of.
    """

    def __init__(
        self,
        index: int,
        plan: bytes,
        module: Any,
        cudart: Any,
        *,
        cuda_graph: bool = True,
        host_code: bool = False,
        kernel_file: KernelFile | None = None,
    ) -> None:
        """Load a serialized engine on the GPU that CUDA counts as `index`.

        Args:
            index: of the GPU.
            plan: what `build_serialized_network` returned.
            module: the imported `tensorrt` or `tensorrt_rtx`.
            cudart: `cuda.bindings.runtime`.
            cuda_graph: run batches of the full shape as CUDA graphs.
            host_code: the engine may bring its own TensorRT runtime.
            kernel_file: keeps the kernels that TensorRT-RTX compiles.

        Raises:
            OutOfDeviceMemoryError: the GPU has no room for the engine.
            BackendError: there is no such GPU, or the engine does not load or is not one of ours.
        """
        self.index = index
        self.notes: list[str] = []
        self._cuda = Cuda(cudart, index)
        self._cuda_graph = cuda_graph
        self._slots: list[Slot] = []
        self._streams, self._buffers, self._graphs = (Resources(self._cuda) for _ in range(3))
        self._engine: LoadedEngine | None = None
        self._scratch = self._scratch_size = self._planned_scratch = 0
        self._closed = False
        try:
            self._open(plan, module, host_code, kernel_file)
        except BaseException:
            with contextlib.suppress(BackendError):  # the first failure matters
                self.close()
            raise

    @_on_device
    def _open(self, plan: bytes, module: Any, host_code: bool, kernel_file: KernelFile | None) -> None:
        flags = self._cuda.cudart.cudaStreamNonBlocking
        self._upload, self._compute, self._download = (
            self._streams.get("cudaStreamCreateWithFlags", flags) for _ in range(3)
        )
        self._engine = LoadedEngine(
            plan, module, device=self.index, host_code=host_code, kernel_file=kernel_file
        )
        self._plain = self._engine.new_execution(self._compute, graph=False)
        self.capacity = self.largest = self._engine.largest
        (_, self.scale, _, _), _ = self._plain.measure((1, 1, 1, 3))

    # --- memory ---------------------------------------------------------------------------------

    @_on_device
    def free_bytes(self) -> int:
        """Return the free memory of the GPU."""
        free, _ = self._cuda.call("cudaMemGetInfo")
        return int(free)

    @_on_device
    def needed_bytes(self, capacity: Capacity) -> int:
        """Return the device memory that `capacity` takes: the buffers of all slots, and scratch.

        Raises:
            BackendError: the engine does not take such batches.
        """
        return SLOTS * sum(self._sizes(capacity.shape).values()) + self._measured(self._plain, capacity.shape)

    @_on_device
    def resize(self, capacity: Capacity) -> None:
        """Free the buffers; from now on they are made for `capacity`.

        Raises:
            BackendError: the device failed.
        """
        failures = self.drain() + self._free_buffers()
        self.capacity = capacity
        self._planned_scratch = self._measured(self._plain, capacity.shape)
        _raise_first(failures)

    def _free_buffers(self) -> list[str]:
        failures = [self._graphs.free()]
        for slot in self._slots:
            if slot.execution is not None and self._engine is not None:
                self._engine.drop(slot.execution)
        self._slots = []
        self._scratch = self._scratch_size = 0
        return [*failures, self._buffers.free()]

    def _sizes(self, shape: Shape) -> dict[str, int]:
        """Return the bytes of each tensor of the engine for a batch of this shape (N, H, W, 3)."""
        elements = {
            INPUT_NAME: math.prod(shape),
            OUTPUT_NAME: math.prod(shape) * self.scale**2,
            FINITE_NAME: shape[0],
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
        host = {name: self._buffers.pinned(size) for name, size in sizes.items()}
        self._slots.append(Slot(host, device, uploaded, computed, downloaded))
        return self._slots[-1]

    # --- running --------------------------------------------------------------------------------

    @_on_device
    def submit(self, batch: Batch) -> Slot | None:
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
        call, kinds = self._cuda.call, self._cuda.cudart.cudaMemcpyKind
        sizes = self._sizes(batch.shape)
        size = sizes.pop(INPUT_NAME)
        pinned, uploaded_to = slot.host[INPUT_NAME], slot.device[INPUT_NAME]
        pinned[:size].reshape(batch.shape)[...] = batch
        to_device, to_host = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost
        call("cudaMemcpyAsync", uploaded_to, pinned.ctypes.data, size, to_device, self._upload)
        call("cudaEventRecord", slot.uploaded, self._upload)
        call("cudaStreamWaitEvent", self._compute, slot.uploaded, 0)
        self._compute_batch(slot, batch.shape)
        call("cudaEventRecord", slot.computed, self._compute)
        call("cudaStreamWaitEvent", self._download, slot.computed, 0)
        for name, size in sizes.items():
            pinned, source = slot.host[name], slot.device[name]
            call("cudaMemcpyAsync", pinned.ctypes.data, source, size, to_host, self._download)
        call("cudaEventRecord", slot.downloaded, self._download)
        return slot

    @_on_device
    def collect(self, slot: Slot) -> tuple[Batch, Batch, NDArray[np.bool_]]:
        """Wait for the batch of a slot and free the slot.

        Returns the batch that was given; the upscaled one, an array of its own; and for each of its
        tiles, whether the network's output was finite.

        Raises:
            BackendError: the device failed.
        """
        if slot.batch is None:
            raise BackendError("the backend was closed while it was running")
        self._cuda.call("cudaEventSynchronize", slot.downloaded)
        batch = slot.batch
        n, height, width, channels = batch.shape
        shape = (n, height * self.scale, width * self.scale, channels)
        upscaled = slot.host[OUTPUT_NAME][: math.prod(shape)].reshape(shape).copy()
        finite = np.ones(n, np.bool_)
        if FINITE_NAME in slot.host:
            finite = slot.host[FINITE_NAME].view(np.float32)[:n] > 0
        slot.batch = None
        return batch, upscaled, finite

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

    def _compute_batch(self, slot: Slot, shape: Shape) -> None:
        """Enqueue a batch on the compute stream: as a graph at the full shape, otherwise plainly."""
        if not self._cuda_graph or shape != self.capacity.shape:
            if self._plain.shape != shape:
                self._cuda.call("cudaStreamSynchronize", self._compute)  # it may be running another
                self._prepare(self._plain, shape)
            self._plain.set_addresses(slot.device)
            self._plain.enqueue(self._compute)
            return
        if slot.execution is None:
            slot.execution = self._loaded.new_execution(self._compute, graph=True)
            self._prepare(slot.execution, shape)
            slot.execution.set_addresses(slot.device)
        elif slot.graph is None and not self._loaded.captures_graphs:
            # Not on the first run: that one may compile and allocate, which a capture forbids.
            slot.graph = self._captured(slot.execution)
        if slot.graph is None:
            slot.execution.enqueue(self._compute)
        else:
            self._cuda.call("cudaGraphLaunch", slot.graph, self._compute)

    def _captured(self, execution: Execution) -> Any:
        """Return the executable graph of a run; None, and no further graphs, if capturing fails."""
        call, mode = self._cuda.call, self._cuda.cudart.cudaStreamCaptureMode
        try:
            call("cudaStreamBeginCapture", self._compute, mode.cudaStreamCaptureModeThreadLocal)
            try:
                execution.enqueue(self._compute)
            except BackendError:
                with contextlib.suppress(BackendError):  # end the capture, whose content is useless
                    call("cudaGraphDestroy", call("cudaStreamEndCapture", self._compute))
                raise
            graph = call("cudaStreamEndCapture", self._compute)
            try:
                return self._graphs.get("cudaGraphInstantiate", graph, 0)
            finally:
                call("cudaGraphDestroy", graph)
        except BackendError as error:
            self._cuda_graph = False
            self.notes.append(f"goes on without CUDA graphs, which may be slower: {error}")
            return None

    # --- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Free everything: graphs, contexts, buffers, engine, streams; closing twice does nothing.

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
        failures = [self._graphs.free()]
        if self._engine is not None:
            for slot in self._slots:
                slot.execution = None
            self._engine.free()
            self._engine = None
        return [*failures, *self._free_buffers(), self._streams.free()]


def _raise_first(failures: list[str]) -> None:
    if failure := next(filter(None, failures), ""):
        raise BackendError(failure)
