"""Work on a file of another program in a process of its own, with limits: a hostile file harms nobody.

The process prints JSON objects, one a line; the last one has "found" or "error".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sr.errors import ModelError
from sr.memory import available_memory

Progress = Callable[[str, float], None]


class ApartError(ModelError):
    """The process took too long, or died."""


class CrashError(ApartError):
    """The process died."""


# Libraries reserve address space that they do not use.
_RESERVED_BYTES = 2 * 2**30


def found_apart(
    module: str,
    arguments: Sequence[str],
    path: Path,
    *,
    seconds: Sequence[float],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a module on a file; return what it found.

    Args:
        module: to run, with the path, the bytes of memory that it may have, and `arguments`.
        arguments: of the module.
        path: of the file.
        seconds: until the first line, and then until each further one.
        progress: called with phase and share done.

    Raises:
        ApartError: it took too long.
        CrashError: it died.
        ModelError: it reported an error.
    """
    memory = str(available_memory() + _RESERVED_BYTES)
    with subprocess.Popen(
        [sys.executable, "-m", module, str(path), memory, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(each or os.curdir for each in sys.path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        assert child.stdout is not None
        late = threading.Event()
        timer = _killer(child, late, seconds[0])
        try:
            for line in child.stdout:
                record = _record(line)
                if "found" in record:
                    found: dict[str, Any] = record["found"]
                    return found
                if "error" in record:
                    where = "" if str(path) in record["error"] else f"{path}: "
                    raise ModelError(f"{where}{record['error']}")
                timer.cancel()
                timer = _killer(child, late, seconds[-1])
                if progress is not None and "phase" in record:
                    progress(f"{path.name}: {record['phase']}", record["share"])
        finally:
            timer.cancel()
            if child.poll() is None:
                child.kill()
    if late.is_set():
        raise ApartError(f"{path}: refused, small pictures take it too long")
    raise CrashError(
        f"{path}: refused, it crashes what runs it or needs more memory than is available "
        f"({available_memory() / 2**20:,.0f} MiB) for small pictures"
    )


def _record(line: str) -> dict[str, Any]:
    """Read a line; what other libraries print is a sign of life."""
    with suppress(ValueError):
        record = json.loads(line)
        if isinstance(record, dict):
            return record
    return {}


def _killer(child: subprocess.Popen[str], late: threading.Event, seconds: float) -> threading.Timer:
    def kill() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    return timer


def say(**record: Any) -> None:
    """Print a record for the process that waits."""
    print(json.dumps(record), flush=True)


def limit_memory(now: int, later: int) -> None:
    """Limit the address space of this process; it can be raised up to `later`."""
    with suppress(ImportError, ValueError, OSError):  # not on Windows; macOS ignores it
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (now, later))


def forget_peak() -> int:
    """Return how much memory this process has, from which on `peak_bytes` counts; 0 if that is not known."""
    with suppress(OSError):  # Linux
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
        return _status_bytes("VmRSS")
    return peak_bytes()


def peak_bytes() -> int:
    """Return the most memory that this process has had so far; 0 where the system does not say."""
    with suppress(OSError):
        return _status_bytes("VmHWM")
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status_bytes(name: str) -> int:
    """Return a number of /proc/self/status, which has kilobytes.

    Raises:
        OSError: this is no Linux.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name} in /proc/self/status")
