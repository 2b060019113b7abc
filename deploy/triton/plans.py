"""TensorRT plans that one Triton server can load: which fit together, and which container loads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sr.backends.tensorrt.manifest import Engine, EngineManifest, read_engine
from sr.errors import EngineError

# TensorRT -> release of NVIDIA's Triton containers that has it. A release has the TensorRT of the PyTorch
# container of the same month, from which these are known: docs/introduction/compatibility.md of
# github.com/triton-inference-server/server, and docker/common/install_tensorrt.sh of NVIDIA/TensorRT-LLM.
CONTAINERS = {"10.13.2": "25.08", "10.13.3": "25.10", "10.14.1": "25.12"}
SUPPORT_MATRIX = "https://docs.nvidia.com/deeplearning/frameworks/support-matrix"


@dataclass(frozen=True)
class ServedPlans:
    """Plans of one network that one Triton model can hold.

    Attributes:
        files: the plan for each compute capability, e.g. "8.9"; "" is for all since 8.0.
        scale, precision, tile, batch: of all of them; `tile` and `batch` are the least that all take.
        onnx_sha256: of the ONNX file that they were built from.
        tensorrt: version that built them, e.g. "10.13.3.9".
    """

    files: dict[str, Path]
    scale: int
    precision: str
    tile: int
    batch: int
    onnx_sha256: str
    tensorrt: str

    @property
    def container(self) -> str:
        """The container that loads the plans, or how to find it."""
        release = CONTAINERS.get(".".join(self.tensorrt.split(".")[:3]))
        if release is None:
            return f"the release with TensorRT {self.tensorrt}, see {SUPPORT_MATRIX}"
        return f"nvcr.io/nvidia/tritonserver:{release}-py3"

    @property
    def compatible(self) -> bool:
        """Whether the server needs --backend-config=tensorrt,version-compatible=true."""
        return "" in self.files


def served_plans(paths: Sequence[Path]) -> list[ServedPlans]:
    """Return the plans by scale, ascending, after checking that each scale's fit together.

    Args:
        paths: of plans that `srup export --trt` built, with their manifests beside them.

    Raises:
        EngineError: one is damaged, is for TensorRT-RTX, or does not fit to the others.
    """
    scales: dict[int, list[Engine]] = {}
    for path in paths:
        engine = _checked(path)
        scales.setdefault(engine.manifest.identity.spec.scale, []).append(engine)
    return [_together(scales[scale]) for scale in sorted(scales)]


def _checked(path: Path) -> Engine:
    try:
        engine = read_engine(path)
    except (ValueError, OSError) as error:
        raise EngineError(f"{path}: {error}; build the engine again with: srup export --trt") from error
    identity = engine.manifest.identity
    if identity.module != "tensorrt":
        raise EngineError(
            f"{path}: a TensorRT-RTX engine, which Triton's TensorRT backend cannot load; "
            "build one on the GPU of the server with: srup export --trt"
        )
    if not identity.platform.startswith("Linux"):
        raise EngineError(
            f"{path}: built on {identity.platform}; Triton needs an engine that was built on Linux"
        )
    return engine


def _together(engines: Sequence[Engine]) -> ServedPlans:
    files: dict[str, Path] = {}
    first = engines[0].manifest
    for engine in engines:
        manifest = engine.manifest
        for what, has, needs in (
            ("built by TensorRT", manifest.built_by, first.built_by),
            ("built from ONNX file", manifest.identity.onnx_sha256[:16], first.identity.onnx_sha256[:16]),
        ):
            if has != needs:
                raise EngineError(
                    f"{engine.path}: {what} {has}, and {engines[0].path.name} {what} {needs}; "
                    "the plans of one model need the same"
                )
        capability = _capability(manifest)
        if capability in files:
            raise EngineError(
                f"{engine.path}: serves the same GPUs as {files[capability].name}; leave one of them out"
            )
        files[capability] = engine.path
    specs = [engine.manifest.identity.spec for engine in engines]
    return ServedPlans(
        files=files,
        scale=first.identity.spec.scale,
        precision=first.identity.spec.precision,
        tile=min(spec.tile for spec in specs),
        batch=min(spec.batch for spec in specs),
        onnx_sha256=first.identity.onnx_sha256,
        tensorrt=first.built_by,
    )


def _capability(manifest: EngineManifest) -> str:
    """Return the compute capability as Triton writes it, e.g. "8.9", or "" for a compatible plan."""
    if manifest.identity.spec.compatible:
        return ""
    found = re.search(r"SM(\d+)(\d)$", manifest.identity.gpu)
    if found is None:
        raise EngineError(f"no compute capability in the manifest: {manifest.identity.gpu!r}")
    return f"{found[1]}.{found[2]}"
