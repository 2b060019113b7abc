"""ONNX to an engine: the one builder for TensorRT 10.13 and later, 11, and TensorRT-RTX.

Which of them is the module that is passed in. Owns what is asked of the builder.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from deploy.engine_callbacks import Progress, message_log, one_line, progress_monitor
from deploy.engine_types import check_network
from sr.errors import EngineError, MissingExtraError
from sr.files import atomic_write
from sr.network.modelfile import INPUT_NAME, Precision

MODULES = {"trt": "tensorrt", "trt-rtx": "tensorrt_rtx"}
TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}


@dataclass(frozen=True)
class EngineSpec:
    """What engine to build.

    The profile runs from (1, 1, 1, 3) to (batch, tile, tile, 3), with its optimum there.

    Attributes:
        scale: of the network; the ONNX file must have it.
        precision: of the convolutions; the ONNX file must have it.
        tile: largest side in lr pixels.
        batch: largest number of tiles at once.
        targets: compute capabilities, 89 for SM89; TensorRT-RTX builds for GPUs that are not here.
            Empty is the GPU that is here.
        builder_level: TensorRT's optimization level, 0 to 5; None is its own default.
        compatible: TensorRT engines that later versions and all GPUs since Ampere can load, at some
            cost in speed.

    Raises:
        EngineError: a number is out of range.
    """

    scale: int
    precision: Precision = "fp16"
    tile: int = 512
    batch: int = 4
    targets: tuple[int, ...] = ()
    builder_level: int | None = None
    compatible: bool = False

    def __post_init__(self) -> None:
        if min(self.scale, self.tile, self.batch) < 1:
            raise EngineError(f"scale {self.scale}, tile {self.tile}, batch {self.batch}: need 1 or more")
        object.__setattr__(self, "targets", tuple(sorted(set(self.targets))))


def load_module(backend: str) -> ModuleType:
    """Import the module of backend "trt" or "trt-rtx".

    Raises:
        MissingExtraError: it is not installed.
        EngineError: it is installed and does not load.
    """
    name = MODULES[backend]
    if importlib.util.find_spec(name) is None:
        raise MissingExtraError(name.replace("_", "-"), backend, f"backend {backend}")
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise EngineError(
            f"{TITLES[name]} is installed but does not load: {one_line(str(error))}; "
            f'install it again with: pip install --force-reinstall "srup[{backend}]"'
        ) from error


def is_rtx(module: ModuleType) -> bool:
    """Say whether a module is TensorRT-RTX, which builds for named compute capabilities."""
    return hasattr(module, "ComputeCapability")


def title_of(module: ModuleType) -> str:
    """Return name and version in words, e.g. "TensorRT-RTX 1.7.1.116"."""
    return f"{TITLES['tensorrt_rtx' if is_rtx(module) else 'tensorrt']} {module.__version__}"


def check_spec(spec: EngineSpec, module: ModuleType) -> None:
    """Check that a module can build what is asked for.

    Raises:
        EngineError: it cannot.
    """
    if not is_rtx(module):
        if spec.targets:
            raise EngineError(
                "TensorRT builds for the GPU that is here and for no other; "
                "TensorRT-RTX can, with srup export --trt-rtx --gpu"
            )
        return
    if spec.builder_level is not None or spec.compatible:
        raise EngineError(
            "TensorRT-RTX has no builder level and no compatibility mode; its engines serve all GPUs that "
            "they were built for: name several with --gpu"
        )
    known = [name for name in module.ComputeCapability.__members__ if name.startswith("SM")]
    for target in spec.targets:
        if f"SM{target}" not in known:
            raise EngineError(f"TensorRT-RTX does not support SM{target} GPUs; it has {', '.join(known)}")


def plan_from_onnx(
    onnx: bytes,
    spec: EngineSpec,
    module: ModuleType,
    *,
    progress: Progress | None = None,
    timing_cache: Path | None = None,
) -> bytes:
    """Build an engine and return it serialized.

    Args:
        onnx: bytes of an ONNX file of ours with uint8 IO.
        spec: what to build; TensorRT builds for CUDA's current device.
        module: `tensorrt` or `tensorrt_rtx`, see `load_module`.
        progress: see `Progress`; an exception that it raises ends the build and comes out of here.
        timing_cache: file in which TensorRT keeps what it measured; made if missing.

    Raises:
        EngineError: the file is damaged or not ours, its types are not those of `spec.precision`, or
            the build failed; with the builder's own messages.
        OSError: the timing cache cannot be written.
    """
    check_spec(spec, module)
    messages = message_log(module)
    builder = module.Builder(messages)
    # TensorRT 10 types strongly only if told, 11 and TensorRT-RTX always do.
    flags = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = module.OnnxParser(network, messages)
    _parse(onnx, network, parser, messages)
    check_network(network, spec.precision, module)
    config = builder.create_builder_config()
    _add_profile(builder, config, spec, messages)
    _configure(config, spec, module)
    monitor = progress_monitor(module, progress)
    config.progress_monitor = monitor
    use_cache = timing_cache is not None and not is_rtx(module)
    if use_cache:
        _load_timing_cache(config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    if monitor.raised is not None:
        raise monitor.raised
    if plan is None:
        raise EngineError(f"{title_of(module)} built no engine for x{spec.scale}: {messages.summary()}")
    if use_cache:
        _save_timing_cache(config, timing_cache)
    return bytes(plan)


def _parse(onnx: bytes, network: Any, parser: Any, messages: Any) -> None:
    remedy = "make one with: srup export --onnx --precision fp16"
    if not parser.parse(onnx):
        parser_error = parser.get_error(0) if parser.num_errors else None
        reason = messages.summary() if parser_error is None else parser_error.desc()
        raise EngineError(f"the ONNX parser refuses the file: {one_line(reason)}; {remedy}")
    # Nothing at all, or a few bytes of anything, parses to an empty network.
    if network.num_inputs == 0 or network.num_layers == 0:
        raise EngineError(f"the ONNX file holds no network; {remedy}")


def _add_profile(builder: Any, config: Any, spec: EngineSpec, messages: Any) -> None:
    largest = (spec.batch, spec.tile, spec.tile, 3)
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT_NAME, (1, 1, 1, 3), largest, largest)
    # Neither call raises: an invalid profile is false, and its index negative.
    if not profile or config.add_optimization_profile(profile) < 0:
        raise EngineError(f"the builder refuses tiles of {largest}: {messages.summary()}")


def _configure(config: Any, spec: EngineSpec, module: ModuleType) -> None:
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # else the inspector tells no types
    if spec.precision == "fp32":
        config.clear_flag(module.BuilderFlag.TF32)  # its mantissa is half precision's
    if spec.builder_level is not None:
        config.builder_optimization_level = spec.builder_level
    if spec.compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if is_rtx(module):
        members = module.ComputeCapability.__members__
        names = [f"SM{target}" for target in spec.targets] or ["CURRENT"]
        config.num_compute_capabilities = len(names)
        for index, name in enumerate(names):
            if not config.set_compute_capability(members[name], index):
                raise EngineError(f"{title_of(module)} refuses to build for {name}")


def _load_timing_cache(config: Any, path: Path | None) -> None:
    content = path.read_bytes() if path is not None and path.is_file() else b""
    cache = config.create_timing_cache(content)
    # Another GPU's or version's file is refused: begin an empty one.
    if not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _save_timing_cache(config: Any, path: Path | None) -> None:
    cache = config.get_timing_cache()
    if cache is None or path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(bytes(cache.serialize()))
