"""The CUDA runtime with every status checked, and a list of the resources that it handed out.

Owns the current device, and how a failed CUDA call becomes an error of ours. The runtime
(`cuda.bindings.runtime`) is a parameter, so importing this needs neither a GPU nor the package.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr.backends.available import has_module
from sr.backends.gpus import Gpu, driver_cuda_version, visible_gpus
from sr.errors import BackendError, EngineError, OutOfDeviceMemoryError

# cudaError_t, from the CUDA runtime's driver_types.h
_SUCCESS = 0
_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
_REMEDIES = {
    35: "; the NVIDIA driver is missing or older than this CUDA runtime needs",  # cudaErrorInsufficientDriver
    100: "; no NVIDIA GPU was found",  # cudaErrorNoDevice
    101: "; srup info lists the devices",  # cudaErrorInvalidDevice
}

_RELEASES = {
    "cudaMalloc": "cudaFree",
    "cudaMallocHost": "cudaFreeHost",
    "cudaStreamCreateWithFlags": "cudaStreamDestroy",
    "cudaEventCreateWithFlags": "cudaEventDestroy",
}


def cuda_gpus() -> list[Gpu]:
    """Return the GPUs that CUDA for Python can use; none without cuda-bindings.

    Raises:
        EngineError: the driver is too old for them, or cannot describe a GPU.
    """
    gpus = visible_gpus() if has_module("cuda.bindings") else []
    if not gpus:
        return []
    from cuda.bindings import runtime

    if runtime.cudaGetDeviceCount()[0] == runtime.cudaError_t.cudaErrorInsufficientDriver:
        raise EngineError(
            f"the NVIDIA driver is too old: it supports CUDA {driver_cuda_version()}, but cuda-bindings "
            f"{importlib.metadata.version('cuda-bindings')} needs a newer one; update the driver, or install "
            "the cuda-bindings and TensorRT packages for its CUDA version"
        )
    for gpu in gpus:
        if not gpu.compute_capability:
            raise EngineError(f"GPU {gpu.index}: the driver cannot describe it; see nvidia-smi")
    return gpus


class Cuda:
    """The runtime on one device."""

    def __init__(self, cudart: Any, device: int) -> None:
        self.cudart = cudart
        self.device = device

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the runtime; return its one value, the tuple of several, or None.

        Raises:
            OutOfDeviceMemoryError: there is not enough memory.
            BackendError: any other status than success.
        """
        status, *values = getattr(self.cudart, function)(*arguments)
        if status != _SUCCESS:
            raise self._error(function, status)
        return values[0] if len(values) == 1 else tuple(values) or None

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the current device of the calling thread, and restore the one before at the end.

        Raises:
            BackendError: there is no such device, or the one before cannot be restored.
        """
        before = self.call("cudaGetDevice")
        if before == self.device:
            yield
            return
        self.call("cudaSetDevice", self.device)
        try:
            yield
        except BaseException:
            self.cudart.cudaSetDevice(before)  # the first failure matters, not this one
            raise
        self.call("cudaSetDevice", before)

    def _error(self, function: str, status: Any) -> BackendError:
        code = int(status)
        if code == _OUT_OF_MEMORY:
            self.cudart.cudaGetLastError()  # otherwise somebody's next check would find it again
            return OutOfDeviceMemoryError(f"GPU {self.device}: out of memory ({function})")
        _, text = self.cudart.cudaGetErrorString(status)
        words = text.decode() if isinstance(text, bytes) else "unknown error"
        remedy = _REMEDIES.get(code, "")
        return BackendError(f"GPU {self.device}: {function} failed with CUDA error {code}, {words}{remedy}")


class Resources:
    """Resources of the CUDA runtime, freed in the reverse order."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._held: list[tuple[str, Any]] = []

    def get(self, function: str, *arguments: Any) -> Any:
        """Call a function that allocates something, and remember it for `free`.

        Raises:
            BackendError: it failed.
        """
        handle = self._cuda.call(function, *arguments)
        self._held.append((_RELEASES[function], handle))
        return handle

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Return `size` bytes of page-locked host memory, valid until `free`.

        Raises:
            BackendError: there is not enough.
        """
        address = self.get("cudaMallocHost", size)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(address)))

    def free(self) -> str:
        """Free everything, even if some of it fails; return the message of the first failure, or "".

        A message, because a kept exception would hold frames, and these the objects to be freed.
        """
        failure = ""
        while self._held:
            function, handle = self._held.pop()
            try:
                self._cuda.call(function, handle)
            except BackendError as error:
                failure = failure or str(error)
        return failure
