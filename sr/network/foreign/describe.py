"""The descriptor of a foreign network: probed once, then read from the user's cache folder.

Owns the cache: one JSON file for each model file and each set of stated conventions.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sr.errors import ModelError
from sr.files import atomic_write
from sr.memory import available_memory
from sr.network.descriptor import ModelDescriptor, Precision, is_ours
from sr.network.ends import Conventions, Ends
from sr.network.foreign.graph import Graph, check_graph, read_graph
from sr.network.modelfile import files_digest

Progress = Callable[[str, float], None]

# Of what is cached; a new number makes all files be probed again.
CACHE_FORMAT = 1

# How long finding the conventions may take, and then each step of measuring the halo.
_PROBE_SECONDS, _HALO_SECONDS = 600.0, 3600.0
# ONNX Runtime reserves address space that it does not use.
_RESERVED_BYTES = 2 * 2**30

# Float32 bytes for each lr pixel where the system does not say how much memory a run took: 64 channels of hr
# pixels at x4, twice.
_ASSUMED_BYTES_PER_PX = 64 * 4 * 16 * 2
# `activation_bytes_per_lr_px` counts tensors; runtimes take this much more (`sr.backends.base`).
_TAKEN_PER_COUNTED_BYTE = 4

# PSNR below which the output is hardly a picture of the input.
_UNLIKE_DB = 10.0


def is_foreign(path: Path) -> bool:
    """Say whether a file is ONNX without metadata of ours; False for what is no ONNX file at all.

    Raises:
        ModelError: there is no such file.
    """
    if path.suffix.lower() != ".onnx":
        return False
    try:
        return not is_ours(read_graph(path).metadata)
    except ModelError:
        return False


def foreign_descriptor(
    path: Path,
    *,
    stated: Conventions | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> ModelDescriptor:
    """Describe a file, by small runs unless an earlier description is cached.

    Args:
        path: of an ONNX file.
        stated: conventions that are not to be found out.
        progress: called with phase and share done.
        cache: folder; None is one in the user's cache folder.

    Raises:
        ModelError: the file is missing, damaged, must not be run, or does not upscale pictures.
    """
    graph, stated = read_graph(path), stated or Conventions()
    check_graph(graph, path)
    digest = files_digest([path, *(path.parent / name for name in graph.external)])
    key = hashlib.sha256(json.dumps([CACHE_FORMAT, digest, asdict(stated)]).encode()).hexdigest()
    file = (cache or _cache_folder()) / f"{key[:32]}.json"
    found = _cached(file)
    if found is None:
        found = _probe_apart(path, stated, progress)
        with contextlib.suppress(OSError):  # without a cache it is probed again next time
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as temporary:
                temporary.write_text(json.dumps(found))
    return _descriptor(path, graph, digest, found)


def _cache_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_path("srup")) / "models"


def _cached(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _descriptor(path: Path, graph: Graph, digest: str, found: dict[str, Any]) -> ModelDescriptor:
    size, halo = found["ends"]["size"], found["halo"]
    ends = Ends(**{**found["ends"], "size": None if size is None else tuple(size)})
    precision: Precision = "fp16" if ends.dtype == "float16" else "fp32"
    taken = found["bytes_per_px"] or _ASSUMED_BYTES_PER_PX
    return ModelDescriptor(
        name=path.stem,
        scale=found["scale"],
        ends=ends,
        precision=precision,
        receptive_field_radius=halo["halo"],
        halo=halo["halo"],
        activation_bytes_per_lr_px=taken // _TAKEN_PER_COUNTED_BYTE + 1,
        weights_sha256=digest,
        channels=ends.channels,
        tiles_exact=halo["exact"],
        minimum=found["minimum"],
        multiple=max(found["multiple"], halo["multiple"]),
        licence=graph.metadata.get("license", graph.metadata.get("licence", "")),
        ours=False,
        notes=tuple(_notes(graph, found)),
    )


def _notes(graph: Graph, found: dict[str, Any]) -> Iterator[str]:
    halo = found["halo"]
    if not halo["exact"]:
        names = ", ".join(graph.global_operators)
        yield (
            f"tiles differ from the whole picture by up to {halo['levels']} of 255 levels: an output pixel "
            f"depends on more of the picture than fits into a tile{names and f' (operators {names})'}"
        )
    if found["likeness_db"] < _UNLIKE_DB:
        yield (
            f"the output hardly resembles the input ({found['likeness_db']:.0f} dB): if pictures look wrong, "
            "state the convention (--model-range, --model-order)"
        )


def _probe_apart(path: Path, stated: Conventions, progress: Progress | None) -> dict[str, Any]:
    """Probe in a process of its own; return what it found.

    Raises:
        ModelError: it found that the file does not upscale pictures, took too long, or died.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(each or os.curdir for each in sys.path)}
    memory = available_memory() + _RESERVED_BYTES
    command = [
        sys.executable,
        "-m",
        "sr.network.foreign.child",
        str(path),
        str(memory),
        json.dumps(asdict(stated)),
    ]
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        assert child.stdout is not None
        late = threading.Event()
        timer = _killer(child, late, _PROBE_SECONDS)
        try:
            for line in child.stdout:
                record = json.loads(line)
                if "probed" in record:
                    found: dict[str, Any] = record["probed"]
                    return found
                if "error" in record:
                    where = "" if str(path) in record["error"] else f"{path}: "
                    raise ModelError(f"{where}{record['error']}")
                timer.cancel()
                timer = _killer(child, late, _HALO_SECONDS)
                if progress is not None:
                    progress(f"{path.name}: {record['phase']}", record["share"])
        finally:
            timer.cancel()
            if child.poll() is None:
                child.kill()
    if late.is_set():
        raise ModelError(f"{path}: refused, small pictures take it too long")
    raise ModelError(
        f"{path}: refused, it crashes ONNX Runtime or needs more memory than is available "
        f"({available_memory() / 2**20:,.0f} MiB) for small pictures"
    )


def _killer(child: subprocess.Popen[str], late: threading.Event, seconds: float) -> threading.Timer:
    def kill() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    return timer
