"""Training photographs from packages."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.photographs import LISTED, make

ROW = {
    "file": "demo-bridge.png",
    "package_and_version": "npm @somebody/demo-pages 1.2.0",
    "path_in_package": "package/img/bridge.jpg",
    "original_size": "40x60",
    "factor": "2.00",
    "width": "20",
    "height": "30",
}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Return a folder with a package whose JPEG lies on its side, and whose first folder was stripped."""
    folder = tmp_path / "packages" / "demo-pages" / "img"
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    levels = np.tile(np.linspace(0, 255, 60).astype(np.uint8)[None, :, None], (40, 1, 3))
    Image.fromarray(levels).save(folder / "bridge.jpg", exif=exif, quality=95)
    return tmp_path / "packages"


def test_photograph_is_turned_upright_and_shrunk(packages: Path, tmp_path: Path) -> None:
    assert make(ROW, packages, tmp_path) == ""
    with Image.open(tmp_path / "demo-bridge.png") as image:
        assert image.size == (20, 30)
        column = np.asarray(image)[:, 0, 0].astype(int)
    assert (np.diff(column) > 0).all()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"original_size": "80x120"}, "need 80x120"),
        ({"path_in_package": "package/img/tower.jpg"}, "lacks package/img/tower.jpg"),
        ({"package_and_version": "npm demo-shop 1.0.0"}, "of npm demo-shop 1.0.0"),
    ],
)
def test_what_does_not_fit_is_named(packages: Path, tmp_path: Path, change: dict, problem: str) -> None:
    assert problem in make(ROW | change, packages, tmp_path)
    assert not (tmp_path / "demo-bridge.png").exists()


def test_file_that_is_no_picture_is_named(packages: Path, tmp_path: Path) -> None:
    (packages / "demo-pages" / "img" / "bridge.jpg").write_bytes(b"nothing")
    assert "cannot be read" in make(ROW, packages, tmp_path)


def test_list_names_each_photograph_once_with_its_licence() -> None:
    with LISTED.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["file"] for row in rows}) == len(rows)
    for row in rows:
        width, height = map(int, row["original_size"].split("x"))
        # Shrunk to half at least, both sides alike.
        assert int(row["width"]) <= width / 2 + 1
        assert int(row["width"]) / int(row["height"]) == pytest.approx(width / height, rel=0.01)
        assert row["licence"]
        assert row["licence_stated_where"]
