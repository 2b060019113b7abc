"""Pictures on a GPU: megapixels a second of each backend that can use it, by tile, batch and CUDA graphs.

Everything from pixels to pixels is in the time. `benchmarks.throughput` times the networks; this shows
which settings of `Upscaler` suit a GPU. One backend is open at a time, because each plans nearly all of the
memory. So each is opened several times, in another order each round, and the best of its rounds counts.

    python -m benchmarks.gpu
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import click
import numpy as np

from benchmarks.lib.options import Script
from benchmarks.lib.paths import ROOT
from benchmarks.lib.results import store_result
from benchmarks.lib.timing import timed
from deploy.engines.build import build_engine
from sr.backends import Backend, BackendRequest, open_backend, specs
from sr.backends.available import driver_cuda_version, gpu_names, missing_requirements
from sr.backends.tensorrt.opening import open_trt
from sr.errors import BackendError
from sr.image import read_picture
from sr.resize import bicubic_resize
from sr.tiling import tile_grid
from sr.upscale import Upscaler

PICTURE = ROOT / "examples" / "kitten.png"
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
        equal: tiles of equal size, rather than of the largest.
        graphs: CUDA graphs.
    """

    backend: str
    tile: int | None = None
    batch: int | None = None
    equal: bool | None = None
    graphs: bool = True

    def __str__(self) -> str:
        words = [self.backend]
        words += [] if self.tile is None else [f"tiles of {self.tile}"]
        words += [] if self.batch is None else [f"batches of {self.batch}"]
        words += [] if self.equal is None else [f"{'equal' if self.equal else 'fixed'} tiles"]
        words += [] if self.graphs else ["no graphs"]
        return ", ".join(words)


Opener = Callable[[Variant, int], AbstractContextManager[Callable[[np.ndarray], object]]]


def run(*, scales: Sequence[int] = (2, 3, 4), rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure megapixels of output a second.

    Raises:
        BackendError: there is no GPU.
    """
    gpus = gpu_names()
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
    return {
        "gpus": gpus,
        "driver_serves_cuda": driver_cuda_version(),
        "size": f"{image.shape[1]}x{image.shape[0]}",
        "rounds": rounds,
        "rows": rows,
    }


@click.command(cls=Script, help=__doc__)
def main() -> None:
    store_result("gpu", run())


def variants(name: str) -> list[Variant]:
    """Return what is measured of a backend."""
    if not specs.BACKENDS[name].needs_engines:
        return [Variant(name)]
    tiled = [Variant(name, equal=equal, graphs=graphs) for equal in (True, False) for graphs in (True, False)]
    return [*tiled, *(Variant(name, tile, batch) for tile in TILES for batch in BATCHES)]


def rates(
    scale: int, image: np.ndarray, able: Sequence[Variant], *, rounds: int, opener: Opener | None = None
) -> Mapping[str, float]:
    """Return megapixels of output a second by variant, with one variant open at a time.

    Each figure is also printed to stderr, so that a run that is cut short is not lost. Variants that
    cannot be opened, or run out of memory, are named on stderr and left out.
    """
    opener = opener or opened
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
                    found = statistics.median(timed(lambda: upscale(image)) for _ in range(RUNS))
            except BackendError as error:  # TensorRT-RTX does not support every GPU
                print(f"{variant}: {error}", file=sys.stderr)
                failed.add(variant)
                seconds.pop(variant, None)
            else:
                seconds.setdefault(variant, []).append(found)
                print(f"x{scale} {variant}: {megapixels / found:.1f} MP/s", file=sys.stderr, flush=True)
    return {str(each): round(megapixels / min(seconds[each]), 1) for each in able if each in seconds}


def opened(variant: Variant, scale: int) -> Upscaler:
    """Open an upscaler on the first GPU."""
    upscaler = Upscaler(backend=_backend(variant, scale), tile=variant.tile, batch=variant.batch)
    if variant.equal is not None:
        spec = replace(upscaler.spec, equalise=variant.equal)
        upscaler.grid = lambda height, width: tile_grid(height, width, spec)  # type: ignore[method-assign]
    return upscaler


def _backend(variant: Variant, scale: int) -> Backend:
    """Open a backend; build its engine if it is missing."""
    spec = specs.BACKENDS[variant.backend]
    request = BackendRequest(
        scale, device="cuda", tile=variant.tile, batch=variant.batch, builder=build_engine
    )
    if spec.needs_engines:
        return open_trt(spec, request, cuda_graph=variant.graphs)
    return open_backend(variant.backend, request)


if __name__ == "__main__":
    main()
