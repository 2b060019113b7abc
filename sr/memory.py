"""How much memory is available: of the machine, of our control groups, of our address space."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sr.cgroups import PROCESS, Version, control_groups, number_in

# Taken where the system does not say.
ASSUMED_BYTES = 2 * 1024**3

_MEMINFO = Path("/proc/meminfo")
_UNLIMITED = 2**63
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def available_memory() -> int:
    """Return about how many bytes can be allocated now without swapping.

    That is the least of what the machine has, of what each control group that we are in leaves (the
    tightest may be any ancestor), and of what `ulimit -v` leaves.
    """
    return max(0, min(_system_available(), _cgroup_available(), address_space_available()))


def give_back_memory() -> None:
    """Let the allocator return what it holds free: between pictures of many sizes that grows (glibc)."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def spare_address_space() -> None:
    """Let all threads allocate from one arena if `ulimit -v` limits the address space (glibc).

    Otherwise the allocator reserves 64 MiB for each of the first threads, eight arenas for each core; over a
    folder they took half of 1 GB. Called before there are threads. See mallopt(3).
    """
    mallopt = _glibc("mallopt") if address_space_available() < _UNLIMITED else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def keep_freed_memory() -> None:
    """Let the allocator keep what is freed, for a process that needs the same sizes again and again (glibc).

    Otherwise each step of a training gets its activations in new pages, which the kernel must clear.
    See mallopt(3).
    """
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _glibc(function: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None


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


def address_space_available(process: Path = PROCESS) -> int:
    """Return how many bytes `ulimit -v` leaves to this process; a huge number without such a limit."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return _UNLIMITED
        pages = int((process / "statm").read_text().split()[0])
        return limit - pages * resource.getpagesize()
    except (ImportError, OSError):  # not on Windows; no /proc on macOS, which ignores this limit
        return _UNLIMITED


def require_address_space(byte_count: int) -> None:
    """Refuse work for which `ulimit -v` leaves too little: libraries that get no memory may end the process.

    Raises:
        MemoryError: it does.
    """
    if address_space_available() < byte_count:
        raise MemoryError("the address space is limited (ulimit -v)")


@dataclass(frozen=True)
class _Accounting:
    """Where a version of control groups states limits and use: cgroup-v2.rst, cgroup-v1/memory.rst."""

    limits: tuple[str, ...]  # files
    used: str  # file
    cache: str  # key in memory.stat: page cache that is given back first, so container tools leave it out


_ACCOUNTING: dict[Version, _Accounting] = {
    1: _Accounting(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    2: _Accounting(("memory.max", "memory.high"), "memory.current", "inactive_file"),
}


def _cgroup_available(process: Path = PROCESS) -> int:
    """Return what the tightest group leaves; without a limit, no bound."""
    groups = control_groups("memory", process)
    return min((_left(group, _ACCOUNTING[version]) for group, version in groups), default=_UNLIMITED)


def _left(group: Path, accounting: _Accounting) -> int:
    limits = [limit for name in accounting.limits if (limit := number_in(group / name)) is not None]
    used = number_in(group / accounting.used)
    if not limits or used is None:
        return _UNLIMITED
    return min(limits) - used + _cache(group / "memory.stat", accounting.cache)


def _cache(statistics: Path, key: str) -> int:
    try:
        pairs = (line.split() for line in statistics.read_text().splitlines())
        return next((int(value) for name, value in pairs if name == key), 0)
    except (OSError, ValueError):
        return 0
