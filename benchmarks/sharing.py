"""Runs at once on one output folder, killed again and again: what is lost, what is made twice.

Four shards and a run without --shard, all with --skip-existing, upscale one folder into one folder. At random
moments one that has made something is killed (SIGKILL) and started again, `--kills` times. An upscaler that
repeats pixels, and takes `SECONDS` for a picture, notes each picture that it has made. After each kill every
file with a final name must be whole; at the end all files must equal those of one undisturbed run.

    python -m benchmarks.sharing --pictures 2000 --kills 20
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image

from benchmarks.lib.options import Script
from benchmarks.lib.paths import ROOT
from benchmarks.lib.results import write_result
from sr.errors import DataError
from sr.files import TEMPORARY_PREFIX

SECONDS = 0.05  # for a picture
SHARDS = 4
PARTS: tuple[tuple[str, ...], ...] = ((), *(("--shard", f"{part + 1}/{SHARDS}") for part in range(SHARDS)))
_PAUSE = (0.1, 0.6)  # seconds between kills
_PATIENCE_S = 600

# The command with an upscaler that notes "process number-of-the-picture"; the number is in the first pixel.
PROGRAM = f"""
import os, sys, time
from dataclasses import replace
from sr.cli import main
from sr.jobs.setup import UpscalerSetup

class Doubling:
    def output_size(self, height, width):
        return 2 * height, 2 * width

    def tile_count(self, height, width):
        return 1

    def picture(self, picture, *, progress=None):
        time.sleep({SECONDS})
        high, low = map(int, picture.pixels[0, 0, :2])
        os.write(log, f"{{os.getpid()}} {{256 * high + low}}\\n".encode())
        return replace(picture, pixels=picture.pixels.repeat(2, 0).repeat(2, 1))

log = os.open(sys.argv.pop(), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
main(sys.argv[1:], prog_name="srup", obj=lambda upscaling, settings: UpscalerSetup(Doubling()))
"""


@dataclass
class Sharing:
    """What happened.

    Attributes:
        pictures: of the folder.
        kills: of runs that had made something.
        made: pictures that were made, over all runs.
        made_twice: of these, pictures that had been made before.
        made_twice_undisturbed: of these, such that no killed run had made.
        seconds: from the first start to the end of the last run.
    """

    pictures: int
    kills: int = 0
    made: int = 0
    made_twice: int = 0
    made_twice_undisturbed: int = 0
    seconds: float = 0.0


class _Folder:
    """A folder of pictures, and the runs on it."""

    def __init__(self, scratch: Path, pictures: int) -> None:
        self.source, self.target, self.log = (scratch / name for name in ("in", "out", "log"))
        self.log.touch()
        for number in range(pictures):
            path = self.source / str(number % 4) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
            pixels[0, 0, :2] = divmod(number, 256)
            Image.fromarray(pixels).save(path)

    def start(self, words: Sequence[str], *, target: Path | None = None) -> subprocess.Popen[bytes]:
        command = ["upscale", str(self.source), "-o", str(target or self.target), "--skip-existing", *words]
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *command, str(self.log)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
        )

    def made(self) -> list[tuple[int, int]]:
        """Return (process, number of the picture) for each picture that was made, in order."""
        lines = self.log.read_text().splitlines()
        return [(int(process), int(number)) for process, number in map(str.split, lines)]


def outputs(folder: Path) -> dict[str, bytes]:
    """Return all files with final names, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.*")
        if not path.name.startswith(TEMPORARY_PREFIX)
    }


def run(pictures: int, kills: int, *, parts: Sequence[Sequence[str]] = PARTS, seed: int = 0) -> Sharing:
    """Let runs share a folder and kill them; return what happened.

    Args:
        pictures: of the folder.
        kills: how many.
        parts: arguments of each run.
        seed: of the moments.

    Raises:
        DataError: a file is partial, wrong, missing or left over.
    """
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = _Folder(Path(scratch), pictures)
        expected = _undisturbed(folder)
        started = time.perf_counter()
        running = [folder.start(words) for words in parts]
        stack.callback(_end, running)
        sharing, killed = Sharing(pictures), set()
        while sharing.kills < kills:
            time.sleep(chance.uniform(*_PAUSE))
            at_work = {process for process, _ in folder.made()}
            victims = [at for at, each in enumerate(running) if each.pid in at_work and each.poll() is None]
            if victims:
                at = chance.choice(victims)
                _end([running[at]])
                killed.add(running[at].pid)
                sharing.kills += 1
                _compare(folder.target, expected)
                running[at] = folder.start(parts[at])
            elif all(each.poll() is not None for each in running):
                break  # the folder is complete
        if any(process.wait(timeout=_PATIENCE_S) for process in running):
            raise DataError("a run failed")
        sharing.seconds = round(time.perf_counter() - started, 1)
        _compare(folder.target, expected, complete=True)
        _count(sharing, folder.made(), killed)
    return sharing


def _undisturbed(folder: _Folder) -> dict[str, bytes]:
    alone = folder.target.with_name("alone")
    if folder.start((), target=alone).wait() != 0:
        raise DataError("the undisturbed run failed")
    folder.log.write_bytes(b"")
    return outputs(alone)


def _count(sharing: Sharing, made: Sequence[tuple[int, int]], killed: set[int]) -> None:
    times = Counter(number for _, number in made)
    lost = {number for process, number in made if process in killed}
    twice = {number: count - 1 for number, count in times.items()}
    sharing.made, sharing.made_twice = len(made), sum(twice.values())
    sharing.made_twice_undisturbed = sum(count for number, count in twice.items() if number not in lost)


def _compare(folder: Path, expected: dict[str, bytes], *, complete: bool = False) -> None:
    found = outputs(folder)
    for name, content in found.items():
        if content != expected.get(name):
            raise DataError(f"{name}: its {len(content):,} bytes differ from the undisturbed run's")
    if complete and len(found) != len(expected):
        raise DataError(f"{len(expected) - len(found):,} of {len(expected):,} files are missing")


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()


@click.command(cls=Script)
@click.option("--pictures", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--kills", type=click.IntRange(0), default=20, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Seed of the moments.")
def main(pictures: int, kills: int, seed: int) -> None:
    """Kill runs that share a folder at random moments, and count what is made twice."""
    sharing = run(pictures, kills, seed=seed)
    share = round(100 * sharing.made_twice / pictures, 2)
    write_result("sharing", {**asdict(sharing), "made_twice_percent": share, "runs": 1 + SHARDS})


if __name__ == "__main__":
    main()
