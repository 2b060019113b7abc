"""The backends by name, and the choice between them."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

from sr.backends.base import Backend, BackendInfo, Batch
from sr.errors import BackendError, require_extra
from sr.modelfile import shipped_onnx, shipped_weights

__all__ = ["BACKENDS", "Backend", "BackendInfo", "Batch", "open_backend"]

BACKENDS = ("auto", "onnx", "torch")

# Weights, and training checkpoints that hold them.
_WEIGHTS_SUFFIXES = (".safetensors", ".pt")

_CUDA_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def open_backend(name: str, *, scale: int, device: str = "auto", model: Path | None = None) -> Backend:
    """Open a backend by name with the shipped model for `scale`, or with the model file `model`.

    "auto" takes the fastest that is usable here; a backend that is named is taken or fails.

    Raises:
        BackendError: the backend or the device cannot be had.
        ModelError: the model file does not fit.
    """
    name, device, why = _chosen(name, device, model)
    backend = _open(name, scale=scale, device=device, model=model)
    backend.info = replace(backend.info, why=why)
    return backend


def _open(name: str, *, scale: int, device: str, model: Path | None) -> Backend:
    if name == "onnx":
        if model is not None and model.suffix in _WEIGHTS_SUFFIXES:
            raise BackendError(f"{model}: backend onnx runs ONNX files; export it, or use --backend torch")
        from sr.backends.ort import OrtBackend

        return OrtBackend(model or shipped_onnx(scale=scale), device=device)
    if name == "torch":
        require_extra("torch", "torch", "safetensors", purpose="backend torch")
        if model is not None and model.suffix == ".onnx":
            raise BackendError(f"{model}: backend torch runs safetensors weights; use --backend onnx")
        from sr.backends.pytorch import TorchBackend

        return TorchBackend(model or shipped_weights(scale=scale), device=device)
    raise BackendError(f"there is no backend {name!r}; the backends are {', '.join(BACKENDS)}")


def cuda_driver_devices() -> int:
    """Return how many GPUs the NVIDIA driver sees; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL(_CUDA_DRIVER)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _chosen(name: str, device: str, model: Path | None) -> tuple[str, str, str]:
    """Return backend, device and why: a GPU before the CPU, ONNX Runtime before PyTorch."""
    if name != "auto":
        candidates = [name]
    elif model is not None:
        candidates = ["torch" if model.suffix in _WEIGHTS_SUFFIXES else "onnx"]
    else:
        candidates = ["onnx", "torch"]
    if device == "cpu" or (name != "auto" and device != "auto"):
        return candidates[0], device, ""
    if not cuda_driver_devices():
        return candidates[0], "cpu" if device == "auto" else device, "no NVIDIA GPU found"
    for candidate in candidates:
        if _usable_on_cuda(candidate):
            return candidate, "cuda", "a GPU before the CPU"
    why = f"{' and '.join(candidates)} cannot use the GPU, see srup info"
    return candidates[0], "cpu" if device == "auto" else device, why


def _usable_on_cuda(name: str) -> bool:
    """Say whether a backend can use the GPUs that the driver sees."""
    if name == "onnx":
        import onnxruntime

        return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())
