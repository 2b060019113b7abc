"""From the name of a backend to engines on GPUs: what to build, from which file, for which GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sr.backends.base import PRECISIONS, Backend, BackendRequest, gpu_indices
from sr.backends.tensorrt.backend import TrtBackend, TrtSettings
from sr.errors import BackendError, ModelError
from sr.network.modelfile import ModelMetadata, shipped_onnx


def open_trt(name: str, request: BackendRequest) -> TrtBackend:
    """Open backend "trt" or "trt-rtx"; build the engines that the cache lacks.

    Raises:
        BackendError: no such GPU, a package is missing, or an engine cannot be built or loaded.
        ModelError: the model file does not fit.
    """
    from cuda.bindings import runtime as cudart

    from deploy.engine import EngineCache, EngineSpec, load_module, visible_gpus
    from sr.backends.ort import read_metadata
    from sr.backends.tensorrt.cuda import Cuda

    module = load_module(name)
    gpus = {gpu.index: gpu for gpu in visible_gpus()}
    wanted = gpu_indices(request.device)
    if absent := [index for index in wanted if index not in gpus]:
        there = ", ".join(f"{gpu.index} {gpu.name}" for gpu in gpus.values()) or "none"
        raise BackendError(f"there is no GPU {absent[0]}; there are: {there}")
    onnx = request.model or shipped_onnx(scale=request.scale, precision=request.precision or "fp16")
    model = read_metadata(onnx)
    if model.precision not in PRECISIONS[name]:
        raise BackendError(
            f"{onnx}: is {model.precision}, and backend {name} computes {' or '.join(PRECISIONS[name])}"
        )
    usual = EngineSpec(scale=model.scale, precision=model.precision)
    # One engine serves all smaller tiles; larger ones than usual need one of their own.
    spec = EngineSpec(
        scale=model.scale,
        precision=model.precision,
        tile=max(usual.tile, request.tile or 0),
        batch=max(usual.batch, request.batch or 0),
    )
    progress = request.build_progress

    def log(line: str) -> None:
        if progress is not None and ": found" not in line:
            progress(line, 0.0)

    plans, host_code, cache = {}, False, EngineCache(request.engine_dir)
    for index in wanted:
        Cuda(cudart, index).use()  # TensorRT builds for the current device
        engine = cache.get(onnx, spec, module, gpu=gpus[index], progress=progress, log=log)
        plans[index] = engine.plan()
        host_code = host_code or engine.manifest.identity.compatible
    settings = TrtSettings(
        name=name,
        model=model,
        tile=request.tile,
        batch=request.batch,
        gpu_names={index: gpus[index].name for index in wanted},
        host_code=host_code,
        fallback=fallback_of(onnx, model),
    )
    return TrtBackend(plans, settings, module=module, cudart=cudart)


def fallback_of(onnx: Path, model: ModelMetadata) -> Callable[[], Backend] | None:
    """Return what opens the fp32 file of the same weights beside an fp16 file; None if there is none.

    It runs on the CPU. Files exported together differ in this part of the name alone.
    """
    if model.precision != "fp16":
        return None
    sibling = onnx.with_name(onnx.name.replace("_fp16_", "_fp32_"))
    if sibling == onnx or not sibling.is_file():
        return None

    def open_sibling() -> Backend:
        from sr.backends.ort import OrtBackend

        backend = OrtBackend(sibling, device="cpu")
        if backend.info.model.weights_sha256 != model.weights_sha256:
            backend.close()
            raise ModelError(f"{sibling}: of other weights than {onnx.name}, whose fp16 output is not finite")
        return backend

    return open_sibling
