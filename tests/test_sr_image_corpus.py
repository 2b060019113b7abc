"""Odd files, all the way from file to file: a right picture, or one line of error and no file."""

import os
import sys
from collections.abc import Iterator
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from sr.errors import SrupError
from sr.image import PictureSequence, open_picture
from sr.jobs.admission import RunLimits
from sr.jobs.pipeline import FileJob, FileResult, RunSettings, upscale_files
from sr.upscale import Upscaler
from tests.backends import Repeat
from tests.corpus import DEEP_MODES, FORMATS, damaged, good_files, picture
from tests.pictures import encoded, header_bombs

FUZZED_FILES = int(os.environ.get("SRUP_FUZZED_FILES", "500"))
SUFFIXES = (".png", ".jpg", ".webp", ".avif", ".tif", ".gif", ".bmp")


@pytest.fixture(scope="module")
def upscaler() -> Iterator[Upscaler]:
    with Upscaler(backend=Repeat()) as opened:
        yield opened


GOOD = dict(good_files())
FEW_PIXELS = RunSettings(limits=RunLimits(max_pixels=1_000_000))


def run(upscaler: Upscaler, folder: Path, content: bytes, *, source: str, target: str) -> FileResult:
    """Upscale one file and check what holds for any: a whole output, or one line and nothing."""
    for path in folder.iterdir():
        path.unlink()
    (folder / source).write_bytes(content)
    (result,) = upscale_files([FileJob(folder / source, folder / target)], upscaler, settings=FEW_PIXELS)
    left = sorted(path.name for path in folder.iterdir())
    if result.error is None:
        assert left == sorted({source, target})
    else:
        assert left == [source]
        assert len(str(result.error).splitlines()) == 1
        assert str(result.error).startswith(str(folder))
    return result


def refusal(path: Path) -> str | None:
    """Decode all that is in a file; return the error, or None."""
    try:
        opened = open_picture(path, max_pixels=100_000)
        if isinstance(opened, PictureSequence):
            for _ in zip(opened.frames(), range(10), strict=False):
                pass
    except SrupError as error:
        return str(error)
    return None


def pictures_in(path: Path) -> list[tuple[int, int]]:
    """Return rows and columns of each picture of a file."""
    opened = open_picture(path)
    if isinstance(opened, PictureSequence):
        return [(frame.picture.height, frame.picture.width) for frame in opened.frames()]
    return [(opened.height, opened.width)]


@pytest.mark.parametrize("name", GOOD)
def test_every_kind_of_file_is_upscaled_or_refused(tmp_path: Path, upscaler: Upscaler, name: str) -> None:
    if "AVIF" in name and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    several = ".tif" if name == "pages" else ".png"
    result = run(upscaler, tmp_path, GOOD[name], source="in.dat", target=f"out{several}")
    mode = name.partition(" ")[2]
    if mode in (*DEEP_MODES, "LAB", "RGBX") and result.error is not None:
        assert any(word in str(result.error) for word in ("bits", "LAB", "extra channels", "floating"))
        return
    assert result.error is None
    before, after = pictures_in(tmp_path / "in.dat"), pictures_in(tmp_path / f"out{several}")
    assert after == [(2 * height, 2 * width) for height, width in before]
    assert len(after) == result.frames


def as_pillow_reads(content: bytes) -> np.ndarray:
    """Return the first picture of a file, upright RGBA."""
    with Image.open(BytesIO(content)) as opened:
        return np.asarray(ImageOps.exif_transpose(opened).convert("RGBA"))


SAME_IN_PILLOW = [
    name
    for name in GOOD
    # What Pillow does not convert as meant: inks, Lab, more than 8 bits, BMP's fourth byte; or not to RGBA.
    if not any(
        word in name for word in ("CMYK", "LAB", "I;16", "16", " I", " F", "RGBX", "BMP RGBA", "pages")
    )
]


@pytest.mark.parametrize("name", SAME_IN_PILLOW)
def test_every_pixel_is_what_pillow_reads(tmp_path: Path, upscaler: Upscaler, name: str) -> None:
    """The backend repeats pixels, so what comes out tells what went in; hidden colours may differ."""
    if "AVIF" in name and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    result = run(upscaler, tmp_path, GOOD[name], source="in.dat", target="out.png")
    assert result.error is None, result.error
    expected = as_pillow_reads(GOOD[name]).repeat(2, axis=0).repeat(2, axis=1)
    found = as_pillow_reads((tmp_path / "out.png").read_bytes())
    assert found.shape == expected.shape
    visible = expected[..., 3] > 0
    assert (found[..., 3] == expected[..., 3]).all()
    assert (found[visible] == expected[visible]).all()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_small_size(tmp_path: Path, upscaler: Upscaler, kind: str) -> None:
    for width, height in product(range(1, 7), repeat=2):
        content = encoded(picture("RGB", width, height), kind)
        assert run(upscaler, tmp_path, content, source="in", target="out.png").error is None
        found, expected = as_pillow_reads((tmp_path / "out.png").read_bytes()), as_pillow_reads(content)
        assert (found == expected.repeat(2, axis=0).repeat(2, axis=1)).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_suffix_of_the_source_does_not_matter(tmp_path: Path, upscaler: Upscaler, suffix: str) -> None:
    for kind in FORMATS:
        source = encoded(picture("RGB", 9, 6), kind)
        assert run(upscaler, tmp_path, source, source=f"in{suffix}", target=f"out{suffix}").error is None


@pytest.mark.parametrize("kind", header_bombs())
def test_absurd_headers_are_refused(tmp_path: Path, upscaler: Upscaler, kind: str) -> None:
    result = run(upscaler, tmp_path, header_bombs()[kind], source="in", target="out.png")
    assert "--max-pixels" in str(result.error)


@pytest.mark.parametrize("tenths", range(10))
def test_broken_files_end_in_a_line(tmp_path: Path, upscaler: Upscaler, tenths: int) -> None:
    kinds = [name for name in GOOD if "orientation" not in name and not name[-1].isdigit()]
    for name, content in ((name, GOOD[name]) for name in kinds):
        cut = content[: len(content) * tenths // 10]
        result = run(upscaler, tmp_path, cut, source="in", target="out.tif" if name == "pages" else "out.png")
        # A page, a trailing directory or unused bytes may be all that is missing.
        assert result.error is not None or tenths >= 3, name


def test_damaged_files_end_in_a_picture_or_a_line(
    tmp_path: Path, upscaler: Upscaler, capfd: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    names = list(GOOD)
    fine = 0
    for _ in range(FUZZED_FILES):
        content = damaged(GOOD[names[random.integers(len(names))]], random)
        path = tmp_path / "in"
        path.write_bytes(content)
        message = refusal(path)
        if message is None:
            fine += 1
        else:
            assert len(message.splitlines()) == 1
            assert message.startswith(f"{path}: ")
    assert 0 < fine < FUZZED_FILES
    if sys.platform != "win32":  # where libtiff inside Pillow cannot be hushed
        assert capfd.readouterr().err == ""
