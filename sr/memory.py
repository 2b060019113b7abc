"""How much memory there is for us."""

from __future__ import annotations

import os
from pathlib import Path

# Taken where the system does not say.
ASSUMED_BYTES = 2 * 1024**3

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Return about how many bytes can be allocated now without swapping, cgroup limits included."""
    return min(_system_available(), _cgroup_available())


def _system_available() -> int:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # no sysconf on Windows
        return ASSUMED_BYTES


def _cgroup_available() -> int:
    """Of cgroup version 2; without a limit, no bound."""
    unlimited = 2**63
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return unlimited
    return unlimited if limit == "max" else max(0, int(limit) - used)
