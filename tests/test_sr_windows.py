"""Very many files: planned window by window, as if they were planned at once."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks import listing
from sr.cli import main
from sr.jobs import find, parts, windows
from sr.jobs.job import FileJob
from sr.jobs.naming import kinship, told_apart
from sr.jobs.setup import UpscalerSetup
from sr.jobs.shards import Shard
from sr.jobs.worklist import OutputRules, listed_worklist, make_worklist
from tests.test_sr_composed import Doubling

RULES = OutputRules(suffix="_x3")
NAMES = (
    *("a.png", "a.jpg", "a_jpg.png", "b_x3.png", "b.webp", "b_x12.jpg", "c_x3.png", "d.JPG", "d.jpeg"),
    *("e.png", "f/e.png", "f/g.png", "f/g.tif", "f/g_tif.bmp", "f/f_g_tif.png", "f/deep/h.png", "notes.txt"),
    *(f"many/{number}.png" for number in range(40)),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "in"


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        *((windows, "FIRST", 3), (windows, "LATER", 5)),
        *((find, "PART", 2), (find, "NAMES_AT_ONCE", 7), (parts, "_LINES", 4)),
    ):
        monkeypatch.setattr(module, name, value)


Planned = tuple[dict[Path, Path], set[str], dict[str, int], int]


def planned(folder: Path, rules: OutputRules, files: list[Path] | None = None) -> Planned:
    """Return all jobs, refusals, what is left out, and the number of windows."""
    worklist = make_worklist([folder], rules) if files is None else listed_worklist(folder, files, rules)
    jobs, refused, number = {}, set(), 0
    for window in worklist.windows():
        assert len(window.jobs) == len({job.target for job in window.jobs})
        assert not {job.source for job in window.jobs} & jobs.keys(), "each once"
        jobs |= {job.source: job.target for job in window.jobs}
        refused |= {str(result.error) for result in window.refused}
        number += 1
    assert worklist.is_complete
    return jobs, refused, dict(worklist.left_out), number


def test_windows_plan_what_one_window_plans(folder: Path, request: pytest.FixtureRequest) -> None:
    whole = planned(folder, RULES)
    assert whole[3] == 1
    request.getfixturevalue("small_windows")
    *small, number = planned(folder, RULES)
    assert tuple(small) == whole[:3]
    assert number > 8


def test_a_list_in_windows_names_outputs_as_the_folder_does(folder: Path, small_windows: None) -> None:
    whole, *_ = planned(folder, RULES)
    chosen = sorted(whole)[::3]
    listed, *_ = planned(folder, RULES, [path.relative_to(folder) for path in chosen])
    assert listed == {path: whole[path] for path in chosen}


def test_shards_in_windows_are_parts_of_the_whole(folder: Path, request: pytest.FixtureRequest) -> None:
    whole, refused, *_ = planned(folder, RULES)
    request.getfixturevalue("small_windows")
    shards = [planned(folder, replace(RULES, shard=Shard(index, 3))) for index in (1, 2, 3)]
    assert {source: target for jobs, *_ in shards for source, target in jobs.items()} == whole
    assert sum(len(jobs) for jobs, *_ in shards) == len(whole)
    assert set().union(*(each[1] for each in shards)) == refused


def test_large_files_come_first_where_workers_are_to_end_together(folder: Path) -> None:
    for number in range(40):
        (folder / f"many/{number}.png").write_bytes(bytes(1 + number * 7 % 40))
    jobs, *_ = planned(folder, replace(RULES, largest_first=True))
    sizes = [path.stat().st_size for path in jobs]
    assert sizes == sorted(sizes, reverse=True)


def test_the_first_window_does_not_read_the_list_to_its_end(folder: Path, small_windows: None) -> None:
    def lines() -> Iterator[Path]:
        for number in range(40):
            yield Path(f"many/{number}.png")
            assert number < 12, "as far as two parts"

    worklist = listed_worklist(folder, lines(), RULES)
    assert len(worklist.jobs) == 4
    assert not worklist.is_complete


def test_an_output_that_exists_in_a_later_window_is_kept(folder: Path, small_windows: None) -> None:
    whole, *_ = planned(folder, RULES)
    kept = whole[folder / "many/39.png"]
    kept.parent.mkdir(parents=True)
    kept.touch()
    worklist = make_worklist([folder], RULES)
    jobs = {job.source for window in worklist.windows() for job in window.jobs}
    assert jobs == whole.keys() - {folder / "many/39.png"}
    assert worklist.skipped == 1


def test_a_run_over_windows_upscales_and_counts_everything(
    tmp_path: Path, small_windows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        path = tmp_path / "in" / f"{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(path)
    (tmp_path / "in/2/broken.png").write_bytes(b"damaged")
    command = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(main, command, obj=lambda upscaling, settings: UpscalerSetup(Doubling()))
    assert result.exit_code == 1
    *lines, last = map(json.loads, result.stdout.splitlines())
    assert last["summary"]["done"] == 20
    assert last["summary"]["failed"] == 1
    assert len(lines) == 21
    again = CliRunner().invoke(
        main, [*command, "--skip-existing"], obj=lambda upscaling, settings: UpscalerSetup(Doubling())
    )
    assert json.loads(again.stdout.splitlines()[-1])["summary"]["skipped"] == 20


STEMS = st.sampled_from(["a", "b", "in_a", "a_x3", "a_jpg"])
ENDINGS = st.sampled_from([".png", ".jpg", ".webp", ""])


@given(st.sets(st.builds(lambda stem, ending: stem + ending, STEMS, ENDINGS)), st.randoms())
def test_only_kin_share_names(names: set[str], chance: object) -> None:
    """Files that are not akin can be told apart on their own."""

    def named(source: Path, stem: str) -> str:
        return f"{stem}_x3.png"

    def told(some: set[str]) -> dict[str, str]:
        jobs = [FileJob(Path(f"/in/{name}"), Path(f"/out/{Path(name).stem}_x3.png")) for name in sorted(some)]
        kept, refused = told_apart(jobs, named)
        return {job.source.name: job.target.name for job in kept} | {
            result.job.source.name: "refused" for result in refused
        }

    kin = kinship("in", "_x3")
    families: dict[str, set[str]] = {}
    for name in names:
        families.setdefault(kin(name), set()).add(name)
    assert told(names) == {name: to for family in families.values() for name, to in told(family).items()}


@pytest.mark.slow
def test_a_hundred_thousand_names_take_little_memory(tmp_path: Path) -> None:
    """In folders of 1,000, and all in one; a path and its job took a kilobyte each when all were kept."""
    parents = b"." * 200 * 2**20  # does not count
    for folder_size in (1000, 100_000):
        scratch = tmp_path / str(folder_size)
        scratch.mkdir()
        listing.make_tree(scratch / "in", 100_000, folder_size)
        figures = listing._planned(scratch / "in", scratch / "out")
        assert figures["jobs"] == 100_000
        assert 0 < figures["planning_peak_rss_mib"] < 160 < len(parents) / 2**20
        shutil.rmtree(scratch)
