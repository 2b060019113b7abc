"""The execution contexts of an engine: how they are made, and how one runs a shape."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sr.backends.tensorrt.calls import Calls
from sr.backends.tensorrt.kernels import KernelFile
from sr.backends.tensorrt.log import logger
from sr.errors import BackendError
from sr.network.ends import INPUT_NAME, OUTPUT_NAME

Shape = tuple[int, ...]


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


class Contexts:
    """The contexts of an engine, all in scratch memory that they are given."""

    def __init__(self, module: Any, engine: Any, calls: Calls) -> None:
        self._module, self._engine, self._calls = module, engine, calls
        self._executions: list[Execution] = []

    def new(self, stream: Any, *, runs: bool = True) -> Execution:
        """Return a new context; one that never runs only measures.

        Raises:
            BackendError: TensorRT makes none.
        """
        how = self._how(runs=runs)
        context = self._calls.make("execution context", self._engine.create_execution_context, how)
        # Plans hold names and types of layers for the inspector; markers of them slow each enqueue.
        context.nvtx_verbosity = self._module.ProfilingVerbosity.NONE
        execution = Execution(self._calls, context, stream)
        self._executions.append(execution)
        return execution

    def _how(self, *, runs: bool) -> Any:
        """Return with what `create_execution_context` is called."""
        return self._module.ExecutionContextAllocationStrategy.USER_MANAGED

    def drop(self, execution: Execution) -> None:
        """Free a context before the engine is freed."""
        execution.free()
        self._executions.remove(execution)

    def free(self) -> None:
        """Free all contexts, and let the engine go."""
        while self._executions:
            self._executions.pop().free()
        self._engine = None


class RtxContexts(Contexts):
    """Those of TensorRT-RTX. They share the kernels that it compiles, and a file keeps them.

    It compiles them before it runs a shape for the first time. Otherwise a thread of its own would, and
    log to Python meanwhile, and the pixels of a picture would be those of two kernels.
    """

    def __init__(self, module: Any, engine: Any, calls: Calls, kernel_file: KernelFile | None) -> None:
        super().__init__(module, engine, calls)
        self._configs: dict[bool, Any] = {}  # for contexts that run, and others
        self._kernels: Any = None
        self._file, self._on_disk = kernel_file, b""

    def _how(self, *, runs: bool) -> Any:
        if runs not in self._configs:
            module, make = self._module, self._calls.make
            config = make("runtime configuration", self._engine.create_runtime_config)
            config.cuda_graph_strategy = module.CudaGraphStrategy.DISABLED
            config.dynamic_shapes_kernel_specialization_strategy = (
                module.DynamicShapesKernelSpecializationStrategy.EAGER
                if runs
                else module.DynamicShapesKernelSpecializationStrategy.NONE
            )
            config.set_execution_context_allocation_strategy(super()._how(runs=runs))
            if self._kernels is None:
                self._kernels = make("runtime cache", config.create_runtime_cache)
                self._load(self._kernels)
            make("runtime cache", config.set_runtime_cache, self._kernels)
            self._configs[runs] = config
        return self._configs[runs]

    def _load(self, kernels: Any) -> None:
        """Load the kernels that earlier processes compiled; TensorRT-RTX refuses those that do not fit."""
        self._on_disk = b"" if self._file is None else self._file.read()
        if self._on_disk:
            with suppress(BackendError):
                if not self._calls.ask("stored kernels", kernels.deserialize, self._on_disk):
                    logger.info("stored kernels are of another GPU, driver or version; compiling them anew")

    def _store(self, kernels: Any) -> None:
        if self._file is None or kernels is None:
            return
        with suppress(BackendError):
            content = bytes(self._calls.make("kernels to store", kernels.serialize))
            if content != self._on_disk:
                self._file.write(content)

    def free(self) -> None:
        """Store the kernels; free all contexts, then what they share."""
        self._store(self._kernels)
        super().free()
        self._configs.clear()
        self._kernels = None
