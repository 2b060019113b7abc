"""The backends by name, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sr.backends.available import driver_gpu_count, lacks
from sr.backends.base import PRECISIONS, Backend, BackendInfo, BackendRequest, Batch, gpu_indices
from sr.errors import BackendError, require_extra
from sr.network.modelfile import Precision, shipped_onnx, shipped_weights

__all__ = ["BACKENDS", "Backend", "BackendInfo", "BackendRequest", "Batch", "model_scale", "open_backend"]

# Weights, and training checkpoints that hold them.
_WEIGHTS_SUFFIXES = (".safetensors", ".pt")

_ON_SEVERAL_GPUS = ("trt", "trt-rtx")
CPU_ONLY = ("openvino",)


def open_backend(name: str, request: BackendRequest) -> Backend:
    """Open a backend by name.

    "auto" takes the fastest that is usable here; a backend or device that is named is taken or fails.

    Raises:
        BackendError: the backend or the device cannot be had.
        ModelError: the model file does not fit.
    """
    if name not in BACKENDS:
        raise BackendError(f"there is no backend {name!r}; the backends are {', '.join(BACKENDS)}")
    if len(gpu_indices(request.device)) > 1 and name not in ("auto", *_ON_SEVERAL_GPUS):
        raise BackendError(
            f"backend {name} runs on one device, not on {request.device}; "
            f"{' and '.join(_ON_SEVERAL_GPUS)} run on several"
        )
    if name == "auto":
        backend, why = _fastest(request)
    elif request.precision not in (None, *PRECISIONS[name]):
        able = [other for other, precisions in PRECISIONS.items() if request.precision in precisions]
        raise BackendError(
            f"backend {name} computes {' or '.join(PRECISIONS[name])}, not {request.precision}; "
            f"use --backend {' or '.join(able)}"
        )
    else:
        device, why = _device_for(name, request.device)
        backend = _OPENERS[name](replace(request, device=device))
    backend.info = replace(backend.info, why=why)
    if request.precision not in (None, backend.info.model.precision):
        backend.close()
        raise BackendError(
            f"{request.model}: is {backend.info.model.precision}, not {request.precision}; drop --precision"
        )
    return backend


def open_sixteen_bit_backend(name: str, request: BackendRequest) -> Backend:
    """Open what computes 16 bits per channel beside backend `name`, which does not.

    That is ONNX Runtime, or OpenVINO where that was named, with the float32 file of the shipped weights.

    Raises:
        BackendError: a backend, a precision or a model was named that has 8 bits only.
    """
    if request.precision not in (None, "fp32"):
        raise BackendError(
            f"{request.precision} is for 8 bits per channel and the picture has 16; use --precision fp32"
        )
    if name not in ("auto", "onnx", "openvino"):
        raise BackendError(
            f"backend {name} computes 8 bits per channel and the picture has 16; "
            "use --backend onnx, openvino or torch"
        )
    if request.model is not None:
        raise BackendError(
            f"{request.model}: computes 8 bits per channel and the picture has 16; "
            "export the model with --io float32 --precision fp32"
        )
    model = shipped_onnx(scale=request.scale, io="float32")
    device = request.device if len(gpu_indices(request.device)) < 2 else "cuda"
    opened = "openvino" if name == "openvino" else "onnx"
    return open_backend(opened, replace(request, model=model, device=device))


def model_scale(model: Path) -> int:
    """Return the factor by which a model file upscales; no backend is opened.

    Raises:
        ModelError: the file is missing, damaged or not ours.
        MissingExtraError: it holds weights, and the `torch` extra is not installed.
    """
    if model.suffix not in _WEIGHTS_SUFFIXES:
        from sr.backends.ort import read_metadata

        return read_metadata(model).scale
    require_extra("torch", "torch", "safetensors", purpose=f"reading {model}")
    from sr.network.checkpoint import load_weights

    return load_weights(model).config.scale


def _device_for(name: str, device: str) -> tuple[str, str]:
    """Return the device on which a backend that was named runs, and why if that was not named."""
    if device != "auto" or name in _ON_SEVERAL_GPUS:
        return device, ""
    if name in CPU_ONLY:
        return "cpu", ""
    if not driver_gpu_count():
        return "cpu", "no NVIDIA GPU found"
    if lack := lacks(name):
        return "cpu", f"{name} cannot use the GPU: {lack}"
    return "cuda", "a GPU before the CPU"


def _fastest(request: BackendRequest) -> tuple[Backend, str]:
    """Open the first backend that works with this model and on this device, and say why that one."""
    on_gpu: tuple[str, ...] = ("trt", "trt-rtx", "onnx", "torch")
    on_cpu = "onnx"  # in fp32 as fast as OpenVINO, and sooner there: benchmarks/README.md
    if request.precision in ("bf16", "int8"):  # no GPU backend has these
        if gpu_indices(request.device) and request.device != "auto":
            raise BackendError(f"no backend computes {request.precision} on a GPU; drop --device")
        backend = _OPENERS["openvino"](replace(request, device="cpu"))
        return backend, f"the fastest in {request.precision}"
    if request.model is not None and request.model.suffix in _WEIGHTS_SUFFIXES:
        on_gpu, on_cpu = ("torch",), "torch"
    elif request.model is not None:
        on_gpu = ("trt", "trt-rtx", "onnx")
    on_gpu = tuple(name for name in on_gpu if request.precision in (None, *PRECISIONS[name]))
    if request.device == "cpu":
        return _OPENERS[on_cpu](request), ""
    if not driver_gpu_count():
        if request.device != "auto":
            raise BackendError(f"device {request.device}: the driver finds no NVIDIA GPU here; drop --device")
        return _OPENERS[on_cpu](replace(request, device="cpu")), "no NVIDIA GPU found"
    device = "cuda" if request.device == "auto" else request.device
    if len(gpu_indices(device)) > 1:
        on_gpu, on_cpu = _ON_SEVERAL_GPUS, "trt"  # which then says what it lacks
    failure = ""
    for name in on_gpu:
        if lacks(name):
            continue
        try:
            return _OPENERS[name](replace(request, device=device)), failure or "the fastest on this GPU"
        except BackendError as error:
            failure = failure or f"{name} failed: {error}"
    if request.device != "auto":  # a device that is named is taken, or the reason why not is raised
        if failure:
            raise BackendError(failure)
        return _OPENERS[on_cpu](replace(request, device=device)), ""
    why = failure or f"{' and '.join(on_gpu)} cannot use the GPU, see srup info"
    return _OPENERS[on_cpu](replace(request, device="cpu")), why


def _open_onnx(request: BackendRequest) -> Backend:
    model = request.model
    if model is not None and model.suffix in _WEIGHTS_SUFFIXES:
        raise BackendError(f"{model}: backend onnx runs ONNX files; export it, or use --backend torch")
    from sr.backends.ort import OrtBackend

    shipped = model or shipped_onnx(scale=request.scale, precision=request.precision or "fp32")
    return OrtBackend(shipped, device=request.device)


def _open_openvino(request: BackendRequest) -> Backend:
    require_extra("openvino", "openvino", purpose="backend openvino")
    if request.device != "cpu":
        raise BackendError("backend openvino runs on the CPU; drop --device, or use --backend onnx")
    from sr.backends.openvino import OpenVinoBackend

    file: Precision = "int8" if request.precision == "int8" else "fp32"
    model = request.model or shipped_onnx(scale=request.scale, precision=file)
    return OpenVinoBackend(model, precision=request.precision)


def _open_torch(request: BackendRequest) -> Backend:
    require_extra("torch", "torch", "safetensors", purpose="backend torch")
    model = request.model
    if model is not None and model.suffix == ".onnx":
        raise BackendError(f"{model}: backend torch runs safetensors weights; use --backend onnx")
    from sr.backends.pytorch import TorchBackend

    return TorchBackend(model or shipped_weights(scale=request.scale), device=request.device)


def _open_tensorrt(name: str, request: BackendRequest) -> Backend:
    model = request.model
    if model is not None and model.suffix in _WEIGHTS_SUFFIXES:
        raise BackendError(f"{model}: backend {name} runs ONNX files; export it, or use --backend torch")
    if request.device == "cpu":
        raise BackendError(f"backend {name} runs on GPUs only; drop --device cpu, or use --backend onnx")
    missing = lacks(name)
    if not driver_gpu_count():
        raise BackendError(
            f"backend {name} needs an NVIDIA GPU, and the driver finds none here; use --backend onnx"
            + (f" (backend {name} also lacks a package: {missing})" if missing else "")
        )
    if missing:
        raise BackendError(f"backend {name} lacks a package: {missing}")
    from sr.backends.tensorrt.opening import open_trt

    return open_trt(name, request)


_OPENERS: dict[str, Callable[[BackendRequest], Backend]] = {
    "onnx": _open_onnx,
    "openvino": _open_openvino,
    "torch": _open_torch,
    "trt": lambda request: _open_tensorrt("trt", request),
    "trt-rtx": lambda request: _open_tensorrt("trt-rtx", request),
}

BACKENDS = ("auto", *_OPENERS)
