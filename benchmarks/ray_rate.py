"""Two Ray workers against two plain processes, in turn: output megapixels a second while both are at work.

The plain processes are two shards. Ray has a cluster of two nodes on this machine, with a core each, on the
loopback interface. A rate leaves out the first and the last fifth of the pictures, so that neither the start
of processes nor the end, when one of two has nothing to do, counts.

    python -m benchmarks.ray_rate --pictures 24 --rounds 3
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import click

from benchmarks.lib.cluster import cluster_environment, start_cluster
from benchmarks.lib.options import Script
from benchmarks.lib.paths import ROOT
from benchmarks.lib.pictures import photographs
from benchmarks.lib.results import write_result
from sr.errors import DataError

LONG_SIDE = 512  # of the inputs, in pixels: about half a second of one core


def run(pictures: int, rounds: int, *, long_side: int = LONG_SIDE) -> dict[str, object]:
    """Measure rates in turn; return them in megapixels a second, and the ratio of their medians."""
    rates: dict[str, list[float]] = {"plain": [], "ray": []}
    environment = cluster_environment() | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as scratch, _cluster(environment) as address:
        source = Path(scratch) / "in"
        source.mkdir()
        for number, picture in enumerate(photographs(None, count=pictures, long_side=long_side)):
            picture.save(source / f"{number:03}.png")
        for _ in range(rounds):
            for name, commands in (
                ("plain", [["--shard", "1/2"], ["--shard", "2/2"]]),
                ("ray", [["--ray", address]]),
            ):
                out = Path(scratch) / "out"
                rates[name].append(_rate(source, out, commands, environment))
                shutil.rmtree(out)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "pictures": pictures,
        "long_side": long_side,
        "megapixels_per_s": {name: [round(value, 3) for value in values] for name, values in rates.items()},
        "ray_of_plain": round(medians["ray"] / medians["plain"], 3),
    }


@contextmanager
def _cluster(environment: dict[str, str]) -> Iterator[str]:
    with start_cluster(environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        try:
            yield address
        finally:
            process.stdin.close()


def _rate(source: Path, out: Path, commands: Sequence[Sequence[str]], environment: dict[str, str]) -> float:
    """Return the output megapixels a second of both workers together."""
    finished: list[tuple[float, float]] = []  # time, megapixels

    def listen(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            record = json.loads(line)
            if record.get("ok"):
                megapixels = record["output_width"] * record["output_height"] / 1e6
                finished.append((time.perf_counter(), megapixels))

    command = [sys.executable, "-m", "sr.cli", "upscale", str(source), "-o", str(out), "--backend", "onnx"]
    processes = [
        subprocess.Popen(
            [*command, "--json", *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        for words in commands
    ]
    listeners = [Thread(target=listen, args=(process,)) for process in processes]
    for listener in listeners:
        listener.start()
    for listener, process in zip(listeners, processes, strict=True):
        listener.join()
        if process.wait() != 0:
            raise DataError("srup upscale failed")
    return _between(sorted(finished))


def _between(finished: Sequence[tuple[float, float]]) -> float:
    """Return the rate between the first and the last fifth, where both are at work."""
    edge = max(2, len(finished) // 5)
    inner = finished[edge:-edge]
    if len(inner) < 2:
        raise DataError("too few pictures to measure; use more (--pictures)")
    return sum(megapixels for _, megapixels in inner) / (inner[-1][0] - finished[edge - 1][0])


@click.command(cls=Script)
@click.option("--pictures", type=click.IntRange(10), default=40, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--long-side", type=click.IntRange(16), default=LONG_SIDE, show_default=True)
def main(pictures: int, rounds: int, long_side: int) -> None:
    """Compare the rate of two Ray workers with that of two plain processes."""
    write_result("ray-rate", run(pictures, rounds, long_side=long_side))


if __name__ == "__main__":
    main()
