"""From ONNX to an engine: one builder for TensorRT 10.13 and later, TensorRT 11, and TensorRT-RTX.

Owns how the builder is configured. The module that is passed in says which of the three it is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from deploy.engines.precision import check_network, check_plan
from deploy.engines.progress import progress_monitor
from sr.backends.gpus import Gpu
from sr.backends.ort import read_metadata
from sr.backends.tensorrt.cuda import Cuda
from sr.backends.tensorrt.modules import TensorRt
from sr.backends.tensorrt.request import EngineRequest, Progress
from sr.backends.tensorrt.spec import EngineSpec
from sr.errors import EngineError, one_line
from sr.files import atomic_write
from sr.network.descriptor import ModelDescriptor
from sr.network.ends import INPUT_NAME


def build_engine(request: EngineRequest, *, progress: Progress | None, timing_cache: Path) -> bytes:
    """Build an engine on its GPU, check its precision, and return it serialized: an `EngineBuilder`.

    Raises:
        EngineError: the file does not fit the request, or the build failed; see `plan_from_onnx`.
        ModelError: the ONNX file is not ours.
        OSError: the timing cache cannot be written.
    """
    model, spec, trt = check_model(request.onnx_path, request.spec), request.spec, request.trt
    least = (model.ends.batch or 1, model.side_within(1))
    with _on_device(request.gpu):
        plan = plan_from_onnx(
            request.onnx, spec, trt, least=least, progress=progress, timing_cache=timing_cache
        )
        if request.runs_here:
            check_plan(plan, spec.precision, trt, compatible=spec.compatible)
    return plan


def check_model(path: Path, spec: EngineSpec) -> ModelDescriptor:
    """Check scale, precision and sizes in the file's metadata, before a build of minutes; return what it is.

    Raises:
        EngineError: they differ from the spec, or no engine runs tiles of such a size.
        ModelError: the file is not ours.
    """
    metadata = read_metadata(path)
    if (metadata.scale, metadata.precision) != (spec.scale, spec.precision):
        raise EngineError(
            f"{path}: is x{metadata.scale} {metadata.precision}, need x{spec.scale} {spec.precision}; "
            f"export one with: srup export --onnx --scale {spec.scale} --precision {spec.precision}"
        )
    size, batch = metadata.ends.size, metadata.ends.batch
    if (size is not None and size[0] != size[1]) or batch not in (None, 1):
        raise EngineError(
            f"{path}: takes pictures of these sizes: {metadata.sizes}, {batch or 'any number'} at once; an "
            "engine takes square tiles, and one or any number at once; use the ONNX file with --backend onnx"
        )
    if spec != (fitting := spec.fitted_to(metadata)):
        raise EngineError(
            f"{path}: takes pictures of these sizes: {metadata.sizes}; use --tile {fitting.tile} "
            f"--batch {fitting.batch}"
        )
    return metadata


def _on_device(gpu: Gpu | None) -> Any:
    """Return the context in which `gpu` is the current device, for which TensorRT builds."""
    if gpu is None:
        return nullcontext()
    from cuda.bindings import runtime

    return Cuda(runtime, gpu.index).current()


def plan_from_onnx(
    onnx: bytes,
    spec: EngineSpec,
    trt: TensorRt,
    *,
    least: tuple[int, int] = (1, 1),
    progress: Progress | None = None,
    timing_cache: Path | None = None,
) -> bytes:
    """Build an engine and return it serialized.

    Args:
        onnx: content of an ONNX file of ours with uint8 IO.
        spec: what to build. TensorRT builds for CUDA's current device, TensorRT-RTX for `spec.targets`.
        trt: that builds it.
        least: smallest number of tiles at once, and smallest side of a tile, that the network takes.
        progress: called with phase and share done; an exception that it raises ends the build.
        timing_cache: file in which TensorRT keeps its measurements; made if missing.

    Raises:
        EngineError: the file is damaged or not ours, its types differ from `spec.precision`, or the
            build failed; the message quotes the builder.
        OSError: the timing cache cannot be written.
    """
    trt.check(spec)
    if trt.ahead_of_time and not spec.targets:
        raise EngineError(f"{trt.title} needs the compute capabilities to build for, and none is given")
    module, log = trt.module, trt.log
    mark = log.mark()
    builder = module.Builder(log)
    # TensorRT 10 types strongly only with this flag; 11 and TensorRT-RTX always do.
    flags = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = module.OnnxParser(network, log)
    _parse(onnx, network, parser, lambda: log.summary(mark))
    check_network(network, spec.precision, module)
    config = builder.create_builder_config()
    _add_profiles(builder, config, spec, lambda: log.summary(mark), least=least)
    _configure(config, spec, trt)
    cache = None if trt.ahead_of_time else timing_cache
    if cache is not None:
        _load_timing_cache(config, cache)
    plan = _serialized(builder, network, config, progress_monitor(module, progress))
    if plan is None:
        reason = log.summary(mark) or "it gave no reason"
        raise EngineError(f"{trt.title} built no engine for x{spec.scale}: {reason}")
    if cache is not None:
        _save_timing_cache(config, cache)
    return plan


def _serialized(builder: Any, network: Any, config: Any, monitor: Any) -> bytes | None:
    """Return the engine, None if the builder fails; raise what ended the build through `monitor`."""
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor.raised is not None:
        raise monitor.raised
    return None if plan is None else bytes(plan)


def _parse(onnx: bytes, network: Any, parser: Any, reason: Callable[[], str]) -> None:
    remedy = "make one with: srup export --onnx --precision fp16"
    if not parser.parse(onnx):
        parser_error = parser.get_error(0) if parser.num_errors else None
        why = reason() if parser_error is None else one_line(parser_error.desc())
        raise EngineError(f"the ONNX parser refuses the file: {why}; {remedy}")
    # An empty file, or a few arbitrary bytes, parse to an empty network.
    if network.num_inputs == 0 or network.num_layers == 0:
        raise EngineError(f"the ONNX file holds no network; {remedy}")


def _add_profiles(
    builder: Any,
    config: Any,
    spec: EngineSpec,
    reason: Callable[[], str],
    *,
    least: tuple[int, int] = (1, 1),
) -> None:
    largest = (spec.batch, spec.tile, spec.tile, 3)
    for smallest in ((*least, least[1], 3), largest)[: 1 + spec.static]:
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT_NAME, smallest, largest, largest)
        # Neither call raises: an invalid profile is false, and its index negative.
        if not profile or config.add_optimization_profile(profile) < 0:
            raise EngineError(f"the builder refuses tiles of {largest}: {reason()}")


def _configure(config: Any, spec: EngineSpec, trt: TensorRt) -> None:
    module = trt.module
    config.profiling_verbosity = (
        module.ProfilingVerbosity.DETAILED
    )  # otherwise the inspector reports no types
    if spec.precision == "fp32":
        config.clear_flag(module.BuilderFlag.TF32)  # its mantissa is that of half precision
    if spec.builder_level is not None:
        config.builder_optimization_level = spec.builder_level
    if spec.tiling_level is not None:
        levels = module.TilingOptimizationLevel.__members__
        config.tiling_optimization_level = levels[spec.tiling_level.upper()]
    if spec.compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if spec.targets:
        config.num_compute_capabilities = len(spec.targets)
    for index, target in enumerate(spec.targets):
        capability = module.ComputeCapability.__members__[f"SM{target}"]
        if not config.set_compute_capability(capability, index):
            raise EngineError(f"{trt.title} refuses to build for SM{target}")


def _load_timing_cache(config: Any, path: Path) -> None:
    content = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(content)
    # TensorRT refuses the file of another GPU or version: begin an empty one.
    if not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _save_timing_cache(config: Any, path: Path) -> None:
    cache = config.get_timing_cache()
    if cache is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(bytes(cache.serialize()))
