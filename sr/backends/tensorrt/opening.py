"""From the name of a backend to engines on GPUs: which engine, of which file, for which GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sr.backends.base import Backend, BackendRequest, gpu_indices
from sr.backends.gpus import Gpu
from sr.backends.ort import OrtBackend, read_metadata
from sr.backends.specs import BackendSpec
from sr.backends.tensorrt.backend import TrtBackend, TrtSettings
from sr.backends.tensorrt.cuda import cuda_gpus
from sr.backends.tensorrt.kernels import KernelFile
from sr.backends.tensorrt.modules import load_tensorrt
from sr.backends.tensorrt.spec import EngineSpec
from sr.backends.tensorrt.store import EngineStore, default_folder
from sr.errors import BackendError, ModelError
from sr.network.descriptor import ModelDescriptor
from sr.network.modelfile import shipped_onnx
from sr.network.pair import RESTORED_FOLDER, restored_descriptor, restored_file, stepped


def open_trt(spec: BackendSpec, request: BackendRequest) -> TrtBackend:
    """Open TensorRT or TensorRT-RTX; `request.builder` builds the engines that the store lacks.

    Args:
        spec: record of the backend.
        request: for what.

    Raises:
        BackendError: there is no such GPU, a package is missing, or an engine is missing or does not load.
        ModelError: the model file does not fit.
    """
    from cuda.bindings import runtime as cudart

    trt = load_tensorrt(spec.name)
    gpus = _gpus(request.device)
    onnx = request.model or shipped_onnx(
        scale=request.scale, precision=request.precision or spec.precisions[0]
    )
    model = read_metadata(onnx)
    base, strength = onnx, stepped(request.restore)
    if strength:
        onnx = restored_file(base, strength, (request.engine_dir or default_folder()) / RESTORED_FOLDER)
        model = restored_descriptor(model, base, strength)
    if not model.ours:
        raise BackendError(f"{onnx}: engines are built only from files of srup export; use --backend onnx")
    if model.precision not in spec.precisions:
        raise BackendError(
            f"{onnx}: is {model.precision}, and backend {spec.name} computes {' or '.join(spec.precisions)}"
        )
    progress = request.build_progress

    def log(line: str) -> None:
        if progress is not None and ": found" not in line:
            progress(line, 0.0)

    store, wanted = EngineStore(request.engine_dir, builder=request.builder), engine_spec(model, request)
    engines = {gpu: store.get(onnx, wanted, trt, gpu=gpu, progress=progress, log=log) for gpu in gpus}
    settings = TrtSettings(
        model=model,
        tile=request.tile,
        batch=request.batch,
        gpu_names={gpu.index: gpu.name for gpu in gpus},
        host_code=any(engine.manifest.identity.spec.compatible for engine in engines.values()),
        fallback=fallback_of(base, model, restore=strength),
        kernel_files={
            gpu.index: KernelFile.beside(engine.path, gpu=gpu, version=trt.version)
            for gpu, engine in engines.items()
            if trt.ahead_of_time
        },
    )
    plans = {gpu.index: engine.plan() for gpu, engine in engines.items()}
    return TrtBackend(plans, settings, trt=trt, cudart=cudart)


def engine_spec(model: ModelDescriptor, request: BackendRequest) -> EngineSpec:
    """Return the engine to run: the usual one, or a larger one if larger tiles or batches are requested."""
    usual = EngineSpec(scale=model.scale, precision=model.precision)
    return EngineSpec(
        scale=model.scale,
        precision=model.precision,
        tile=max(usual.tile, request.tile or 0),
        batch=max(usual.batch, request.batch or 0),
    ).fitted_to(model)


def _gpus(device: str) -> list[Gpu]:
    """Return the GPUs that a device names.

    Raises:
        BackendError: one of them does not exist, or the driver is too old.
    """
    gpus = {gpu.index: gpu for gpu in cuda_gpus()}
    wanted = gpu_indices(device)
    if absent := [index for index in wanted if index not in gpus]:
        found = ", ".join(f"{gpu.index} {gpu.name}" for gpu in gpus.values()) or "none"
        raise BackendError(f"there is no GPU {absent[0]}; GPUs found: {found}")
    return [gpus[index] for index in wanted]


def fallback_of(onnx: Path, model: ModelDescriptor, *, restore: float = 0.0) -> Callable[[], Backend] | None:
    """Return a function that opens the fp32 file of the same weights beside an fp16 file, on the CPU.

    None if there is no such file. Names of files that were exported together differ only in the precision.
    `restore` is the strength of restoration.
    """
    if model.precision != "fp16":
        return None
    sibling = onnx.with_name(onnx.name.replace("_fp16_", "_fp32_"))
    if sibling == onnx or not sibling.is_file():
        return None

    def open_sibling() -> Backend:
        backend = OrtBackend(sibling, device="cpu", restore=restore)
        if backend.info.model.weights_sha256 != model.weights_sha256:
            backend.close()
            raise ModelError(f"{sibling}: of other weights than {onnx.name}, whose fp16 output is not finite")
        return backend

    return open_sibling
