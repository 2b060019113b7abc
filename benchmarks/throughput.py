"""Speed of the shipped networks in every installed engine, run in turn.

For each engine: latency (median, p90, p95, p99), megapixels of output a second, the time as a multiple of one
engine's (median and spread over rounds), and the share of the machine's limits: multiply-adds and bytes of
the graph (`benchmarks.lib.work`) against the measured peaks of a matrix product and of a copy
(`benchmarks.lib.limits`). Work in halos of tiles does not count. --size is that of the lr picture. Engines
that cannot run here are named with the package to install.

    python -m benchmarks.throughput --scale 3 --size 320x180
    python -m benchmarks.throughput --backend srup-trt --backend torch-eager --size 1280x720 --precision fp16
    python -m benchmarks.throughput --model 4x_foo.onnx --size 128x96
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import onnx

from benchmarks.lib.limits import Peaks, cpu_peaks, gpu_peaks
from benchmarks.lib.models import NamedModel, model_option, model_row, named_model
from benchmarks.lib.options import Script, click_size, store_option
from benchmarks.lib.results import store_result
from benchmarks.lib.runners import CPU_ONLY, GPU_ONLY, RUNNERS, Case, Runner, open_runner
from benchmarks.lib.timing import MAX_VARIATION_CPU, MAX_VARIATION_GPU, Timings, interleaved
from benchmarks.lib.trt_split import split_of, split_warnings
from benchmarks.lib.work import Work, counted_work
from sr.backends.gpus import visible_gpus
from sr.errors import ModelError, SrupError
from sr.network.descriptor import Precision
from sr.network.modelfile import shipped_scales

AGAINST = "srup-onnx"
ROUNDS = 15
SIZE = (180, 320)  # height and width: 1280x720 at x4, and a third of a second on two cores


@dataclass(frozen=True)
class Spec:
    """How to measure.

    Attributes:
        backends: names of `benchmarks.lib.runners.RUNNERS`; empty means all that fit the device.
        against: the engine that ratios refer to; if it does not run, the first that does.
        rounds: number of timed runs of each.
        peaks: measured limits; None means to measure them first.
    """

    backends: tuple[str, ...] = ()
    against: str = AGAINST
    rounds: int = ROUNDS
    peaks: Peaks | None = None


def run(
    *,
    scales: Sequence[int] = (),
    size: tuple[int, int] = SIZE,
    batch: int = 1,
    precision: Precision = "fp32",
    device: str = "auto",
    spec: Spec | None = None,
    named: NamedModel | None = None,
) -> dict[str, Any]:
    """Measure; return peaks, and for each scale rows, missing engines and warnings.

    Args:
        scales: empty means all shipped ones.
        size: height and width of the picture in lr pixels.
        batch: pictures at once.
        precision: of the network.
        device: "cpu", "cuda", or "auto": a GPU if there is one.
        spec: how to measure.
        named: a network in place of the shipped ones; it has a scale and a precision of its own.

    Raises:
        BackendError: no requested engine can run.
    """
    spec = spec or Spec()
    device = ("cuda" if visible_gpus() else "cpu") if device == "auto" else device
    peaks = spec.peaks or (gpu_peaks(precision) if device == "cuda" else cpu_peaks())
    height, width = size
    result: dict[str, Any] = {"peaks": peaks.as_dict(), "rounds": spec.rounds}
    if named is not None:
        found = named.descriptor
        case = Case(found.scale, height, width, batch, found.precision, device, named=named)
        return result | {"model": model_row(named), "cases": [measure(case, spec, peaks)]}
    cases = [
        measure(Case(scale, height, width, batch, precision, device), spec, peaks)
        for scale in scales or shipped_scales()
    ]
    return result | {"cases": cases}


def measure(case: Case, spec: Spec, peaks: Peaks) -> dict[str, Any]:
    """Return the rows of one case."""
    unfit = CPU_ONLY if case.device == "cuda" else GPU_ONLY
    names = spec.backends or tuple(name for name in RUNNERS if name not in unfit)
    work = _work(case)
    pictures = case.pictures()
    missing, memory, warm_up_s = [], {}, {}
    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        outputs = {}
        for name in names:
            used, started = device_memory_mib(), time.perf_counter()
            try:
                runner = stack.enter_context(open_runner(name, case))
                outputs[name] = runner(pictures)
            except SrupError as error:
                missing.append({"backend": name, "why": str(error)})
                continue
            runners[name], warm_up_s[name] = runner, time.perf_counter() - started
            if used is not None:
                memory[name] = (device_memory_mib() or used) - used
        actions: dict[str, Callable[[], object]] = {
            name: partial(runner, pictures) for name, runner in runners.items()
        }
        limit = MAX_VARIATION_GPU if case.device == "cuda" else MAX_VARIATION_CPU
        timings = interleaved(actions, rounds=spec.rounds, max_variation=limit)
        splits = {name: found for name in runners if (found := split_of(name, case, rounds=spec.rounds))}
    warnings = timings.warnings()
    for name, found in splits.items():
        warnings += split_warnings(name, found)
    against = spec.against if spec.against in runners else next(iter(runners), "")
    rows = []
    for name in runners:
        row = _row(name, against, timings, case, work, peaks)
        row["differs_by_levels"] = _apart(outputs[name], outputs[against])
        row["first_run_s"] = round(warm_up_s[name], 2)
        row |= {"device_memory_mib": memory[name]} if name in memory else {}
        row |= {"split_ms": splits[name]} if name in splits else {}
        rows.append(row)
    return {
        "scale": case.scale,
        "size": f"{case.width}x{case.height}",
        "batch": case.batch,
        "precision": case.precision,
        "device": case.device,
        **_counted(work),
        "against": against,
        "rows": rows,
        "missing": missing,
        "warnings": warnings,
    }


def _work(case: Case) -> Work | None:
    """Count the work of a case; None for another program's graph whose shapes cannot be inferred."""
    with nullcontext() if case.named is None else suppress(ModelError):
        return counted_work(onnx.load(case.model()), height=case.height, width=case.width, batch=case.batch)
    return None


