"""Millions of names: how long the first picture waits, and how much memory the list takes.

A tree of `--names` names is made of links to a few small pictures. Then

* `srup upscale TREE` is started and killed when its first output is written: seconds and resident memory;
* all of the tree is planned, without upscaling: seconds, and the largest resident memory of that process.

    python -m benchmarks.listing --names 5000000
    python -m benchmarks.listing --names 5000000 --folder-size 5000000 --name flat
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from PIL import Image

from benchmarks.lib.memory import resident_mib
from benchmarks.lib.options import Script
from benchmarks.lib.paths import ROOT
from benchmarks.lib.results import write_result
from sr.errors import DataError
from sr.files import TEMPORARY_PREFIX

_LINKS = 50_000  # of one file; ext4 allows 65,000
_POLL_S = 0.02
_PATIENCE_S = 600

# Plans everything, as `srup upscale TREE -o OUT --format png` would, and prints what that took.
PLAN = """
import json, os, sys, time
from pathlib import Path

started = time.perf_counter()
from sr.jobs.worklist import OutputRules, make_worklist

worklist = make_worklist([Path(sys.argv[1])], OutputRules(output=Path(sys.argv[2]), format=".png"))
first, jobs = time.perf_counter() - started, 0
for window in worklist.windows():
    jobs += len(window.jobs)

from benchmarks.lib.memory import largest_resident_mib  # what getrusage says includes the parent's

print(json.dumps({
    "jobs": jobs,
    "first_window_s": round(first, 2),
    "planned_s": round(time.perf_counter() - started, 1),
    "planned_cpu_s": round(time.process_time(), 1),
    "planning_peak_rss_mib": round(largest_resident_mib(os.getpid()), 1),
}))
"""


@dataclass(frozen=True)
class Listing:
    """What a list of names takes.

    Attributes:
        names: of pictures.
        folder_size: names in each folder.
        first_picture_s: from process start to the first written output.
        first_picture_cpu_s: seconds of processor time until then.
        first_picture_rss_mib: resident memory then.
        first_window_s: of planning alone, import included.
        planned_s: of planning everything.
        planned_cpu_s: seconds of processor time.
        planning_peak_rss_mib: largest resident memory of the process that planned.
    """

    names: int
    folder_size: int
    first_picture_s: float
    first_picture_cpu_s: float
    first_picture_rss_mib: float
    first_window_s: float
    planned_s: float
    planned_cpu_s: float
    planning_peak_rss_mib: float


def run(names: int, folder_size: int, *, scratch: Path | None = None) -> Listing:
    """Make a tree and measure.

    Raises:
        DataError: the command wrote nothing, or names were lost.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as temporary:
        tree = Path(temporary) / "in"
        make_tree(tree, names, folder_size)
        first = _first_picture(tree, Path(temporary) / "out")
        planned = _planned(tree, Path(temporary) / "planned")
    if planned.pop("jobs") != names:
        raise DataError(f"not all of the {names:,} names were planned")
    return Listing(names, folder_size, *first, **planned)


def make_tree(tree: Path, names: int, folder_size: int) -> None:
    """Make `names` links to small pictures, in folders of `folder_size`."""
    originals = tree.with_name("originals")
    originals.mkdir()
    for number in range(names):
        if number % _LINKS == 0:
            original = str(originals / f"{number}.png")
            Image.new("RGB", (8, 8), (number % 251, 0, 0)).save(original)
        if number % folder_size == 0:
            folder = str(tree / f"{number // folder_size:06}")
            os.makedirs(folder)  # noqa: PTH103  strings: the loop is long
        os.link(original, f"{folder}/picture-{number:08}.png")


def _first_picture(tree: Path, out: Path) -> tuple[float, float, float]:
    """Return seconds from process start to the first output, processor seconds and resident MiB till then."""
    command = [sys.executable, "-m", "sr.cli", "upscale", str(tree), "-o", str(out), "--format", "png"]
    started = time.perf_counter()
    with subprocess.Popen(
        [*command, "--backend", "onnx"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            while process.poll() is None and time.perf_counter() < started + _PATIENCE_S:
                if any(not path.name.startswith(TEMPORARY_PREFIX) for path in out.rglob("*.png")):
                    seconds = time.perf_counter() - started
                    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
                    cpu = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
                    return round(seconds, 2), round(cpu, 2), round(resident_mib(process.pid), 1)
                time.sleep(_POLL_S)
        finally:
            process.kill()
    raise DataError("srup upscale wrote nothing")


def _planned(tree: Path, out: Path) -> dict[str, float]:
    command = [sys.executable, "-c", PLAN, str(tree), str(out)]
    answer = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    if answer.returncode != 0:
        raise DataError(answer.stderr)
    return dict(json.loads(answer.stdout))


@click.command(cls=Script)
@click.option("--names", type=click.IntRange(1), default=5_000_000, show_default=True)
@click.option("--folder-size", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--name", help="Appended to the name of the result.")
@click.option(
    "--scratch",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where the tree is made; a name takes about 50 bytes.  [default: the system's]",
)
def main(names: int, folder_size: int, name: str | None, scratch: Path | None) -> None:
    """Measure how long the first of very many pictures waits, and the memory of their list."""
    listing = run(names, folder_size, scratch=scratch)
    write_result(f"listing-{name}" if name else "listing", asdict(listing))


if __name__ == "__main__":
    main()
