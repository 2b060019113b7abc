"""What an engine is ordered for: the file, the spec with the GPU that is here filled in, the identity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from deploy.engine_build import EngineSpec, check_spec, is_rtx
from deploy.engine_manifest import EngineManifest, Identity, identity_of
from deploy.gpu import Gpu
from sr.errors import EngineError, ModelError

_AMPERE = 80  # TensorRT's hardware compatibility begins there


@dataclass(frozen=True)
class Order:
    """What `EngineCache.get` was asked for, with the GPU that is here filled in.

    Attributes:
        any_target: no GPU was named, so an engine that serves others as well will do.
        runs_here: the GPU that is here can load the engine.
    """

    onnx_name: str
    onnx: bytes
    spec: EngineSpec
    module: ModuleType
    gpu: Gpu | None
    identity: Identity
    any_target: bool
    runs_here: bool

    def served_by(self, manifest: EngineManifest) -> bool:
        """Say whether an engine is what was ordered, or will do in its place."""
        return self.as_ordered(manifest.identity) == self.identity and not self.too_new(manifest)

    def too_new(self, manifest: EngineManifest) -> bool:
        """Say whether a compatible engine was built by a later version than this: such do not load."""
        return manifest.identity.compatible and _numbers(manifest.built_by) > _numbers(
            self.module.__version__
        )

    def as_ordered(self, other: Identity) -> Identity:
        """Return an identity with what serves the order set to what was ordered.

        An engine for more GPUs than the one that is here, for which no name was given; one that took
        another builder level, where none was given; one that is compatible with others as well.
        """
        ordered = self.identity
        if self.any_target and set(ordered.targets) <= set(other.targets):
            other = replace(other, targets=ordered.targets)
        if ordered.module == "tensorrt" and ordered.builder_level is None:
            other = replace(other, builder_level=None)
        ampere = self.gpu is not None and self.gpu.compute_capability >= _AMPERE
        if other.compatible and ampere and other.module_version == ordered.module_version.partition(".")[0]:
            same = {name: getattr(ordered, name) for name in ("module_version", "gpu", "compatible")}
            other = replace(other, **same)
        return other


def order_of(onnx_path: Path, spec: EngineSpec, module: ModuleType, gpu: Gpu | None) -> Order:
    """Return what `EngineCache.get` was asked for.

    Raises:
        EngineError: no such engine can be built here.
        ModelError: there is no such ONNX file.
    """
    check_spec(spec, module)
    try:
        onnx = onnx_path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{onnx_path}: no such model file") from error
    resolved = _resolved(spec, module, gpu)
    return Order(
        onnx_path.name,
        onnx,
        resolved,
        module,
        gpu,
        identity_of(onnx, resolved, module, gpu),
        any_target=is_rtx(module) and not spec.targets,
        runs_here=gpu is not None and (not is_rtx(module) or gpu.compute_capability in resolved.targets),
    )


def check_model(path: Path, spec: EngineSpec) -> None:
    """Check scale and precision by the file's own words, before minutes of building.

    Raises:
        EngineError: they are not what is asked for.
        ModelError: the file is not ours.
    """
    from sr.backends.ort import read_metadata

    metadata = read_metadata(path)
    if (metadata.scale, metadata.precision) != (spec.scale, spec.precision):
        raise EngineError(
            f"{path}: is x{metadata.scale} {metadata.precision}, need x{spec.scale} {spec.precision}; "
            f"export one with: srup export --onnx --scale {spec.scale} --precision {spec.precision}"
        )


def _resolved(spec: EngineSpec, module: ModuleType, gpu: Gpu | None) -> EngineSpec:
    """Return `spec` with the GPU that is here where it names none."""
    if not is_rtx(module):
        if gpu is None:
            raise EngineError(
                "no NVIDIA GPU here, and TensorRT builds only for the GPU that is here; "
                "TensorRT-RTX builds for others: srup export --trt-rtx --gpu NAME"
            )
        if spec.compatible and gpu.compute_capability < _AMPERE:
            raise EngineError(f"{gpu.name}: compatible engines begin with Ampere (SM{_AMPERE}); leave it out")
        return spec
    if spec.targets:
        return spec
    if gpu is None:
        raise EngineError("no NVIDIA GPU here; say which to build for, e.g. --gpu rtx4090 or --gpu sm89")
    resolved = replace(spec, targets=(gpu.compute_capability,))
    check_spec(resolved, module)
    return resolved


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, e.g. (11, 4, 0, 106)."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())
