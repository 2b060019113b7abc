"""What the measurements share: interleaved timing, memory of a process, results as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


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
