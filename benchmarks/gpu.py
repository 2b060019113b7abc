"""Pictures on a GPU: megapixels a second of each backend that can use it, by tile and batch.

Everything from pixels to pixels is in the time: arrays in memory, cut, copied to the GPU, computed, stitched.
The goal is `GOAL` of the engine: output megapixels a second of a picture, divided by those that the engine
alone computes in batches of its largest shape, by CUDA events around its runs. Tiles overlap, and what that
costs counts as loss. Encoding stands beside it, as megapixels a second of PNG files by all cores: if that is
less, it is what limits files to files, not the GPU.

`benchmarks.throughput` times the networks; this shows which settings of `Upscaler` suit a GPU. One backend is
open at a time, because each plans nearly all of the memory. So each is opened several times, in another
order each round, and the best of its rounds counts.

    python -m benchmarks.gpu
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.lib.options import Script
from benchmarks.lib.paths import ROOT
from benchmarks.lib.results import store_result
from benchmarks.lib.runners import Case
from benchmarks.lib.timing import timed
from benchmarks.lib.trt_split import split_of
from benchmarks.pipeline import on_all_cores
from deploy.engines.build import build_engine
from sr.backends import BackendRequest, open_backend, specs
from sr.backends.available import missing_requirements
from sr.backends.gpus import driver_cuda_version, visible_gpus
from sr.backends.tensorrt.spec import EngineSpec
from sr.errors import BackendError
from sr.image import Picture, read_picture, write_picture
from sr.processor import available_cores
from sr.resize import bicubic_resize
from sr.upscale import Upscaler

PICTURE = ROOT / "examples" / "kitten.png"
GOAL = 0.9
ENGINE_ROUNDS = 100
ROUNDS, RUNS = 3, 5  # how often each is opened, and how often it then runs
TILES, BATCHES = (256, 384, 512), (1, 2, 4, 8)
BACKENDS = tuple(
    spec.name for spec in sorted(specs.BACKENDS.values(), key=lambda spec: spec.gpu_rank) if spec.gpu_rank
)


@dataclass(frozen=True)
class Variant:
    """Settings to measure; None is what the backend chooses.

    Attributes:
        backend: its name.
        tile: largest side in lr pixels.
        batch: tiles at once.
        equal: tiles of equal size, rather than of the few shapes of `sr.tiling.LADDER`.
    """

    backend: str
    tile: int | None = None
    batch: int | None = None
    equal: bool | None = None

    def __str__(self) -> str:
        words = [self.backend]
        words += [] if self.tile is None else [f"tiles of {self.tile}"]
        words += [] if self.batch is None else [f"batches of {self.batch}"]
        words += [] if self.equal is None else [f"{'equal' if self.equal else 'constant'} tiles"]
        return ", ".join(words)


Opener = Callable[[Variant, int], AbstractContextManager[Callable[[np.ndarray], object]]]


def run(*, scales: Sequence[int] = (2, 3, 4), rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure megapixels of output a second.

    Raises:
        BackendError: there is no GPU.
    """
    gpus = [gpu.name for gpu in visible_gpus()]
    if not gpus:
        raise BackendError("no NVIDIA GPU here")
    image = bicubic_resize(read_picture(PICTURE).pixels, scale=4)
    able = []
    for name in BACKENDS:
        if lack := missing_requirements(name):
            print(f"{name}: lacks {lack}", file=sys.stderr)
        else:
            able += variants(name)
    rows = [
        {"scale": scale, "ran": name, "megapixels_out_per_second": rate}
        for scale in scales
        for name, rate in rates(scale, image, able, rounds=rounds).items()
    ]
    engines = {
        (scale, name): engine_rate(scale, name)
        for scale in scales
        for name in {each.backend for each in able}
    }
    return {
        "gpus": gpus,
        "driver_serves_cuda": driver_cuda_version(),
        "size": f"{image.shape[1]}x{image.shape[0]}",
        "rounds": rounds,
        "rows": [of_engine(row, engines) for row in rows],
        "encoded_megapixels_per_second": encoding_rate(image),
    }


