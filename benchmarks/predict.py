"""Upper limits of speed on GPUs from their published peaks, in megapixels of output a second.

Computed from the multiply-adds and bytes of the graph (`benchmarks.lib.work`), tile, halo, batch, picture
size and the peaks that NVIDIA publishes:

- `bound`: nothing can be faster. Multiply-adds at the peak of the tensor cores (fp16, dense) or of the
  shaders (fp32); input, output and weights through memory once; and the uint8 pictures over PCI Express,
  both ways at once. The slowest of them counts, since the backends overlap them.
- `roofline`: each step takes the longer of its arithmetic and its bytes, with nothing kept in a cache. On
  GPUs a run of elementwise operators is one step, on a processor it is not (`benchmarks.lib.work`). A GPU
  whose L2 cache holds a tile's activations can beat it.

Neither is a forecast: kernels reach a part of a peak, small tiles a small part. A stored throughput of
such a device is shown beside its prediction; other rows say "not measured".

    python -m benchmarks.predict --size 1920x1080
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import click
import onnx

from benchmarks.lib.devices import GPUS, Device
from benchmarks.lib.options import Script, click_size, store_option
from benchmarks.lib.paths import RESULTS
from benchmarks.lib.provenance import machine_kind
from benchmarks.lib.results import store_result
from benchmarks.lib.work import Work, counted_work
from sr.backends.base import default_tile
from sr.backends.ort import read_metadata
from sr.network.descriptor import Precision
from sr.network.modelfile import shipped_onnx, shipped_scales
from sr.tiling import TileSpec, tile_grid

SIZE = (1080, 1920)  # height and width of the lr picture: Full HD
BATCH = 4  # tiles at once: sr.backends.tensorrt.spec.EngineSpec
NOT_MEASURED = "not measured"
PRECISIONS: tuple[Precision, ...] = ("fp16", "fp32")


@dataclass(frozen=True)
class Job:
    """A picture to upscale, and how.

    Attributes:
        scale: of the shipped network.
        height: of the picture in lr pixels.
        width: of the picture in lr pixels.
        tile: largest side of a tile in lr pixels, halo included.
        halo: lr pixels.
        batch: tiles at once.
        precision: of the network.
    """

    scale: int
    height: int
    width: int
    tile: int
    halo: int
    batch: int
    precision: Precision

    @staticmethod
    def shipped(scale: int, size: tuple[int, int], *, precision: Precision, batch: int = BATCH) -> Job:
        """Return the job as srup would run it on a GPU."""
        halo = read_metadata(shipped_onnx(scale=scale, precision=precision)).halo
        return Job(scale, *size, default_tile(scale), halo, batch, precision)


@dataclass(frozen=True)
class Prediction:
    """Megapixels of output a second that a device allows.

    Attributes:
        device: its name.
        scale: of the network.
        precision: of the network.
        bound: nothing can be faster.
        bound_by: "compute", "memory" or "bus".
        roofline: step by step, with nothing kept in a cache.
        roofline_by: the same of `roofline`; "memory" where bytes add more than a tenth to the arithmetic.
        measured: what was measured on such a device; None if nothing was.
        share_of_bound: measured over bound.
    """

    device: str
    scale: int
    precision: str
    bound: float
    bound_by: str
    roofline: float
    roofline_by: str
    measured: float | None = None
    share_of_bound: float | None = None


def predict(device: Device, job: Job) -> Prediction:
    """Return the limits of `device` for `job`."""
    spec = TileSpec(min(job.tile, max(job.height, job.width)), job.halo)
    grid = tile_grid(job.height, job.width, spec)
    batch = min(job.batch, len(grid))
    is_gpu = device.bus_gb_per_s is not None
    work = _work(job.scale, job.precision, grid.tile_height, grid.tile_width, batch, fused=is_gpu)
    batches = math.ceil(len(grid) / batch)
    flops, memory = device.flops(job.precision), device.memory_gb_per_s * 1e9
    seconds = {"compute": batches * 2 * work.macs / flops, "memory": batches * work.least_bytes / memory}
    if device.bus_gb_per_s is not None:  # the output is larger than the input, which crosses at the same time
        seconds["bus"] = batches * work.output_px * 3 / (device.bus_gb_per_s * 1e9)
    bound_by = max(seconds, key=lambda name: seconds[name])
    steps = batches * roofline_s(work, flops=flops, bytes_per_s=memory)
    roofline_by = "compute" if steps <= 1.1 * seconds["compute"] else "memory"
    if seconds.get("bus", 0.0) > steps:
        steps, roofline_by = seconds["bus"], "bus"
    megapixels = job.height * job.width * job.scale**2 / 1e6
    rates = (float(f"{megapixels / value:.4g}") for value in (seconds[bound_by], steps))
    return Prediction(device.name, job.scale, job.precision, next(rates), bound_by, next(rates), roofline_by)


def roofline_s(work: Work, *, flops: float, bytes_per_s: float) -> float:
    """Return the seconds of all steps, each at the slower of its arithmetic and its bytes."""
    return sum(
        max(2 * kernel.macs / flops, (kernel.bytes_read + kernel.bytes_written) / bytes_per_s)
        for kernel in work.kernels
    )


@cache
def _work(scale: int, precision: Precision, height: int, width: int, batch: int, *, fused: bool) -> Work:
    model = onnx.load(shipped_onnx(scale=scale, precision=precision))
    return counted_work(model, height=height, width=width, batch=batch, fuse_pointwise=fused)


def with_measured(
    predictions: Iterable[Prediction], rates: Mapping[tuple[str, int, str], float]
) -> list[Prediction]:
    """Put measured rates beside predictions.

    Args:
        predictions: for any devices.
        rates: megapixels a second by device name as its driver reports it, scale and precision.
    """
    found = []
    for entry in predictions:
        same = [
            rate
            for (device, scale, precision), rate in rates.items()
            if _same_device(entry.device, device) and (scale, precision) == (entry.scale, entry.precision)
        ]
        measured = max(same, default=None)
        share = None if measured is None else round(measured / entry.bound, 3)
        found.append(replace(entry, measured=measured, share_of_bound=share))
    return found


def _same_device(short: str, full: str) -> bool:
    """Return whether a driver's name means this model; "... RTX 3060 Ti" is not an RTX 3060."""
    words, wanted = full.replace("-", " ").split(), short.split()
    at = next((at for at in range(len(words)) if words[at : at + len(wanted)] == wanted), None)
    if at is None:
        return False
    after = words[at + len(wanted) :]
    return not after or after[0] not in ("Ti", "SUPER", "D", "Laptop", "Mobile")


