"""Counted work against a committed baseline: shows growth without a stopwatch.

Counts multiply-adds, nodes, bytes moved and file size of every shipped model; the size of its
TensorRT-RTX engine, which is built without a GPU; the memory that cutting and stitching allocate for a
tile; and the calls, copies and allocations of the TensorRT runtime on a simulated GPU. No count depends
on the values of the weights or on the load of the machine. A figure that differs from guard.json by more
than its tolerance, in either direction, gives exit status 1; `--update` stores the current figures.

    python -m benchmarks.guard
    python -m benchmarks.guard --update
"""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from benchmarks.lib.options import Script
from benchmarks.lib.paths import ROOT
from benchmarks.lib.results import write_json
from benchmarks.lib.work import counted_work
from deploy.engines.build import plan_from_onnx
from sr.backends.base import Backend, BackendInfo, Batch
from sr.backends.ort import read_metadata
from sr.backends.tensorrt.backend import TrtBackend, TrtSettings
from sr.backends.tensorrt.modules import KINDS, TensorRt, TensorRtRtx
from sr.backends.tensorrt.spec import EngineSpec
from sr.errors import DataError, MissingExtraError
from sr.network.modelfile import SHIPPED_DIR, shipped_onnx
from sr.upscale import Upscaler
from tests.simulated_device import SimulatedCuda
from tests.simulated_tensorrt import SimulatedPlan, SimulatedTensorRT, no_kernel

BASELINE = ROOT / "benchmarks" / "guard.json"
REMEDY = "if the change is intended, store it with: python -m benchmarks.guard --update"

# How much a figure may differ: a share of the baseline, plus a number. Other figures must be equal.
TOLERANCES = {
    "file_bytes": (0.02, 0),  # the metadata holds a summary of the training, of any length
    "plan_bytes": (0.10, 0),  # builder versions differ; an engine that computes in float32 is 0.147 smaller
    "allocated_bytes": (0.02, 2048),  # Python's own objects; a tile has 47,000 bytes
}

SIZE = {"height": 360, "width": 640}  # of the input
TARGET = 89  # compute capability of the engines; their size hardly depends on it
TILE_PX, HALO_PX, BATCH = 128, 16, 4  # explicit: the defaults depend on the weights
PICTURE = (600, 800)

Figures = dict[str, dict[str, int]]


def run(models: Iterable[Path] | None = None) -> dict[str, Figures]:
    """Count everything; engines only if TensorRT-RTX is installed.

    Args:
        models: ONNX files; None means all shipped ones.
    """
    paths = sorted(SHIPPED_DIR.glob("*.onnx")) if models is None else list(models)
    counted = {
        "models": {path.stem: model_figures(path) for path in paths},
        "tiles": dict(tile_figures()),
        "runtime": {kind.backend.name: runtime_figures(kind) for kind in KINDS.values()},
    }
    try:
        trt = TensorRtRtx.load()
    except MissingExtraError:
        return counted
    half = [path for path in paths if path.stem.endswith("_fp16_uint8")]
    return counted | {"engines": {path.stem: engine_figures(path, trt) for path in half}}


def model_figures(path: Path) -> dict[str, int]:
    """Count the work of an ONNX file on a picture of `SIZE`."""
    work = counted_work(onnx.load(path), **SIZE)
    return {
        "macs": work.macs,
        "nodes": work.nodes,
        "kernels": len(work.kernels),
        "params": work.params,
        "bytes_moved": work.bytes_moved,
        "file_bytes": path.stat().st_size,
    }


def engine_figures(path: Path, trt: TensorRt) -> dict[str, int]:
    """Build an engine and return its size."""
    spec = EngineSpec(read_metadata(path).scale, targets=(TARGET,))
    return {"plan_bytes": len(plan_from_onnx(path.read_bytes(), spec, trt))}


