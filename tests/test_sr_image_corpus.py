"""Odd files, all the way from file to file: a right picture, or one line of error and no file."""

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from sr.errors import SrupError
from sr.image import PictureSequence, open_picture
from sr.pipeline import FileJob, FileResult, upscale_files
from sr.upscale import Upscaler
from tests.backends import Repeat
from tests.pictures import (
    PNG_RGB,
    apng,
    encoded,
    exif_block,
    gif,
    header_bombs,
    icc_profile,
    png,
    tiff_16,
    xmp_packet,
)

FUZZED_FILES = int(os.environ.get("SRUP_FUZZED_FILES", "500"))
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
DEEP_MODES = ("I", "F", "I;16", "I;16B")
SUFFIXES = (".png", ".jpg", ".webp", ".avif", ".tif", ".gif", ".bmp")


@pytest.fixture(scope="module")
def upscaler() -> Iterator[Upscaler]:
    with Upscaler(backend=Repeat()) as opened:
        yield opened


def picture(mode: str, width: int, height: int) -> Image.Image:
    colours = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(colours)
    if mode in ("PA", "La", "RGBa"):
        return image.convert({"PA": "P", "La": "LA", "RGBa": "RGBA"}[mode]).convert(mode)
    if mode == "LAB":
        return Image.new("LAB", (width, height))
    return image.convert("I").convert(mode) if mode in DEEP_MODES else image.convert(mode)


def good_files() -> Iterator[tuple[str, bytes]]:
    """Yield what Pillow can write, and what it cannot but we read."""
    for mode, kind in product((*MODES, *DEEP_MODES), FORMATS):
        try:
            yield f"{kind} {mode}", encoded(picture(mode, 7, 5), kind)
        except (OSError, KeyError, ValueError):
            continue  # Pillow cannot write this mode in this format
    for (width, height), kind in product([(1, 1), (1, 9), (9, 1), (3, 2), (17, 33)], FORMATS):
        yield f"{kind} {width}x{height}", encoded(picture("RGB", width, height), kind)
    for orientation, kind in product(range(1, 9), ("PNG", "JPEG", "WEBP", "AVIF")):
        exif = exif_block(orientation)
        yield f"{kind} orientation {orientation}", encoded(picture("RGB", 7, 5), kind, exif=exif)
    for (width, height), bits in product([(1, 1), (5, 3)], (1, 2, 4, 8, 16)):
        rows = [bytes(range(width * bits // 8 + 1))] * height
        yield (
            f"grey of {bits} bits {width}x{height}",
            png(rows_of(rows, width, bits), width=width, bits=bits, colour=0),
        )
    deep = np.arange(60, dtype=np.uint16).reshape(4, 5, 3) * 1000
    yield "16-bit TIFF", tiff_16(deep, photometric=2)
    row = deep[0].astype(">u2").tobytes()
    yield "16-bit PNG", png([row] * 3, width=5, bits=16, colour=PNG_RGB)
    yield "APNG", apng(3)
    frame = (np.ones((3, 4), np.uint8), (0, 0), 2, 1, 4)
    yield "animated GIF", gif([frame, frame, frame], size=(5, 5), palette=bytes(range(24)), loop=2)
    frames = [picture("RGBA", 6, 5), Image.new("RGBA", (6, 5), (9, 99, 200, 100))]
    yield "animated WebP", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    yield "animated AVIF", encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:])
    yield "pages", encoded(picture("L", 4, 3), "TIFF", save_all=True, append_images=[picture("RGB", 2, 6)])
    about = {"exif": exif_block(6), "icc_profile": icc_profile(b"RGB "), "xmp": xmp_packet(6)}
    for kind in ("JPEG", "WEBP", "AVIF"):
        yield f"{kind} with metadata", encoded(picture("RGB", 40, 30), kind, **about)
    yield "PNG with metadata", encoded(picture("RGB", 40, 30), "PNG", exif=exif_block(6))


def rows_of(rows: list[bytes], width: int, bits: int) -> list[bytes]:
    return [row[: (width * bits + 7) // 8] for row in rows]


GOOD = dict(good_files())


def run(upscaler: Upscaler, folder: Path, content: bytes, *, source: str, target: str) -> FileResult:
    """Upscale one file and check what holds for any: a whole output, or one line and nothing."""
    for path in folder.iterdir():
        path.unlink()
    (folder / source).write_bytes(content)
    (result,) = upscale_files([FileJob(folder / source, folder / target)], upscaler, max_pixels=1_000_000)
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
    """Change a few bytes, half of the time near the beginning; or cut, repeat or insert some."""
    random = np.random.default_rng(0)
    names = list(GOOD)
    fine = 0
    for _ in range(FUZZED_FILES):
        content = bytearray(GOOD[names[random.integers(len(names))]])
        end = len(content) if random.random() < 0.5 else min(200, len(content))
        for _ in range(random.integers(1, 6)):
            at = int(random.integers(end))
            match random.integers(4):
                case 0 | 1:
                    content[at : at + 1] = bytes([random.integers(256)])
                case 2:
                    content[at : at + 4] = random.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])
                case 3:
                    content[at:at] = content[at : at + int(random.integers(1, 40))]
        path = tmp_path / "in"
        path.write_bytes(content)
        message = refusal(path)
        if message is None:
            fine += 1
        else:
            assert len(message.splitlines()) == 1
            assert message.startswith(f"{path}: ")
    assert 0 < fine < FUZZED_FILES
    assert capfd.readouterr().err == ""
