"""Cost and gain of 8 bits on a CPU: ways to quantise, scored on test sets and timed in turn.

    python -m benchmarks.int8 --calibrate PAIRS/x2/LR Set5=PAIRS/Set5 Set14=PAIRS/Set14

A test set is a folder of pair lists, as `srup prepare --whole` makes it. Times are of one picture of
`SIZE` on OpenVINO, all in one process, each round as a ratio to ONNX Runtime's fp32 in that round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from benchmarks.lib.options import Script, click_sets
from benchmarks.lib.results import store_result
from benchmarks.lib.timing import interleaved
from deploy.quantize import INSIDE_BLOCKS, QuantizeSpec, calibration_pictures, quantized
from sr.backends.base import Backend
from sr.backends.openvino import OpenVinoBackend
from sr.backends.ort import OrtBackend
from sr.network.modelfile import shipped_onnx, shipped_scales
from train.evaluate import evaluate

SIZE = (180, 320)  # lr pixels
ROUNDS = 15

# Patterns of the names of quantised weights.
ALL = r"net\..*"
BUT_ENDS = r"net\.(blocks\..*|upsampler\.widen\.weight)"  # all but the layers that read or write the picture
BLOCKS = r"net\.blocks\..*"
VARIANTS = {
    "all, min-max": QuantizeSpec(ALL, "minmax"),
    "all but the ends, percentile": QuantizeSpec(BUT_ENDS),
    "blocks, min-max": QuantizeSpec(BLOCKS, "minmax"),
    "blocks, percentile": QuantizeSpec(BLOCKS),
    "blocks, entropy": QuantizeSpec(BLOCKS, "entropy"),
    "inside blocks, min-max": QuantizeSpec(INSIDE_BLOCKS, "minmax"),
    "inside blocks, percentile (ships)": QuantizeSpec(INSIDE_BLOCKS),
}


@click.command(cls=Script, help=__doc__)
@click.argument("sets", nargs=-1, required=True, metavar="NAME=FOLDER...", callback=click_sets)
@click.option("--calibrate", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--scale", "scales", type=int, multiple=True)
@click.option("--no-scores", is_flag=True, help="Measure times only.")
@click.option("--no-times", is_flag=True, help="Measure scores only.")
def main(
    sets: dict[str, Path], calibrate: Path, scales: tuple[int, ...], no_scores: bool, no_times: bool
) -> None:
    pictures, results = calibration_pictures(calibrate), []
    for scale in scales or shipped_scales():
        with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
            backends = {
                name: stack.enter_context(backend)
                for name, backend in opened(scale, pictures, Path(scratch)).items()
            }
            ratios = {} if no_times else times(backends)
            for name, backend in backends.items():
                scores = {} if no_scores else psnr_of(backend, sets, scale)
                results.append({"scale": scale, "what": name, "time": ratios.get(name), **scores})
                click.echo(results[-1])
    part = "times" if no_scores else "scores" if no_times else "all"
    store_result(f"int8-{part}", {"size": SIZE, "rounds": ROUNDS, "rows": results})


def opened(scale: int, pictures: list[np.ndarray], scratch: Path) -> dict[str, Backend]:
    """Open the float file in every precision, and each quantised variant."""
    file = shipped_onnx(scale=scale)
    found: dict[str, Backend] = {
        "fp32, ONNX Runtime": OrtBackend(file, device="cpu"),
        "fp32": OpenVinoBackend(file),
        "bf16": OpenVinoBackend(file, precision="bf16"),
    }
    model = onnx.load(file)
    for index, (name, spec) in enumerate(VARIANTS.items()):
        made = quantized(model, pictures, spec)
        for entry in made.metadata_props:
            if entry.key == "srup.precision":
                entry.value = '"int8"'
        path = scratch / f"{index}.onnx"
        onnx.save(made, path)
        found[name] = OpenVinoBackend(path)
        if name.endswith("(ships)"):
            found["the same, ONNX Runtime"] = OrtBackend(path, device="cpu")
    return found


def whole(backend: Backend) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that upscales a picture (H, W, 3) without tiles."""
    return lambda lr: next(iter(backend.run([lr[None]])))[0]


def psnr_of(backend: Backend, folders: dict[str, Path], scale: int) -> dict[str, Any]:
    """Return Y-PSNR in dB on each test set."""
    upscale = whole(backend)
    return {
        name: round(evaluate(upscale, folder / f"x{scale}.json", scale=scale).psnr_y, 3)
        for name, folder in folders.items()
    }


def times(backends: dict[str, Backend]) -> dict[str, float]:
    """Return each backend's time as a ratio to the first one's: the median over rounds."""
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    timings = interleaved(
        {name: partial(whole(backend), picture) for name, backend in backends.items()}, rounds=ROUNDS
    )
    first = next(iter(backends))
    return {name: timings.ratio(name, first)["median"] for name in backends}


if __name__ == "__main__":
    main()
