"""The identity of an engine, by which the store finds it, and the manifest beside its plan.

Owns the key in the names of files. Pure except for reading and checking the two files of an engine.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from sr.backends.gpus import Gpu
from sr.backends.parity import Parity
from sr.backends.tensorrt.modules import KINDS, TensorRt, title_of
from sr.backends.tensorrt.spec import EngineSpec
from sr.errors import EngineError

FORMAT = "srup-engine-1"
MANIFEST_START = json.dumps({"format": FORMAT}, indent=1).rstrip("}\n")  # of every manifest file
PLAN_SUFFIX = ".plan"
MANIFEST_SUFFIX = ".json"
# As `Identity.stem` makes them; other files in a folder of engines are not ours to remove.
OUR_NAME = re.compile(r".+_x\d+_fp(16|32)_(tensorrt|tensorrt_rtx)_.+_[0-9a-f]{16}")


@dataclass(frozen=True)
class Identity:
    """Everything that an engine depends on; two equal identities mean the same engine.

    Attributes:
        onnx_sha256: of the ONNX file.
        module: "tensorrt" or "tensorrt_rtx".
        module_version: the full version; of a compatible engine only the part before the first dot.
        platform: operating system and processor, e.g. "Linux x86_64".
        cuda_major: of cuda-bindings.
        spec: what was built; `targets` is empty for TensorRT.
        gpu: name and compute capability that TensorRT built for; empty for TensorRT-RTX.
    """

    onnx_sha256: str
    module: str
    module_version: str
    platform: str
    cuda_major: int
    spec: EngineSpec
    gpu: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as in a manifest file, those of the spec among them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)} | asdict(self.spec)
        later = {name for name, default in _LATER_FIELDS.items() if values[name] != default}
        return {name: values[name] for name in (*_IDENTITY_FIELDS, *sorted(later))}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Identity:
        """Read back what `to_dict` wrote.

        Raises:
            KeyError, TypeError: a field is missing or unknown.
            EngineError: a number is out of range.
        """
        values = _LATER_FIELDS | values
        if missing := values.keys() ^ {*_IDENTITY_FIELDS, *_LATER_FIELDS}:
            raise KeyError(*missing)
        of_spec = {name: values[name] for name in _SPEC_FIELDS}
        own = {name: value for name, value in values.items() if name not in _SPEC_FIELDS}
        return Identity(**own, spec=EngineSpec(**of_spec | {"targets": tuple(values["targets"])}))

    @property
    def key(self) -> str:
        """Return what tells this identity from any other: 16 hexadecimal digits."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def stem(self, onnx_name: str) -> str:
        """Return the name of the engine's files without suffix."""
        base = re.sub(r"_x\d+_fp(16|32).*$", "", Path(onnx_name).stem)
        target = self.gpu or "-".join(f"sm{target}" for target in self.spec.targets)
        target = re.sub(r"[^a-z0-9]+", "-", target.lower()).strip("-")
        return f"{base}_x{self.spec.scale}_{self.spec.precision}_{self.module}_{target}_{self.key}"

    def on_any_system(self, here: Identity) -> Identity:
        """Return the identity with the system of `here` if the plan does not depend on it.

        TensorRT-RTX plans for named GPUs load under Linux and Windows, and with any CUDA for Python:
        https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/ (CPU-only ahead-of-time builds).
        """
        if self.module in KINDS and KINDS[self.module].ahead_of_time:
            return replace(self, platform=here.platform, cuda_major=here.cuda_major)
        return self

    def differences(self, other: Identity) -> list[str]:
        """Return in words, field by field, how this engine differs from the one that is needed."""
        has, needs = _LATER_FIELDS | self.to_dict(), _LATER_FIELDS | other.to_dict()
        names = (*_IDENTITY_FIELDS, *_LATER_FIELDS)
        return [_difference(name, has[name], needs[name]) for name in names if has[name] != needs[name]]


_SPEC_FIELDS = tuple(field.name for field in fields(EngineSpec))
# In the order of the files on disk.
_IDENTITY_FIELDS = (
    *("onnx_sha256", "module", "module_version", "platform", "cuda_major"),
    *("scale", "precision", "tile", "batch", "builder_level", "compatible", "gpu", "targets"),
)
# Written only where they are not these, so that the keys of earlier engines stay.
_LATER_FIELDS: dict[str, Any] = {"tiling_level": None, "static": False}


def identity_of(onnx: bytes, spec: EngineSpec, trt: TensorRt, gpu: Gpu | None) -> Identity:
    """Return the identity of the engine of an ONNX file.

    Args:
        onnx: content of the file.
        spec: what to build, resolved.
        trt: that builds it.
        gpu: that TensorRT builds for.
    """
    version, where = trt.bound_to(spec, gpu)
    return Identity(
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        module=trt.name,
        module_version=version,
        platform=this_platform(),
        cuda_major=cuda_major(),
        spec=spec,
        gpu=where,
    )


def this_platform() -> str:
    """Return operating system and processor, to which TensorRT plans are bound."""
    return f"{platform.system()} {platform.machine()}"


def cuda_major() -> int:
    """Return the major version of the installed cuda-bindings; 0 without them."""
    try:
        return int(importlib.metadata.version("cuda-bindings").partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 0


@dataclass(frozen=True)
class EngineManifest:
    """The content of the JSON file beside a plan.

    Attributes:
        identity: what the engine depends on.
        onnx_name: of the file that it was built from.
        built_by: full version of the module.
        srup_version: that built it.
        built: when, ISO 8601 with zone.
        build_seconds: how long it took.
        plan_bytes: size of the plan.
        plan_sha256: of the plan.
        parity: with the network, measured on a GPU that can load the engine; None if not measured.
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
        values = asdict(self) | {"identity": self.identity.to_dict()}
        return json.dumps({"format": FORMAT, **values}, indent=1) + "\n"

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
            identity = Identity.from_dict(values.pop("identity"))
            measured = values.pop("parity", None)  # older manifests have none
            return EngineManifest(identity=identity, parity=measured and Parity(**measured), **values)
        except (AttributeError, EngineError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"damaged manifest ({error})") from error


@dataclass(frozen=True)
class Engine:
    """A complete plan on disk that matches its manifest.

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
    """Return the manifest of the plan at `path`; the plan itself is not read.

    Raises:
        ValueError: the manifest is missing or damaged, in one line.
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
    """Yield the sorted paths of plans in a folder with names of ours; a lone manifest counts as well."""
    names = {path.with_suffix(PLAN_SUFFIX) for path in folder.glob(f"*{PLAN_SUFFIX}")}
    names |= {path.with_suffix(PLAN_SUFFIX) for path in folder.glob(f"*{MANIFEST_SUFFIX}")}
    return iter(sorted(path for path in names if OUR_NAME.fullmatch(path.stem)))


_LABELS = {"onnx_sha256": "ONNX file", "cuda_major": "CUDA", "gpu": "GPU", "platform": "platform"}


def _difference(field: str, has: Any, needs: Any) -> str:
    if field == "module_version":
        return f"built by {has}, this is {needs}"
    if field == "module":
        return f"built by {title_of(has)}, this is {title_of(needs)}"
    return f"{_LABELS.get(field, field.replace('_', ' '))} {_value(field, has)}, need {_value(field, needs)}"


def _value(field: str, value: Any) -> str:
    if field == "targets":
        return "+".join(f"SM{target}" for target in value) or "none"
    if field == "onnx_sha256":
        return str(value)[:16]
    return "default" if value is None else str(value) or "none"
