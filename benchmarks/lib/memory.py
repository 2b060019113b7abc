"""Memory of child processes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lib.paths import ROOT

# A child starts with the peak of the process that forked it, so a small one stands in between.
_LAUNCHER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_rss_mib(command: Sequence[str]) -> float:
    """Run a command and return its peak memory in MiB (Linux and macOS).

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    launched = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, *command], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    unit = 1 if platform.system() == "Darwin" else 1024  # bytes there, KiB elsewhere
    return int(launched.stdout) * unit / 2**20


def resident_mib(process: int) -> float:
    """Return the resident memory of a running process in MiB (Linux)."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def largest_resident_mib(process: int) -> float:
    """Return the largest memory that a process has held so far, in MiB; 0 after its end (Linux)."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
