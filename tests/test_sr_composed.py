"""A class of three methods upscales a folder through the command: nothing more is asked of an upscaler."""

import json
from dataclasses import replace
from pathlib import Path
from socket import gethostname

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sr.cli import main
from sr.errors import TooLargeError
from sr.image import Picture, read_picture
from sr.jobs.admission import Admission, RunLimits
from sr.jobs.job import FileJob
from sr.jobs.setup import UpscalerSetup
from sr.jobs.shards import Shard
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


@pytest.mark.parametrize("beside", [("png", "avif"), ("jpg", "gif"), ("png", "webp")])
def test_what_the_encoder_takes_is_counted(
    beside: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a.png"
    Image.new("RGB", (1000, 1000)).save(source)  # 12 MB when doubled
    cheap, dear = (FileJob(source, tmp_path / f"out.{suffix}") for suffix in beside)
    monkeypatch.setattr("sr.jobs.admission.available_memory", lambda: 60 * 2**20)
    admission = Admission(Doubling(), Capabilities(), RunLimits())
    assert admission.route(cheap, admission.header(cheap)) == "whole"
    with pytest.raises(TooLargeError, match=r"a\.png.*MiB"):
        admission.route(dear, admission.header(dear))


def test_nothing_is_decoded_in_the_last_of_the_address_space(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_with(left: int) -> set[str]:
        for module in ("sr.jobs.admission", "sr.memory"):
            monkeypatch.setattr(f"{module}.address_space_available", lambda: left)
        assert upscale(str(folder)).exit_code == 1  # there is a damaged one in any case
        return {path.name for path in folder.with_name("in_x2").rglob("*.*") if path.suffix != ".json"}

    assert not {"a_x2.png", "c_x2.webp"} & made_with(20 * 2**20)
    assert {"a_x2.png", "c_x2.webp"} <= made_with(2**33)


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


# --- very many files ----------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Return a folder of 20 pictures, of which one is damaged."""
    folder = tmp_path / "many"
    for number in range(20):
        (folder / str(number % 3)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(folder / f"{number % 3}" / f"{number}.png")
    (folder / "1" / "7.png").write_bytes(b"damaged")
    return folder


def outputs(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


def test_shards_share_the_work_and_one_folder(many: Path) -> None:
    assert upscale(str(many), "-o", str(many.with_name("whole"))).exit_code == 1
    out, parts = many.with_name("out"), []
    for shard in ("1/3", "2/3", "3/3"):
        before = outputs(out)
        result = upscale(str(many), "-o", str(out), "--shard", shard, "--json")
        summary = json.loads(result.stdout.splitlines()[-1])["summary"]
        parts.append(summary["done"] + summary["failed"])
        assert len(outputs(out) - before) == summary["done"]
        assert summary["other_shards"] == 20 - parts[-1]
    assert sum(parts) == 20
    assert all(parts)
    assert outputs(out) == outputs(many.with_name("whole"))
    again = upscale(str(many), "-o", str(out), "--skip-existing", "--json")
    assert json.loads(again.stdout.splitlines()[-1])["summary"]["skipped"] == 19
    assert len(list(out.glob(".srup-ledger.*.jsonl"))) == 3, "each shard has its own record"


SPLIT = [2, 0, 0, 0, 0, 0, 0, 1]


def test_the_split_is_the_same_everywhere() -> None:
    """Of the name relative to the folder alone: a fixed sample, so that versions agree too."""
    names = [f"a/{number}.jpg" for number in range(8)]
    assert [[Shard(i, 3).holds(Path(name)) for i in (1, 2, 3)].index(True) for name in names] == SPLIT
    counts = [sum(Shard(i, 4).holds(Path(f"{n}.png")) for n in range(4000)) for i in (1, 2, 3, 4)]
    assert min(counts) > 900


def test_a_list_names_files_of_a_folder(many: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"0/0.png\n# a remark\n\n{many}/2/5.png\nabsent.png\n../outside.png\n")
    out = tmp_path / "out"
    result = upscale(str(many), "--files-from", str(listed), "-o", str(out))
    assert result.exit_code == 1
    assert outputs(out) == {"0/0_x2.png", "2/5_x2.png"}
    assert result.stderr.count("Error: ") == 2
    nul = CliRunner().invoke(
        main,
        ["upscale", str(many), "--files-from", "-", "-0", "-o", str(out), "--skip-existing"],
        obj=composed,
        input=b"0/0.png\x002/8.png\0",
    )
    assert nul.exit_code == 0, nul.output
    assert outputs(out) == {"0/0_x2.png", "2/5_x2.png", "2/8_x2.png"}


def test_failures_are_listed_and_the_list_can_be_run_again(many: Path, tmp_path: Path) -> None:
    failures, out = tmp_path / "failed.txt", tmp_path / "out"
    assert upscale(str(many), "-o", str(out), "--failures", str(failures)).exit_code == 1
    reason, name = failures.read_text().splitlines()
    assert reason.startswith("# ")
    assert "7.png" in reason
    assert name == "1/7.png"
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(many / name)
    words = ["-o", str(out), "--files-from", str(failures), "--failures", str(tmp_path / "again.txt")]
    assert upscale(str(many), *words).exit_code == 0
    assert (out / "1" / "7_x2.png").is_file()
    assert (tmp_path / "again.txt").read_bytes() == b""


@pytest.mark.parametrize(("limit", "stops"), [("0", True), ("1", False), ("4%", True), ("5%", False)])
def test_too_many_failures_end_a_run(many: Path, tmp_path: Path, limit: str, stops: bool) -> None:
    result = upscale(str(many), "-o", str(tmp_path / "out"), "--max-failures", limit, "--json")
    summary = json.loads(result.stdout.splitlines()[-1])["summary"]
    assert result.exit_code == 1
    assert summary["too_many_failed"] is stops
    assert (summary["done"] + summary["failed"] < 20) is stops


def test_what_another_run_made_meanwhile_is_skipped(many: Path, tmp_path: Path) -> None:
    out, made = tmp_path / "out", tmp_path / "out" / "2" / "17_x2.png"

    class Meanwhile(Doubling):
        def picture(self, picture: Picture, *, progress: Progress | None = None) -> Picture:
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_bytes(b"of another run")
            return super().picture(picture, progress=progress)

    words = ["upscale", str(many), "-o", str(out), "--skip-existing", "--json"]
    result = CliRunner().invoke(main, words, obj=lambda *_: UpscalerSetup(Meanwhile()))
    summary = json.loads(result.stdout.splitlines()[-1])["summary"]
    assert (summary["done"], summary["skipped"], made.read_bytes()) == (18, 1, b"of another run")


@pytest.mark.parametrize(
    "words",
    [
        ("--shard", "0/3"),
        ("--shard", "4/3"),
        ("--shard", "x"),
        ("--max-failures", "many"),
        ("-0",),
        ("--files-from", "list.txt", "second"),
    ],
)
def test_wrong_usage_of_lists_and_shards(many: Path, words: tuple[str, ...]) -> None:
    result = upscale(str(many), *words)
    assert result.exit_code == 2
    assert words[0] in result.stderr or "--null" in result.stderr


def test_json_says_what_a_monitor_needs(folder: Path, tmp_path: Path) -> None:
    parts = [
        upscale(str(folder), "-o", str(tmp_path / "out"), "--json", "--shard", f"{index}/2")
        for index in (1, 2)
    ]
    records = [json.loads(line) for part in parts for line in part.stdout.splitlines()]
    pictures = [record for record in records if "source" in record]
    assert len(pictures) == 4
    assert {record["shard"] for record in pictures} == {"1/2", "2/2"}
    assert {record["host"] for record in pictures} == {gethostname()}
    for part in parts:
        *lines, _ = map(json.loads, part.stdout.splitlines())
        assert [line["queue"] for line in lines] == list(range(len(lines)))[::-1]
    stages = {Path(record["source"]).name: record["stages"] for record in pictures}
    assert set(stages["a.png"]) == {"decode", "infer", "write"}
    assert stages["a.png"]["decode"] > 0
    assert stages["a.png"]["write"] > 0
    assert stages["c.webp"] == stages["d.png"] == {}, "frames overlap; a damaged picture has no stages"
