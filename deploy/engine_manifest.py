"""What is known of an engine: the identity by which it is found again, and the manifest beside its plan.

Owns the cache key. Pure but for reading and checking the two files of an engine.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from deploy.engine_build import TITLES, EngineSpec, is_rtx
from deploy.gpu import Gpu
from deploy.verify import Parity

FORMAT = "srup-engine-1"
PLAN_SUFFIX = ".plan"
MANIFEST_SUFFIX = ".json"
# As `Identity.stem` makes them; nothing else in a folder of engines is ours to remove.
OUR_NAME = re.compile(r".+_x\d+_fp(16|32)_(tensorrt|tensorrt_rtx)_.+_[0-9a-f]{16}")


@dataclass(frozen=True)
class Identity:
    """All that an engine depends on; two equal identities are the same engine.

    Attributes:
        onnx_sha256: of the ONNX file.
        module: "tensorrt" or "tensorrt_rtx".
        module_version: all of it; of a compatible engine what stands before the first dot.
        platform: operating system and processor, e.g. "Linux x86_64".
        cuda_major: of cuda-bindings.
        scale, precision, tile, batch, builder_level, compatible: as in `EngineSpec`.
        gpu: name and compute capability, which TensorRT builds for; empty for TensorRT-RTX.
        targets: compute capabilities that TensorRT-RTX built for; empty for TensorRT.
    """

    onnx_sha256: str
    module: str
    module_version: str
    platform: str
    cuda_major: int
    scale: int
    precision: str
    tile: int
    batch: int
    builder_level: int | None
    compatible: bool
    gpu: str
    targets: tuple[int, ...]

    @property
    def key(self) -> str:
        """Return what tells this identity from any other: 16 hexadecimal digits."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def stem(self, onnx_name: str) -> str:
        """Return the name of the engine's files without suffix."""
        base = re.sub(r"_x\d+_fp(16|32).*$", "", Path(onnx_name).stem)
        target = self.gpu or "-".join(f"sm{target}" for target in self.targets)
        target = re.sub(r"[^a-z0-9]+", "-", target.lower()).strip("-")
        return f"{base}_x{self.scale}_{self.precision}_{self.module}_{target}_{self.key}"

    def differences(self, other: Identity) -> list[str]:
        """Return in words, field by field, how this engine differs from the one that is needed."""
        return [
            _difference(field.name, getattr(self, field.name), getattr(other, field.name))
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


def identity_of(onnx: bytes, spec: EngineSpec, module: ModuleType, gpu: Gpu | None) -> Identity:
    """Return the identity of the engine of an ONNX file.

    Args:
        onnx: bytes of the file.
        spec: what to build; TensorRT-RTX needs its targets.
        module: that builds it.
        gpu: that TensorRT builds for.
    """
    version, where = module.__version__, ""
    if not is_rtx(module):
        where = f"{gpu.name}, SM{gpu.compute_capability}" if gpu is not None else ""
        if spec.compatible:
            version, where = version.partition(".")[0], "Ampere or later"
    return Identity(
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        module="tensorrt_rtx" if is_rtx(module) else "tensorrt",
        module_version=version,
        platform=this_platform(),
        cuda_major=cuda_major(),
        scale=spec.scale,
        precision=spec.precision,
        tile=spec.tile,
        batch=spec.batch,
        builder_level=spec.builder_level,
        compatible=spec.compatible,
        gpu=where,
        targets=spec.targets,
    )


def this_platform() -> str:
    """Return operating system and processor: plans are bound to both."""
    return f"{platform.system()} {platform.machine()}"


def cuda_major() -> int:
    """Return the major version of CUDA that is installed here for Python, 0 if none is."""
    try:
        return int(importlib.metadata.version("cuda-bindings").partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 0


@dataclass(frozen=True)
class EngineManifest:
    """What stands beside a plan.

    Attributes:
        identity: what the engine depends on.
        onnx_name: of the file that it was built from.
        built_by: full version of the module.
        srup_version: that built it.
        built: when, ISO 8601 with zone.
        build_seconds: how long it took.
        plan_bytes: size of the plan.
        plan_sha256: of the plan.
        parity: with the network, measured on a GPU that can load the engine; None if it was not.
    """

    identity: Identity
    onnx_name: str
    built_by: str
    srup_version: str
    built: str
    build_seconds: float
    plan_bytes: int
    plan_sha256: str
    parity: Parity | None = None

    def to_json(self) -> str:
        """Return the text of the manifest file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> EngineManifest:
        """Read back what `to_json` wrote.

        Raises:
            ValueError: it is something else, in one line.
        """
        try:
            values = json.loads(text)
            if (found := values.pop("format", None)) != FORMAT:
                raise ValueError(f"manifest format {found!r}, need {FORMAT!r}")
            identity = values.pop("identity")
            identity["targets"] = tuple(identity["targets"])
            measured = values.pop("parity", None)  # older manifests have none
            return EngineManifest(
                identity=Identity(**identity), parity=measured and Parity(**measured), **values
            )
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"damaged manifest ({error})") from error


@dataclass(frozen=True)
class Engine:
    """A plan on disk that is whole and what its manifest says.

    Attributes:
        path: of the plan.
        manifest: from beside it.
    """

    path: Path
    manifest: EngineManifest

    def plan(self) -> bytes:
        """Return the serialized engine."""
        return self.path.read_bytes()


def read_manifest(path: Path) -> EngineManifest:
    """Return the manifest of the plan at `path`, without looking at the plan.

    Raises:
        ValueError: it is missing or damaged, in one line.
    """
    try:
        return EngineManifest.from_json(path.with_suffix(MANIFEST_SUFFIX).read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise ValueError(
            "no manifest" if isinstance(error, FileNotFoundError) else "damaged manifest"
        ) from error


def read_engine(path: Path) -> Engine:
    """Return the engine whose plan is at `path`, checked against its manifest.

    Raises:
        ValueError: plan or manifest is missing, truncated or foreign, in one line.
    """
    manifest = read_manifest(path)
    try:
        plan = path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError("no plan beside the manifest") from error
    if len(plan) != manifest.plan_bytes:
        kind = "truncated plan" if len(plan) < manifest.plan_bytes else "foreign plan"
        raise ValueError(f"{kind}: {len(plan)} bytes, the manifest says {manifest.plan_bytes}")
    if (found := hashlib.sha256(plan).hexdigest()) != manifest.plan_sha256:
        raise ValueError(f"foreign plan: sha256 {found[:16]}, the manifest says {manifest.plan_sha256[:16]}")
    return Engine(path, manifest)


def plans_in(folder: Path) -> Iterator[Path]:
    """Yield the plans in a folder that have names of ours, or would have if they were there, sorted."""
    names = {path.with_suffix(PLAN_SUFFIX) for path in folder.glob(f"*{PLAN_SUFFIX}")}
    names |= {path.with_suffix(PLAN_SUFFIX) for path in folder.glob(f"*{MANIFEST_SUFFIX}")}
    return iter(sorted(path for path in names if OUR_NAME.fullmatch(path.stem)))


_LABELS = {"onnx_sha256": "ONNX file", "cuda_major": "CUDA", "gpu": "GPU", "platform": "platform"}


def _difference(field: str, has: Any, needs: Any) -> str:
    if field == "module_version":
        return f"built by {has}, this is {needs}"
    if field == "module":
        return f"built by {TITLES.get(has, has)}, this is {TITLES.get(needs, needs)}"
    return f"{_LABELS.get(field, field.replace('_', ' '))} {_value(field, has)}, need {_value(field, needs)}"


def _value(field: str, value: Any) -> str:
    if field == "targets":
        return "+".join(f"SM{target}" for target in value) or "none"
    if field == "onnx_sha256":
        return str(value)[:16]
    return "default" if value is None else str(value) or "none"