def _counted(work: Work | None) -> dict[str, float | None]:
    return {
        "gmacs": work and round(work.macs / 1e9, 3),
        "megabytes": work and round(work.bytes_moved / 1e6, 1),
        "megabytes_at_least": work and round(work.least_bytes / 1e6, 1),
    }


def _row(
    name: str, against: str, timings: Timings, case: Case, work: Work | None, peaks: Peaks
) -> dict[str, Any]:
    latency = timings.latency_ms(name)
    seconds = latency["median"] / 1e3
    return {
        "backend": name,
        "latency_ms": latency,
        "megapixels_per_s": round(case.output_megapixels / seconds, 3),
        "time_ratio": timings.ratio(name, against),
        "share_of_flops": work and round(peaks.share(work.macs, seconds), 3),
        "share_of_copy": work and round(work.bytes_moved / seconds / peaks.bytes_per_s, 3),
        "variation": round(timings.variation(name), 4),
    }


def _apart(output: np.ndarray, reference: np.ndarray) -> int:
    """Return the largest difference of two outputs in levels: compared engines must compute the same."""
    return int(np.abs(output.astype(np.int16) - reference).max())


def device_memory_mib() -> float | None:
    """Return the memory in use on the first GPU, by all processes; None without a GPU."""
    if not visible_gpus():
        return None
    from cuda.bindings import runtime

    status, free, total = runtime.cudaMemGetInfo()
    return None if int(status) else round((total - free) / 2**20, 1)


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield the result as text."""
    peaks = result["peaks"]
    yield (
        f"peaks: {peaks['gflops']:.0f} GFLOPS ({peaks['gflops_by']}), "
        f"copy {peaks['copy_gb_per_s']:.1f} GB/s ({peaks['copy_by']}); {result['rounds']} rounds"
    )
    for case in result["cases"]:
        yield (
            f"x{case['scale']}, {case['batch']} of {case['size']}, {case['precision']}, {case['device']}: "
            + (
                "its work cannot be counted"
                if case["gmacs"] is None
                else f"{case['gmacs']:.1f} G multiply-adds, {case['megabytes']:.0f} MB"
            )
        )
        for row in case["rows"]:
            ms, ratio, share = row["latency_ms"], row["time_ratio"], row["share_of_flops"]
            yield (
                f"  {row['backend']:20} {ms['median']:8.1f} ms (p90 {ms['p90']:.1f}, p95 {ms['p95']:.1f}, "
                f"p99 {ms['p99']:.1f}) {row['megapixels_per_s']:7.2f} MP/s, {ratio['median']:.2f} times "
                f"{case['against']} ({ratio['p10']:.2f} to {ratio['p90']:.2f})"
                + ("" if share is None else f", {share:.0%} of the peak")
            )
            for part, figures in row.get("split_ms", {}).items():
                yield f"    {part:10} {figures['median']:8.3f} ms"
        yield from (f"  {entry['backend']}: {entry['why']}" for entry in case["missing"])
        yield from (f"  warning: {text}" for text in case["warnings"])


@click.command(cls=Script, help=__doc__)
@click.option(
    "--backend", "backends", type=click.Choice(RUNNERS), multiple=True, help="Engine to measure; repeatable."
)
@click.option(
    "--scale",
    "scales",
    type=click.Choice(shipped_scales()),
    multiple=True,
    help="Scale to measure; repeatable.",
)
@click.option(
    "--size",
    default="320x180",
    show_default=True,
    callback=click_size,
    help="WIDTHxHEIGHT of the lr picture.",
)
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="Pictures at once.")
@click.option("--precision", default="fp32", show_default=True, type=click.Choice(get_args(Precision)))
@click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"]))
@click.option(
    "--against",
    default=AGAINST,
    show_default=True,
    type=click.Choice(RUNNERS),
    help="Engine that ratios refer to.",
)
@click.option("--rounds", default=ROUNDS, show_default=True, type=click.IntRange(1))
@model_option
@store_option
def main(
    backends: tuple[str, ...], against: str, rounds: int, model: Path | None, store: bool, **what: Any
) -> None:
    if model is not None and what["scales"]:
        raise click.UsageError("--model has a scale of its own; drop --scale")
    named = None if model is None else named_model(model)
    result = run(**what, spec=Spec(backends, against, rounds), named=named)
    for line in lines(result):
        click.echo(line)
    if store:
        store_result("throughput", result)


if __name__ == "__main__":
    main()
