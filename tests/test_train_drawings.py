"""Drawn training pictures."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.drawings import HEIGHT, WIDTH, drawing

pytest.importorskip("matplotlib")
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("seed", range(3))
def test_the_seed_decides_on_the_picture(seed: int) -> None:
    picture, again, other = (np.asarray(drawing(number)) for number in (seed, seed, seed + 3))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert (picture == again).all()
    assert (picture != other).mean() > 0.1


@pytest.mark.parametrize("seed", range(6))
def test_drawings_have_edges_and_flat_ground(seed: int) -> None:
    picture = np.asarray(drawing(seed)).astype(int)
    steps = np.abs(np.diff(picture, axis=1)).max(axis=2)
    assert (steps > 100).mean() > 0.004
    assert (steps == 0).mean() > 0.5


def test_pictures_are_written(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "train.drawings",
        "-o",
        tmp_path / "drawn",
        "--count",
        "2",
        "--seed",
        "5",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    files = sorted((tmp_path / "drawn").iterdir())
    assert result.stdout.splitlines() == [str(file) for file in files]
    assert [file.name for file in files] == ["drawn-0005.png", "drawn-0006.png"]
    with Image.open(files[0]) as opened:
        assert (np.asarray(opened) == np.asarray(drawing(5))).all()
