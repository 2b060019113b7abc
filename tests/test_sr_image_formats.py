"""One record for each format: every list comes from it, and a new format is a file and a record."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr.errors import ImageError
from sr.image import (
    FORMATS,
    format_of_suffix,
    identify,
    is_picture,
    open_picture,
    read_suffixes,
    write_suffixes,
)
from tests.pictures import encoded

ROOT = Path(__file__).resolve().parent.parent

TGA = """
from sr.image.formats.spec import FormatSpec


def _recognises(head):
    return head[1:3] in (bytes([0, 2]), bytes([0, 10])) and head[16:17] == bytes([24])


def _read(opened):
    from PIL.TgaImagePlugin import TgaImageFile
    from sr.image.pillow import PillowSource

    return PillowSource(opened, TgaImageFile)


def _write(file, picture, options):
    from sr.image.encode import save_with_pillow

    save_with_pillow(file, picture, TGA)


TGA = FormatSpec(
    name="TGA",
    pillow_name="TGA",
    read_suffixes=(".tga",),
    write_suffixes=(".tga",),
    recognises=_recognises,
    reader=_read,
    writer=_write,
    longest_side_px=65_535,
)
"""
COMMAND = """
from sr.image.formats import FORMATS
from tga import TGA

FORMATS["TGA"] = TGA  # what a line in the literal does

from sr.cli import main

main()
"""


def with_tga(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "tga.py").write_text(TGA)
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(folder)!r}]\n{COMMAND}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_new_format_is_one_file_and_one_record(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.tga").write_bytes(encoded(pixels, "TGA"))
    run = with_tga(tmp_path, "upscale", str(folder), "-o", str(tmp_path / "out"), "--format", "tga")
    assert run.returncode == 0, run.stderr
    with Image.open(tmp_path / "out" / "a_x2.tga") as image:
        assert (image.format, image.size) == ("TGA", (24, 18))
    assert "tga" in with_tga(tmp_path, "upscale", "--help").stdout
    refused = with_tga(tmp_path, "upscale", str(folder / "a.tga"), "-o", "x.tga", "--quality", "3")
    assert refused.returncode == 2
    assert "TGA" in refused.stderr


def test_help_offers_every_format_that_is_written() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "sr.cli", "upscale", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    words = run.stdout.replace("[", "|").replace("]", "|").split("--format")[1].split("|")
    assert {suffix.removeprefix(".") for suffix in write_suffixes()} <= {word.strip() for word in words}


@pytest.mark.parametrize("suffix", write_suffixes())
def test_each_suffix_belongs_to_one_format(suffix: str) -> None:
    specs = [spec for spec in FORMATS.values() if suffix in spec.write_suffixes]
    assert specs == [format_of_suffix(suffix.upper())]
    assert suffix in read_suffixes()


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_file_is_comes_from_its_content(tmp_path: Path, name: str) -> None:
    content = encoded(np.zeros((8, 8, 3), np.uint8), FORMATS[name].pillow_name)
    for path in (tmp_path / "photo.jpe", tmp_path / "no_suffix"):
        path.write_bytes(content)
        assert identify(path) is FORMATS[name]
        assert is_picture(path)
    raw = tmp_path / "photo.NEF"
    raw.write_bytes(content)
    assert identify(raw) is None
    with pytest.raises(ImageError, match="a raw photograph"):
        open_picture(raw)


@pytest.mark.parametrize(
    ("name", "content", "picture"),
    [
        ("notes.txt", b"BM is how this text begins, which is also how a BMP does", False),
        ("empty.png", b"", True),
        ("broken.jpg", b"no picture at all", True),
        ("._photo.jpg", b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(32), False),
        (".DS_Store", b"\0\0\0\1Bud1" + bytes(32), False),
        ("clip.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", False),
    ],
)
def test_what_a_folder_counts_as_a_picture(tmp_path: Path, name: str, content: bytes, picture: bool) -> None:
    """A file that is named like a picture counts, so that the user hears of its damage."""
    (tmp_path / name).write_bytes(content)
    assert identify(tmp_path / name) is None
    assert is_picture(tmp_path / name) == picture


def test_no_name_of_the_room_is_that_of_a_module() -> None:
    """`from sr.image import name` would be the module once that is imported."""
    import sr.image

    modules = {path.stem for path in (ROOT / "sr" / "image").iterdir()}
    assert not modules & set(sr.image.__all__)
