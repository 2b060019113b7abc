"""GPUs made of host memory: a stand-in for `cuda.bindings.runtime`; `simulated_tensorrt` runs on it.

What a GPU does at a time of its own choosing happens here at the worst time that the CUDA model
allows. Work on a stream waits until something synchronises ("lazy"), or is done at once ("eager"),
or in between at random (a seed); events order streams and nothing else does. Memory is poisoned when
it is handed out and when it is given back, so what is read too early or too late is wrong. Every call
can be made to fail. What real CUDA would answer with undefined behaviour is kept in `complaints`.
"""

from __future__ import annotations

import functools
import gc
import random
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

POISON = 0xA5
ALIGNMENT, GUARD = 256, 4096

SUCCESS, INVALID_VALUE, OUT_OF_MEMORY = 0, 1, 2
INVALID_DEVICE, INVALID_HANDLE = 101, 400
LAUNCH_FAILURE = 719  # sticky: after it, every call fails


@dataclass(frozen=True)
class Costs:
    """Virtual time and memory that things take; the unit is the caller's.

    Attributes:
        copy: of each copy between host and GPU.
        copy_byte: of each byte of it.
        kernel: of each run of an engine.
        kernel_px: of each lr pixel of it.
        pinned: of each allocation of page-locked memory, on the host.
        pinned_byte: of each byte of it.
        start: of the first use of a GPU, on the host.
        start_bytes: device memory that the first use of a GPU takes.
        context_bytes: device memory that an execution context takes.
    """

    copy: float = 1.0
    copy_byte: float = 0.0
    kernel: float = 1.0
    kernel_px: float = 0.0
    pinned: float = 0.0
    pinned_byte: float = 0.0
    start: float = 0.0
    start_bytes: int = 0
    context_bytes: int = 0


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
    touches: tuple[int, ...] = ()  # addresses in blocks of the host
    computes: bool = False


