"""GPUs made of host memory: a stand-in for `cuda.bindings.runtime`; `simulated_tensorrt` runs on it.

What a GPU does at a time of its own choosing happens here at the worst time that the CUDA model
allows. Work on a stream waits until something synchronises ("lazy"), or is done at once ("eager"),
or in between at random (a seed); events order streams and nothing else does. Memory is poisoned when
it is handed out and when it is given back, so what is read too early or too late is wrong. Every call
can be made to fail. What real CUDA would answer with undefined behaviour is kept in `complaints`.
"""

from __future__ import annotations

import functools
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

POISON = 0xA5
ALIGNMENT, GUARD = 256, 4096

SUCCESS, INVALID_VALUE, OUT_OF_MEMORY = 0, 1, 2
INVALID_DEVICE, INVALID_HANDLE, CAPTURE_FORBIDS, CAPTURE_INVALIDATED = 101, 400, 900, 901
LAUNCH_FAILURE = 719  # sticky: after it, every call fails


@dataclass(eq=False)
class Block:
    """Memory that was handed out."""

    address: int
    data: NDArray[np.uint8]
    device: int | None  # None is page-locked host memory
    freed: bool = False


@dataclass(eq=False)
class Event:
    device: int
    stream: Stream | None = None  # where it was recorded last
    recorded: int = 0  # how often
    done: int = 0
    time: float = 0.0


@dataclass
class Op:
    """One thing on a stream."""

    action: Callable[[], None] | None = None
    waits: tuple[Event, int] | None = None
    records: tuple[Event, int] | None = None
    duration: float = 0.0
    issued: float = 0.0


@dataclass(eq=False)
class Stream:
    handle: int
    device: int
    pending: list[Op] = field(default_factory=list)
    time: float = 0.0
    capture: list[Op] | None = None

    def __int__(self) -> int:
        return self.handle


@dataclass(eq=False)
class Graph:
    ops: list[Op]


@dataclass(eq=False)
class GraphExec:
    ops: list[Op]
    device: int


