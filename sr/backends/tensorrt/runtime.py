"""A TensorRT engine, loaded: its tensors, and the contexts that run it.

Owns every call of the TensorRT module at run time, and how its failures become errors of ours: most
of its calls answer None or False and write the reason to a log. The module, `tensorrt` or
`tensorrt_rtx`, is a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sr.backends.tensorrt.capacity import Capacity
from sr.backends.tensorrt.kernels import KernelFile
from sr.backends.tensorrt.log import logger, tensorrt_log
from sr.errors import BackendError, OutOfDeviceMemoryError
from sr.network.ends import FINITE_NAME, INPUT_NAME, OUTPUT_NAME

Shape = tuple[int, ...]

_TYPES = {INPUT_NAME: "UINT8", OUTPUT_NAME: "UINT8", FINITE_NAME: "FLOAT"}
_OUT_OF_MEMORY_WORDS = ("out of memory", "outofmemory", "memoryallocation", "out_of_memory")


class Calls:
    """Checked calls of the TensorRT module on one GPU."""

    def __init__(self, module: Any, *, device: int) -> None:
        self.module = module
        self.log = tensorrt_log(module)
        self._device = device

    def ask(self, what: str, function: Any, *arguments: Any) -> Any:
        """Call a function whose every answer is valid; its exceptions become errors of ours."""
        mark = self.log.mark()
        try:
            return function(*arguments)
        except RuntimeError as error:
            raise self._failure(what, mark, str(error)) from error

    def make(self, what: str, function: Any, *arguments: Any) -> Any:
        """Call a function that answers None or False if it fails.

        Raises:
            OutOfDeviceMemoryError: memory ran out, by what TensorRT logged.
            BackendError: it failed for another reason.
        """
        mark = self.log.mark()
        answer = self.ask(what, function, *arguments)
        if answer is None or answer is False:
            raise self._failure(what, mark, "no reason given")
        return answer

    def size(self, what: str, function: Any) -> int:
        """Call a function that answers a number of bytes, or 0 and an error in the log if it fails.

        Raises:
            OutOfDeviceMemoryError, BackendError: as `make`.
        """
        mark = self.log.mark()
        answer = int(self.ask(what, function))
        if answer == 0 and self.log.since(mark):
            raise self._failure(what, mark, "")
        return answer

    def _failure(self, what: str, mark: int, otherwise: str) -> BackendError:
        reason = " ".join("; ".join(self.log.since(mark)).split()) or otherwise
        message = f"GPU {self._device}: {self.module.__name__} failed ({what}): {reason}"
        if any(word in reason.lower() for word in _OUT_OF_MEMORY_WORDS):
            return OutOfDeviceMemoryError(message)
        return BackendError(message)


class Execution:
    """An execution context that works in the scratch memory that it is given.

    Attributes:
        shape: of the batch that it is ready to run, or None.
    """

    def __init__(self, calls: Calls, context: Any, stream: Any) -> None:
        self.shape: Shape | None = None
        self._calls = calls
        self._context = context
        self._profile = -1
        self.set_profile(0, stream)

    def set_profile(self, profile: int, stream: Any) -> None:
        """Choose the profile of the engine that the following shapes belong to."""
        if profile != self._profile:
            self._calls.make("profile", self._context.set_optimization_profile_async, profile, int(stream))
            self._profile = profile

    def measure(self, shape: Shape) -> tuple[Shape, int]:
        """Set the input's shape; return the output's, and the bytes of scratch memory needed.

        Raises:
            BackendError: the engine does not take the shape.
        """
        self.shape = None
        calls, context = self._calls, self._context
        calls.make(f"batch of shape {shape}", context.set_input_shape, INPUT_NAME, shape)
        if missing := calls.ask("shapes", context.infer_shapes):
            raise BackendError(f"TensorRT does not know the shapes of {', '.join(missing)}")
        output = tuple(calls.ask("shape of the output", context.get_tensor_shape, OUTPUT_NAME))
        return output, calls.size("memory", context.update_device_memory_size_for_shapes)

    def prepare(self, shape: Shape, scratch: int, size: int) -> None:
        """Get ready to run the shape that was measured last, in `size` bytes at `scratch`."""
        self._calls.ask("scratch memory", self._context.set_device_memory, scratch, size)
        self.shape = shape

    def enqueue(self, stream: Any) -> None:
        """Enqueue a run on the stream.

        Raises:
            BackendError: TensorRT refused.
        """
        self._calls.make("enqueue", self._context.execute_async_v3, int(stream))

    def set_addresses(self, addresses: Mapping[str, int]) -> None:
        """Set the addresses of the tensors on the device."""
        for name, address in addresses.items():
            self._calls.make(f"address of {name}", self._context.set_tensor_address, name, address)

    def free(self) -> None:
        """Destroy the context."""
        self._context = None


class LoadedEngine:
    """An engine on the current GPU.

    Attributes:
        itemsizes: bytes per element of each tensor, by name.
        largest: batch that its profile allows.
        static_shape: batch that a profile of its own is for, or None.
    """

    def __init__(
        self,
        plan: bytes,
        module: Any,
        *,
        device: int,
        host_code: bool = False,
        kernel_file: KernelFile | None = None,
    ) -> None:
        """Load a serialized engine.

        Args:
            plan: what `build_serialized_network` returned.
            module: the imported `tensorrt` or `tensorrt_rtx`.
            device: the current GPU.
            host_code: the engine may bring its own TensorRT runtime.
            kernel_file: keeps the kernels that TensorRT-RTX compiles for the next process.

        Raises:
            OutOfDeviceMemoryError: the GPU has no room for the engine.
            BackendError: it does not load, or is not one of ours.
        """
        self._calls = Calls(module, device=device)
        self._executions: list[Execution] = []
        self._configs: dict[bool, Any] = {}  # of TensorRT-RTX, for contexts that run and others
        self._kernels: Any = None
        self._kernel_file, self._kernels_on_disk = kernel_file, b""
        self._runtime: Any = None
        self._engine: Any = None
        try:
            self._load(plan, host_code)
        except BaseException:
            self.free()
            raise

    def _load(self, plan: bytes, host_code: bool) -> None:
        make, ask = self._calls.make, self._calls.ask
        self._runtime = make("runtime", self._calls.module.Runtime, self._calls.log)
        if host_code:
            self._runtime.engine_host_code_allowed = True
        self._engine = make("loading the engine", self._runtime.deserialize_cuda_engine, plan)
        self.itemsizes = self._checked_tensors()
        *_, largest = ask("profile", self._engine.get_tensor_profile_shape, INPUT_NAME, 0)
        batch, height, width, _ = tuple(largest)
        self.largest = Capacity(batch, min(height, width))
        self.static_shape: Shape | None = None
        if ask("profiles", lambda: self._engine.num_optimization_profiles) > 1:
            self.static_shape = tuple(ask("profile", self._engine.get_tensor_profile_shape, INPUT_NAME, 1)[2])

    def profile_of(self, shape: Shape) -> int:
        """Return the profile for a batch of this shape."""
        return 1 if shape == self.static_shape else 0

    def _checked_tensors(self) -> dict[str, int]:
        engine = self._engine
        names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
        types = {name: engine.get_tensor_dtype(name) for name in names}
        has = {name: dtype.name for name, dtype in types.items()}
        if not {INPUT_NAME, OUTPUT_NAME} <= has.keys() or not has.items() <= _TYPES.items():
            raise BackendError(f"the engine's tensors are {has}, need {_TYPES}; build it again")
        return {name: dtype.itemsize for name, dtype in types.items()}

    def new_execution(self, stream: Any, *, runs: bool = True) -> Execution:
        """Return a new execution context; one that never runs only measures.

        Raises:
            BackendError: TensorRT makes none.
        """
        how = self._calls.module.ExecutionContextAllocationStrategy.USER_MANAGED
        if hasattr(self._calls.module, "CudaGraphStrategy"):
            how = self._runtime_config(how, runs=runs)
        context = self._calls.make("execution context", self._engine.create_execution_context, how)
        # Plans hold names and types of layers for the inspector; markers of them slow each enqueue.
        context.nvtx_verbosity = self._calls.module.ProfilingVerbosity.NONE
        execution = Execution(self._calls, context, stream)
        self._executions.append(execution)
        return execution

    def _runtime_config(self, allocation: Any, *, runs: bool) -> Any:
        """Return the configuration of TensorRT-RTX; all contexts share the kernels that it compiles.

        It compiles them before it runs a shape for the first time. Otherwise a thread of its own would, and
        log to Python meanwhile, and the pixels of a picture would be those of two kernels.
        """
        if runs not in self._configs:
            module, make = self._calls.module, self._calls.make
            config = make("runtime configuration", self._engine.create_runtime_config)
            config.cuda_graph_strategy = module.CudaGraphStrategy.DISABLED
            config.dynamic_shapes_kernel_specialization_strategy = (
                module.DynamicShapesKernelSpecializationStrategy.EAGER
                if runs
                else module.DynamicShapesKernelSpecializationStrategy.NONE
            )
            config.set_execution_context_allocation_strategy(allocation)
            if self._kernels is None:
                self._kernels = make("runtime cache", config.create_runtime_cache)
                self._load_kernels(self._kernels)
            make("runtime cache", config.set_runtime_cache, self._kernels)
            self._configs[runs] = config
        return self._configs[runs]

    def _load_kernels(self, kernels: Any) -> None:
        """Load the kernels that earlier processes compiled; TensorRT-RTX refuses those that do not fit."""
        self._kernels_on_disk = b"" if self._kernel_file is None else self._kernel_file.read()
        if self._kernels_on_disk:
            with suppress(BackendError):
                if not self._calls.ask("stored kernels", kernels.deserialize, self._kernels_on_disk):
                    logger.info("stored kernels are of another GPU, driver or version; compiling them anew")

    def _store_kernels(self, kernels: Any) -> None:
        if self._kernel_file is None:
            return
        with suppress(BackendError):
            content = bytes(self._calls.make("kernels to store", kernels.serialize))
            if content != self._kernels_on_disk:
                self._kernel_file.write(content)

    def drop(self, execution: Execution) -> None:
        """Free a context before the engine is freed."""
        execution.free()
        self._executions.remove(execution)

    def free(self) -> None:
        """Store the kernels; destroy contexts, engine and runtime, in this order."""
        if self._kernels is not None:
            self._store_kernels(self._kernels)
        while self._executions:
            self._executions.pop().free()
        self._configs.clear()
        self._kernels = None
        self._engine = None
        self._runtime = None
