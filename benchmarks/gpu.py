"""Pictures on a GPU: megapixels a second of each backend that can use it, tiles fixed and equal, graphs.

Everything from pixels to pixels is in the time. The actions are run in turn. `benchmarks.throughput`
times the networks; this shows which settings of `Upscaler` suit a GPU.

    python -m benchmarks.gpu
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import click
import numpy as np

from benchmarks.lib.options import Script
from benchmarks.lib.paths import ROOT
from benchmarks.lib.results import store_result
from benchmarks.lib.timing import interleaved_seconds
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
ROUNDS = 15
BACKENDS = tuple(
    spec.name for spec in sorted(specs.BACKENDS.values(), key=lambda spec: spec.gpu_rank) if spec.gpu_rank
)


def run(*, scales: Sequence[int] = (2, 3, 4), rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure megapixels of output a second.

    Raises:
        BackendError: there is no GPU.
    """
    gpus = gpu_names()
    if not gpus:
        raise BackendError("no NVIDIA GPU here")
    image = bicubic_resize(read_picture(PICTURE).pixels, scale=4)
    rows = [
        {"scale": scale, "ran": name, "megapixels_out_per_second": rate}
        for scale in scales
        for name, rate in rates(scale, image, rounds).items()
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


def rates(scale: int, image: np.ndarray, rounds: int) -> dict[str, float]:
    """Return megapixels of output a second by what ran."""
    with ExitStack() as stack:
        actions: dict[str, Callable[[], object]] = {}
        for name in BACKENDS:
            if lack := missing_requirements(name):
                print(f"{name}: lacks {lack}", file=sys.stderr)
                continue
            for label, graph, equal in variants(name):
                try:
                    backend = opened(name, scale, graph=graph)
                except BackendError as error:  # TensorRT-RTX does not support every GPU
                    print(f"{name}: {error}", file=sys.stderr)
                    break
                upscaler = stack.enter_context(Upscaler(backend=backend))
                if equal is not None:
                    spec = replace(upscaler.spec, equalise=equal)
                    upscaler.grid = lambda h, w, spec=spec: tile_grid(h, w, spec)  # type: ignore[method-assign]
                actions[f"{name}{label}"] = lambda upscaler=upscaler: upscaler(image)  # type: ignore[misc]
        seconds = interleaved_seconds(actions, rounds=rounds)
    megapixels = image.shape[0] * image.shape[1] * scale**2 / 1e6
    return {name: round(megapixels / value, 1) for name, value in seconds.items()}


def variants(name: str) -> list[tuple[str, bool, bool | None]]:
    """Return label, CUDA graphs, and equal tiles (None is what the backend chooses)."""
    if not specs.BACKENDS[name].needs_engines:
        return [("", True, None)]
    return [
        (f", {'equal' if equal else 'fixed'} tiles, {'graphs' if graph else 'no graphs'}", graph, equal)
        for equal in (True, False)
        for graph in (True, False)
    ]


def opened(name: str, scale: int, *, graph: bool) -> Backend:
    """Open a backend on the first GPU; build its usual engine if it is missing."""
    spec, request = specs.BACKENDS[name], BackendRequest(scale, device="cuda", builder=build_engine)
    return open_trt(spec, request, cuda_graph=graph) if spec.needs_engines else open_backend(name, request)


if __name__ == "__main__":
    main()
