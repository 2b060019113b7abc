"""A class of three methods upscales a folder through the command: nothing more is asked of an upscaler."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sr.cli import main
from sr.image import Picture, read_picture
from sr.jobs.admission import Admission, RunLimits
from sr.jobs.job import FileJob
from sr.jobs.setup import UpscalerSetup
from sr.jobs.upscaler import Capabilities, PictureUpscaler, Progress
from sr.sized import UpscalerSettings, Upscaling


class Doubling:
    """Repeats pixels."""

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        return 2 * height, 2 * width

    def tile_count(self, height: int, width: int) -> int:
        return 1

    def picture(self, picture: Picture, *, progress: Progress | None = None) -> Picture:
        if progress is not None:
            progress(1, 1)
        alpha = None if picture.alpha is None else picture.alpha.repeat(2, 0).repeat(2, 1)
        return replace(picture, pixels=picture.pixels.repeat(2, 0).repeat(2, 1), alpha=alpha)


def composed(upscaling: Upscaling, settings: UpscalerSettings) -> UpscalerSetup:
    return UpscalerSetup(Doubling())


def upscale(*words: str) -> Result:
    return CliRunner().invoke(main, ["upscale", *words], obj=composed)


def pixels(seed: int, channels: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (14, 10 + seed, channels), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with stills, one with alpha, an animation, and a file that is damaged."""
    folder = tmp_path / "in"
    (folder / "below").mkdir(parents=True)
    Image.fromarray(pixels(0, 3)).save(folder / "a.png")
    Image.fromarray(pixels(1, 4)).save(folder / "below" / "b.webp", lossless=True, exact=True)
    frames = [Image.fromarray(pixels(seed, 3)).resize((10, 14)) for seed in range(3)]
    frames[0].save(folder / "c.webp", save_all=True, append_images=frames[1:], lossless=True)
    (folder / "d.png").write_bytes(b"damaged")
    return folder


def test_three_methods_are_all_that_an_upscaler_has() -> None:
    upscaler: PictureUpscaler = Doubling()
    public = {name for name in dir(upscaler) if not name.startswith("_")}
    assert public == {"output_size", "tile_count", "picture"}


def test_a_folder_goes_through_the_command(folder: Path) -> None:
    out = folder.with_name("in_x2")
    result = upscale(str(folder), "--json")
    assert result.exit_code == 1, result.output
    *records, last = map(json.loads, result.stdout.splitlines())
    assert {Path(record["source"]).name: record["ok"] for record in records} == {
        "a.png": True,
        "b.webp": True,
        "c.webp": True,
        "d.png": False,
    }
    assert (last["summary"]["done"], last["summary"]["failed"]) == (3, 1)
    np.testing.assert_array_equal(
        read_picture(out / "a_x2.png").pixels, pixels(0, 3).repeat(2, 0).repeat(2, 1)
    )
    with Image.open(out / "c_x2.webp") as animation:
        assert (animation.n_frames, animation.size) == (3, (20, 28))
    skipped = upscale(str(folder), "--skip-existing")
    assert (skipped.exit_code, "3 pictures skipped" in skipped.output) == (1, True)


def test_it_goes_through_comparison_and_other_formats(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ["--exclude", "d.png", "--format", "jpeg", "--compare", str(page), "--exclude", "*.webp"]
    result = upscale(str(folder), *words)
    assert result.exit_code == 0, result.output
    assert page.is_file()
    with Image.open(folder.with_name("in_x2") / "a_x2.jpeg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (20, 28))


def test_what_does_not_fit_is_refused_with_the_remedy_of_the_composer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sr.jobs.admission.available_memory", lambda: 1000)
    result = upscale(str(folder / "a.png"), "-o", str(folder / "a.tif"))
    assert result.exit_code == 1
    assert Capabilities().without_bands in result.stderr


# --- counted beforehand -------------------------------------------------------------------------


def admitted(source: Path, memory: int, monkeypatch: pytest.MonkeyPatch, **capable: object) -> str:
    monkeypatch.setattr("sr.jobs.admission.available_memory", lambda: memory)
    admission = Admission(Doubling(), Capabilities(**capable), RunLimits())  # type: ignore[arg-type]
    job = FileJob(source, source.with_suffix(".out.png"))
    return admission.route(job, admission.header(job))


def test_frames_that_are_in_memory_together_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [Image.fromarray(np.full((1000, 1000), value, np.uint8)) for value in (0, 80, 160)]
    frames[0].save(tmp_path / "still.gif")
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    memory = 64 * 2**20
    assert admitted(tmp_path / "still.gif", memory, monkeypatch) == "whole"
    with pytest.raises(Exception, match=r"moving\.gif.*MiB of memory"):
        admitted(tmp_path / "moving.gif", memory, monkeypatch)


def test_stages_between_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((1000, 1000, 3), np.uint8)).save(tmp_path / "a.png")
    memory = 64 * 2**20
    assert admitted(tmp_path / "a.png", memory, monkeypatch) == "whole"
    with pytest.raises(Exception, match=r"a\.png.*MiB of memory"):
        admitted(
            tmp_path / "a.png",
            memory,
            monkeypatch,
            working_bytes=lambda height, width, pixel_bytes: 36 * height * width * pixel_bytes,
        )
