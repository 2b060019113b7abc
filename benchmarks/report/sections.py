"""The measurements of a report and their settings; each runs in a process of its own.

Imports nothing heavy: every such process imports this module, and then only its own measurement.
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
class Inputs:
    """Inputs of the measurements.

    Attributes:
        sets: folders with hr pictures, by name.
        photographs: folder for the pipeline; None means crops of the examples.
        quick: minutes rather than an hour.
        results: folder of stored results, including those of this run.
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
        about: one sentence on the page.
        settings: a context that gives the arguments of `run`.
    """

    name: str
    title: str
    about: str
    settings: Callable[[Inputs], AbstractContextManager[dict[str, Any]]]


Settings = Iterator[dict[str, Any]]


@contextmanager
def no_settings(inputs: Inputs) -> Settings:
    yield {}


@contextmanager
def _throughput(inputs: Inputs) -> Settings:
    from benchmarks.throughput import Spec

    yield {"scales": [3], "spec": Spec(rounds=3)} if inputs.quick else {}


@contextmanager
def _parity(inputs: Inputs) -> Settings:
    from sr.network.modelfile import shipped_scales
    from train.prepare.make import PrepareSpec, prepare

    paths = list(EXAMPLES[:1] if inputs.quick else EXAMPLES)
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in inputs.sets.items():
            spec = PrepareSpec(
                folder, scales=tuple(shipped_scales()), output=Path(scratch) / name, whole=True
            )
            paths += [made.path for made in prepare(spec).without_problems().lists]
        yield {"paths": paths}


@contextmanager
def _quality(inputs: Inputs) -> Settings:
    yield {"sets": inputs.sets, "with_plane": False}


@contextmanager
def _real(inputs: Inputs) -> Settings:
    from benchmarks.real import RealSpec

    few = RealSpec((2,), ("clean", "JPEG 90", "JPEG 75", "JPEG 50"), perceptual=False)
    yield {"sets": inputs.sets, "spec": few if inputs.quick else RealSpec()}


@contextmanager
def _plane(inputs: Inputs) -> Settings:
    yield {"scales": [3], "rounds": 3} if inputs.quick else {}


@contextmanager
def _pipeline(inputs: Inputs) -> Settings:
    from benchmarks.pipeline import PipelineSpec

    spec = PipelineSpec(count=6, rounds=2, long_side=320) if inputs.quick else PipelineSpec()
    yield {"folder": inputs.photographs, "spec": spec}


@contextmanager
def _predict(inputs: Inputs) -> Settings:
    yield {"folder": inputs.results}


@contextmanager
def _engines(inputs: Inputs) -> Settings:
    yield {"targets": [(89,)]} if inputs.quick else {}


@contextmanager
def _gpu(inputs: Inputs) -> Settings:
    yield {"rounds": 3} if inputs.quick else {}


SECTIONS = (
    Section(
        "throughput",
        "Speed of the networks",
        "Latency and megapixels a second of each installed engine, run in turn.",
        _throughput,
    ),
    Section(
        "parity",
        "Parity",
        "Difference of each backend and precision from PyTorch in float32, on real pictures.",
        _parity,
    ),
    Section("quality", "Quality", "Our networks against bicubic, and published figures of others.", _quality),
    Section(
        "real",
        "Pictures as people have them",
        "JPEG, noise and other damage: filters, our networks (0), their partners that restore (1), what lies "
        "between, and the strength that is chosen for each file (auto).",
        _real,
    ),
    Section(
        "plane",
        "Quality against speed",
        "Our networks among fixed peers: speed is measured here, the peers' quality is published.",
        _plane,
    ),
    Section(
        "pipeline",
        "Files to files",
        "Decoding, inference and encoding alone, and a whole folder. The bound is the slowest stage alone, "
        "or the total work on all cores, whichever takes longer.",
        _pipeline,
    ),
    Section(
        "predict",
        "Prediction for GPUs",
        "Upper limits from published peaks, beside measured rates.",
        _predict,
    ),
    Section(
        "engines", "Engines", "Time to build TensorRT-RTX engines, and to find them in the cache.", _engines
    ),
    Section(
        "gpu",
        "Pictures on a GPU",
        "From input to output pixels, with fixed and equal tiles, with and without CUDA graphs.",
        _gpu,
    ),
    Section(
        "guard",
        "Counted work",
        "Counts that do not depend on the machine; CI compares them with a baseline.",
        no_settings,
    ),
)
NAMES = tuple(section.name for section in SECTIONS)


def measured(section: Section, inputs: Inputs) -> dict[str, Any]:
    """Run one measurement in a process of its own.

    Returns:
        {"result": ...}, {"missing": why it cannot run here} or {"failed": what went wrong}.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_run, section.name, inputs).result()
        except BrokenProcessPool:
            return {"failed": "the process died; to see why, run it alone: " + _alone(section)}
        except Exception as error:  # whatever it is, the other measurements go on
            return {"failed": f"{type(error).__name__}: {error}; run it alone: {_alone(section)}"}


def _alone(section: Section) -> str:
    return f"python -m benchmarks.{section.name}"


def _run(name: str, inputs: Inputs) -> dict[str, Any]:
    section = next(section for section in SECTIONS if section.name == name)
    module = importlib.import_module(f"benchmarks.{name}")
    try:
        with section.settings(inputs) as settings:
            return {"result": json.loads(json.dumps(module.run(**settings), allow_nan=False))}
    except SrupError as error:
        return {"missing": str(error)}


def passed(entry: Mapping[str, Any]) -> bool:
    """Return whether nothing of a section failed."""
    return "failed" not in entry and entry.get("result", {}).get("passed", True) is not False


def measure_all(sections: Sequence[Section], inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Run measurements one after the other, and print the progress."""
    entries: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        # Predictions are compared with stored throughputs and with this run's.
        for path in RESULTS.glob("throughput-*.json"):
            shutil.copy(path, scratch)
        for section in sections:
            click.echo(f"{section.title} ...", err=True)
            entry = entries[section.name] = measured(section, replace(inputs, results=Path(scratch)))
            click.echo(f"  {_state(entry)}", err=True)
            if section.name == "throughput" and "result" in entry:
                write_json(result_path("throughput", Path(scratch)), {**provenance(), **entry["result"]})
    return entries


def _state(entry: Mapping[str, Any]) -> str:
    for kind in ("failed", "missing"):
        if kind in entry:
            return f"{kind}: {entry[kind]}"
    return "done" if passed(entry) else "misses its requirement"
