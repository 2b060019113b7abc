"""The time of an engine split into enqueue, copy in, compute and copy out, as trtexec does.

One stream with events around each part and a wait after each run: nothing overlaps, so each part shows
its cost alone. The backends overlap the parts, so their throughput is better than the sum. Written for a
GPU; so far only the simulated device of the tests has run it.
"""

from __future__ import annotations

import math
import time
from typing import Any

from benchmarks.lib.runners import Case
from benchmarks.lib.timing import percentiles
from sr.backends.tensorrt.cuda import Cuda, Resources, cuda_gpus
from sr.backends.tensorrt.modules import KINDS, TensorRt
from sr.backends.tensorrt.runtime import LoadedEngine
from sr.backends.tensorrt.spec import EngineSpec
from sr.backends.tensorrt.store import EngineStore
from sr.network.ends import FINITE_NAME, INPUT_NAME, OUTPUT_NAME

PARTS = ("enqueue", "copy_in", "compute", "copy_out")
_WARM_UPS = 3
_MAX_ENQUEUE_SHARE = 0.8  # trtexec warns above: the GPU waits for the host

Split = dict[str, dict[str, float]]  # part: median, p90, p95, p99 in milliseconds


def split_of(name: str, case: Case, *, rounds: int) -> Split:
    """Return the split of a TensorRT backend's cached engine; empty for other backends.

    The shape is the case's, or the engine's largest if that is smaller.
    """
    kinds = {f"srup-{kind.backend.name}": kind for kind in KINDS.values()}
    if name not in kinds:
        return {}
    from cuda.bindings import runtime

    trt, gpu = kinds[name].load(), cuda_gpus()[0]
    spec = EngineSpec(scale=case.scale, precision=case.precision)
    engine = EngineStore(None).get(case.model(), spec, trt, gpu=gpu)
    host_code = engine.manifest.identity.spec.compatible
    shape = (case.batch, case.height, case.width, 3)
    return measured_split(engine.plan(), shape, trt, runtime, rounds=rounds, host_code=host_code)


def measured_split(
    plan: bytes,
    shape: tuple[int, ...],
    trt: TensorRt,
    cudart: Any,
    *,
    rounds: int,
    host_code: bool = False,
) -> Split:
    """Time a serialized engine on GPU 0 with batches of `shape` (N, H, W, 3), or its largest if smaller.

    Raises:
        BackendError: the device or the engine failed.
    """
    cuda = Cuda(cudart, 0)
    with cuda.current():
        return _measured_split(plan, shape, trt, cuda, rounds=rounds, host_code=host_code)


def _measured_split(
    plan: bytes, shape: tuple[int, ...], trt: TensorRt, cuda: Cuda, *, rounds: int, host_code: bool
) -> Split:
    cudart, resources, engine = cuda.cudart, Resources(cuda), None
    try:
        stream = resources.get("cudaStreamCreateWithFlags", cudart.cudaStreamNonBlocking)
        engine = LoadedEngine(plan, trt, device=0, host_code=host_code)
        largest = engine.largest.shape
        shape = tuple(min(wanted, most) for wanted, most in zip(shape, largest, strict=True))
        execution = engine.contexts.new(stream)
        output, scratch = execution.measure(shape)
        elements = {INPUT_NAME: math.prod(shape), OUTPUT_NAME: math.prod(output), FINITE_NAME: shape[0]}
        sizes = {name: elements[name] * itemsize for name, itemsize in engine.itemsizes.items()}
        device = {name: int(resources.get("cudaMalloc", size)) for name, size in sizes.items()}
        host = {name: resources.pinned(size).ctypes.data for name, size in sizes.items()}
        execution.prepare(shape, int(resources.get("cudaMalloc", max(scratch, 1))), scratch)
        execution.set_addresses(device)
        marks = [resources.get("cudaEventCreateWithFlags", 0) for _ in range(4)]
        kinds = cudart.cudaMemcpyKind
        seconds: dict[str, list[float]] = {part: [] for part in PARTS}
        for turn in range(-_WARM_UPS, rounds):
            cuda.call("cudaEventRecord", marks[0], stream)
            _copy(
                cuda,
                device[INPUT_NAME],
                host[INPUT_NAME],
                sizes[INPUT_NAME],
                kinds.cudaMemcpyHostToDevice,
                stream,
            )
            cuda.call("cudaEventRecord", marks[1], stream)
            started = time.perf_counter()
            execution.enqueue(stream)
            enqueue = time.perf_counter() - started
            cuda.call("cudaEventRecord", marks[2], stream)
            for name in sizes.keys() - {INPUT_NAME}:
                _copy(cuda, host[name], device[name], sizes[name], kinds.cudaMemcpyDeviceToHost, stream)
            cuda.call("cudaEventRecord", marks[3], stream)
            cuda.call("cudaEventSynchronize", marks[3])
            if turn >= 0:
                seconds["enqueue"].append(enqueue)
                for part, first, last in zip(PARTS[1:], marks, marks[1:], strict=False):
                    seconds[part].append(float(cuda.call("cudaEventElapsedTime", first, last)) / 1e3)
        return {part: percentiles(values) for part, values in seconds.items()}
    finally:
        if engine is not None:
            engine.free()
        resources.free()


def _copy(cuda: Cuda, target: int, source: int, size: int, kind: Any, stream: Any) -> None:
    cuda.call("cudaMemcpyAsync", target, source, size, kind, stream)


def split_warnings(name: str, split: Split) -> list[str]:
    """Return the warnings that trtexec would give."""
    median = {part: figures["median"] for part, figures in split.items()}
    found = []
    if median["enqueue"] > _MAX_ENQUEUE_SHARE * median["compute"]:
        found.append(
            f"{name}: enqueueing takes {median['enqueue']:.3f} ms of {median['compute']:.3f} ms compute"
        )
    for part in ("copy_in", "copy_out"):
        if median[part] > median["compute"]:
            found.append(f"{name}: {part} takes longer than compute: {median[part]:.3f} ms")
    return found
