"""Probes a file in a process of its own, with limits on memory, so that a hostile file harms nobody.

Writes JSON objects to standard output, one a line: {"phase": ..., "share": ...} on the way, then
{"probed": {...}} or {"error": ...}.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sr.errors import ModelError, one_line

# Address space for runs of small pictures, with what libraries reserve and do not use.
_SMALL_BYTES = 4 * 2**30
_FILE_COPIES = 4  # ONNX Runtime holds weights as read, as loaded and as laid out for its kernels


def main(path: str, memory_bytes: int, stated: dict[str, Any]) -> None:
    """Probe a file and print what was found.

    Args:
        path: of a file that `graph.check_graph` accepts.
        memory_bytes: address space that the process may have.
        stated: fields of `probe.Conventions`.
    """
    small = _SMALL_BYTES + _FILE_COPIES * Path(path).stat().st_size
    _limit_memory(min(memory_bytes, small), memory_bytes)
    try:
        _say(probed=_probed(Path(path), stated, memory_bytes))
    except ModelError as error:
        _say(error=one_line(error))
    except MemoryError:
        _say(error="refused, it needs too much memory for small pictures")


def _probed(path: Path, stated: dict[str, Any], memory_bytes: int) -> dict[str, Any]:
    from sr.network.ends import Conventions
    from sr.network.foreign.graph import read_graph
    from sr.network.foreign.halo import measure_halo
    from sr.network.foreign.probe import probe
    from sr.network.foreign.session import ForeignSession

    graph = read_graph(path)
    session = ForeignSession(path)
    loaded = _peak_bytes()
    value_range = stated.get("value_range")
    found = probe(
        session,
        graph,
        path,
        Conventions(None if value_range is None else (value_range[0], value_range[1]), stated.get("order")),
    )
    _say(phase="found its conventions", share=0.0)
    _limit_memory(memory_bytes, memory_bytes)
    halo = measure_halo(session, found, lambda phase, share: _say(phase=phase, share=share))
    taken = max(0, _peak_bytes() - loaded) // halo.largest
    return {**asdict(found), "halo": asdict(halo), "bytes_per_px": taken}


def _say(**record: Any) -> None:
    print(json.dumps(record), flush=True)


def _limit_memory(now: int, later: int) -> None:
    """Limit the address space; it can be raised up to `later`."""
    with suppress(ImportError, ValueError, OSError):  # not on Windows; macOS ignores it
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (now, later))


def _peak_bytes() -> int:
    """Return the most memory that this process has had so far; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
