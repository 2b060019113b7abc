"""TensorRT and TensorRT-RTX: one backend, which receives the module.

Owns what is run where: how large batches may be, which GPU takes which batch, what happens when
memory runs out, and which tiles are computed once more because fp16 overflowed.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sr.backends.base import Backend, BackendInfo, Batch, default_tile
from sr.backends.tensorrt.device import Slot, TrtDevice
from sr.backends.tensorrt.runtime import Plan
from sr.errors import BackendError, OutOfDeviceMemoryError
from sr.network.modelfile import ModelMetadata
from sr.tiling import MIN_HALOS_PER_TILE

# Of the free device memory, what buffers may take: contexts, graphs and kernels need some as well,
# and a display may want more. Where it was too much, `run` backs off.
MEMORY_SHARE = 0.9

_SMALLEST_TILE = 64  # below, a tile is mostly halo


@dataclass(frozen=True)
class TrtSettings:
    """How to run.

    Attributes:
        name: of the backend, as on the command line.
        model: metadata of the ONNX file that the engines were built from.
        tile: largest side of a tile wanted, in lr pixels; None takes what suits.
        batch: largest number of tiles at once wanted; None takes the engine's own.
        gpu_names: in words, by index.
        cuda_graph: run batches of the full shape as CUDA graphs.
        host_code: engines bring the runtime of their own TensorRT version, and are trusted to.
        fallback: opens the backend that computes tiles of which the fp16 output was not finite; None
            if there is no such file.
    """

    name: str
    model: ModelMetadata
    tile: int | None = None
    batch: int | None = None
    gpu_names: Mapping[int, str] | None = None
    cuda_graph: bool = True
    host_code: bool = False
    fallback: Callable[[], Backend] | None = None


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
            BackendError: a GPU or an engine does not work, or has not even memory for small tiles.
        """
        self._settings = settings
        self._devices: list[TrtDevice] = []
        self._fallback: Backend | None = None
        self._notes: list[str] = []
        self._redone = 0
        self._running = False
        try:
            for index, plan in plans.items():
                flags = {"cuda_graph": settings.cuda_graph, "host_code": settings.host_code}
                self._devices.append(TrtDevice(index, plan, module, cudart, **flags))
            self._adopt(self._fitting_plan())
        except BaseException:
            with contextlib.suppress(BackendError):  # what failed first is what matters
                self.close()
            raise

    @property
    def notes(self) -> tuple[str, ...]:
        """What happened that costs time or quality: smaller batches, no graphs, tiles redone."""
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
            raise RuntimeError("a run of this backend is going on; finish or close it first")
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
                device.drain()  # its failure is either the one being raised or met by the next call

    def _collected(self, device: TrtDevice, slot: Slot) -> Batch:
        """Return the result of a slot, with tiles that are not finite computed elsewhere."""
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
                    "beside it to take instead; use that with --model"
                )
            self._fallback = self._settings.fallback()
        return self._fallback

    # --- memory ---------------------------------------------------------------------------------

    def _fitting_plan(self) -> Plan:
        """Return the largest plan that the engines take and all devices have memory for."""
        settings, engines = self._settings, [device.largest for device in self._devices]
        wanted = default_tile(settings.model.scale) if settings.tile is None else settings.tile
        tile = min(wanted, *(largest.tile for largest in engines))
        batch = min(largest.batch for largest in engines)
        first = Plan(batch if settings.batch is None else min(batch, settings.batch), tile)
        free = [MEMORY_SHARE * device.free_bytes() for device in self._devices]
        for plan in self._from(first):
            if all(d.needed_bytes(plan) <= room for d, room in zip(self._devices, free, strict=True)):
                if plan != first and (settings.tile or settings.batch):
                    self._notes.append(f"the GPU has free memory for {plan}, not for {first}")
                return plan
        mib = min(free) / MEMORY_SHARE / 2**20
        raise BackendError(
            f"the GPU has too little free memory, {mib:.0f} MiB, even for {plan}; "
            "close what else uses it, or use --backend onnx"
        )

    def _from(self, plan: Plan) -> Iterator[Plan]:
        """Yield `plan` and ever smaller ones: the batch halves down to 1, then the tile."""
        yield plan
        while plan.batch > 1:
            plan = replace(plan, batch=plan.batch // 2)
            yield plan
        # A tile of four radii can be cut with any halo up to `--halo exact`.
        smallest = max(_SMALLEST_TILE, MIN_HALOS_PER_TILE * self._settings.model.receptive_field_radius)
        while plan.tile > smallest:
            plan = replace(plan, tile=max(smallest, plan.tile // 2))
            yield plan

    def _shrink(self, error: OutOfDeviceMemoryError) -> None:
        """Go to the next smaller plan.

        Raises:
            BackendError: there is none.
        """
        _, smaller, *_ = (*self._from(self._plan), None, None)
        if smaller is None:
            raise BackendError(f"{error}, even for {self._plan}; close what else uses it") from error
        self._notes.append(f"{error} for {self._plan}; went on with {smaller}")
        self._adopt(smaller)

    def _adopt(self, plan: Plan) -> None:
        for device in self._devices:
            device.resize(plan)
        self._plan = plan
        names = self._settings.gpu_names or {}
        gpus = (f"GPU {d.index} {names.get(d.index, '')}".strip() for d in self._devices)
        self.info = BackendInfo(
            name=self._settings.name,
            device=" and ".join(gpus),
            model=self._settings.model,
            default_tile=plan.tile,
            default_batch=plan.batch,
            why=self.info.why if hasattr(self, "info") else "",
            fixed_tiles=True,
            max_tile=plan.tile,
            max_batch=plan.batch,
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