class _Counting(Backend):
    """A backend that computes nothing and records what is allocated to cut a batch and to keep its result."""

    def __init__(self, info: BackendInfo) -> None:
        self.info = info
        self.most = {"cut": 0, "keep": 0}
        self._results: dict[tuple[int, ...], Batch] = {}

    def run(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        remaining = iter(batches)
        while True:
            before = _start_counting()
            batch = next(remaining, None)
            self._note("cut", before)
            if batch is None:
                return
            result = self._result(batch)
            del batch
            before = _start_counting()
            yield result
            self._note("keep", before)

    def _result(self, batch: Batch) -> Batch:
        count, height, width, _ = batch.shape
        scale = self.info.model.scale
        return self.empty((count, height * scale, width * scale, 3), batch.dtype)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Batch:
        if shape not in self._results:
            self._results[shape] = np.zeros(shape, dtype)
        return self._results[shape]

    def _note(self, what: str, before: int) -> None:
        self.most[what] = max(self.most[what], tracemalloc.get_traced_memory()[1] - before)


def _start_counting() -> int:
    tracemalloc.reset_peak()
    return tracemalloc.get_traced_memory()[0]


def tile_figures() -> Iterator[tuple[str, dict[str, int]]]:
    """Yield the peak memory that `Upscaler` allocates to cut a batch and to keep its result."""
    model = read_metadata(shipped_onnx(scale=2))
    for kind, shape in (("rgb", (*PICTURE, 3)), ("grey", PICTURE)):
        backend = _Counting(BackendInfo("counting", "none", model, TILE_PX, BATCH))
        with Upscaler(backend=backend, tile=TILE_PX, halo=HALO_PX, batch=BATCH) as upscaler:
            picture = np.zeros(shape, np.uint8)
            upscaler(picture)
            backend.most = dict.fromkeys(backend.most, 0)
            tracemalloc.start()
            upscaler(picture)
            tracemalloc.stop()
            tiles = len(upscaler.grid(*PICTURE))
        for action, most in backend.most.items():
            yield f"{action} {kind}", {"tiles": tiles, "allocated_bytes": most}


def runtime_figures(kind: type[TensorRt]) -> dict[str, int]:
    """Count calls, copies and allocations of the warm TensorRT runtime for one picture."""
    cuda = SimulatedCuda()
    module = SimulatedTensorRT(cuda, rtx=kind is TensorRtRtx)
    model = read_metadata(shipped_onnx(scale=2, precision="fp16"))
    plan = module.plan(SimulatedPlan(no_kernel, 2, BATCH, TILE_PX))
    settings = TrtSettings(replace(model, halo=HALO_PX), tile=TILE_PX)
    with Upscaler(backend=TrtBackend({0: plan}, settings, trt=kind(module), cudart=cuda)) as upscaler:
        picture = np.zeros((*PICTURE, 3), np.uint8)
        upscaler(picture)
        calls, allocations = len(cuda.calls), cuda.allocations
        cuda.copied = Counter()
        upscaler(picture)
        made = Counter(cuda.calls[calls:])
        return {
            "tiles": len(upscaler.grid(*PICTURE)),
            "allocations": cuda.allocations - allocations,
            "bytes_to_device": cuda.copied["to device"],
            "bytes_to_host": cuda.copied["to host"],
            **dict(sorted(made.items())),
        }


def violations(found: Mapping[str, Figures], baseline: Mapping[str, Figures]) -> list[str]:
    """Return a line for each figure that differs from the baseline by more than its tolerance.

    Sections that were not counted here are skipped.
    """
    said = []
    for section, things in found.items():
        known = baseline.get(section, {})
        for thing in sorted(things.keys() | known.keys()):
            if thing not in known or thing not in things:
                where = "not in" if thing in things else "only in"
                said.append(f"{section}, {thing}: {where} the baseline")
                continue
            now, then = things[thing], known[thing]
            for name in sorted(now.keys() | then.keys()):
                is_, was = now.get(name, 0), then.get(name, 0)
                share, number = TOLERANCES.get(name, (0, 0))
                if abs(is_ - was) > share * was + number:
                    change = f" ({100 * (is_ / was - 1):+.1f} %)" if was else ""
                    said.append(f"{section}, {thing}: {name} {is_:,}, baseline {was:,}{change}")
    return said


def read_baseline(path: Path) -> dict[str, Figures]:
    """Return the stored figures.

    Raises:
        DataError: the file does not exist or cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot read the baseline ({error}); store one with --update") from error


@click.command(cls=Script, help=__doc__)
@click.option("--update", is_flag=True, help="Store the current figures as the baseline.")
@click.option(
    "--baseline", type=click.Path(dir_okay=False, path_type=Path), default=BASELINE, help="Baseline file."
)
def main(update: bool, baseline: Path) -> None:
    found = run()
    if update:
        if "engines" not in found:
            raise MissingExtraError("tensorrt-rtx", "trt-rtx", "the baseline's engines")
        write_json(baseline, found)
        click.echo(f"stored in {baseline.name}")
        return
    said = violations(found, read_baseline(baseline))
    for line in said:
        click.echo(line)
    if "engines" not in found:
        click.echo("engines not counted: TensorRT-RTX is not installed (pip install srup[trt-rtx])")
    click.echo(f"{len(said)} figures differ; {REMEDY}" if said else "every figure agrees with the baseline")
    sys.exit(1 if said else 0)


if __name__ == "__main__":
    main()
