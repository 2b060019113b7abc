"""Memory over a long folder: resident memory after the 100th picture, and its growth to the last.

`srup upscale FOLDER --json` upscales crops of the photographs in examples/ in many sizes and several formats.
After each line that it prints, the memory of the process is read (Linux).

    python -m benchmarks.folder_memory --pictures 2000
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.lib.memory import resident_mib
from benchmarks.lib.options import Script
from benchmarks.lib.paths import ROOT
from benchmarks.lib.pictures import make_pictures
from benchmarks.lib.results import write_result
from sr.errors import DataError

SETTLED = 100  # pictures, after which everything that is set up once exists
_WINDOW = 20  # readings, of which the median counts: the number of pictures in work varies


@dataclass(frozen=True)
class Growth:
    """Resident memory in MiB while a folder is upscaled.

    Attributes:
        settled: after `SETTLED` pictures.
        last: after the last.
        largest: at any moment after `SETTLED`.
        curve: after each tenth of the pictures.
    """

    settled: float
    last: float
    largest: float
    curve: tuple[float, ...]

    @property
    def grown(self) -> float:
        """Growth from `settled` to `last`."""
        return self.last - self.settled


def run(pictures: int, *, settled: int = SETTLED, arguments: Sequence[str] = (), seed: int = 0) -> Growth:
    """Upscale `pictures` pictures in one process; return its memory.

    Raises:
        DataError: the command failed, or did not upscale every picture.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "in", Path(scratch) / "out"
        make_pictures(source, pictures, seed=seed)
        readings = _readings(source, target, arguments)
    if len(readings) != pictures:
        raise DataError(f"srup upscale printed {len(readings)} lines for {pictures} pictures")
    return Growth(
        settled=_around(readings, settled),
        last=_around(readings, pictures),
        largest=max(readings[settled:]),
        curve=tuple(_around(readings, pictures * tenth // 10) for tenth in range(1, 11)),
    )


def _readings(source: Path, target: Path, arguments: Sequence[str]) -> list[float]:
    """Return the resident memory in MiB after each picture."""
    command = [sys.executable, "-m", "sr.cli", "upscale", str(source), "-o", str(target), "--json"]
    command += arguments
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        # The last line is a summary, not a picture.
        readings = [resident_mib(process.pid) for line in process.stdout if "source" in json.loads(line)]
    if process.returncode != 0:
        raise DataError(f"srup upscale ended with exit status {process.returncode}")
    return readings


def _around(readings: Sequence[float], number: int) -> float:
    return round(statistics.median(readings[max(0, number - _WINDOW) : number]), 1)


@click.command(cls=Script)
@click.option("--pictures", type=click.IntRange(2 * SETTLED), default=2000, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Seed of the pictures.")
@click.option("--dry", is_flag=True, help="Print the result without storing it.")
@click.argument("arguments", nargs=-1)
def main(pictures: int, seed: int, dry: bool, arguments: tuple[str, ...]) -> None:
    """Measure how the memory of one process grows over a folder. ARGUMENTS go to srup upscale."""
    growth = run(pictures, arguments=arguments, seed=seed)
    figures: dict[str, Any] = {
        "pictures": pictures,
        "arguments": arguments,
        f"rss_mib_after_{SETTLED}": growth.settled,
        "rss_mib_after_last": growth.last,
        "rss_mib_largest": round(growth.largest, 1),
        "grown_mib": round(growth.grown, 1),
        "rss_mib_after_each_tenth": growth.curve,
    }
    if dry:
        click.echo(figures)
    else:
        write_result("folder_memory", figures)


if __name__ == "__main__":
    main()
