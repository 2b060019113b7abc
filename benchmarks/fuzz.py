"""Damaged picture files through every decoder: tracebacks, crashes, and the slowest file.

File number N is a sound file of `tests.corpus`, or one of FILES, with bytes changed, overwritten, removed
or repeated at a few places; N determines them. The file is decoded whole, with its frames or pages, and by
bands if the format allows. It must be decoded, or refused in one line that names it; every other outcome is
a fault, and the exit status is 1 if there is one. `--first N --count 1` repeats one file.

    python -m benchmarks.fuzz --count 20000
    (ulimit -v 2000000; python -m benchmarks.fuzz --count 20000)
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.lib.options import Script, store_option
from benchmarks.lib.results import store_result
from sr.errors import SrupError
from sr.image import PictureSequence, open_picture
from sr.image.bands import BandReader
from sr.image.decode import read_header
from sr.processor import available_cores
from tests.corpus import damaged, good_files

MAX_PIXELS = 1_000_000  # a damaged header may claim more; its refusal is what is measured then
MAX_FRAMES = 10
BAND_ROWS = 64
BATCH = 500  # files for one task of a process


@dataclass
class Tally:
    """Outcomes.

    Attributes:
        outcomes: files by outcome: "decoded", "refused", "out of memory", "fault", "crash".
        faults: the first file of each kind of fault, by its number.
        slowest: processor seconds and number of the slowest file.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: dict[str, int] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, 0)

    def add(self, other: Tally) -> None:
        """Add the outcomes of other files."""
        self.outcomes += other.outcomes
        self.faults = other.faults | self.faults
        self.slowest = max(self.slowest, other.slowest)


def run(count: int, *, first: int = 0, files: Sequence[Path] = (), jobs: int | None = None) -> Tally:
    """Decode `count` damaged files in `jobs` processes; None means one process for each core."""
    batches = [range(at, min(at + BATCH, first + count)) for at in range(first, first + count, BATCH)]
    tally = Tally()
    for batch, found in _tallies(batches, files, jobs or available_cores()):
        for single, part in (
            [(batch, found)] if found else _tallies([[n] for n in batch], files, 1, alone=True)
        ):
            tally.add(part or Tally(Counter(crash=1), {"crash of the process": single[0]}))
    return tally


def _tallies(
    batches: Sequence[Sequence[int]], files: Sequence[Path], jobs: int, *, alone: bool = False
) -> Iterator[tuple[Sequence[int], Tally | None]]:
    """Yield each batch with its tally, None if a process died; `alone` gives each batch its own process."""
    for group in [[batch] for batch in batches] if alone else [batches]:
        with _pool(jobs) as pool:
            tasks = [(batch, pool.submit(decode_batch, batch, files)) for batch in group]
            for batch, task in tasks:
                try:
                    yield batch, task.result()
                except BrokenProcessPool:
                    yield batch, None


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_silence)


def _silence() -> None:
    """Discard what C libraries write to stderr."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def decode_batch(numbers: Sequence[int], files: Sequence[Path]) -> Tally:
    """Decode damaged files in this process."""
    sound = [path.read_bytes() for path in files] or [content for _, content in good_files()]
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in"
        for number in numbers:
            random = np.random.default_rng(number)
            path.write_bytes(damaged(sound[random.integers(len(sound))], random))
            started = time.process_time()
            outcome, fault = decoded(path)
            tally.slowest = max(tally.slowest, (round(time.process_time() - started, 3), number))
            tally.outcomes[outcome] += 1
            if fault:
                tally.faults.setdefault(fault, number)
    return tally


def decoded(path: Path) -> tuple[str, str]:
    """Decode a file whole and by bands; return the outcome, and the kind of fault."""
    outcomes = []
    for decode in (_whole, _by_bands):
        try:
            decode(path)
            outcomes.append("decoded")
        except SrupError as error:
            text = str(error)
            if len(text.splitlines()) != 1 or not text.startswith(f"{path}: "):
                return "fault", f"unclear message: {text}"
            outcomes.append("refused")
        except MemoryError:
            outcomes.append("out of memory")
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            return "fault", f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
    return next((one for one in ("out of memory", "decoded") if one in outcomes), "refused"), ""


def _whole(path: Path) -> None:
    opened = open_picture(path, max_pixels=MAX_PIXELS)
    if isinstance(opened, PictureSequence):
        for _ in islice(opened.frames(), MAX_FRAMES):
            pass


def _by_bands(path: Path) -> None:
    header = read_header(path)
    if not header.problem and header.count == 1 and header.pixels <= MAX_PIXELS:
        with BandReader(path, header) as reader:
            for _ in reader.bands(BAND_ROWS):
                pass


@click.command(cls=Script, help=__doc__)
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(1), default=20_000, show_default=True, help="Number of files.")
@click.option(
    "--first", type=click.IntRange(0), default=0, show_default=True, help="Number of the first file."
)
@click.option("--jobs", type=click.IntRange(1), help="Processes.  [default: one for each core]")
@store_option
def main(files: tuple[Path, ...], count: int, first: int, jobs: int | None, store: bool) -> None:
    tally = run(count, first=first, files=files, jobs=jobs)
    seconds, number = tally.slowest
    result: dict[str, Any] = {"first": first, "count": count, "outcomes": dict(tally.outcomes)}
    result |= {"faults": tally.faults, "slowest_core_seconds": seconds, "slowest_number": number}
    outcomes = ", ".join(f"{files:,} {outcome}" for outcome, files in tally.outcomes.most_common())
    click.echo(f"{outcomes}; the slowest file, number {number}, took {seconds} core-seconds")
    for fault, number in tally.faults.items():
        click.echo(f"file {number}: {fault}")
    if store:
        store_result("fuzz", result)
    sys.exit(1 if tally.faults else 0)


if __name__ == "__main__":
    main()
