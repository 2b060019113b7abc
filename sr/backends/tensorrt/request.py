"""What the store of engines is asked for, and who builds an engine that it lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from sr.backends.gpus import Gpu
from sr.backends.tensorrt.manifest import EngineManifest, Identity, identity_of
from sr.backends.tensorrt.modules import AMPERE, TensorRt
from sr.backends.tensorrt.spec import EngineSpec
from sr.errors import ModelError
from sr.network.modelfile import SHIPPED_DIR

Progress = Callable[[str, float], None]
"""Called with the phase of a build and the share done, in [0, 1]."""


@dataclass(frozen=True)
class EngineRequest:
    """What `EngineStore.get` was asked for, with the GPU of this machine filled in.

    Attributes:
        onnx_path: ONNX file with uint8 IO.
        onnx: its content.
        spec: what to build; for TensorRT-RTX with targets.
        trt: that builds it.
        gpu: that the engine will run on; None for TensorRT-RTX engines for other machines.
        identity: of the engine.
        any_target: no GPU was named, so an engine that serves further GPUs is accepted.
        runs_here: the GPU of this machine can load the engine.
    """

    onnx_path: Path
    onnx: bytes
    spec: EngineSpec
    trt: TensorRt
    gpu: Gpu | None
    identity: Identity
    any_target: bool
    runs_here: bool

    @property
    def onnx_name(self) -> str:
        """Name of the ONNX file."""
        return self.onnx_path.name

    def accepts(self, manifest: EngineManifest) -> bool:
        """Say whether an engine is the requested one, or can take its place."""
        return self.as_requested(manifest.identity) == self.identity and not self.too_new(manifest)

    def too_new(self, manifest: EngineManifest) -> bool:
        """Say whether a later version than this one built a compatible engine: those do not load."""
        return manifest.identity.spec.compatible and _numbers(manifest.built_by) > _numbers(self.trt.version)

    def as_requested(self, other: Identity) -> Identity:
        """Return an identity in which every acceptable difference is replaced by what was requested.

        Acceptable are: further GPUs, where none was named; any builder level, tiling level and profiles,
        where none were given; an engine that is also compatible with other GPUs and versions; a
        TensorRT-RTX engine that was built under another operating system.
        """
        other = other.on_any_system(self.identity)
        wanted, spec = self.identity, other.spec
        if self.any_target and set(wanted.spec.targets) <= set(spec.targets):
            spec = replace(spec, targets=wanted.spec.targets)
        freely: dict[str, Any] = {"builder_level": None, "tiling_level": None, "static": False}
        open_ = {name: value for name, value in freely.items() if getattr(wanted.spec, name) == value}
        spec = replace(spec, **open_)
        other = replace(other, spec=spec)
        ampere = self.gpu is not None and self.gpu.compute_capability >= AMPERE
        major = wanted.module_version.partition(".")[0]
        if spec.compatible and ampere and other.module_version == major:
            spec = replace(spec, compatible=wanted.spec.compatible)
            other = replace(other, spec=spec, module_version=wanted.module_version, gpu=wanted.gpu)
        return other

    def build_command(self, folder: Path | None) -> str:
        """Return the command line that builds the engine into `folder`; None is the default folder."""
        spec, usual = self.spec, EngineSpec(self.spec.scale)
        words = ["srup export", f"--{self.trt.backend.name}", f"--scale {spec.scale}"]
        if self.onnx_path.parent != SHIPPED_DIR:
            words.append(f"--weights {self.onnx_path}")
        words += [
            f"--{name} {getattr(spec, name)}"
            for name in ("precision", "tile", "batch")
            if getattr(spec, name) != getattr(usual, name)
        ]
        return " ".join(words if folder is None else [*words, f"-o {folder}"])


def engine_request(onnx_path: Path, spec: EngineSpec, trt: TensorRt, gpu: Gpu | None) -> EngineRequest:
    """Return the request for the engine of an ONNX file.

    Raises:
        EngineError: no such engine can be built on this machine.
        ModelError: there is no such ONNX file.
    """
    resolved = trt.resolved(spec, gpu)
    try:
        onnx = onnx_path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{onnx_path}: no such model file") from error
    return EngineRequest(
        onnx_path,
        onnx,
        resolved,
        trt,
        gpu,
        identity_of(onnx, resolved, trt, gpu),
        any_target=not spec.targets,
        runs_here=gpu is not None and (not resolved.targets or gpu.compute_capability in resolved.targets),
    )


class EngineBuilder(Protocol):
    """Builds engines. The backends only find them; `deploy.engines.build.build_engine` is the builder."""

    def __call__(self, request: EngineRequest, *, progress: Progress | None, timing_cache: Path) -> bytes:
        """Build an engine and return it serialized.

        Args:
            request: what to build.
            progress: called during the build; an exception that it raises ends the build.
            timing_cache: file in which TensorRT keeps its measurements; made if missing.

        Raises:
            EngineError: the file does not fit the request, or the build failed.
            ModelError: the ONNX file is not ours.
            OSError: the timing cache cannot be written.
        """
        ...


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, e.g. (11, 4, 0, 106)."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())