@dataclass(eq=False)
class Stream:
    handle: int
    device: int
    pending: list[Op] = field(default_factory=list)
    time: float = 0.0

    def __int__(self) -> int:
        return self.handle


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

    class cudaDeviceAttr(IntEnum):
        cudaDevAttrL2CacheSize = 38

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
        costs: Costs | None = None,
        clock: Callable[[], float] | None = None,
        l2_bytes: int = 2**40,
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
            costs: of what takes time and memory.
            clock: counts the host's own time; None lets the host take none.
            l2_bytes: size of the L2 cache of each.
        """
        self.schedule = schedule
        self.calls: list[str] = []
        self.complaints: list[str] = []
        self.costs, self.l2_bytes = costs or Costs(), l2_bytes
        self.started: set[int] = set()  # GPUs that were used
        self.busy: list[tuple[float, float]] = []  # from when to when engines ran
        self._clock = clock
        self._waited = 0.0 if clock is None else -clock()  # and what the simulation itself took
        self.allocations = 0
        self.copied = Counter[str]()  # bytes, "to device" and "to host"
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
        self._held: dict[int, Any] = {}  # streams and events, by id
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

    # --- time -----------------------------------------------------------------------------------

    @property
    def host_time(self) -> float:
        """Virtual time at which the host is."""
        return self._waited + (0.0 if self._clock is None else self._clock())

    def wait_until(self, time: float) -> None:
        """Let the host wait."""
        self._waited += max(0.0, time - self.host_time)

    @property
    def idle_share(self) -> float:
        """Time without an engine running, between the first run and the last, as a share of that with one."""
        ran = sum(stop - start for start, stop in self.busy)
        whole = max(stop for _, stop in self.busy) - min(start for start, _ in self.busy)
        return (whole - ran) / ran

    def start(self) -> None:
        """Take what the first use of the current GPU takes."""
        if self._device not in self.started:
            self.started.add(self._device)
            self._waited += self.costs.start
            self.take_hidden(self.costs.start_bytes)

    def take_hidden(self, size: int) -> bool:
        """Take memory of the current GPU that no call asked for; say whether there was enough."""
        if size > self.free_memory(self._device):
            return False
        self._memory[self._device] -= size
        return True

    def give_back_hidden(self, device: int, size: int) -> None:
        self._memory[device] += size

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
        """Put work on a stream."""
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
        if op.computes:
            self.busy.append((start, stream.time))
        if op.action is not None:
            before = self.host_time
            op.action()
            self._waited -= self.host_time - before  # the GPU's work, not the host's
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
        self.start()
        if device is None:
            self._waited += self.costs.pinned + size * self.costs.pinned_byte
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
        if self._fail_at is None and any(self._needs(op, block) for op in self._pending()):
            self.complaints.append("memory freed while work is pending")
        del self._blocks[block.address]
        block.data[:] = POISON
        if host:
            self._host_quarantine.append(block)
        return SUCCESS

    def _pending(self) -> Iterator[Op]:
        return (op for stream in self._streams() if stream.device == self._device for op in stream.pending)

    @staticmethod
    def _needs(op: Op, block: Block) -> bool:
        """Say whether work may need a block; of device memory all work may."""
        end = block.address + len(block.data)
        return block.device is not None or any(block.address <= address < end for address in op.touches)

    @api(1)
    def cudaMalloc(self, size: int) -> tuple[int, int | None]:
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
        self.start()
        return SUCCESS, self.free_memory(self._device), self._memory[self._device]

    @api()
    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: Stream) -> int:
        return self._copy((int(target), size), (int(source), size), (size, 1), kind, stream)

    @api()
    def cudaMemcpy2DAsync(
        self,
        target: int,
        target_pitch: int,
        source: int,
        source_pitch: int,
        width: int,
        height: int,
        kind: int,
        stream: Stream,
    ) -> int:
        if width > min(target_pitch, source_pitch):
            return INVALID_VALUE
        return self._copy(
            (int(target), target_pitch), (int(source), source_pitch), (width, height), kind, stream
        )

    def _copy(
        self, to: tuple[int, int], of: tuple[int, int], size: tuple[int, int], kind: int, stream: Stream
    ) -> int:
        """Copy rows; `to` and `of` are address and bytes from row to row, `size` bytes of a row and rows."""
        if stream.device != self._device:
            return INVALID_HANDLE
        to_device = kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice
        target_device = self._device if to_device else None
        source_device = None if to_device else self._device
        width, height = size

        def rows(start: tuple[int, int], device: int | None, what: str) -> NDArray[np.uint8] | None:
            address, pitch = start
            data = self.bytes_at(address, (height - 1) * pitch + width, device=device, what=what)
            return None if data is None else as_strided(data, (height, width), (pitch, 1))

        def copy() -> None:
            target, source = rows(to, target_device, "copy to"), rows(of, source_device, "copy from")
            if target is not None and source is not None:
                target[:] = source
                self.copied["to device" if to_device else "to host"] += target.size

        duration = self.costs.copy + width * height * self.costs.copy_byte
        self.put(stream, Op(copy, duration=duration, touches=(of[0] if to_device else to[0],)))
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
    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> tuple[int, int]:
        assert attribute == self.cudaDeviceAttr.cudaDevAttrL2CacheSize
        return SUCCESS, self.l2_bytes

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
        self.start()
        self._next_handle += 16
        return SUCCESS, self._hold(Stream(self._next_handle, self._device))

    @api(release=True)
    def cudaStreamDestroy(self, stream: Stream) -> int:
        if stream.pending and self._fail_at is None:
            self.complaints.append("stream destroyed while work is pending")
        return self._give_back(stream)

    @api()
    def cudaStreamSynchronize(self, stream: Stream) -> int:
        self.finish(stream)
        self.wait_until(stream.time)
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
            self.wait_until(event.time)
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
    if cuda.leaks():
        gc.collect()  # of circles that an error left
    assert cuda.complaints == []
    assert cuda.leaks() == []
