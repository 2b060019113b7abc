"""A TensorRT engine, loaded on a GPU: its tensors, profiles and contexts."""

from __future__ import annotations

from typing import Any

from sr.backends.tensorrt.calls import Calls
from sr.backends.tensorrt.capacity import Capacity
from sr.backends.tensorrt.contexts import Shape
from sr.backends.tensorrt.kernels import KernelFile
from sr.backends.tensorrt.modules import TensorRt
from sr.errors import BackendError
from sr.network.ends import FINITE_NAME, INPUT_NAME, OUTPUT_NAME

_TYPES = {INPUT_NAME: "UINT8", OUTPUT_NAME: "UINT8", FINITE_NAME: "FLOAT"}


class LoadedEngine:
    """An engine on the current GPU.

    Attributes:
        itemsizes: bytes per element of each tensor, by name.
        smallest: shape of a batch that its profile allows.
        largest: batch that its profile allows.
        static_shape: batch that a profile of its own is for, or None.
        contexts: of the engine.
    """

    def __init__(
        self,
        plan: bytes,
        trt: TensorRt,
        *,
        device: int,
        host_code: bool = False,
        kernel_file: KernelFile | None = None,
    ) -> None:
        """Load a serialized engine.

        Args:
            plan: what `build_serialized_network` returned.
            trt: that built it.
            device: the current GPU.
            host_code: the engine may bring its own TensorRT runtime.
            kernel_file: keeps the kernels that TensorRT-RTX compiles for the next process.

        Raises:
            OutOfDeviceMemoryError: the GPU has no room for the engine.
            BackendError: it does not load, or is not one of ours.
        """
        self._calls = Calls(trt.name, trt.log, device=device)
        self._runtime: Any = None
        self._engine: Any = None
        try:
            self._load(plan, trt, host_code)
        except BaseException:
            self._engine = self._runtime = None  # in this order
            raise
        self.contexts = trt.contexts(self._engine, self._calls, kernel_file)

    def _load(self, plan: bytes, trt: TensorRt, host_code: bool) -> None:
        make, ask = self._calls.make, self._calls.ask
        self._runtime = make("runtime", trt.module.Runtime, trt.log)
        if host_code:
            self._runtime.engine_host_code_allowed = True
        self._engine = make("loading the engine", self._runtime.deserialize_cuda_engine, plan)
        self.itemsizes = self._checked_tensors()
        smallest, _, largest = ask("profile", self._engine.get_tensor_profile_shape, INPUT_NAME, 0)
        self.smallest: Shape = tuple(smallest)
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

    def free(self) -> None:
        """Free contexts, engine and runtime, in this order."""
        self.contexts.free()
        self._engine = self._runtime = None
