"""What there is on this machine to run a network with; probing loads as little as it can."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, version

# Backend: modules that it needs, beside those of the base install, and the packages that bring them.
_PACKAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "onnx": {"onnxruntime": ("onnxruntime-gpu", "onnxruntime")},
    "openvino": {"openvino": ("openvino",)},
    "torch": {"torch": ("torch",), "safetensors": ("safetensors",)},
    "trt": {
        "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
        "cuda.bindings.runtime": ("cuda-bindings",),
    },
    "trt-rtx": {"tensorrt_rtx": ("tensorrt-rtx",), "cuda.bindings.runtime": ("cuda-bindings",)},
}
_CUDA_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def driver_gpu_count() -> int:
    """Return how many GPUs the NVIDIA driver sees; 0 where there is no driver."""
    driver = _driver()
    count = ctypes.c_int(0)
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def driver_cuda_version() -> str:
    """Return the newest CUDA that the driver serves, e.g. "13.0"; empty where there is no driver."""
    driver = _driver()
    number = ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return ""
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def gpu_names() -> list[str]:
    """Return the names of the GPUs, in CUDA's order."""
    driver = _driver()
    names = []
    for index in range(driver_gpu_count()):
        name, device = ctypes.create_string_buffer(256), ctypes.c_int(0)
        known = (
            driver is not None
            and driver.cuDeviceGet(ctypes.byref(device), index) == 0
            and driver.cuDeviceGetName(name, len(name), device) == 0
        )
        names.append(name.value.decode(errors="replace") if known else "unknown")
    return names


def installed(backend: str) -> list[str]:
    """Return the packages of a backend that are installed, as "name version"."""
    found = []
    for module, candidates in _PACKAGES[backend].items():
        if _has(module):
            known = (f"{name} {number}" for name in candidates if (number := _version(name)))
            found.append(next(known, module))
    return found


def missing(backend: str) -> str:
    """Return what is not installed and the pip line for it; empty if all is."""
    lacking = [names[0] for module, names in _PACKAGES[backend].items() if not _has(module)]
    return f'{" and ".join(lacking)}; pip install "srup[{backend}]"' if lacking else ""


def lacks(backend: str) -> str:
    """Return what a backend lacks to run on the GPUs that the driver sees; empty if nothing."""
    if gap := missing(backend):
        return gap
    if backend == "onnx":
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            return "onnxruntime-gpu; pip uninstall onnxruntime, then pip install onnxruntime-gpu"
    if backend == "torch":
        import torch

        if not torch.cuda.is_available():
            return "a PyTorch that is built for CUDA; https://pytorch.org/get-started has the pip line"
    return ""


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(_CUDA_DRIVER)
    except OSError:
        return None


def _has(module: str) -> bool:
    """Say whether a module is installed, without importing what can be large."""
    package, _, inner = module.partition(".")
    if importlib.util.find_spec(package) is None:
        return False
    try:
        return not inner or importlib.util.find_spec(module) is not None
    except (ImportError, AttributeError):  # another package of that name
        return False


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
