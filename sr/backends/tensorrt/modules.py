"""TensorRT and TensorRT-RTX: an object for the imported module of each, with all in which the two differ."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from sr.backends.gpus import Gpu
from sr.backends.specs import BACKENDS, BackendSpec
from sr.backends.tensorrt.calls import Calls
from sr.backends.tensorrt.contexts import Contexts, RtxContexts
from sr.backends.tensorrt.kernels import KernelFile
from sr.backends.tensorrt.log import tensorrt_log
from sr.backends.tensorrt.spec import EngineSpec
from sr.errors import EngineError, MissingExtraError, one_line

AMPERE = 80  # compute capability at which TensorRT's hardware compatibility begins


@dataclass(frozen=True)
class TensorRt:
    """TensorRT: builds engines for the GPU of this machine, and times kernels on it meanwhile.

    Attributes:
        module: the imported one.
        name: of the module.
        backend: record of the backend that runs its engines.
        ahead_of_time: it builds for named GPUs, without one. Such plans load under any operating system and
            with any CUDA for Python; their kernels are compiled on the GPU, when they first run.
    """

    module: Any
    name: ClassVar[str] = "tensorrt"
    backend: ClassVar[BackendSpec] = BACKENDS["trt"]
    ahead_of_time: ClassVar[bool] = False

    @classmethod
    def load(cls) -> Self:
        """Import the module.

        Raises:
            MissingExtraError: it is not installed.
            EngineError: it is installed, but the import fails.
        """
        backend = cls.backend
        if importlib.util.find_spec(cls.name) is None:
            package = backend.requirements[0].packages[0]
            raise MissingExtraError(package, backend.extra, f"backend {backend.name}")
        try:
            return cls(importlib.import_module(cls.name))
        except (ImportError, OSError) as error:
            raise EngineError(
                f"{backend.title} is installed but does not load: {one_line(error)}; "
                f"install it again with: {backend.pip_line} --force-reinstall"
            ) from error

    @property
    def version(self) -> str:
        """Full version, e.g. "1.7.1.116"."""
        return str(self.module.__version__)

    @property
    def title(self) -> str:
        """Product name and version, e.g. "TensorRT-RTX 1.7.1.116"."""
        return f"{self.backend.title} {self.version}"

    @property
    def log(self) -> Any:
        """The logger that all of a process share."""
        return tensorrt_log(self.module.ILogger)

    def check(self, spec: EngineSpec) -> None:
        """Check that it can build an engine.

        Raises:
            EngineError: it cannot.
        """
        if spec.targets:
            raise EngineError(
                "TensorRT builds engines only for the GPU of this machine; "
                "TensorRT-RTX builds for other GPUs: srup export --trt-rtx --gpu NAME"
            )

    def resolved(self, spec: EngineSpec, gpu: Gpu | None) -> EngineSpec:
        """Return `spec` with the GPU of this machine where it names none.

        Raises:
            EngineError: there is no such GPU, or such an engine cannot be built for it.
        """
        self.check(spec)
        if gpu is None:
            raise EngineError(
                "no NVIDIA GPU found, and TensorRT builds engines only for the GPU of this machine; "
                "TensorRT-RTX builds for other GPUs: srup export --trt-rtx --gpu NAME"
            )
        if spec.compatible and gpu.compute_capability < AMPERE:
            raise EngineError(f"{gpu.name}: compatible engines need Ampere (SM{AMPERE}); drop --compatible")
        return spec

    def bound_to(self, spec: EngineSpec, gpu: Gpu | None) -> tuple[str, str]:
        """Return the version and the GPU, in words, that an engine of a resolved `spec` is bound to."""
        if spec.compatible:
            return self.version.partition(".")[0], "Ampere or later"
        return self.version, f"{gpu.name}, SM{gpu.compute_capability}" if gpu is not None else ""

    def contexts(self, engine: Any, calls: Calls, kernel_file: KernelFile | None) -> Contexts:
        """Return what makes the execution contexts of an engine; `kernel_file` is for TensorRT-RTX."""
        return Contexts(self.module, engine, calls)


class TensorRtRtx(TensorRt):
    """TensorRT-RTX: builds engines for GPUs by compute capability, several in one."""

    name = "tensorrt_rtx"
    backend = BACKENDS["trt-rtx"]
    ahead_of_time = True

    def check(self, spec: EngineSpec) -> None:
        """Check that it can build an engine.

        Raises:
            EngineError: it cannot.
        """
        if spec.builder_level is not None or spec.tiling_level is not None or spec.static or spec.compatible:
            raise EngineError(
                "builder level, tiling level, static shapes and compatibility are TensorRT's; one engine of "
                "TensorRT-RTX can serve several kinds of GPU: name each with --gpu"
            )
        known = [name for name in self.module.ComputeCapability.__members__ if name.startswith("SM")]
        for target in spec.targets:
            if f"SM{target}" not in known:
                raise EngineError(
                    f"TensorRT-RTX does not support SM{target} GPUs; it supports {', '.join(known)}"
                )

    def resolved(self, spec: EngineSpec, gpu: Gpu | None) -> EngineSpec:
        """Return `spec` with the GPU of this machine where it names none.

        Raises:
            EngineError: there is no such GPU, or such an engine cannot be built for it.
        """
        if not spec.targets:
            if gpu is None:
                raise EngineError(
                    "no NVIDIA GPU found; name the GPU to build for, e.g. --gpu rtx4090 or --gpu sm89"
                )
            spec = replace(spec, targets=(gpu.compute_capability,))
        self.check(spec)
        return spec

    def bound_to(self, spec: EngineSpec, gpu: Gpu | None) -> tuple[str, str]:
        """Return the version that an engine is bound to; its GPUs are the targets of `spec`."""
        return self.version, ""

    def contexts(self, engine: Any, calls: Calls, kernel_file: KernelFile | None) -> Contexts:
        """Return what makes the execution contexts of an engine; `kernel_file` keeps its kernels."""
        return RtxContexts(self.module, engine, calls, kernel_file)


# By the name of the module, as in manifests.
KINDS: dict[str, type[TensorRt]] = {kind.name: kind for kind in (TensorRt, TensorRtRtx)}


def load_tensorrt(backend: str) -> TensorRt:
    """Import the module of backend "trt" or "trt-rtx".

    Raises:
        MissingExtraError, EngineError: as `TensorRt.load`.
    """
    (kind,) = (kind for kind in KINDS.values() if kind.backend.name == backend)
    return kind.load()


def title_of(name: str) -> str:
    """Return the product name of a module; of an unknown one its name."""
    return KINDS[name].backend.title if name in KINDS else name
