"""A stand-in for the modules `tensorrt` and `tensorrt_rtx`, on the simulated devices.

An engine's kernel is a function of a batch; `OrtKernel` runs an ONNX file. A run takes shape and
addresses when it is enqueued and computes when its stream gets there, as on a GPU.
"""

from __future__ import annotations

import functools
import json
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.simulated_device import OUT_OF_MEMORY, POISON, Op, SimulatedCuda

Kernel = Callable[[NDArray[np.uint8]], tuple[NDArray[np.uint8], NDArray[np.float32]]]


class _DataType(IntEnum):
    FLOAT = 0
    UINT8 = 5

    @property
    def itemsize(self) -> int:
        return 4 if self is _DataType.FLOAT else 1


class _Logger:
    """Stands in for ILogger."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = "INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"

    def log(self, severity: str, message: str) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class SimulatedPlan:
    """What an engine is built of.

    Attributes:
        kernel: what it computes.
        scale: of the kernel.
        batch: largest, of the profile.
        tile: largest, of the profile.
        finite: has the second output.
        scratch_per_px: bytes of scratch memory for each lr pixel of a batch.
        static: has a second profile for the largest batch alone.
        least: side of the smallest tile.
    """

    kernel: Kernel
    scale: int
    batch: int
    tile: int
    finite: bool = True
    scratch_per_px: int = 16
    static: bool = False
    least: int = 1


class SimulatedTensorRT:
    """Stands in for the module `tensorrt`, or with `rtx` for `tensorrt_rtx`."""

    DataType = _DataType
    ILogger = _Logger

    class ProfilingVerbosity(IntEnum):
        LAYER_NAMES_ONLY = 0
        NONE = 1
        DETAILED = 2

    class ExecutionContextAllocationStrategy(IntEnum):
        STATIC = 0
        USER_MANAGED = 2

    def __init__(self, cuda: SimulatedCuda, *, rtx: bool = False) -> None:
        self.__name__ = "tensorrt_rtx" if rtx else "tensorrt"
        self.cuda = cuda
        self.plans: list[SimulatedPlan] = []
        self.shapes: list[tuple[int, ...]] = []  # of all runs
        self.profiles: list[int] = []  # of all runs
        self.background: str | None = None  # error that a thread of the library logs during each run
        self.compiled: list[tuple[int, ...]] = []  # shapes that TensorRT-RTX compiled kernels for
        if rtx:
            self.CudaGraphStrategy = IntEnum("CudaGraphStrategy", {"DISABLED": 0, "WHOLE_GRAPH_CAPTURE": 1})
            strategies = {"LAZY": 0, "EAGER": 1, "NONE": 2}
            self.DynamicShapesKernelSpecializationStrategy = IntEnum("Specialization", strategies)

    def plan(self, plan: SimulatedPlan) -> bytes:
        """Return a serialized engine."""
        self.plans.append(plan)
        return f"simulated {len(self.plans) - 1}".encode()

    def Runtime(self, log: _Logger) -> Runtime | None:
        return None if self.fails("Runtime", log) else _kept(self.cuda, Runtime(self, log))

    def fails(self, name: str, log: _Logger) -> bool:
        """Count a call; say whether it is to fail, and log why."""
        status = self.cuda.count(name)
        if status:
            words = "out of memory" if status == OUT_OF_MEMORY else f"simulated failure of {name}"
            log.log(log.ERROR, words)
        return bool(status)


def _kept(cuda: SimulatedCuda, thing: Any) -> Any:
    cuda.objects.append((type(thing).__name__, weakref.ref(thing)))
    return thing


class Runtime:
    def __init__(self, module: SimulatedTensorRT, log: _Logger) -> None:
        self._module, self._log = module, log

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if self._module.fails("deserialize_cuda_engine", self._log):
            return None
        words = plan.split()
        if len(words) != 2 or words[0] != b"simulated":
            self._log.log(self._log.ERROR, "Magic tag does not match")
            return None
        return _kept(self._module.cuda, Engine(self._module, self._log, self._module.plans[int(words[1])]))


class Engine:
    def __init__(self, module: SimulatedTensorRT, log: _Logger, plan: SimulatedPlan) -> None:
        self.module, self.log, self.plan = module, log, plan
        self.device = module.cuda.device
        types = {"image": _DataType.UINT8, "upscaled": _DataType.UINT8}
        self.types = types | ({"finite": _DataType.FLOAT} if plan.finite else {})
        self.num_io_tensors = len(self.types)
        self.num_optimization_profiles = 1 + plan.static

    def get_tensor_name(self, at: int) -> str:
        return list(self.types)[at]

    def get_tensor_dtype(self, name: str) -> _DataType:
        return self.types[name]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        most = (self.plan.batch, self.plan.tile, self.plan.tile, 3)
        return [most if profile else (1, self.plan.least, self.plan.least, 3), most, most]

    def create_runtime_config(self) -> RuntimeConfig | None:
        failed = self.module.fails("create_runtime_config", self.log)
        return None if failed else _kept(self.module.cuda, RuntimeConfig(self.module))

    def create_execution_context(self, how: Any) -> Context | None:
        if self.module.fails("create_execution_context", self.log):
            return None
        kernels = None
        if isinstance(how, RuntimeConfig):
            strategy, kernels = how.strategy, how._cache
            eager = how.dynamic_shapes_kernel_specialization_strategy == 1
        else:
            strategy, eager = how, True
            assert not hasattr(self.module, "CudaGraphStrategy")
        assert strategy == SimulatedTensorRT.ExecutionContextAllocationStrategy.USER_MANAGED
        cuda = self.module.cuda
        if not cuda.take_hidden(cuda.costs.context_bytes):
            self.log.log(self.log.ERROR, "out of memory")
            return None
        context = _kept(cuda, Context(self, kernels, eager=eager))
        weakref.finalize(context, cuda.give_back_hidden, self.device, cuda.costs.context_bytes)
        return context


class RuntimeConfig:
    cuda_graph_strategy = 0
    dynamic_shapes_kernel_specialization_strategy = 0  # LAZY: in a thread, while general kernels run
    strategy: Any = None
    _cache: Any = None

    def __init__(self, module: SimulatedTensorRT) -> None:
        self._module = module

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return _kept(self._module.cuda, RuntimeCache(self._module))

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self._cache = cache
        return True


class RuntimeCache:
    """Kernels by shape. Like the real one it refuses those of another version."""

    def __init__(self, module: SimulatedTensorRT) -> None:
        self._module = module
        self.shapes: set[tuple[int, ...]] = set()

    def serialize(self) -> bytes:
        return json.dumps([self._module.__name__, self._module.cuda.driver, sorted(self.shapes)]).encode()

    def deserialize(self, blob: bytes) -> bool:
        try:
            name, driver, shapes = json.loads(blob)
        except ValueError:
            return False
        if (name, driver) != (self._module.__name__, self._module.cuda.driver):
            return False
        self.shapes = set(map(tuple, shapes))
        return True


class Context:
    """An execution context; a run reads where and what when it is enqueued, and computes later."""

    def __init__(self, engine: Engine, kernels: RuntimeCache | None, *, eager: bool) -> None:
        self._engine, self._kernels, self._eager = engine, kernels, eager
        self.nvtx_verbosity = SimulatedTensorRT.ProfilingVerbosity.DETAILED  # as the engine was built
        self._shape: tuple[int, ...] | None = None
        self._partitioned = False  # scratch memory was measured for this shape
        self._scratch = (0, 0)
        self._addresses: dict[str, int] = {}
        self.running = 0  # runs that are enqueued and not done
        self._profile = 0

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._profile = profile
        known = profile < self._engine.num_optimization_profiles
        return known and not self._fails("set_optimization_profile_async")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.get_tensor_profile_shape(name, self._profile)
        allowed = all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))
        if self._fails("set_input_shape") or name != "image" or not allowed:
            return False
        if self._shape != shape:
            self._partitioned = False
            if self.running:
                self._engine.module.cuda.complaints.append("shape set while a run is pending")
        self._shape = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        if self._engine.module.cuda.count("infer_shapes"):
            raise RuntimeError("simulated failure of infer_shapes")
        return [] if self._shape else ["image"]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self._shape is not None
        n, height, width, channels = self._shape
        scale = self._engine.plan.scale
        return (n,) if name == "finite" else (n, height * scale, width * scale, channels)

    def update_device_memory_size_for_shapes(self) -> int:
        if self._fails("update_device_memory_size_for_shapes"):
            return 0
        self._partitioned = True
        return self._needed()

    def _needed(self) -> int:
        assert self._shape is not None
        return self._shape[0] * self._shape[1] * self._shape[2] * self._engine.plan.scratch_per_px

    def set_device_memory(self, address: int, size: int) -> None:
        self._scratch = (address, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        if self._fails("set_tensor_address") or name not in self._engine.types:
            return False
        self._addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        engine = self._engine
        if engine.module.background is not None:
            arguments = (engine.log.ERROR, engine.module.background)
            thread = threading.Thread(target=engine.log.log, args=arguments)
            thread.start()
            thread.join()
        if self._fails("execute_async_v3"):
            return False
        cuda, shape = engine.module.cuda, self._shape
        stream = cuda.stream_of(handle)
        if stream is None or not stream.device == cuda.device == engine.device:
            return self._refuse("the stream or the current device is not the engine's")
        if self.nvtx_verbosity != SimulatedTensorRT.ProfilingVerbosity.NONE:
            cuda.complaints.append("a run marks each layer, which slows the enqueue")
        if shape is None or self._addresses.keys() != engine.types.keys():
            return self._refuse("shapes or addresses are missing")
        if not self._partitioned or self._scratch[1] < self._needed() or not self._scratch[0]:
            return self._refuse("too little scratch memory")
        if not self._eager:
            cuda.complaints.append("kernels are compiled while others compute")
        if self._kernels is not None and shape not in self._kernels.shapes:
            self._kernels.shapes.add(shape)
            engine.module.compiled.append(shape)
        run = functools.partial(
            _run,
            weakref.ref(self),
            engine.plan,
            engine.module,
            shape,
            dict(self._addresses),
            self._scratch[0],
        )
        self.running += 1
        engine.module.profiles.append(self._profile)
        duration = cuda.costs.kernel + shape[0] * shape[1] * shape[2] * cuda.costs.kernel_px
        cuda.put(stream, Op(run, duration=duration, computes=True))
        return True

    def _fails(self, name: str) -> bool:
        return self._engine.module.fails(name, self._engine.log)

    def _refuse(self, why: str) -> bool:
        self._engine.log.log(_Logger.ERROR, why)
        return False


def _run(
    context: weakref.ref[Context],
    plan: SimulatedPlan,
    module: SimulatedTensorRT,
    shape: tuple[int, ...],
    addresses: dict[str, int],
    scratch: int,
) -> None:
    """Do what an enqueued run does."""
    cuda = module.cuda
    module.shapes.append(shape)
    alive = context()
    if alive is None:
        cuda.complaints.append("a run after its context was destroyed")
        return
    alive.running -= 1
    device = alive._engine.device
    pixels = shape[0] * shape[1] * shape[2]
    n, channels = shape[0], shape[3]

    def at(name: str, size: int) -> NDArray[np.uint8] | None:
        return cuda.bytes_at(addresses[name], size, device=device, what=f"run, {name}")

    work = cuda.bytes_at(scratch, pixels * plan.scratch_per_px, device=device, what="run, scratch")
    image = at("image", pixels * channels)
    upscaled = at("upscaled", pixels * channels * plan.scale**2)
    finite = at("finite", 4 * n) if plan.finite else None
    if work is None or image is None or upscaled is None or (plan.finite and finite is None):
        return
    if plan.kernel is no_kernel:
        if finite is not None:
            finite.view(np.float32)[:] = 1
        return
    work[:] = POISON
    result, good = plan.kernel(image.reshape(shape).copy())
    upscaled[:] = result.reshape(-1)
    if finite is not None:
        finite.view(np.float32)[:] = good


def no_kernel(batch: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Stand for a GPU that takes no time: nothing is computed."""
    raise NotImplementedError


def mirror_kernel(scale: int) -> Kernel:
    """Return a cheap kernel: every pixel enlarged and inverted; all is finite."""

    def kernel(batch: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        enlarged = batch.repeat(scale, axis=1).repeat(scale, axis=2)
        return 255 - enlarged, np.ones(len(batch), np.float32)

    return kernel


class OrtKernel:
    """An ONNX file on ONNX Runtime's CPU."""

    def __init__(self, path: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        results = dict(zip(self._names, self._session.run(self._names, {"image": batch}), strict=True))
        return results["upscaled"], results.get("finite", np.ones(len(batch), np.float32))
