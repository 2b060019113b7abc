"""Probes a file in a process of its own; see `apart`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sr.errors import ModelError, SrupError, one_line
from sr.network.foreign.apart import forget_peak, limit_memory, peak_bytes, say

# Address space for runs of small pictures, with what libraries reserve and do not use.
_SMALL_BYTES = 4 * 2**30
_FILE_COPIES = 4  # runtimes hold weights as read, as loaded and as laid out for their kernels


def main(path: str, memory_bytes: int, stated: dict[str, Any]) -> None:
    """Probe a file and print what was found.

    Args:
        path: of an ONNX file that `checks.check_graph` accepts, or of weights.
        memory_bytes: address space that the process may have.
        stated: fields of `Conventions`, whether tiny pictures are tried (`small`), and how many seconds
            measuring the halo may take (`patience`).
    """
    small = _SMALL_BYTES + _FILE_COPIES * Path(path).stat().st_size
    limit_memory(min(memory_bytes, small), memory_bytes)
    try:
        say(found=_probed(Path(path), stated, memory_bytes))
    except SrupError as error:
        say(error=one_line(error))
    except MemoryError:
        say(error="refused, it needs too much memory for small pictures")


def _probed(path: Path, stated: dict[str, Any], memory_bytes: int) -> dict[str, Any]:
    from sr.network.ends import Conventions
    from sr.network.foreign.halo import measure_halo
    from sr.network.foreign.probe import probe

    session = _session(path)
    loaded = forget_peak()
    value_range = stated.get("value_range")
    found = probe(
        session,
        path,
        Conventions(None if value_range is None else (value_range[0], value_range[1]), stated.get("order")),
        small=stated.get("small", True),
    )
    say(phase="found its conventions", share=0.0)
    limit_memory(memory_bytes, memory_bytes)
    halo = measure_halo(
        session, found, lambda phase, share: say(phase=phase, share=share), patience=stated["patience"]
    )
    taken = max(0, peak_bytes() - loaded) // halo.largest
    return {
        **asdict(found),
        "halo": asdict(halo),
        "bytes_per_px": taken,
        "metadata": session.graph.metadata,
    }


def _session(path: Path) -> Any:
    """Load a file: an ONNX file on ONNX Runtime, weights on PyTorch."""
    if path.suffix.lower() == ".onnx":
        from sr.network.foreign.session import ForeignSession

        return ForeignSession(path)
    from sr.network.foreign.torchnet import TorchSession

    try:
        return TorchSession(path)
    except RuntimeError as error:
        if "alloc" in str(error):
            raise MemoryError from error
        raise ModelError(one_line(error)) from error


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
