"""What the measurements share: interleaved timing, memory of a process, results as JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import click

from sr import __version__
from sr.backends.available import driver_cuda_version, gpu_names
from sr.errors import SrupError
from sr.files import atomic_write

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"


class Script(click.Command):
    """A command whose errors are one line and exit status 1, as those of `srup`."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SrupError as error:
            raise click.ClickException(" ".join(str(error).splitlines())) from error


def interleaved_seconds(actions: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Time the actions in turn, `rounds` times after one warm-up; return each one's median seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(rounds + 1):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            if turn > 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


# A child starts with the peak of the process that forked it, so a small one stands in between.
_LAUNCHER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_rss_mib(command: Sequence[str]) -> float:
    """Run a command and return the largest memory it held, in MiB (Linux and macOS).

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    launched = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, *command], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    unit = 1 if platform.system() == "Darwin" else 1024  # bytes there, KiB elsewhere
    return int(launched.stdout) * unit / 2**20


def write_result(name: str, figures: Mapping[str, Any]) -> None:
    """Store `figures` as benchmarks/results/NAME.json and print them."""
    report = {"date": date.today().isoformat(), "machine": machine(), **figures}
    text = json.dumps(report, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def store_result(theme: str, figures: Mapping[str, Any]) -> Path:
    """Store `figures` and where they come from as benchmarks/results/THEME-MACHINE-DATE.json."""
    path = result_path(theme)
    write_json(path, {**provenance(), **figures})
    print(path.relative_to(ROOT))
    return path


def result_path(theme: str, folder: Path = RESULTS) -> Path:
    """Return where a result of this machine and day is stored."""
    return folder / f"{theme}-{machine_kind()}-{date.today().isoformat()}.json"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write strict JSON, whole or not at all: infinities are for the caller to name."""
    text = json.dumps(value, indent=1, allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


# What figures depend on, where it is installed.
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


def click_size(_context: object, _parameter: object, text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT, as screens are named, to height and width; a callback of `click.option`.

    Raises:
        click.BadParameter: it is not that.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise click.BadParameter(f"{text!r} is not WIDTHxHEIGHT, e.g. 1280x720")
    return int(height), int(width)


def provenance() -> dict[str, Any]:
    """Return what is needed to read figures later: machine, driver, versions, command, revision."""
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "gpus": gpu_names(),
        "driver": _driver(),
        "versions": {"srup": __version__} | {name: found for name in _PACKAGES if (found := _version(name))},
        "command": shlex.join(["python", "-m", *_started_as()]),
        "revision": _revision(),
    }


def machine_kind() -> str:
    """Return the machine as part of a file name: its first GPU, else cores and processor."""
    gpus = gpu_names()
    name = gpus[0] if gpus else f"{os.cpu_count()} cores {_processor()}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _started_as() -> list[str]:
    """Return module and arguments; of paths the last part: where files lie is nobody's business."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    words = [spec.name if spec is not None else sys.argv[0], *sys.argv[1:]]
    return [re.sub(r"[^=]*[/\\](?=[^/\\])", "", word) for word in words]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _driver() -> str:
    """Return the NVIDIA driver's version and the CUDA that it serves; empty where there is none."""
    cuda = driver_cuda_version()
    version = _said_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0]
    return f"{version or 'unknown'}, serves CUDA {cuda}" if cuda else ""


def _revision() -> str:
    """Return the commit of this tree, and whether it has changed since; empty outside git."""
    commit = _said_by("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    changed = commit and _said_by("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return f"{commit}, changed" if changed else commit


def _said_by(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine() -> dict[str, Any]:
    """Return the kind of machine: processor, cores, Python."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
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
