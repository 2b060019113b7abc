"""Kill a folder run at random moments, again and again: no partial file, no lost file.

One undisturbed run upscales crops of the photographs in examples/, in several formats and sizes, with
animations and multi-page files. Then `srup upscale FOLDER --skip-existing` is started and killed
(SIGKILL) at a random moment, `--kills` times; most moments lie after the first output, a few during the
start. After each kill every file with a final name must equal the undisturbed run's, byte for byte. When
the folder is complete, it is emptied for the next kills. At the end one run completes: the folder must
equal the undisturbed one, with no temporary file left.

    python -m benchmarks.kills --kills 200
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from benchmarks.lib.options import Script
from benchmarks.lib.paths import ROOT
from benchmarks.lib.pictures import make_pictures
from benchmarks.lib.results import write_result
from sr.errors import DataError
from sr.files import TEMPORARY_PREFIX
from sr.jobs.ledger import is_record

PICTURES = 24
_IN_START_SHARE = 0.2  # of the kills
_POLL_SECONDS = 0.002


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: of a running process.
        started_over: how often the folder was complete and its output was emptied.
        whole_files_compared: files with final names, over all kills.
        kills_that_left_a_temporary_file: kills during the writing of a picture.
        final_files: in the folder after the last run.
    """

    kills: int = 0
    started_over: int = 0
    whole_files_compared: int = 0
    kills_that_left_a_temporary_file: int = 0
    final_files: int = 0


def run(kills: int, *, pictures: int = PICTURES, seed: int = 0) -> Tally:
    """Kill `kills` runs; return what happened.

    Raises:
        DataError: a file is partial, wrong, missing or left over.
    """
    moments, tally = random.Random(seed), Tally()
    with tempfile.TemporaryDirectory() as scratch:
        source, expected, target = (Path(scratch) / name for name in ("in", "undisturbed", "out"))
        make_pictures(source, pictures, seed=seed)
        seconds = _timed(source, expected)
        reference = _finished_files(expected)
        while tally.kills < kills:
            before = _finished_files(target).keys()
            if len(before) == len(reference):
                shutil.rmtree(target)
                tally.started_over += 1
                before = {}.keys()
            if not _killed(source, target, seconds, moments):
                continue
            tally.kills += 1
            tally.whole_files_compared += _compare(target, reference)
            if lost := before - _finished_files(target).keys():
                raise DataError(f"{sorted(lost)[0]}: existed before the kill and is lost")
            tally.kills_that_left_a_temporary_file += bool(_temporaries(target))
        _upscale(source, target).wait()
        tally.final_files = _compare(target, reference)
        if tally.final_files != len(reference) or _temporaries(target):
            raise DataError(
                f"{tally.final_files} of {len(reference)} files after the last run, "
                f"{len(_temporaries(target))} temporary files left"
            )
    return tally


def _upscale(source: Path, target: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sr.cli", "upscale", str(source), "-o", str(target), "--skip-existing"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, **quiet)


def _timed(source: Path, target: Path) -> float:
    """Run to the end; return the seconds from the first output to the last."""
    process = _upscale(source, target)
    _wait_for_output(process, target)
    started = time.perf_counter()
    if process.wait() != 0:
        raise DataError(f"the undisturbed run ended with {process.returncode}")
    return time.perf_counter() - started


def _wait_for_output(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until the process has written something new to the folder, or has ended."""
    before = set(_everything(folder))
    while process.poll() is None and set(_everything(folder)) <= before:
        time.sleep(_POLL_SECONDS)


def _killed(source: Path, target: Path, seconds: float, moments: random.Random) -> bool:
    """Start a run and kill it at a random moment; say whether it was still running."""
    process = _upscale(source, target)
    if moments.random() >= _IN_START_SHARE:
        _wait_for_output(process, target)
    time.sleep(moments.uniform(0, seconds) * moments.random())  # rather early: later the run may be complete
    running = process.poll() is None
    process.kill()
    process.wait()
    return running


def _compare(folder: Path, reference: dict[str, bytes]) -> int:
    """Compare all files with final names with the undisturbed run's; return their number."""
    found = _finished_files(folder)
    for name, content in found.items():
        if content != reference.get(name):
            raise DataError(f"{name}: its {len(content):,} bytes differ from the undisturbed run's")
    return len(found)


def _everything(folder: Path) -> list[Path]:
    return [Path(where) / name for where, _, names in os.walk(folder) for name in names]


def _finished_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in _everything(folder)
        if not path.name.startswith(TEMPORARY_PREFIX)
    }


def _temporaries(folder: Path) -> list[Path]:
    return [
        path
        for path in _everything(folder)
        if path.name.startswith(TEMPORARY_PREFIX) and not is_record(path.name)
    ]


@click.command(cls=Script)
@click.option("--kills", type=click.IntRange(1), default=200, show_default=True)
@click.option("--pictures", type=click.IntRange(1), default=PICTURES, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Seed of pictures and moments.")
def main(kills: int, pictures: int, seed: int) -> None:
    """Kill a folder run at random moments, and compare its files with an undisturbed run's."""
    write_result(
        "kills", {"pictures": pictures, "seed": seed, **asdict(run(kills, pictures=pictures, seed=seed))}
    )


if __name__ == "__main__":
    main()
