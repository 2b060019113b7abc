"""The provenance of figures: machine, driver, versions, command, revision."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.lib.paths import ROOT
from sr import __version__
from sr.backends.gpus import driver_cuda_version, visible_gpus
from sr.processor import available_cores

# Packages whose versions are recorded.
_PACKAGES = (
    "numpy",
    "pillow",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "spandrel",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-bindings",
)


def provenance() -> dict[str, Any]:
    """Return what a reader of figures needs: machine, driver, versions, command, revision."""
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "gpus": [gpu.name for gpu in visible_gpus()],
        "driver": _driver(),
        "versions": {"srup": __version__} | {name: found for name in _PACKAGES if (found := _version(name))},
        "command": shlex.join(["python", "-m", *_started_as()]),
        "revision": revision(),
    }


def machine_kind() -> str:
    """Return the machine for a file name: its first GPU, else cores and processor."""
    gpus = visible_gpus()
    name = gpus[0].name if gpus else f"{available_cores()} cores {_processor()}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _started_as() -> list[str]:
    """Return module and arguments, with paths reduced to their last part."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    words = [spec.name if spec is not None else sys.argv[0], *sys.argv[1:]]
    return [re.sub(r"[^=]*[/\\](?=[^/\\])", "", word) for word in words]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _driver() -> str:
    """Return the version of the NVIDIA driver and of the CUDA that it supports; empty without a driver."""
    cuda = driver_cuda_version()
    version = _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[
        0
    ]
    return f"{version or 'unknown'}, supports CUDA {cuda}" if cuda else ""


def revision() -> str:
    """Return the commit of this tree, and whether files changed since; empty outside git."""
    commit = _output_of("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    changed = commit and _output_of("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return f"{commit}, changed" if changed else commit


def _output_of(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine() -> dict[str, Any]:
    """Return the kind of machine: processor, cores, Python."""
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