def api(values: int = 0, *, release: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a method a call of the runtime: counted, and failing when it is its turn.

    A call that gives something back does so even when it reports an error, as CUDA may: it reports
    errors of earlier work.
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(self: SimulatedCuda, *arguments: Any) -> tuple[Any, ...]:
            failing = self.count(method.__name__)
            self.progress_at_random()
            if failing and not release:
                return (failing, *([None] * values))
            answer = method(self, *arguments)
            status, *out = answer if isinstance(answer, tuple) else (answer,)
            status = failing or status
            return (status, *(out if status == SUCCESS else [None] * values))

        return call

    return decorate


class SimulatedCuda:
    """Stands in for the module `cuda.bindings.runtime`."""

    cudaStreamNonBlocking = 1
    cudaEventBlockingSync = 1
    cudaEventDisableTiming = 2

    class cudaMemcpyKind(IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    class cudaStreamCaptureMode(IntEnum):
        cudaStreamCaptureModeThreadLocal = 1

    def __init__(
        self,
        *,
        devices: int = 1,
        memory: int = 2**40,
        schedule: str | int = "lazy",
        fail_at: int | None = None,
        status: int = INVALID_VALUE,
        sticky: bool = False,
        failing_allocations: frozenset[int] = frozenset(),
    ) -> None:
        """Make GPUs.

        Args:
            devices: how many.
            memory: bytes of each.
            schedule: "lazy", "eager" or the seed of a random one.
            fail_at: which call fails, counted from 0 over this and the TensorRT module.
            status: that it fails with.
            sticky: all calls after it fail too.
            failing_allocations: which allocations fail for lack of memory, counted from 0.
        """
        self.schedule = schedule
        self.calls: list[str] = []
        self.complaints: list[str] = []
        self.host_time = 0.0  # virtual: what the host has waited for
        self.copy_time = self.kernel_time = 1.0
        self.allocations = 0
        self.driver = "580.65"
        self._memory = [memory] * devices
        self._fail_at, self._status, self._sticky = fail_at, status, sticky
        self._failing_allocations = failing_allocations
        self._random = random.Random(schedule) if isinstance(schedule, int) else None
        self._thread = threading.local()
        self._next_address = 0x7D0000000000
        self._next_handle = 0x1000
        self._blocks: dict[int, Block] = {}
        self._host_quarantine: list[Block] = []  # freed host memory is real: views of it must stay readable
        self._held: dict[int, Any] = {}  # streams, events and graphs, by id
        self.objects: list[tuple[str, weakref.ref[Any]]] = []  # of TensorRT

    # --- what tests ask -------------------------------------------------------------------------

    def leaks(self) -> list[str]:
        """Return what was handed out and not given back."""
        blocks = [f"{'host' if b.device is None else 'device'} memory" for b in self._blocks.values()]
        handles = [type(thing).__name__ for thing in self._held.values()]
        return blocks + handles + [name for name, ref in self.objects if ref() is not None]

    def free_memory(self, device: int = 0) -> int:
        return self._memory[device] - sum(
            len(block.data) for block in self._blocks.values() if block.device == device
        )

    # --- faults and schedule --------------------------------------------------------------------

    def count(self, name: str) -> int:
        """Count a call; return the status that it fails with, or 0."""
        number = len(self.calls)
        self.calls.append(name)
        if self._fail_at is None:
            return SUCCESS
        return (
            self._status if number == self._fail_at or (self._sticky and number > self._fail_at) else SUCCESS
        )

    def progress_at_random(self) -> None:
        if self._random is not None and (streams := self._streams()):
            for _ in range(self._random.randrange(4)):
                stream = self._random.choice(streams)
                if stream.pending and self._ready(stream.pending[0]):
                    self._do(stream)

    def put(self, stream: Stream, op: Op) -> None:
        """Put work on a stream, or into the graph that is being captured from it."""
        if stream.capture is not None:
            stream.capture.append(op)
            return
        op.issued = self.host_time
        stream.pending.append(op)
        if self.schedule == "eager":
            self.finish(stream)

    def finish(self, stream: Stream, until: tuple[Event, int] | None = None) -> None:
        """Do what is on a stream, and all that it waits for; up to a record of an event, or all."""
        while stream.pending and not (until and until[0].done >= until[1]):
            waits = stream.pending[0].waits
            if waits and not self._ready(stream.pending[0]):
                event, version = waits
                assert event.stream is not None
                self.finish(event.stream, (event, version))
            self._do(stream)

    @staticmethod
    def _ready(op: Op) -> bool:
        return op.waits is None or op.waits[0].done >= op.waits[1]

    def _do(self, stream: Stream) -> None:
        op = stream.pending.pop(0)
        start = max(stream.time, op.issued, op.waits[0].time if op.waits else 0.0)
        stream.time = start + op.duration
        if op.action is not None:
            op.action()
        if op.records is not None:
            event, version = op.records
            event.done, event.time = max(event.done, version), stream.time

    # --- memory ---------------------------------------------------------------------------------

    def bytes_at(self, address: int, size: int, *, device: int | None, what: str) -> NDArray[np.uint8] | None:
        """Return memory for reading or writing; None, with a complaint, where it is not ours."""
        for block in self._blocks.values():
            offset = address - block.address
            if block.device == device and 0 <= offset < len(block.data):
                if offset + size <= len(block.data):
                    return block.data[offset : offset + size]
                self.complaints.append(f"{what}: {size} bytes at {offset} of {len(block.data)}")
                return None
        self.complaints.append(f"{what}: no such memory, or freed")
        return None

    def _allocate(self, size: int, device: int | None) -> tuple[int, int | None]:
        number, self.allocations = self.allocations, self.allocations + 1
        if number in self._failing_allocations or (device is not None and size > self.free_memory(device)):
            return OUT_OF_MEMORY, None
        data = np.full(size, POISON, np.uint8)
        if device is None:
            address = int(data.ctypes.data)
        else:
            address = self._next_address
            self._next_address += -(-(size + GUARD) // ALIGNMENT) * ALIGNMENT
        self._blocks[address] = Block(address, data, device)
        return SUCCESS, address

    def _release(self, address: int, *, host: bool) -> int:
        block = self._blocks.get(int(address))
        if block is None or (block.device is None) != host:
            self.complaints.append("freed what was not allocated")
            return INVALID_VALUE
        busy = (stream for stream in self._streams() if stream.device == self._device and stream.pending)
        if any(busy) and self._fail_at is None:
            self.complaints.append("memory freed while work is pending")
        del self._blocks[block.address]
        block.data[:] = POISON
        if host:
            self._host_quarantine.append(block)
        return SUCCESS

    @api(1)
    def cudaMalloc(self, size: int) -> tuple[int, int | None]:
        if any(stream.capture is not None for stream in self._streams()):
            return CAPTURE_FORBIDS, None
        return self._allocate(size, self._device)

    @api(1)
    def cudaMallocHost(self, size: int) -> tuple[int, int | None]:
        return self._allocate(size, None)

    @api(release=True)
    def cudaFree(self, address: int) -> int:
        return self._release(address, host=False)

    @api(release=True)
    def cudaFreeHost(self, address: int) -> int:
        return self._release(address, host=True)

    @api(2)
    def cudaMemGetInfo(self) -> tuple[int, int, int]:
        return SUCCESS, self.free_memory(self._device), self._memory[self._device]

    @api()
    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: Stream) -> int:
        if stream.device != self._device:
            return INVALID_HANDLE
        to_device = kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice
        target_device = self._device if to_device else None
        source_device = None if to_device else self._device

        def copy() -> None:
            to = self.bytes_at(int(target), size, device=target_device, what="copy to")
            of = self.bytes_at(int(source), size, device=source_device, what="copy from")
            if to is not None and of is not None:
                to[:] = of

        self.put(stream, Op(copy, duration=self.copy_time))
        return SUCCESS

    # --- devices, streams, events ---------------------------------------------------------------

    @property
    def _device(self) -> int:
        """The current one, which each thread has for itself."""
        return getattr(self._thread, "device", 0)

    @api()
    def cudaSetDevice(self, device: int) -> int:
        if not 0 <= device < len(self._memory):
            return INVALID_DEVICE
        self._thread.device = device
        return SUCCESS

    @api(1)
    def cudaGetDevice(self) -> tuple[int, int]:
        return SUCCESS, self._device

    @api(1)
    def cudaGetErrorString(self, status: int) -> tuple[int, bytes]:
        return SUCCESS, f"simulated error {int(status)}".encode()

    @api()
    def cudaGetLastError(self) -> int:
        return SUCCESS

    def _hold(self, thing: Any) -> Any:
        self._held[id(thing)] = thing
        return thing

    def _give_back(self, thing: Any) -> int:
        return SUCCESS if self._held.pop(id(thing), None) is not None else INVALID_HANDLE

    @api(1)
    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[int, Stream]:
        assert flags == self.cudaStreamNonBlocking
        self._next_handle += 16
        return SUCCESS, self._hold(Stream(self._next_handle, self._device))

    @api(release=True)
    def cudaStreamDestroy(self, stream: Stream) -> int:
        if stream.pending and self._fail_at is None:
            self.complaints.append("stream destroyed while work is pending")
        return self._give_back(stream)

    @api()
    def cudaStreamSynchronize(self, stream: Stream) -> int:
        if stream.capture is not None:
            return CAPTURE_FORBIDS
        self.finish(stream)
        self.host_time = max(self.host_time, stream.time)
        return SUCCESS

    @api()
    def cudaStreamWaitEvent(self, stream: Stream, event: Event, flags: int) -> int:
        if event.recorded:  # waiting for an event that was never recorded is no wait
            self.put(stream, Op(waits=(event, event.recorded)))
        return SUCCESS

    @api(1)
    def cudaEventCreateWithFlags(self, flags: int) -> tuple[int, Event]:
        return SUCCESS, self._hold(Event(self._device))

    @api(release=True)
    def cudaEventDestroy(self, event: Event) -> int:
        return self._give_back(event)

    @api()
    def cudaEventRecord(self, event: Event, stream: Stream) -> int:
        if not event.device == stream.device == self._device:
            return INVALID_HANDLE
        event.stream, event.recorded = stream, event.recorded + 1
        self.put(stream, Op(records=(event, event.recorded)))
        return SUCCESS

    @api()
    def cudaEventSynchronize(self, event: Event) -> int:
        if event.stream is not None:
            self.finish(event.stream, (event, event.recorded))
            self.host_time = max(self.host_time, event.time)
        return SUCCESS

    # --- graphs ---------------------------------------------------------------------------------

    @api()
    def cudaStreamBeginCapture(self, stream: Stream, mode: int) -> int:
        if stream.capture is not None:
            return INVALID_VALUE
        stream.capture = []
        return SUCCESS

    @api(1, release=True)
    def cudaStreamEndCapture(self, stream: Stream) -> tuple[int, Graph | None]:
        ops, stream.capture = stream.capture, None
        if not ops:
            return CAPTURE_INVALIDATED, None
        if self._fail_at is not None and len(self.calls) - 1 == self._fail_at:
            return CAPTURE_INVALIDATED, None  # a capture that failed hands out nothing
        return SUCCESS, self._hold(Graph(ops))

    @api(release=True)
    def cudaGraphDestroy(self, graph: Graph) -> int:
        return self._give_back(graph)

    @api(1)
    def cudaGraphInstantiate(self, graph: Graph, flags: int) -> tuple[int, GraphExec]:
        return SUCCESS, self._hold(GraphExec(graph.ops, self._device))

    @api(release=True)
    def cudaGraphExecDestroy(self, executable: GraphExec) -> int:
        return self._give_back(executable)

    @api()
    def cudaGraphLaunch(self, executable: GraphExec, stream: Stream) -> int:
        if not executable.device == stream.device == self._device:
            return INVALID_HANDLE
        for op in executable.ops:
            self.put(stream, Op(op.action, duration=op.duration))
        return SUCCESS

    def stream_of(self, handle: int) -> Stream | None:
        """Return the stream that TensorRT was given as a number."""
        return next((stream for stream in self._streams() if stream.handle == handle), None)

    def _streams(self) -> list[Stream]:
        return [thing for thing in self._held.values() if isinstance(thing, Stream)]

    @property
    def device(self) -> int:
        return self._device


@contextmanager
def nothing_left(cuda: SimulatedCuda) -> Iterator[None]:
    """Check at the end that all was given back and nothing undefined was done."""
    yield
    assert cuda.complaints == []
    assert cuda.leaks() == []