def measured_rates(paths: Sequence[Path]) -> dict[tuple[str, int, str], float]:
    """Return the best rates of srup's own backends in stored throughputs, by device, scale and precision.

    A processor has the name that `processor_of` gives it. Machines of one name may differ in speed, so a
    later file replaces what an earlier one said.
    """
    found: dict[tuple[str, int, str], float] = {}
    for path in paths:
        stored = json.loads(path.read_text(encoding="utf-8"))
        best: dict[tuple[str, int, str], float] = {}
        for case in stored["cases"]:
            device = stored["gpus"][0] if case["device"] == "cuda" else stored["machine"]["processor"]
            for row in case["rows"]:
                if row["backend"].startswith("srup-"):
                    key = (device, case["scale"], case["precision"])
                    best[key] = max(best.get(key, 0.0), row["megapixels_per_s"])
        found |= best
    return found


def processor_of(stored: Mapping[str, Any]) -> Device:
    """Return the processor of a stored throughput as a device with its measured peaks."""
    peaks = stored["peaks"]
    return Device(
        stored["machine"]["processor"],
        peaks["gflops"] / 1e3,
        None,
        peaks["copy_gb_per_s"],
        None,
        f"measured: {peaks['gflops_by']}; copy by {peaks['copy_by']}",
    )


def _job_of(case: Mapping[str, Any]) -> Job:
    """Return the job of a case of a stored throughput; a processor takes one tile at a time."""
    width, height = map(int, case["size"].split("x"))
    return Job.shipped(case["scale"], (height, width), precision=case["precision"], batch=1)


def run(
    *, size: tuple[int, int] = SIZE, batch: int = BATCH, scales: Sequence[int] = (), folder: Path = RESULTS
) -> dict[str, Any]:
    """Return predictions for all known GPUs, and for this processor if its throughput is stored.

    Args:
        size: height and width of the lr picture.
        batch: tiles at once.
        scales: empty means all shipped ones.
        folder: of stored throughputs.
    """
    stored = sorted(folder.glob("throughput-*.json"))
    rates = measured_rates(stored)
    wanted = scales or shipped_scales()
    found = [
        predict(gpu, Job.shipped(scale, size, precision=precision, batch=batch))
        for gpu in GPUS
        for scale in wanted
        for precision in PRECISIONS
    ]
    devices = list(GPUS)
    if own := [path for path in stored if path.stem.startswith(f"throughput-{machine_kind()}-")]:
        newest = json.loads(own[-1].read_text(encoding="utf-8"))
        devices += [processor_of(newest)] if newest["cases"][0]["device"] == "cpu" else []
        found += [predict(devices[-1], _job_of(case)) for case in newest["cases"] if case["device"] == "cpu"]
    rows = [asdict(entry) for entry in with_measured(found, rates)]
    for row in rows:
        row["state"] = NOT_MEASURED if row["measured"] is None else "measured"
    height, width = size
    return {
        "size": f"{width}x{height}",
        "batch": batch,
        "devices": [asdict(device) for device in devices],
        "rows": rows,
    }


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the result as text."""
    yield f"{result['size']}, {result['batch']} tiles at once; megapixels of output a second:"
    for row in result["rows"]:
        beside = NOT_MEASURED
        if row["measured"] is not None:
            beside = f"measured {row['measured']:.2f}, {row['share_of_bound']:.0%} of the bound"
        yield (
            f"{row['device']:10} x{row['scale']} {row['precision']} at most {row['bound']:8,.4g} "
            f"({row['bound_by']}), step by step {row['roofline']:7,.4g} ({row['roofline_by']}); {beside}"
        )


@click.command(cls=Script, help=__doc__)
@click.option(
    "--scale",
    "scales",
    type=click.Choice(shipped_scales()),
    multiple=True,
    help="Scale to predict; repeatable.",
)
@click.option(
    "--size",
    default="1920x1080",
    show_default=True,
    callback=click_size,
    help="WIDTHxHEIGHT of the lr picture.",
)
@click.option("--batch", default=BATCH, show_default=True, type=click.IntRange(1), help="Tiles at once.")
@store_option
def main(store: bool, **what: Any) -> None:
    result = run(**what)
    for line in lines(result):
        click.echo(line)
    if store:
        store_result("predict", result)


if __name__ == "__main__":
    main()
