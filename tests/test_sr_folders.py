"""Which files a command line means, and what is known of those that were upscaled before."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sr.errors import ImageError
from sr.folders import OutputRules, plan_jobs
from sr.ledger import NAME, Ledger
from sr.pipeline import FileJob

RULES = OutputRules(suffix="_x3")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def planned(root: Path, inputs: list[str], rules: OutputRules = RULES) -> dict[str, str]:
    """Return what is to be upscaled into what, relative to `root`."""
    plan = plan_jobs([root / name for name in inputs], rules)
    return {
        job.source.relative_to(root).as_posix(): job.target.relative_to(root).as_posix() for job in plan.jobs
    }


def refused(root: Path, inputs: list[str], rules: OutputRules = RULES) -> str:
    with pytest.raises(ImageError) as caught:
        plan_jobs([root / name for name in inputs], rules)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_tree_is_mirrored_in_sorted_order(tmp_path: Path) -> None:
    touch(tmp_path, "in/b.png", "in/a.JPG", "in/d/ä ö.webp", "in/notes.txt", "in/.srup-12.png")
    assert list(planned(tmp_path, ["in"]).items()) == [
        ("in/a.JPG", "in_x3/a_x3.png"),
        ("in/b.png", "in_x3/b_x3.png"),
        ("in/d/ä ö.webp", "in_x3/d/ä ö_x3.png"),
    ]


def test_suffix_and_format_make_the_name(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "b.jpg")
    rules = OutputRules(suffix="-big", format=".webp")
    assert planned(tmp_path, ["in", "b.jpg"], rules) == {
        "in/a.jpg": "in-big/a-big.webp",
        "b.jpg": "b-big.webp",
    }
    plain = replace(rules, suffix="", output=tmp_path / "out")
    assert planned(tmp_path, ["in"], plain) == {"in/a.jpg": "out/a.webp"}
    assert "name one (-o)" in refused(tmp_path, ["in"], replace(plain, output=None))


@pytest.mark.parametrize(
    ("include", "exclude", "taken"),
    [
        ((), (), {"a.png", "b.jpg", "raw/c.png"}),
        (("*.png",), (), {"a.png", "raw/c.png"}),
        (("raw/*",), (), {"raw/c.png"}),
        ((), ("raw/*",), {"a.png", "b.jpg"}),
        (("*.png", "b*"), ("c.png",), {"a.png", "b.jpg"}),
    ],
)
def test_globs(tmp_path: Path, include: tuple[str, ...], exclude: tuple[str, ...], taken: set[str]) -> None:
    touch(tmp_path, "in/a.png", "in/b.jpg", "in/raw/c.png")
    rules = replace(RULES, include=include, exclude=exclude)
    assert set(planned(tmp_path, ["in"], rules)) == {f"in/{name}" for name in taken}


def test_globs_that_leave_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png")
    assert "none of the 1 pictures" in refused(tmp_path, ["in"], replace(RULES, include=("*.tif",)))


def test_earlier_outputs_beside_their_inputs_are_not_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/a_x2.png", "in/a_x4.png", "in/lonely_x2.png", "in/d/a_x3.png")
    plan = plan_jobs([tmp_path / "in"], RULES)
    assert [path.name for path in plan.ours] == ["a_x2.png", "a_x4.png"]
    assert {job.source.name for job in plan.jobs} == {"a.jpg", "lonely_x2.png", "a_x3.png"}


def test_the_output_folder_inside_the_input_folder_is_no_input(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/out/b.png")
    assert set(planned(tmp_path, ["in"], replace(RULES, output=tmp_path / "in/out"))) == {"in/a.jpg"}


def test_what_exists_is_refused_replaced_or_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/b.jpg", "in/c.jpg", "in_x3/a_x3.png", "in_x3/b_x3.png")
    message = refused(tmp_path, ["in"])
    assert "a_x3.png and 1 more: exists already" in message
    assert "--overwrite" in message
    assert "--skip-existing" in message
    assert len(planned(tmp_path, ["in"], replace(RULES, existing="overwrite"))) == 3
    skip = replace(RULES, existing="skip")
    assert set(planned(tmp_path, ["in"], skip)) == {"in/c.jpg"}
    assert [job.source.name for job in plan_jobs([tmp_path / "in"], skip).done] == ["a.jpg", "b.jpg"]


def test_a_broken_link_in_the_place_of_an_output_exists(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "a_x3.png").symlink_to(tmp_path / "absent")
    assert "exists already" in refused(tmp_path, ["a.jpg"])


def test_a_picture_or_setting_that_changed_is_redone(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/b.jpg", "in_x3/a_x3.png", "in_x3/b_x3.png")
    rules = replace(RULES, existing="skip", settings="x3 small fp32")
    done = plan_jobs([tmp_path / "in"], rules)
    for job in done.done:
        assert job.ledger is not None
        done.ledgers[job.ledger].add(job)
    assert planned(tmp_path, ["in"], rules) == {}

    (tmp_path / "in/b.jpg").write_bytes(b"changed")
    assert set(planned(tmp_path, ["in"], rules)) == {"in/b.jpg"}
    os.utime(tmp_path / "in/a.jpg", ns=(1, 1))
    assert set(planned(tmp_path, ["in"], rules)) == {"in/a.jpg", "in/b.jpg"}


def test_other_settings_redo_everything(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in_x3/a_x3.png")
    rules = replace(RULES, existing="skip", settings="one")
    plan = plan_jobs([tmp_path / "in"], rules)
    plan.ledgers[tmp_path / "in_x3"].add(plan.done[0])
    assert planned(tmp_path, ["in"], rules) == {}
    assert set(planned(tmp_path, ["in"], replace(rules, settings="other"))) == {"in/a.jpg"}


def test_a_ledger_that_a_crash_cut_off_keeps_its_whole_lines(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/b.jpg")
    jobs = [FileJob(tmp_path / f"in/{n}.jpg", tmp_path / f"{n}.png", ledger=tmp_path) for n in "ab"]
    ledger = Ledger(tmp_path, settings="s")
    for job in jobs:
        ledger.add(job)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-20] + b"\n\xff\xfe{")
    (tmp_path / "in/a.jpg").write_bytes(b"changed")
    (tmp_path / "in/b.jpg").write_bytes(b"changed")
    again = Ledger(tmp_path, settings="s")
    assert not again.is_done(jobs[0])
    assert again.is_done(jobs[1]), "without a record an output counts by its name"
