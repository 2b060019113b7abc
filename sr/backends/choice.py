"""Opening a backend: the named one, or the fastest usable one, and the reason for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sr.backends.available import missing, missing_requirements
from sr.backends.base import Backend, BackendRequest, gpu_indices
from sr.backends.gpus import visible_gpus
from sr.backends.specs import (
    BACKENDS,
    BackendSpec,
    backend_choices,
    imported,
    names_of,
    on_cpu,
    on_several_gpus,
    sixteen_bit,
    with_precision,
)
from sr.errors import BackendError, one_line, require_extra
from sr.network.ends import Conventions
from sr.network.modelfile import shipped_onnx


def open_backend(name: str, request: BackendRequest) -> Backend:
    """Open a backend by name; "auto" is the fastest usable one. A named backend or device never falls back.

    Raises:
        BackendError: the backend or the device is not available, or does not do what is requested.
        ModelError: the model file does not fit.
    """
    if name not in backend_choices():
        raise BackendError(f"there is no backend {name!r}; the backends are {', '.join(backend_choices())}")
    request = replace(request, model=runnable_model(name, request.model, progress=request.build_progress))
    if name == "auto":
        backend, why = _fastest(request)
    else:
        spec = BACKENDS[name]
        _check_precision(spec, request)
        device, why = _device_for(spec, request.device)
        backend = _open(spec, replace(request, device=device))
    backend.info = replace(backend.info, why=why)
    if request.precision not in (None, backend.info.model.precision):
        backend.close()
        raise BackendError(
            f"{request.model}: is {backend.info.model.precision}, not {request.precision}; drop --precision"
        )
    return backend


def open_sixteen_bit_backend(name: str, request: BackendRequest) -> Backend:
    """Open a backend for 16 bits per channel, where backend `name` was opened with a file for 8 bits.

    It runs the float32 file of the shipped weights; with "auto" on the backend of the base install.

    Raises:
        BackendError: the named backend, precision or model computes 8 bits only.
    """
    if request.precision not in (None, "fp32"):
        raise BackendError(
            f"{request.precision} computes 8 bits per channel and the picture has 16; use --precision fp32, "
            "or reduce the picture with --depth 8"
        )
    if name != "auto" and not BACKENDS[name].sixteen_bit:
        raise BackendError(
            f"backend {name} computes 8 bits per channel and the picture has 16; "
            f"use --backend {names_of(sixteen_bit())}, or reduce the picture with --depth 8"
        )
    if request.model is not None:
        raise BackendError(
            f"{request.model}: computes 8 bits per channel and the picture has 16; "
            "export the model with --io float32 --precision fp32, or reduce the picture with --depth 8"
        )
    model = shipped_onnx(scale=request.scale, io="float32")
    device = request.device if len(gpu_indices(request.device)) < 2 else "cuda"
    opened = on_cpu()[0].name if name == "auto" else name
    return open_backend(opened, replace(request, model=model, device=device))


def runnable_model(
    backend: str, model: Path | None, *, progress: Callable[[str, float], None] | None = None
) -> Path | None:
    """Return the file that a backend runs; weights of another program are converted to ONNX, once.

    Raises:
        ModelError: they are refused, or cannot be converted.
        MissingExtraError: the `models` extra is not installed.
    """
    from sr.network.foreign.statedict import is_foreign_weights

    if model is None or backend == "torch" or not is_foreign_weights(model):
        return model
    from sr.network.foreign.convert import converted

    return converted(model, progress=progress)


def model_scale(model: Path, *, stated: Conventions | None = None) -> int:
    """Return the factor by which a model file upscales; no backend is opened.

    Args:
        model: ONNX file, or weights.
        stated: conventions of a file that is not ours, as the user states them.

    Raises:
        ModelError: the file is missing or damaged, or does not upscale pictures.
        MissingExtraError: it holds weights, and the `torch` extra is not installed.
    """
    torch, model = BACKENDS["torch"], runnable_model("auto", model) or model
    if model.suffix not in torch.model_suffixes:
        from sr.backends.ort import read_metadata

        return read_metadata(model, stated=stated).scale
    require_extra(torch.extra, *(each.module for each in torch.requirements), purpose=f"reading {model}")
    from sr.network.checkpoint import load_weights

    return load_weights(model).config.scale


def _open(spec: BackendSpec, request: BackendRequest) -> Backend:
    """Open a backend after the checks that its record allows.

    Raises:
        BackendError: the device, the model file or a package does not fit.
    """
    _check_model(spec, request.model)
    _check_device(spec, request.device)
    if "cpu" in spec.devices:
        require_extra(
            spec.extra, *(each.module for each in spec.requirements), purpose=f"backend {spec.name}"
        )
        return _opened(spec, request)
    gap = missing(spec.name)
    if not visible_gpus():
        raise BackendError(
            f"backend {spec.name} needs an NVIDIA GPU, and the driver finds none; "
            f"use --backend {on_cpu()[0].name}" + (f" (it also needs packages: {gap})" if gap else "")
        )
    if gap:
        raise BackendError(f"backend {spec.name} needs packages: {gap}")
    return _opened(spec, request)


def _opened(spec: BackendSpec, request: BackendRequest) -> Backend:
    backend: Backend = imported(spec.opener)(spec, request)
    return backend


def _check_precision(spec: BackendSpec, request: BackendRequest) -> None:
    if request.precision is not None and request.precision not in spec.precisions:
        raise BackendError(
            f"backend {spec.name} computes {' or '.join(spec.precisions)}, not {request.precision}; "
            f"use --backend {names_of(with_precision(request.precision))}"
        )


def _check_model(spec: BackendSpec, model: Path | None) -> None:
    if not spec.takes(model):
        able = names_of(other for other in BACKENDS.values() if other.takes(model))
        export = "; or export it with srup export --onnx" if ".onnx" in spec.model_suffixes else ""
        raise BackendError(
            f"{model}: backend {spec.name} runs {' and '.join(spec.model_suffixes)} files; "
            f"use --backend {able}{export}"
        )


def _check_device(spec: BackendSpec, device: str) -> None:
    gpus = gpu_indices(device)
    if len(gpus) > 1 and "gpus" not in spec.devices:
        raise BackendError(
            f"backend {spec.name} runs on one device, not on {device}; "
            f"{names_of(on_several_gpus(), last='and')} run on several"
        )
    if not gpus and "cpu" not in spec.devices:
        raise BackendError(
            f"backend {spec.name} runs on GPUs only; drop --device cpu, or use --backend {on_cpu()[0].name}"
        )
    if gpus and spec.devices == ("cpu",):
        raise BackendError(
            f"backend {spec.name} runs on the CPU only; drop --device, or use another --backend"
        )


def _device_for(spec: BackendSpec, device: str) -> tuple[str, str]:
    """Return the device for a named backend, and the reason if the device was not named."""
    if device != "auto" or "cpu" not in spec.devices:
        return device, ""
    if "gpu" not in spec.devices:
        return "cpu", ""
    if not visible_gpus():
        return "cpu", "no NVIDIA GPU found"
    if gap := missing_requirements(spec.name):
        return "cpu", f"{spec.name} cannot use the GPU: {gap}"
    return "cuda", "a GPU before the CPU"


def _fastest(request: BackendRequest) -> tuple[Backend, str]:
    """Open the fastest backend that works with this model on this device; return it and the reason."""
    able = [spec for spec in BACKENDS.values() if spec.takes(request.model)]
    named_gpu = bool(gpu_indices(request.device)) and request.device != "auto"
    if request.precision is not None and not _for_gpu(list(BACKENDS.values()), request):
        if named_gpu:
            raise BackendError(f"no backend computes {request.precision} on a GPU; drop --device")
        backend = _open(_for_cpu(able, request), replace(request, device="cpu"))
        return backend, f"the fastest in {request.precision}"
    if request.device == "cpu":
        return _fastest_on_cpu(able, request)
    if not visible_gpus():
        if named_gpu:
            raise BackendError(f"device {request.device}: the driver finds no NVIDIA GPU; drop --device")
        return _fastest_on_cpu(able, request, "no NVIDIA GPU found")
    return _fastest_on_gpu(able, request, named=named_gpu)


def _fastest_on_gpu(
    able: Sequence[BackendSpec], request: BackendRequest, *, named: bool
) -> tuple[Backend, str]:
    """Open the first backend that works on the GPUs; on the CPU if none does and no GPU was named."""
    device = request.device if named else "cuda"
    specs = _for_gpu(able, request)
    if len(gpu_indices(device)) > 1:
        specs = [spec for spec in specs if "gpus" in spec.devices]
    failure = ""
    for spec in specs:
        if missing_requirements(spec.name):
            continue
        try:
            return _open(spec, replace(request, device=device)), failure or "the fastest on this GPU"
        except BackendError as error:
            failure = failure or f"{spec.name} failed: {error}"
    if named and failure:
        raise BackendError(failure)
    if named:  # the last one explains what it needs
        last = (specs or _for_gpu(able, request))[-1]
        return _open(last, replace(request, device=device)), ""
    why = failure or f"{names_of(specs, last='and')} cannot use the GPU, see srup info"
    return _fastest_on_cpu(able, request, why)


def _fastest_on_cpu(
    able: Sequence[BackendSpec], request: BackendRequest, why: str = ""
) -> tuple[Backend, str]:
    """Open the backend that finishes the work first, start-up included; add the reason to `why`."""
    request = replace(request, device="cpu")
    late, pays, reason = _late_starter(able, request)
    if late is not None and pays:
        try:
            return _open(late, request), _joined(why, reason)
        except (BackendError, ImportError) as error:  # it was not named, so it may not stop the run
            reason = f"{late.name} failed: {one_line(error)}"
    return _open(_for_cpu(able, request), request), _joined(why, reason)


def _late_starter(
    able: Sequence[BackendSpec], request: BackendRequest
) -> tuple[BackendSpec | None, bool, str]:
    """Return an installed backend that is faster but starts later, whether it pays, and the reason.

    Only the shipped networks are measured; where the work is unknown, nothing is counted.
    """
    work = request.work
    if work is None or request.model is not None or request.precision not in (None, "fp32"):
        return None, False, ""
    for spec in able:
        gain = spec.cpu_gain
        if gain is None or request.scale not in gain.saved or missing(spec.name):
            continue
        pays = gain.pays(scale=request.scale, pictures=work.pictures, lr_px=work.lr_px)
        verb = "repay" if pays else "do not repay"
        return spec, pays, f"{work.lr_px / 1e6:.2g} megapixels in {verb} the start of {spec.name}"
    return None, False, ""


def _joined(*reasons: str) -> str:
    return "; ".join(filter(None, reasons))


def _for_gpu(specs: Sequence[BackendSpec], request: BackendRequest) -> list[BackendSpec]:
    """Return the backends that `auto` tries on a GPU, in order."""
    wanted = [
        spec
        for spec in specs
        if (spec.gpu_precisions if request.precision is None else request.precision in spec.gpu_precisions)
    ]
    return sorted(wanted, key=lambda spec: spec.gpu_rank)


def _for_cpu(specs: Sequence[BackendSpec], request: BackendRequest) -> BackendSpec:
    """Return the backend that `auto` takes on a CPU.

    Raises:
        BackendError: none computes in the precision from such a file.
    """
    precision = request.precision
    on_cpu = [
        spec
        for spec in specs
        if "cpu" in spec.devices and (precision is None or precision in spec.precisions)
    ]
    if not on_cpu:
        raise BackendError(
            f"{request.model}: no backend computes such a file in {precision}; drop --precision"
        )
    fastest = [spec for spec in on_cpu if (precision or "fp32") in spec.fastest_on_cpu]
    return (fastest or on_cpu)[0]