def engine_rate(scale: int, name: str) -> float | None:
    """Return output megapixels a second of an engine alone, at its largest shape; None without an engine."""
    usual = EngineSpec(scale)
    case = Case(scale, usual.tile, usual.tile, usual.batch, usual.precision, "cuda")
    split = split_of(f"srup-{name}", case, rounds=ENGINE_ROUNDS)
    return case.output_megapixels / split["compute"]["median"] * 1e3 if split else None


def of_engine(row: Mapping[str, Any], engines: Mapping[tuple[int, str], float | None]) -> dict[str, Any]:
    """Return a row with its share of the engine alone, and whether that reaches the goal."""
    engine = engines.get((row["scale"], row["ran"].partition(",")[0]))
    if engine is None:
        return dict(row)
    share = row["megapixels_out_per_second"] / engine
    return {**row, "share_of_engine": round(share, 3), "reaches_goal": share >= GOAL}


def encoding_rate(image: np.ndarray) -> float:
    """Return the megapixels a second that all cores write as PNG files, each one picture at a time."""
    number = 2 * available_cores()
    with tempfile.TemporaryDirectory() as folder:
        targets = [Path(folder, f"{index}.png") for index in range(number)]
        seconds = timed(lambda: on_all_cores(write_picture, targets, [Picture(image)] * number))
    return round(number * image.shape[0] * image.shape[1] / 1e6 / seconds, 1)


@click.command(cls=Script, help=__doc__)
def main() -> None:
    store_result("gpu", run())


def variants(name: str) -> list[Variant]:
    """Return what is measured of a backend."""
    if not specs.BACKENDS[name].needs_engines:
        return [Variant(name)]
    tiled = [Variant(name, equal=equal) for equal in (True, False)]
    return [*tiled, *(Variant(name, tile, batch) for tile in TILES for batch in BATCHES)]


def opened(variant: Variant, scale: int, *, device: str = "cuda") -> Upscaler:
    """Open an upscaler on a device; build its engine if it is missing."""
    settings: dict[str, Any] = {"device": device, "tile": variant.tile, "batch": variant.batch}
    backend = open_backend(variant.backend, BackendRequest(scale, builder=build_engine, **settings))
    if variant.equal is not None:
        backend.info = replace(backend.info, constant_tiles=not variant.equal)
    return Upscaler(backend=backend, tile=variant.tile, batch=variant.batch)


def rates(
    scale: int,
    image: np.ndarray,
    able: Sequence[Variant],
    *,
    rounds: int,
    opener: Opener = opened,
    timer: Callable[[Callable[[], object]], float] = timed,
) -> Mapping[str, float]:
    """Return megapixels of output a second by variant, with one variant open at a time.

    Each figure is also printed to stderr, so that a run that is cut short is not lost. Variants that
    cannot be opened, or run out of memory, are named on stderr and left out.
    """
    megapixels = image.shape[0] * image.shape[1] * scale**2 / 1e6
    seconds: dict[Variant, list[float]] = {}
    failed: set[Variant] = set()
    for turn in range(rounds):
        start = turn * len(able) // max(rounds, 1)
        for variant in (*able[start:], *able[:start]):
            if variant in failed:
                continue
            try:
                with opener(variant, scale) as upscale:
                    upscale(image)
                    found = statistics.median(timer(lambda: upscale(image)) for _ in range(RUNS))
            except BackendError as error:  # TensorRT-RTX does not support every GPU
                print(f"{variant}: {error}", file=sys.stderr)
                failed.add(variant)
                seconds.pop(variant, None)
            else:
                seconds.setdefault(variant, []).append(found)
                print(f"x{scale} {variant}: {megapixels / found:.1f} MP/s", file=sys.stderr, flush=True)
    return {str(each): round(megapixels / min(seconds[each]), 1) for each in able if each in seconds}


if __name__ == "__main__":
    main()
