"""The descriptor of a foreign network: probed once, then read from the user's cache folder.

Owns the cache: one JSON file for each model file and each set of stated conventions.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sr.files import atomic_write
from sr.network.descriptor import ModelDescriptor, Precision, is_ours
from sr.network.ends import Conventions, Ends
from sr.network.foreign.apart import CrashError, Progress, found_apart
from sr.network.foreign.cache import cache_folder
from sr.network.foreign.checks import check_graph
from sr.network.foreign.graph import Graph, read_graph
from sr.network.foreign.statedict import is_foreign_weights
from sr.network.modelfile import files_digest

# Of what is cached; a new number makes all files be probed again.
CACHE_FORMAT = 4

# How long finding the conventions may take, and then each step of measuring the halo.
_PROBE_SECONDS, _HALO_SECONDS = 600.0, 3600.0
# What measuring the halo may take, once for each network, unless stated: of large networks on slow processors
# the largest pictures are left out then. Real-ESRGAN x4plus, 16.7 million weights, takes about 1.1 ms of a
# core for a pixel: 15 s up to halos of 24 px; by that, 4 minutes up to 112.
_PATIENCE_SECONDS = 300.0

# Float32 bytes for each lr pixel where the system does not say how much memory a run took: 64 channels of hr
# pixels at x4, twice.
_ASSUMED_BYTES_PER_PX = 64 * 4 * 16 * 2
# `activation_bytes_per_lr_px` counts tensors; runtimes take this much more (`sr.backends.base`). What was
# measured is expected as it is: tiles of Real-ESRGAN's networks took 0.71 to 0.97 of it (docs/models.md).
_TAKEN_PER_COUNTED_BYTE = 4

# PSNR below which the output is hardly a picture of the input.
_UNLIKE_DB = 10.0


def is_foreign(path: Path) -> bool:
    """Say whether a file is ONNX without metadata of ours; False where its name has another suffix.

    Anybody can write our metadata, so what must not be run is refused with them too.

    Raises:
        ModelError: there is no such file, it is no ONNX file, or it must not be run.
    """
    if path.suffix.lower() != ".onnx":
        return False
    graph = read_graph(path)
    check_graph(graph, path)
    return not is_ours(graph.metadata)


def is_others(path: Path) -> bool:
    """Say whether a file is a network of another program: ONNX without our metadata, or weights.

    Raises:
        ModelError: as `is_foreign`.
    """
    return is_foreign(path) or is_foreign_weights(path)


def foreign_descriptor(
    path: Path,
    *,
    stated: Conventions | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
    patience: float | None = None,
) -> ModelDescriptor:
    """Describe a file, by small runs unless an earlier description is cached.

    Args:
        path: of an ONNX file, or of weights, which are run by PyTorch.
        stated: conventions that are not to be found out.
        progress: called with phase and share done.
        cache: folder; None is one in the user's cache folder.
        patience: seconds that measuring the halo may take; an earlier description that less of them cut short
            is made anew. None is five minutes.

    Raises:
        ModelError: the file is missing, damaged, must not be run, or does not upscale pictures.
    """
    graph = Graph() if is_foreign_weights(path) else read_graph(path)
    if graph.operators:
        check_graph(graph, path)
    stated = stated or Conventions()
    digest = files_digest([path, *(path.parent / name for name in graph.external)])
    key = hashlib.sha256(json.dumps([CACHE_FORMAT, digest, asdict(stated)]).encode()).hexdigest()
    file = (cache or cache_folder()) / f"{key[:32]}.json"
    found, patience = _cached(file), _PATIENCE_SECONDS if patience is None else patience
    if found is None or (found["halo"]["cut_short"] and patience > _patience_of(found)):
        try:
            found = _probe(path, stated, progress, small=True, patience=patience)
        except CrashError:  # runtimes divide by the number of windows, which is 0 in tiny pictures
            found = _probe(path, stated, progress, small=False, patience=patience)
        with contextlib.suppress(OSError):  # without a cache it is probed again next time
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as temporary:
                temporary.write_text(json.dumps(found))
    return _descriptor(path, graph, digest, found)


def _probe(
    path: Path, stated: Conventions, progress: Progress | None, *, small: bool, patience: float
) -> dict[str, Any]:
    """Probe a file in a process of its own, also with pictures of a few pixels if `small`."""
    found = found_apart(
        "sr.network.foreign.child",
        [json.dumps(asdict(stated) | {"small": small, "patience": patience})],
        path,
        seconds=(_PROBE_SECONDS, max(_HALO_SECONDS, patience)),
        progress=progress,
    )
    return found | {"patience": patience}


def _enough(halo: dict[str, Any]) -> str:
    """Return the minutes that measuring larger overlaps will take, with half of that to spare."""
    return str(math.ceil(1.5 * halo["needed"] / 60)) if "needed" in halo else "MINUTES"


def _patience_of(found: dict[str, Any]) -> float:
    """Return how many seconds measuring the halo might take; earlier versions did not note it."""
    return float(found.get("patience", _PATIENCE_SECONDS))


def _cached(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _descriptor(path: Path, graph: Graph, digest: str, found: dict[str, Any]) -> ModelDescriptor:
    size, halo, said = found["ends"]["size"], found["halo"], found["metadata"]
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
        licence=said.get("license", said.get("licence", "")),
        ours=False,
        notes=tuple(_notes(graph, found)),
    )


def _notes(graph: Graph, found: dict[str, Any]) -> Iterator[str]:
    halo = found["halo"]
    if not halo["exact"]:
        yield (
            f"tiles differ from the whole picture by up to {halo['levels']} of 255 levels, in "
            f"{100 * halo['share']:.2g} % of the values: {_why_inexact(graph, found)}"
        )
    if found["likeness_db"] < _UNLIKE_DB and "architecture" not in found["metadata"]:  # else they are known
        yield (
            f"the output hardly resembles the input ({found['likeness_db']:.0f} dB): if pictures look wrong, "
            "state the convention (--model-range, --model-order)"
        )


def _why_inexact(graph: Graph, found: dict[str, Any]) -> str:
    halo = found["halo"]
    if halo["cut_short"]:
        return (
            f"overlaps of more than {halo['tried']} px were not tried, since measuring them takes this "
            f"machine more than {_patience_of(found) / 60:.2g} minutes; give it more, once: "
            f"srup info --model FILE --patience {_enough(halo)}"
        )
    names = ", ".join(graph.global_operators)
    return (
        f"an output pixel depends on more of the picture than {halo['tried']} px around it"
        f"{names and f' (operators {names})'}"
    )
