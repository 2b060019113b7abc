"""Shards and an unsharded run at once on one output folder, killed at random: nothing is lost or partial."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr.files import TEMPORARY_PREFIX
from sr.jobs.ledger import NAME

ROOT = Path(__file__).resolve().parent.parent
PICTURES, KILLS = 60, 8

# The command with an upscaler that takes 20 ms for a picture.
PROGRAM = """
import sys, time
from tests.test_sr_composed import Doubling
from sr.cli import main
from sr.jobs.setup import UpscalerSetup

class Slow(Doubling):
    def picture(self, picture, *, progress=None):
        time.sleep(0.02)
        return super().picture(picture, progress=progress)

main(sys.argv[1:], prog_name="srup", obj=lambda upscaling, settings: UpscalerSetup(Slow()))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals the Unix way"),
]


def started(folder: Path, out: Path, *words: str) -> subprocess.Popen[bytes]:
    command = ["upscale", str(folder), "-o", str(out), "--skip-existing", *words]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def contents(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*.png")
        if not path.name.startswith(TEMPORARY_PREFIX)
    }


def test_runs_at_once_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    folder, out, alone = tmp_path / "in", tmp_path / "out", tmp_path / "alone"
    for number in range(PICTURES):
        path = folder / str(number % 4) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    assert started(folder, alone).wait(timeout=120) == 0
    expected = contents(alone)
    assert len(expected) == PICTURES

    chance, parts = random.Random(0), [(), *(("--shard", f"{index}/4") for index in (1, 2, 3, 4))]
    running = [started(folder, out, *words) for words in parts]
    try:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.2, 1.0))
            index = chance.randrange(len(running))
            running[index].send_signal(signal.SIGKILL)
            running[index].wait()
            assert contents(out).items() <= expected.items(), "whole, and under their names"
            running[index] = started(folder, out, *parts[index])
        assert [process.wait(timeout=120) for process in running] == [0] * len(parts)
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert contents(out) == expected
    assert started(folder, out).wait(timeout=120) == 0, "which removes what killed runs left"
    left = [path.name for path in out.rglob(f"{TEMPORARY_PREFIX}*") if "ledger" not in path.name]
    assert left == []
    # One that came when all was done writes none.
    ledgers = {path.name for path in out.glob(NAME.replace(".jsonl", "*.jsonl"))}
    assert ledgers <= {NAME, *(NAME.replace(".jsonl", f".{index}-of-4.jsonl") for index in (1, 2, 3, 4))}
    assert len(ledgers) > 1
