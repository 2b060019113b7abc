"""Which files a command line means, and what is known of those that were upscaled before."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr.errors import ImageError
from sr.image.content import NOT_A_PICTURE, SYSTEM
from sr.jobs.find import OUTPUT
from sr.jobs.ledger import NAME, Ledger
from sr.jobs.pipeline import FileJob
from sr.jobs.worklist import OutputRules, Worklist, check_inputs, listed_worklist, make_worklist
from tests.pictures import apng, encoded, gif, tiff_16

RULES = OutputRules(suffix="_x3")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def planned(root: Path, inputs: list[str], rules: OutputRules = RULES) -> dict[str, str]:
    """Return what is to be upscaled into what, relative to `root`."""
    worklist = make_worklist([root / name for name in inputs], rules)
    return {
        job.source.relative_to(root).as_posix(): job.target.relative_to(root).as_posix()
        for job in worklist.jobs
    }


def record(worklist: Worklist) -> None:
    """Put what is there already on record, as a run does."""
    for job in worklist.done:
        assert job.ledger is not None
        worklist.ledgers[job.ledger].begin([job])
        worklist.ledgers[job.ledger].add(job)


def refused(root: Path, inputs: list[str], rules: OutputRules = RULES) -> str:
    with pytest.raises(ImageError) as caught:
        make_worklist([root / name for name in inputs], rules)
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
    assert "--include" in refused(tmp_path, ["in"], replace(RULES, include=("*.tif",)))


def test_earlier_outputs_beside_their_inputs_are_not_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/a_x2.png", "in/a_x4.png", "in/lonely_x2.png", "in/d/a_x3.png")
    worklist = make_worklist([tmp_path / "in"], RULES)
    assert worklist.left_out == {OUTPUT: 2}
    assert {job.source.name for job in worklist.jobs} == {"a.jpg", "lonely_x2.png", "a_x3.png"}


def test_the_output_folder_inside_the_input_folder_is_no_input(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/out/b.png")
    assert set(planned(tmp_path, ["in"], replace(RULES, output=tmp_path / "in/out"))) == {"in/a.jpg"}


def test_what_exists_is_refused_replaced_or_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/b.jpg", "in/c.jpg", "in_x3/a_x3.png", "in_x3/b_x3.png")
    message = refused(tmp_path, ["in"])
    assert "a_x3.png" in message
    assert "--overwrite" in message
    assert "--skip-existing" in message
    assert len(planned(tmp_path, ["in"], replace(RULES, existing="overwrite"))) == 3
    skip = replace(RULES, existing="skip")
    assert set(planned(tmp_path, ["in"], skip)) == {"in/c.jpg"}
    assert [job.source.name for job in make_worklist([tmp_path / "in"], skip).done] == ["a.jpg", "b.jpg"]


def test_a_broken_link_in_the_place_of_an_output_exists(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "a_x3.png").symlink_to(tmp_path / "absent")
    assert "exists already" in refused(tmp_path, ["a.jpg"])


def test_a_picture_or_setting_that_changed_is_redone(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/b.jpg", "in_x3/a_x3.png", "in_x3/b_x3.png")
    rules = replace(RULES, existing="skip", settings="x3 small fp32")
    done = make_worklist([tmp_path / "in"], rules)
    record(done)
    assert planned(tmp_path, ["in"], rules) == {}

    (tmp_path / "in/b.jpg").write_bytes(b"changed")
    assert set(planned(tmp_path, ["in"], rules)) == {"in/b.jpg"}
    os.utime(tmp_path / "in/a.jpg", ns=(1, 1))
    assert set(planned(tmp_path, ["in"], rules)) == {"in/a.jpg", "in/b.jpg"}


def test_other_settings_redo_everything(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in_x3/a_x3.png")
    rules = replace(RULES, existing="skip", settings="one")
    worklist = make_worklist([tmp_path / "in"], rules)
    record(worklist)
    assert planned(tmp_path, ["in"], rules) == {}
    assert set(planned(tmp_path, ["in"], replace(rules, settings="other"))) == {"in/a.jpg"}


def test_a_ledger_that_a_crash_cut_off_keeps_its_whole_lines(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/b.jpg")
    jobs = [FileJob(tmp_path / f"in/{n}.jpg", tmp_path / f"{n}.png", ledger=tmp_path) for n in "ab"]
    ledger = Ledger(tmp_path, settings="s")
    ledger.begin(jobs)
    for job in jobs:
        ledger.add(job)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-20] + b"\n\xff\xfe{")
    (tmp_path / "in/a.jpg").write_bytes(b"changed")
    (tmp_path / "in/b.jpg").write_bytes(b"changed")
    again = Ledger(tmp_path, settings="s")
    assert not again.is_done(jobs[0])
    assert again.is_done(jobs[1]), "without a record an output counts by its name"


def test_a_picture_that_changes_while_it_is_upscaled_is_redone(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in_x3/a_x3.png")
    rules = replace(RULES, existing="skip", settings="s")
    worklist = make_worklist([tmp_path / "in"], rules)
    ledger = worklist.ledgers[tmp_path / "in_x3"]
    ledger.begin(worklist.done)
    (tmp_path / "in/a.jpg").write_bytes(b"changed")
    ledger.add(worklist.done[0])
    assert set(planned(tmp_path, ["in"], rules)) == {"in/a.jpg"}


def test_what_a_killed_run_may_have_replaced_is_redone_by_the_settings_before(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in_x3/a_x3.png")
    first, second = (replace(RULES, existing="skip", settings=name) for name in ("first", "second"))
    record(make_worklist([tmp_path / "in"], first))
    killed = make_worklist([tmp_path / "in"], second)
    killed.ledgers[tmp_path / "in_x3"].begin(killed.jobs)
    (tmp_path / "in_x3/a_x3.png").write_bytes(b"made with the second settings")
    assert set(planned(tmp_path, ["in"], first)) == {"in/a.jpg"}
    assert set(planned(tmp_path, ["in"], second)) == {"in/a.jpg"}


def test_an_input_that_vanished_is_not_recorded(tmp_path: Path) -> None:
    ledger, job = Ledger(tmp_path, settings="s"), FileJob(tmp_path / "absent.jpg", tmp_path / "a.png")
    ledger.begin([job])
    ledger.add(job)
    assert not (tmp_path / NAME).exists()


def test_a_missing_input_is_refused_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    check_inputs([tmp_path, tmp_path / "a.png"])
    (tmp_path / "link.png").symlink_to(tmp_path / "absent")
    with pytest.raises(ImageError, match=r"b\.png, .*link\.png"):
        check_inputs([tmp_path / name for name in ("a.png", "b.png", "link.png")])


def animated(kind: str, frames: int) -> bytes:
    images = [Image.new("RGB", (8, 8), (40 * number, 0, 0)) for number in range(frames)]
    return encoded(images[0], kind, save_all=True, append_images=images[1:])


def test_animations_and_pages_keep_their_kind(tmp_path: Path) -> None:
    still = [np.zeros((8, 8), np.uint8)] * 2
    contents = {
        "g.gif": encoded(still[0], "GIF"),
        "g2.gif": gif([(frame, (0, 0), 0, None, 5) for frame in still], size=(8, 8), palette=bytes(12)),
        "w.webp": animated("WEBP", 1),
        "w2.WEBP": animated("WEBP", 3),
        "a.avif": animated("AVIF", 1),
        "a2.avif": animated("AVIF", 3),
        "t.tif": animated("TIFF", 1),
        "deep.tif": tiff_16(np.zeros((4, 4, 1), np.uint16), photometric=1),
        "t2.tiff": animated("TIFF", 2),
        "p2.png": apng(3),
        "cut.gif": animated("GIF", 3)[:40],
        "text.webp": b"no picture",
        "gif.tif": animated("GIF", 3),  # the content says what it is
        "empty.tif": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    kept = {
        "g2.gif": "gif",
        "w2.WEBP": "webp",
        "a2.avif": "avif",
        "t2.tiff": "tif",
        "gif.tif": "gif",
    }
    inputs = sorted(contents)
    worklist = make_worklist(
        [tmp_path / name for name in inputs], OutputRules(output=tmp_path / "out", suffix="")
    )
    formats = {job.source.name: job.target.suffix[1:] for job in worklist.jobs}
    assert formats == {name: kept.get(name, "png") for name in inputs}
    assert worklist.suffixes == {".png", *(f".{suffix}" for suffix in kept.values())}
    named = make_worklist([tmp_path / "g2.gif"], OutputRules(format=".webp"))
    assert named.jobs[0].target.name == "g2_x2.webp"


def test_pictures_that_are_not_read_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/b.HEIC", "in/raw/c.cr3", "in/notes.txt", "other/d.jxl", "other/e.png")
    worklist = make_worklist([tmp_path / "in", tmp_path / "other"], RULES)
    kinds = {f"unsupported format {suffix}": 1 for suffix in (".heic", ".cr3", ".jxl")}
    assert worklist.left_out == kinds | {NOT_A_PICTURE: 1}
    only = make_worklist([tmp_path / "in"], replace(RULES, include=("*.jpg",)))
    assert not only.left_out


def test_what_is_a_picture_is_decided_by_content(tmp_path: Path) -> None:
    """Suffixes that cameras and programs use beside the usual ones, and no suffix at all."""
    picture = encoded(np.zeros((8, 8, 3), np.uint8), "JPEG")
    names = ("a.jfif", "b.jpe", "c.mpo", "d.JPG_original", "no_suffix")
    for name in names:
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(picture)
    (tmp_path / "in/e.btf").write_bytes(encoded(np.zeros((8, 8), np.uint8), "TIFF"))
    touch(tmp_path, "in/notes.txt", "in/damaged.png")
    worklist = make_worklist([tmp_path / "in"], RULES)
    assert {job.source.name for job in worklist.jobs} == {*names, "e.btf", "damaged.png"}
    assert worklist.left_out == {NOT_A_PICTURE: 1}


def test_files_of_systems_are_no_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/._a.jpg", "in/.DS_Store", "in/Thumbs.db")
    for folder in ("__MACOSX", "@eaDir", ".thumbnails"):
        touch(tmp_path, f"in/{folder}/a.jpg")
    worklist = make_worklist([tmp_path / "in"], RULES)
    assert [job.source.name for job in worklist.jobs] == ["a.jpg"]
    assert worklist.left_out == {SYSTEM: 3}


# --- names --------------------------------------------------------------------------------------


def test_outputs_whose_names_would_clash_are_named_after_their_sources(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/a.png", "in/b.png", "in/d/c.JPG", "in/d/c.webp")
    assert planned(tmp_path, ["in"]) == {
        "in/a.jpg": "in_x3/a_jpg_x3.png",
        "in/a.png": "in_x3/a_png_x3.png",
        "in/b.png": "in_x3/b_x3.png",
        "in/d/c.JPG": "in_x3/d/c_JPG_x3.png",
        "in/d/c.webp": "in_x3/d/c_webp_x3.png",
    }


def test_a_list_of_some_files_names_their_outputs_as_among_all(tmp_path: Path) -> None:
    touch(
        tmp_path, "in/a.jpg", "in/a.png", "in/a_jpg.webp", "in/b.png", "in/b.txt", "in/d/c.png", "in/d/c.GIF"
    )
    among_all = planned(tmp_path, ["in"])
    assert len(set(among_all.values())) == 6
    for source, target in among_all.items():
        listed = listed_worklist(tmp_path / "in", [Path(source).relative_to("in")], RULES)
        assert [job.target.relative_to(tmp_path).as_posix() for job in listed.jobs] == [target]
        assert not listed.refused
    some = listed_worklist(tmp_path / "in", [Path("a.jpg")], replace(RULES, exclude=("*.png", "*.webp")))
    assert [job.target.name for job in some.jobs] == ["a_x3.png"]


def test_pictures_of_one_name_from_several_folders(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.png", "y/a.png", "x/y/a.png")
    files = ["x/a.png", "y/a.png"]
    assert planned(tmp_path, files, replace(RULES, output=tmp_path / "out")) == {
        "x/a.png": "out/x_a_png_x3.png",
        "y/a.png": "out/y_a_png_x3.png",
    }
    twice = planned(tmp_path, ["x/a.png", "x/a.png"])
    assert twice == {"x/a.png": "x/a_x3.png"}
    worklist = make_worklist(
        [tmp_path / name for name in (*files, "x/y/a.png")], replace(RULES, output=tmp_path / "out")
    )
    assert [job.target.name for job in worklist.jobs] == ["x_a_png_x3.png"]
    assert len(worklist.refused) == 2, "the third level of one name is refused, the rest goes on"


def test_an_output_in_the_place_of_an_input_is_refused_alone(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "in/b.jpg")
    rules = replace(RULES, output=tmp_path / "in", suffix="")
    worklist = make_worklist([tmp_path / "in/a.png", tmp_path / "in/b.jpg"], replace(rules, existing="skip"))
    assert [job.target.name for job in worklist.jobs] == ["b.png"]
    (refused_,) = worklist.refused
    assert "a.png" in str(refused_.error)


def test_outputs_beside_their_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/d/b.png")
    rules = replace(RULES, output=tmp_path / "in", existing="skip", settings="s")
    assert planned(tmp_path, ["in"], rules) == {"in/a.jpg": "in/a_x3.png", "in/d/b.png": "in/d/b_x3.png"}
    touch(tmp_path, "in/a_x3.png", "in/d/b_x3.png")
    again = make_worklist([tmp_path / "in"], rules)
    assert (again.jobs, len(again.done), again.left_out) == ([], 2, {OUTPUT: 2})


def test_a_folder_may_have_a_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    rules = replace(RULES, output=tmp_path / "2024.05.01", is_folder=True)
    assert planned(tmp_path, ["a.jpg"], rules) == {"a.jpg": "2024.05.01/a_x3.png"}


# --- runs inside runs ---------------------------------------------------------------------------


def test_outputs_of_a_run_on_a_subfolder_are_left_alone(tmp_path: Path) -> None:
    touch(tmp_path, "t/a.jpg", "t/sub/b.jpg")
    first = make_worklist([tmp_path / "t/sub"], replace(RULES, settings="s"))
    touch(tmp_path, "t/sub_x3/b_x3.png", "t/sub_x3/left/unrecorded_x3.png")
    ledger = first.ledgers[tmp_path / "t/sub_x3"]
    ledger.begin(first.jobs)
    ledger.add(first.jobs[0])
    whole = make_worklist([tmp_path / "t"], RULES)
    assert {job.source.relative_to(tmp_path).as_posix() for job in whole.jobs} == {"t/a.jpg", "t/sub/b.jpg"}
    assert whole.left_out == {OUTPUT: 2}
    # Whoever names the folder of outputs means it.
    named = make_worklist([tmp_path / "t/sub_x3"], RULES)
    assert {job.source.name for job in named.jobs} == {"b_x3.png", "unrecorded_x3.png"}


def test_recorded_outputs_in_a_folder_of_any_name_are_left_alone(tmp_path: Path) -> None:
    touch(tmp_path, "t/a.jpg", "t/out/own.jpg")
    first = make_worklist([tmp_path / "t"], replace(RULES, output=tmp_path / "t/out", settings="s"))
    touch(tmp_path, "t/out/a_x3.png")
    ledger = first.ledgers[tmp_path / "t/out"]
    ledger.begin(first.jobs)
    ledger.add(first.jobs[0])
    again = make_worklist([tmp_path / "t"], RULES)
    assert {job.source.name for job in again.jobs} == {"a.jpg", "own.jpg"}
    assert again.left_out == {OUTPUT: 1}


def test_ledgers_of_several_writers_are_merged(tmp_path: Path) -> None:
    """Of two entries for one output the later one counts, whichever file it is in."""
    touch(tmp_path, "a.jpg", "b.jpg")
    jobs = [FileJob(tmp_path / f"{n}.jpg", tmp_path / f"out/{n}.png", ledger=tmp_path / "out") for n in "ab"]
    (tmp_path / "out").mkdir()
    for job, writer in zip(jobs, ("2-of-2", ""), strict=True):
        ledger = Ledger(tmp_path / "out", settings="old", writer=writer)
        ledger.begin([job])
        ledger.add(job)
    first = Ledger(tmp_path / "out", settings="new", writer="1-of-2")
    assert not first.is_done(jobs[0])
    first.begin(jobs[:1])
    first.add(jobs[0])
    merged = {settings: Ledger(tmp_path / "out", settings=settings) for settings in ("old", "new")}
    assert [merged["new"].is_done(job) for job in jobs] == [True, False]
    assert [merged["old"].is_done(job) for job in jobs] == [False, True]


def test_a_folder_that_cannot_be_listed_is_noted(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/closed/b.jpg")
    (tmp_path / "in/closed").chmod(0)
    try:
        if os.access(tmp_path / "in/closed", os.R_OK):
            pytest.skip("permissions do not bind this user")
        worklist = make_worklist([tmp_path / "in"], RULES)
    finally:
        (tmp_path / "in/closed").chmod(0o755)
    assert [job.source.name for job in worklist.jobs] == ["a.jpg"]
    (warning,) = worklist.warnings
    assert str(tmp_path / "in/closed") in warning
