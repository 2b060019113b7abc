"""What a report measures, and with which settings; each measurement runs in a process of its own.

Imports nothing heavy: every such process imports this module, and then only what it measures with.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from benchmarks.lib.paths import EXAMPLES, RESULTS
from benchmarks.lib.provenance import provenance
from benchmarks.lib.results import result_path, write_json
from sr.errors import SrupError


@dataclass(frozen=True)
class Wish:
    """What to measure with.

    Attributes:
        sets: folders with hr pictures, by name.
        photographs: folder for the pipeline; None takes crops of the examples.
        quick: minutes rather than an hour.
        results: folder of stored results, with those of this run.
    """

    sets: Mapping[str, Path] = field(default_factory=dict)
    photographs: Path | None = None
    quick: bool = False
    results: Path = RESULTS


@dataclass(frozen=True)
class Section:
    """One measurement.

    Attributes:
        name: module of `benchmarks` with a function `run`; files of results begin with it.
        title: on the page.
        about: what it shows, in a sentence.
        settings: arguments of `run` for a wish, for as long as it runs.
    """

    name: str
    title: str
    about: str
    settings: Callable[[Wish], AbstractContextManager[dict[str, Any]]]


Settings = Iterator[dict[str, Any]]


@contextmanager
def no_settings(wish: Wish) -> Settings:
    yield {}


@contextmanager
def _throughput(wish: Wish) -> Settings:
    from benchmarks.throughput import Spec

    yield {"scales": [3], "spec": Spec(rounds=3)} if wish.quick else {}


@contextmanager
def _parity(wish: Wish) -> Settings:
    from sr.network.modelfile import shipped_scales
    from train.prepare.make import PrepareSpec, prepare

    paths = list(EXAMPLES[:1] if wish.quick else EXAMPLES)
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in wish.sets.items():
            spec = PrepareSpec(
                folder, scales=tuple(shipped_scales()), output=Path(scratch) / name, whole=True
            )
            paths += [made.path for made in prepare(spec).lists]
        yield {"paths": paths}


@contextmanager
def _quality(wish: Wish) -> Settings:
    yield {"sets": wish.sets, "with_plane": False}


@contextmanager
def _plane(wish: Wish) -> Settings:
    yield {"scales": [3], "rounds": 3} if wish.quick else {}


@contextmanager
def _pipeline(wish: Wish) -> Settings:
    from benchmarks.pipeline import PipelineSpec

    spec = PipelineSpec(count=6, rounds=2, long_side=320) if wish.quick else PipelineSpec()
    yield {"folder": wish.photographs, "spec": spec}


@contextmanager
def _predict(wish: Wish) -> Settings:
    yield {"folder": wish.results}


@contextmanager
def _engines(wish: Wish) -> Settings:
    yield {"targets": [(89,)]} if wish.quick else {}


@contextmanager
def _gpu(wish: Wish) -> Settings:
    yield {"rounds": 3} if wish.quick else {}


SECTIONS = (
    Section(
        "throughput",
        "Speed of the networks",
        "Latency and megapixels a second of each engine that is here, run in turn.",
        _throughput,
    ),
    Section(
        "parity",
        "Parity",
        "How far each backend and precision is from PyTorch in float32, on real pictures.",
        _parity,
    ),
    Section("quality", "Quality", "Our networks against bicubic, and what others have published.", _quality),
    Section(
        "plane",
        "Quality against speed",
        "Our networks among fixed peers: speed measured here, quality of the peers as published.",
        _plane,
    ),
    Section(
        "pipeline",
        "Files to files",
        "Decoding, inference and encoding each alone, and all of it over a folder. The bound is the "
        "slowest stage alone, or all work on all cores.",
        _pipeline,
    ),
    Section(
        "predict",
        "Prediction for GPUs",
        "What published peaks allow at most, beside what was measured.",
        _predict,
    ),
    Section("engines", "Engines", "Building TensorRT-RTX engines, and finding them again.", _engines),
    Section(
        "gpu",
        "Pictures on a GPU",
        "From pixels to pixels, with fixed and equal tiles, with and without CUDA graphs.",
        _gpu,
    ),
    Section(
        "guard",
        "Counted work",
        "What does not depend on the machine; CI compares it with a baseline.",
        no_settings,
    ),
)
NAMES = tuple(section.name for section in SECTIONS)


def measured(section: Section, wish: Wish) -> dict[str, Any]:
    """Run one measurement in a process of its own.

    Returns:
        {"result": ...}, {"missing": why it cannot be had here} or {"failed": what went wrong}.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_run, section.name, wish).result()
        except BrokenProcessPool:
            return {"failed": "the process died; run it alone to see why: " + _alone(section)}
        except Exception as error:  # whatever it is, the other measurements go on
            return {"failed": f"{type(error).__name__}: {error}; run it alone: {_alone(section)}"}


def _alone(section: Section) -> str:
    return f"python -m benchmarks.{section.name}"


def _run(name: str, wish: Wish) -> dict[str, Any]:
    section = next(section for section in SECTIONS if section.name == name)
    module = importlib.import_module(f"benchmarks.{name}")
    try:
        with section.settings(wish) as settings:
            return {"result": json.loads(json.dumps(module.run(**settings), allow_nan=False))}
    except SrupError as error:
        return {"missing": str(error)}


def passed(entry: Mapping[str, Any]) -> bool:
    """Say whether a section has nothing that failed."""
    return "failed" not in entry and entry.get("result", {}).get("passed", True) is not False


def measure_all(sections: Sequence[Section], wish: Wish) -> dict[str, dict[str, Any]]:
    """Run measurements, one after the other, and say how far it is."""
    entries: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        # Predictions are put beside what is stored, and beside what this run measures.
        for path in RESULTS.glob("throughput-*.json"):
            shutil.copy(path, scratch)
        for section in sections:
            click.echo(f"{section.title} ...", err=True)
            entry = entries[section.name] = measured(section, replace(wish, results=Path(scratch)))
            click.echo(f"  {_state(entry)}", err=True)
            if section.name == "throughput" and "result" in entry:
                write_json(result_path("throughput", Path(scratch)), {**provenance(), **entry["result"]})
    return entries


def _state(entry: Mapping[str, Any]) -> str:
    for kind in ("failed", "missing"):
        if kind in entry:
            return f"{kind}: {entry[kind]}"
    return "done" if passed(entry) else "does not reach what it must"
