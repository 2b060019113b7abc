"""Pictures through standard input and output."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sr.cli import main
from sr.errors import ImageError
from sr.image import Picture, open_picture, read, spooled, write_picture
from tests.pictures import encoded

ROOT = Path(__file__).resolve().parent.parent
SRUP = [sys.executable, "-m", "sr.cli", "upscale"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def small() -> Image.Image:
    with Image.open(ROOT / "examples" / "kitten.png") as picture:
        return picture.convert("RGB").crop((200, 120, 240, 150))


def upscaled(*words: str, given: bytes = b"") -> Result:
    return CliRunner().invoke(main, ["upscale", *words], input=given)


def written(result: Result) -> Image.Image:
    """Return the picture on standard output, after which nothing comes."""
    assert result.exit_code == 0, result.stderr
    image = Image.open(io.BytesIO(result.stdout_bytes))
    image.load()
    return image


def refused(result: Result, *words: str, code: int = 1) -> None:
    assert (result.exit_code, result.stdout_bytes) == (code, b"")
    (error,) = (line for line in result.stderr.splitlines() if line.startswith("Error: "))
    for word in words:
        assert word in error


# --- in and out ---------------------------------------------------------------------------------


def test_a_pipeline_of_real_processes(tmp_path: Path) -> None:
    small().save(tmp_path / "a.jpg", quality=95)
    command = f"cat a.jpg | {' '.join(SRUP)} - --scale 2 > b.png"
    answer = subprocess.run(
        command, shell=True, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert answer.returncode == 0
    assert "standard input -> standard output.png  40x30 -> 80x60" in answer.stderr
    by_name = upscaled(str(tmp_path / "a.jpg"), "-o", str(tmp_path / "c.png"))
    assert by_name.exit_code == 0
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()


def test_a_file_to_standard_output_and_back(tmp_path: Path) -> None:
    small().save(tmp_path / "a.png")
    for words, kind in (((), "PNG"), (("--format", "webp"), "WEBP"), (("--format", "tif"), "TIFF")):
        image = written(upscaled(str(tmp_path / "a.png"), "-o", "-", *words))
        assert (image.format, image.size) == (kind, (80, 60))
    made = upscaled("-", "-o", str(tmp_path / "new.bmp"), given=encoded(small(), "PNG"))
    assert made.exit_code == 0
    with Image.open(tmp_path / "new.bmp") as bmp:
        assert (bmp.format, bmp.size) == ("BMP", (80, 60))
    again = upscaled("-", "-o", str(tmp_path / "new.bmp"), given=encoded(small(), "PNG"))
    refused(again, "new.bmp", "exists already")


def test_json_goes_to_stderr_where_the_picture_has_standard_output() -> None:
    result = upscaled("-", "--json", given=encoded(small(), "PNG"))
    written(result)
    record = json.loads(result.stderr.splitlines()[0])
    assert (record["ok"], record["source"], record["output_width"]) == (True, "standard input", 80)


def test_animations_and_pages_go_through(tmp_path: Path) -> None:
    frames = [small(), small().rotate(180), small().rotate(90)]
    for kind, arguments in (("GIF", {"duration": 70}), ("WEBP", {"duration": 70}), ("TIFF", {})):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **arguments)
        image = written(upscaled("-", given=content))
        assert (image.format, image.n_frames, image.size) == (kind, 3, (80, 60))


@pytest.mark.parametrize("limit", [0, read.SPOOLED_BYTES], ids=["on disk", "in memory"])
def test_16_bits_go_through(limit: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(read, "SPOOLED_BYTES", limit)
    deep = np.random.default_rng(0).integers(0, 65536, (24, 30, 3), np.uint16)
    for suffix in (".png", ".tif"):
        write_picture(tmp_path / f"deep{suffix}", Picture(deep))
        words = ["--size", "60x48", "--format", suffix[1:]]
        streamed = upscaled("-", *words, given=(tmp_path / f"deep{suffix}").read_bytes())
        assert streamed.exit_code == 0, streamed.stderr
        by_name = upscaled(str(tmp_path / f"deep{suffix}"), *words)
        assert by_name.exit_code == 0
        expected = (tmp_path / f"deep_60x48{suffix}").read_bytes()
        assert streamed.stdout_bytes == expected
        picture = open_picture(tmp_path / f"deep_60x48{suffix}")
        assert isinstance(picture, Picture)
        assert picture.sixteen_bit
        (tmp_path / f"deep_60x48{suffix}").unlink()


def test_a_file_named_like_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small().save(tmp_path / "-", "PNG")
    assert upscaled("./-").exit_code == 0
    assert (tmp_path / "-_x2.png").is_file()


def test_a_dry_run_reads_and_writes_nothing_but_its_list(tmp_path: Path) -> None:
    small().save(tmp_path / "a.png")
    listed = upscaled(str(tmp_path / "a.png"), "-o", "-", "--dry-run")
    assert listed.stdout.splitlines() == [
        f"{tmp_path / 'a.png'} -> standard output.png",
        "1 picture to upscale",
    ]


# --- what is refused ----------------------------------------------------------------------------


def test_several_pictures_do_not_fit_into_a_stream(tmp_path: Path) -> None:
    small().save(tmp_path / "a.png")
    name, folder = str(tmp_path / "a.png"), str(tmp_path)
    refused(upscaled(name, name, "-o", "-"), "-o - writes one picture", code=2)
    refused(upscaled(folder, "-o", "-"), "-o - writes one picture", code=2)
    refused(upscaled("-", name, "-o", "x"), "leave out the other inputs", code=2)
    refused(upscaled("-", "-o", folder), "has no name", code=2)
    refused(upscaled("-", "--compare", "page.html"), "--compare", code=2)
    refused(upscaled("-", "--quality", "80", given=encoded(small(), "PNG")), "the output is PNG", code=2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("is empty",)),
        (b"no picture" * 10, ("unrecognised",)),
        (encoded(small(), "PNG")[:900], ("truncated",)),
    ],
    ids=["empty", "text", "truncated"],
)
def test_bytes_that_are_not_a_picture_give_one_line(content: bytes, words: tuple[str, ...]) -> None:
    refused(upscaled("-", given=content), "standard input: ", *words)


def test_an_output_that_the_format_cannot_hold_leaves_standard_output_empty() -> None:
    cut_out = small().convert("RGBA")
    cut_out.putpixel((3, 3), (0, 0, 0, 0))
    refused(upscaled("-", "--format", "jpg", given=encoded(cut_out, "PNG")), "cannot hold transparency")


def test_an_endless_stream_is_not_read_to_its_end() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:
            self.given += len(buffer)
            buffer[:] = bytes(len(buffer))
            return len(buffer)

    endless = Endless()
    with pytest.raises(ImageError, match="unrecognised"):
        spooled(endless, "zeros")
    assert endless.given < 1000


def process(redirections: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = f"{' '.join([*SRUP, *words])} {redirections}"
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
def test_streams_that_are_closed(tmp_path: Path) -> None:
    small().save(tmp_path / "a.png")
    for redirections, words in (("<&-", ("-",)), (">&-", ("a.png", "-o", "-"))):
        answer = process(redirections, *words, cwd=tmp_path)
        assert answer.returncode == 1
        assert answer.stderr.count("\n") == 1
        assert "is closed" in answer.stderr


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path) -> None:
    """The output is larger than a pipe holds (64 KiB), so that writing meets the closed end."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    answer = process('| head -c 5 >/dev/null; exit "${PIPESTATUS[0]}"', "a.png", "-o", "-", cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (1, "")


@pytest.mark.skipif(sys.platform == "win32", reason="terminals the Unix way")
def test_a_terminal_gets_no_picture_and_gives_none(tmp_path: Path) -> None:
    small().save(tmp_path / "a.png")
    for words, says in ((("a.png", "-o", "-"), "would garble the terminal"), (("-",), "is a terminal")):
        leader, terminal = os.openpty()
        streams = {"stdout": subprocess.DEVNULL, "stdout" if words[0] == "a.png" else "stdin": terminal}
        answer = subprocess.run(
            [*SRUP, *words], cwd=tmp_path, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE, **streams
        )
        os.close(leader)
        os.close(terminal)
        assert answer.returncode == (2 if words[0] == "a.png" else 1)
        assert says in answer.stderr.splitlines()[-1]
