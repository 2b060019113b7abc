"""The Python modules of TensorRT and TensorRT-RTX: names, versions, import."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from sr.backends.specs import BACKENDS
from sr.errors import EngineError, MissingExtraError, one_line

# Backend -> module, and module -> product name.
MODULES = {spec.name: spec.requirements[0].module for spec in BACKENDS.values() if spec.needs_engines}
TITLES = {MODULES[name]: BACKENDS[name].title for name in MODULES}


def load_module(backend: str) -> ModuleType:
    """Import the module of backend "trt" or "trt-rtx".

    Raises:
        MissingExtraError: it is not installed.
        EngineError: it is installed, but the import fails.
    """
    name = MODULES[backend]
    if importlib.util.find_spec(name) is None:
        package = BACKENDS[backend].requirements[0].packages[0]
        raise MissingExtraError(package, BACKENDS[backend].extra, f"backend {backend}")
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise EngineError(
            f"{TITLES[name]} is installed but does not load: {one_line(error)}; "
            f"install it again with: {BACKENDS[backend].pip_line} --force-reinstall"
        ) from error


def is_rtx(module: ModuleType) -> bool:
    """Say whether a module is TensorRT-RTX, which builds for named compute capabilities."""
    return hasattr(module, "ComputeCapability")


def name_of(module: ModuleType) -> str:
    """Return "tensorrt" or "tensorrt_rtx"."""
    return "tensorrt_rtx" if is_rtx(module) else "tensorrt"


def backend_of(module: ModuleType) -> str:
    """Return the backend that runs engines of a module: "trt" or "trt-rtx"."""
    return "trt-rtx" if is_rtx(module) else "trt"


def title_of(module: ModuleType) -> str:
    """Return product name and version, e.g. "TensorRT-RTX 1.7.1.116"."""
    return f"{TITLES[name_of(module)]} {module.__version__}"
