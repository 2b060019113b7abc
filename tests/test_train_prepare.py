"""`srup prepare`: patches and whole pairs, known layouts, what a second run makes, what is refused."""

import json
import os
import re
import select
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import train.prepare.make
from sr.cli import main
from sr.errors import DataError
from sr.image.content import NOT_A_PICTURE, SYSTEM
from sr.metrics import y_channel
from sr.resize import bicubic_resize
from train.data.degrade import Degradation
from train.data.pairs import load_pair_list, read_opaque
from train.prepare.make import Prepared, PrepareSpec, prepare
from train.prepare.manifest import Manifest
from train.prepare.plan import patch_starts

LONG_AGO = 10**18  # ns


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def run(folder: Path, output: Path | None = None, **settings: Any) -> Prepared:
    """Prepare patches of 12 hr pixels at x2, unless `settings` say otherwise."""
    defaults: dict[str, Any] = {"scales": (2,), "patch_size": 12}
    return prepare(PrepareSpec(folder, output=output or folder.parent / "out", **(defaults | settings)))


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "prepare.json"
    }


def age(folder: Path) -> None:
    """Date all files back, so that what is written again can be told."""
    for path in folder.rglob("*.png"):
        os.utime(path, ns=(LONG_AGO, LONG_AGO))


def written(folder: Path) -> set[str]:
    """Return the pictures written since `age`."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.png")
        if path.stat().st_mtime_ns != LONG_AGO
    }


def refused(folder: Path, output: Path | None = None, **settings: Any) -> str:
    """Return the message; nothing may be left half-written."""
    with pytest.raises(DataError) as caught:
        run(folder, output, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert not list(folder.parent.rglob(".srup*"))
    return message


def places(height: int, width: int, *, size: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yield where patches lie, computed otherwise than in the library: step on, then clamp."""
    top = 0
    while True:
        left = 0
        while True:
            yield min(top, height - size), min(left, width - size)
            if left + size >= width:
                break
            left += stride
        if top + size >= height:
            break
        top += stride


# --- patches --------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_starts_cover_the_axis_to_its_end(length: int, patch_size: int, stride: int) -> None:
    starts = patch_starts(length, patch_size=patch_size, stride=stride)
    if length < patch_size:
        assert starts == []
        return
    assert starts == sorted(set(starts))
    assert (starts[0], starts[-1]) == (0, length - patch_size)
    assert all(start % stride == 0 for start in starts[:-1])
    if stride <= patch_size:
        covered = {p for start in starts for p in range(start, start + patch_size)}
        assert covered == set(range(length))


@pytest.mark.parametrize("stride", [None, 6, 24])
@pytest.mark.parametrize("scale", [2, 3])
def test_patches_lie_where_they_should_and_lr_is_of_the_whole(
    tmp_path: Path, scale: int, stride: int | None
) -> None:
    sizes = {"a": (41, 29), "b": (12, 12), "c": (36, 13)}  # with a rest, one patch exactly, one column
    for seed, (name, size) in enumerate(sizes.items()):
        write(tmp_path / f"hr/{name}.png", pixels(*size, 3, seed=seed))
    [one] = run(tmp_path / "hr", scales=(scale,), stride=stride).lists
    expected = {}
    for name, size in sizes.items():
        height, width = (side // scale * scale for side in size)
        hr = read_opaque(tmp_path / f"hr/{name}.png")[:height, :width]
        lr = bicubic_resize(hr, scale=Fraction(1, scale))
        for top, left in places(height, width, size=12, stride=stride or 12):
            cut = lr[top // scale : (top + 12) // scale, left // scale : (left + 12) // scale]
            expected[f"{name}_y{top:05d}_x{left:05d}.png"] = hr[top : top + 12, left : left + 12], cut
    pairs = load_pair_list(one.path)
    assert one.pairs == len(pairs) == len(expected)
    assert (one.pictures, one.flat, one.taken, one.computed) == (3, 0, 0, 3)
    assert [pair.hr.name for pair in pairs] == [pair.lr.name for pair in pairs] == sorted(expected)
    for pair in pairs:
        np.testing.assert_array_equal(read_opaque(pair.hr), expected[pair.hr.name][0])
        np.testing.assert_array_equal(read_opaque(pair.lr), expected[pair.lr.name][1])


def test_patches_that_bicubic_restores_are_dropped(tmp_path: Path) -> None:
    """A smooth ramp has much variance and no detail; noise has both."""
    image = np.zeros((24, 48, 3), np.uint8)
    image[:, :24] = np.linspace(0, 230, 24).astype(np.uint8)[:, None]
    image[:, 24:] = pixels(24, 24, 3)
    write(tmp_path / "hr/a.png", image)
    lr = bicubic_resize(image, scale=Fraction(1, 2))
    missed = y_channel(image) - bicubic_resize(y_channel(lr), scale=2)
    ramp, noise = missed[12:24, :12].var(), missed[:12, 36:].var()
    assert 0 < ramp < 5 < noise
    [kept] = run(tmp_path / "hr", min_variance=50, min_detail=5).lists
    assert kept.flat == 2  # those that do not touch the noise, nor the edge between
    assert not any("x00000" in pair.hr.name for pair in load_pair_list(kept.path))
    [all_of_it] = run(tmp_path / "hr", tmp_path / "all", min_variance=50, min_detail=ramp / 100).lists
    assert all_of_it.flat == 0
    assert "detail" in refused(tmp_path / "hr", tmp_path / "none", min_detail=1e5)


def test_flat_patches_are_dropped_and_counted(tmp_path: Path) -> None:
    image = np.full((24, 36, 3), 90, np.uint8)
    image[:12, 12:24] = pixels(12, 12, 3)
    image[12:, :12] += pixels(12, 12, 1) % 8  # varies a little
    write(tmp_path / "hr/a.png", image)
    write(tmp_path / "hr/flat.png", np.zeros((12, 12, 3), np.uint8))
    slight = float(y_channel(image[12:, :12]).var())
    assert 0 < slight < 10
    [one] = run(tmp_path / "hr", min_variance=slight * 1.01).lists
    assert [pair.hr.name for pair in load_pair_list(one.path)] == ["a_y00000_x00012.png"]
    assert (one.pairs, one.pictures, one.flat) == (1, 1, 6)
    assert {name for name in files(tmp_path / "out") if name.startswith("x2/")} == {
        "x2/HR/a_y00000_x00012.png",
        "x2/LR/a_y00000_x00012.png",
    }
    assert run(tmp_path / "hr", tmp_path / "more", min_variance=slight * 0.99).lists[0].flat == 5
    assert run(tmp_path / "hr", tmp_path / "all").lists[0].flat == 0
    assert "all 7" in refused(tmp_path / "hr", tmp_path / "none", min_variance=1e5)
    assert not (tmp_path / "none/x2.json").exists()


def test_pictures_without_room_for_a_patch_are_left_out_and_named(tmp_path: Path) -> None:
    for name, size in {"narrow": (40, 11), "low": (11, 40), "enough": (12, 13)}.items():
        write(tmp_path / f"hr/{name}.png", pixels(*size, 3))
    prepared = run(tmp_path / "hr")
    assert [source.path.name for source in prepared.too_small] == ["low.png", "narrow.png"]
    assert prepared.lists[0].pairs == 1
    assert any("12x12" in line and "low.png, narrow.png" in line for line in prepared.lines())
    again = run(tmp_path / "hr")
    assert (again.made, again.too_small) == (0, prepared.too_small)
    assert "1 complete" in next(again.lines())
    message = refused(tmp_path / "hr", tmp_path / "other", exclude=frozenset({"enough"}))
    assert "12x12" in message
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scales": (2, 3), "patch_size": 16}, "patch size 16"),
        ({"patch_size": 12, "stride": 7}, "stride 7"),
        ({"patch_size": 0}, "patch size 0"),
        ({"stride": 0}, "stride 0"),
        ({"min_variance": -1}, "min variance -1"),
        ({"min_variance": float("nan")}, "min variance nan"),
        ({"scales": ()}, "scales"),
        ({"scales": (0, 2)}, "scales"),
        ({"shrink": (0.5, 1.0)}, "shrink"),
        ({"shrink": (0.5,), "whole": True}, "shrunk"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        PrepareSpec(Path("hr"), **({"scales": (2,)} | settings))


def test_how_many_work_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(9):
        write(tmp_path / f"hr/{seed % 3}/{seed}.png", pixels(30, 26 + seed, 3, seed=seed))
    results = []
    for workers in (1, 5):
        monkeypatch.setattr(train.prepare.make, "available_cores", lambda workers=workers: workers)
        run(tmp_path / "hr", tmp_path / f"out{workers}", scales=(2, 3), min_variance=5)
        results.append(files(tmp_path / f"out{workers}"))
    assert results[0] == results[1]
    names = [entry["HR"] for entry in json.loads(results[0]["x3.json"])]
    assert names == sorted(names)
    first = (tmp_path / "out1/prepare.json").read_bytes()
    assert first == (tmp_path / "out5/prepare.json").read_bytes()


# --- whole pictures -------------------------------------------------------------------------------


def test_shrunk_copies_are_taken_besides_the_pictures(tmp_path: Path) -> None:
    image = pixels(40, 60, 3)
    for name in ("a", "a_at0.5"):  # the name of the copy is taken
        write(tmp_path / "hr" / f"{name}.png", image)
    folder = tmp_path / "out"
    prepared = run(tmp_path / "hr", folder, scales=(2,), patch_size=16, shrink=(0.5, 0.1))
    assert (prepared.pictures, prepared.made, len(prepared.too_small)) == (6, 4, 2)
    copies = {"a_at0.5-copy": (20, 30), "a_at0.5_at0.5": (20, 30)}
    for name, (height, width) in copies.items():
        small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
        lr = bicubic_resize(small, scale=Fraction(1, 2))
        for top, left in places(height, width, size=16, stride=16):
            file = f"{name}_y{top:05d}_x{left:05d}.png"
            hr_patch, lr_patch = (read_opaque(folder / "x2" / kind / file) for kind in ("HR", "LR"))
            assert np.array_equal(hr_patch, small[top : top + 16, left : left + 16])
            assert np.array_equal(lr_patch, lr[top // 2 : top // 2 + 8, left // 2 : left // 2 + 8])
    assert "a.png at 0.1, a_at0.5.png at 0.1" in "\n".join(prepared.lines())
    assert run(tmp_path / "hr", folder, scales=(2,), patch_size=16, shrink=(0.5, 0.1)).made == 0
    assert "shrink" in refused(tmp_path / "hr", folder, scales=(2,), patch_size=16)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_whole_pairs_are_cropped_hr_and_matlab_lr(tmp_path: Path, scale: int) -> None:
    sources = {
        "a-b": write(tmp_path / "hr/a/b.png", pixels(17, 22, 3)),
        "c": write(tmp_path / "hr/c.bmp", pixels(13, 13, 3, seed=1)),
        "flat": write(tmp_path / "hr/flat.png", np.zeros((9, 9, 3), np.uint8)),
        "grey": write(tmp_path / "hr/grey.PNG", pixels(12, 14, seed=2)),
    }
    write(tmp_path / "hr/left-out.png", pixels(12, 12, 3))
    write(tmp_path / "hr/._c.png", pixels(12, 12, 3))
    (tmp_path / "hr/notes.txt").write_text("no picture")
    exclude = frozenset({"left-out", "misspelt"})
    prepared = run(tmp_path / "hr", scales=(scale,), whole=True, exclude=exclude)
    [one] = prepared.lists
    assert (one.path, one.pairs, one.computed) == (tmp_path / f"out/x{scale}.json", 4, 4)
    assert "misspelt" in "\n".join(prepared.lines())
    entries = json.loads(one.path.read_text(encoding="utf-8"))
    assert entries == [{"HR": f"x{scale}/HR/{name}.png", "LR": f"x{scale}/LR/{name}.png"} for name in sources]
    for source, pair in zip(sources.values(), load_pair_list(one.path), strict=True):
        with Image.open(source) as picture:
            whole = np.asarray(picture.convert("RGB"))
        height, width = (side - side % scale for side in whole.shape[:2])
        hr = whole[:height, :width]
        np.testing.assert_array_equal(read_opaque(pair.hr), hr)
        np.testing.assert_array_equal(read_opaque(pair.lr), bicubic_resize(hr, scale=Fraction(1, scale)))


def test_pairs_can_be_moved_and_their_list_quoted_otherwise(tmp_path: Path) -> None:
    write(tmp_path / "hr/a.png", pixels(12, 24, 3))
    run(tmp_path / "hr")
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    pair_list = tmp_path / "elsewhere/x2.json"
    pairs = load_pair_list(pair_list)
    assert len(pairs) == 2
    assert all(path.is_file() for pair in pairs for path in (pair.hr, pair.lr))
    pair_list.write_text(pair_list.read_text().replace('"', "'"))
    assert load_pair_list(pair_list) == pairs


def test_a_whole_picture_smaller_than_the_scale_is_named(tmp_path: Path) -> None:
    write(tmp_path / "hr/a.png", pixels(2, 12, 3))
    write(tmp_path / "hr/b.png", pixels(12, 12, 3))
    prepared = run(tmp_path / "hr", whole=True, scales=(2, 3))
    (problem,) = prepared.problems
    assert "a.png: is 12x2, smaller than the scale 3" in problem
    assert [one.pictures for one in prepared.lists] == [1, 1]


# --- data sets as distributed ---------------------------------------------------------------------


def data_set(root: Path, prefix: str, names: tuple[str, ...] = ("0001", "0002", "0003")) -> Path:
    """Write hr pictures, and for all but the last a distinguishable lr picture at x2."""
    hr_folder = root / f"{prefix}HR"
    for seed, name in enumerate(names):
        write(hr_folder / f"{name}.png", pixels(25, 38, 3, seed=seed))
        if name != names[-1]:
            write(root / f"{prefix}LR_bicubic/X2/{name}x2.png", np.full((12, 19, 3), 10 + seed, np.uint8))
    return hr_folder


@pytest.mark.parametrize("prefix", ["", "DIV2K_train_"])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("from_parent", [False, True])
def test_distributed_lr_is_taken_and_the_rest_computed(
    tmp_path: Path, prefix: str, whole: bool, from_parent: bool
) -> None:
    hr_folder = data_set(tmp_path / "set", prefix)
    given = tmp_path / "set" if from_parent else hr_folder
    prepared = run(given, tmp_path / "out", scales=(2, 3), whole=whole)
    assert prepared.hr_folder == hr_folder
    two, three = prepared.lists
    assert (two.taken, two.computed) == (2, 1)
    assert (three.taken, three.computed) == (0, 3)
    assert any("2 taken" in line and "1 computed" in line for line in prepared.lines())
    for pair in load_pair_list(two.path):
        lr, name = read_opaque(pair.lr), pair.lr.stem[:4]
        if name != "0003":
            assert (lr == {"0001": 10, "0002": 11}[name]).all()
        elif whole:
            hr = read_opaque(hr_folder / "0003.png")[:24, :38]
            np.testing.assert_array_equal(lr, bicubic_resize(hr, scale=Fraction(1, 2)))
    assert run(given, tmp_path / "out", scales=(2, 3), whole=whole).made == 0


def test_an_lr_picture_that_comes_later_or_changes_is_taken(tmp_path: Path) -> None:
    hr_folder = data_set(tmp_path / "set", "")
    run(hr_folder, tmp_path / "out", whole=True)
    write(tmp_path / "set/LR_bicubic/X2/0003x2.png", np.full((12, 19, 3), 77, np.uint8))
    prepared = run(hr_folder, tmp_path / "out", whole=True)
    assert (prepared.made, prepared.lists[0].taken) == (1, 3)
    assert (read_opaque(tmp_path / "out/x2/LR/0003.png") == 77).all()


def test_lr_pictures_that_do_not_fit_are_all_named(tmp_path: Path) -> None:
    hr_folder = data_set(tmp_path / "set", "B_", ("1", "2", "3", "4"))
    lr_folder = tmp_path / "set/B_LR_bicubic/X2"
    write(lr_folder / "1x2.png", pixels(13, 19, 3))
    (lr_folder / "2x2.png").write_bytes(b"no picture")
    first, second = run(hr_folder, tmp_path / "out").problems
    assert first == f"{lr_folder / '1x2.png'}: is 19x13, need 19x12 for {hr_folder / '1.png'} at x2"
    assert second.startswith(f"{lr_folder / '2x2.png'}: ")
    assert run(hr_folder, tmp_path / "out", scales=(3,)).lists[0].computed == 4  # x2 does not matter


def test_several_hr_folders_are_named(tmp_path: Path) -> None:
    for prefix in ("DIV2K_train_", "DIV2K_valid_"):
        data_set(tmp_path / "DIV2K", prefix)
    for name in ("Set5", "Set14"):
        data_set(tmp_path / "sets" / name, "")
    message = refused(tmp_path / "DIV2K")
    assert all(str(tmp_path / f"DIV2K/DIV2K_{part}_HR") in message for part in ("train", "valid"))
    message = refused(tmp_path / "sets")
    assert all(str(tmp_path / f"sets/{part}/HR") in message for part in ("Set5", "Set14"))


def test_lr_pictures_are_never_sources(tmp_path: Path) -> None:
    hr_folder = data_set(tmp_path / "set", "A_")
    for folder in ("A_LR_bicubic", "A_LR_bicubic/X2"):
        assert "holds lr pictures" in refused(tmp_path / "set" / folder, tmp_path / "out")
    data_set(hr_folder / "more", "B_")
    assert run(hr_folder, tmp_path / "out", whole=True).pictures == 6
    # Among pictures of no layout as well.
    write(tmp_path / "loose/a.png", pixels(12, 12, 3))
    write(tmp_path / "loose/LRbicx2/a.png", pixels(6, 6, 3))
    write(tmp_path / "loose/colour/b.png", pixels(12, 12, 3))
    assert run(tmp_path / "loose", tmp_path / "out2", whole=True).pictures == 2


def test_where_pairs_go_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_set(tmp_path / "DIV2K", "DIV2K_valid_")
    data_set(tmp_path / "Set5", "")
    write(tmp_path / "photographs/a.png", pixels(12, 12, 3))
    monkeypatch.chdir(tmp_path)
    for folder, whole, expected in (
        ("DIV2K", True, "pairs/val/DIV2K_valid"),
        ("Set5/HR", True, "pairs/val/Set5"),
        ("photographs", True, "pairs/val/photographs"),
        ("photographs/../photographs/.", False, "pairs/train"),
    ):
        spec = PrepareSpec(Path(folder), scales=(2,), patch_size=12, whole=whole)
        assert prepare(spec).lists[0].path == Path(expected, "x2.json")
    monkeypatch.chdir(tmp_path / "Set5/HR")
    [one] = prepare(PrepareSpec(Path(), scales=(2,), whole=True)).lists
    assert one.path == Path("pairs/val/Set5/x2.json")
    assert one.taken == 2


# --- a second run ---------------------------------------------------------------------------------


def test_only_what_is_missing_is_made(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        write(tmp_path / f"hr/{name}.png", pixels(26, 30, 3, seed=seed))
    run(tmp_path / "hr", scales=(2, 3), min_variance=1)
    out = tmp_path / "out"
    before = files(out)
    age(out)
    prepared = run(tmp_path / "hr", scales=(2, 3), min_variance=1)
    assert (prepared.made, written(out), files(out)) == (0, set(), before)

    lost = {"x2/LR/a_y00000_x00012.png", "x3/HR/c_y00012_x00000.png"}
    for name in lost:
        (out / name).unlink()
    (out / "x3.json").unlink()
    prepared = run(tmp_path / "hr", scales=(2, 3), min_variance=1)
    assert prepared.made == 2
    assert written(out) == lost
    assert files(out) == before


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(6):
        write(tmp_path / f"hr/{seed}.png", pixels(24, 24, 3, seed=seed))
    run(tmp_path / "hr", tmp_path / "reference")
    monkeypatch.setattr(train.prepare.make, "available_cores", lambda: 1)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    spec = PrepareSpec(tmp_path / "hr", scales=(2,), patch_size=12, output=tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        prepare(spec, progress=stop)
    out = tmp_path / "out"
    assert not (out / "x2.json").exists()
    age(out)
    calls = []
    prepared = prepare(spec, progress=lambda *counts: calls.append(counts))
    assert prepared.made <= 3
    assert calls == [(done, prepared.made) for done in range(1, prepared.made + 1)]
    assert not {name for name in written(out) if Path(name).name[0] in "012"}
    assert files(out) == files(tmp_path / "reference")


def test_a_changed_picture_is_made_again(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write(tmp_path / f"hr/{name}.png", pixels(12, 24, 3, seed=seed))
    run(tmp_path / "hr")
    out = tmp_path / "out"
    age(out)
    write(tmp_path / "hr/a.png", pixels(12, 24, 3, seed=7))
    os.utime(tmp_path / "hr/a.png", ns=(1, 1))  # another time, whatever the clock's resolution
    assert run(tmp_path / "hr").made == 1
    assert {Path(name).name[0] for name in written(out)} == {"a"}
    assert len(written(out)) == 4
    np.testing.assert_array_equal(
        read_opaque(out / "x2/HR/a_y00000_x00012.png"), pixels(12, 24, 3, seed=7)[:, 12:]
    )
    # Another file for the same name.
    (tmp_path / "hr/b.png").unlink()
    write(tmp_path / "hr/b.bmp", pixels(12, 12, 3, seed=8))
    prepared = run(tmp_path / "hr")
    assert (prepared.made, prepared.lists[0].pairs) == (1, 3)
    np.testing.assert_array_equal(read_opaque(out / "x2/HR/b_y00000_x00000.png"), pixels(12, 12, 3, seed=8))


def test_pictures_and_scales_can_be_added(tmp_path: Path) -> None:
    write(tmp_path / "hr/b.png", pixels(12, 12, 3))
    run(tmp_path / "hr")
    age(tmp_path / "out")
    write(tmp_path / "hr/a.png", pixels(12, 12, 3, seed=1))
    assert run(tmp_path / "hr").made == 1
    assert [pair.hr.stem[0] for pair in load_pair_list(tmp_path / "out/x2.json")] == ["a", "b"]
    age(tmp_path / "out")
    prepared = run(tmp_path / "hr", scales=(3, 2, 3))
    assert [one.scale for one in prepared.lists] == [2, 3]
    assert {name[:2] for name in written(tmp_path / "out")} == {"x3"}
    # One picture less: not in the list, its files stay.
    run(tmp_path / "hr", exclude=frozenset({"a"}))
    assert [pair.hr.stem[0] for pair in load_pair_list(tmp_path / "out/x2.json")] == ["b"]
    assert (tmp_path / "out/x2/HR/a_y00000_x00000.png").exists()


def test_what_was_made_is_no_source(tmp_path: Path) -> None:
    write(tmp_path / "a.png", pixels(12, 12, 3))
    for output in ("pairs/train", "pairs/val/a"):
        for scales in ((2,), (2, 3)):
            prepared = run(tmp_path, tmp_path / output, scales=scales, whole="val" in output)
            assert prepared.pictures == 1
    message = refused(tmp_path / "pairs/train/x2/HR", tmp_path / "pairs/train", scales=(2, 3), overwrite=True)
    assert "would be replaced" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch_size": 6}, "patch size 12, not 6"),
        ({"stride": 6}, "stride 12, not 6"),
        ({"min_variance": 3}, "min variance 0.0, not 3.0"),
        ({"whole": True}, "mode patches, not whole"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    write(tmp_path / "hr/a.png", pixels(24, 24, 3))
    run(tmp_path / "hr")
    before = files(tmp_path / "out")
    message = refused(tmp_path / "hr", **changes)
    assert f"{tmp_path / 'out'}: holds pairs made with {words}" in message
    assert "-o" in message
    assert "--overwrite" in message
    assert "patch size" in refused(tmp_path / "hr", patch_size=6, scales=(3,))
    assert files(tmp_path / "out") == before


def test_pairs_of_another_folder_are_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write(tmp_path / folder / "a.png", pixels(24, 24, 3))
    run(tmp_path / "one")
    message = refused(tmp_path / "two")
    assert f"source folder {tmp_path / 'one'}, not {tmp_path / 'two'}" in message


def test_what_prepare_did_not_make_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "hr/a.png", pixels(12, 12, 3))
    foreign = tmp_path / "out/x2.json"
    foreign.parent.mkdir()
    foreign.write_text("[]")
    assert f"{foreign}: was not made by srup prepare" in refused(tmp_path / "hr")
    assert foreign.read_text() == "[]"
    run(tmp_path / "hr", scales=(3,))
    assert f"{foreign}: was not made" in refused(tmp_path / "hr", scales=(2, 3))
    write(tmp_path / "out/x4/LR/mine.png", pixels(3, 3, 3))
    assert f"{tmp_path / 'out/x4/LR'}: was not made" in refused(tmp_path / "hr", scales=(4,))
    run(tmp_path / "hr", overwrite=True)
    assert len(load_pair_list(foreign)) == 1
    assert len(load_pair_list(tmp_path / "out/x3.json")) == 1


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1}', '{"format": 99}', '{"format": 1, "pictures": []}']
)
def test_a_damaged_manifest_is_refused_and_can_be_replaced(tmp_path: Path, content: str) -> None:
    write(tmp_path / "hr/a.png", pixels(12, 12, 3))
    run(tmp_path / "hr")
    before = files(tmp_path / "out")
    (tmp_path / "out/prepare.json").write_text(content)
    assert f"{tmp_path / 'out/prepare.json'}: " in refused(tmp_path / "hr")
    assert run(tmp_path / "hr", overwrite=True).made == 1
    assert files(tmp_path / "out") == before


def test_overwrite_replaces_and_removes_what_is_stale(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write(tmp_path / f"hr/{name}.png", pixels(24, 24, 3, seed=seed))
    run(tmp_path / "hr")
    write(tmp_path / "out/x2/HR/.srup-left-by-a-kill.png", pixels(1, 1, 3))
    (tmp_path / "out/x2/notes.txt").write_text("mine")
    (tmp_path / "out/x2/HR/notes.txt").write_text("mine")
    (tmp_path / "out/mine.png").write_text("mine")
    prepared = run(tmp_path / "hr", patch_size=24, exclude=frozenset({"b"}), overwrite=True)
    assert prepared.lists[0].pairs == 1
    assert prepared.removed == 15
    assert any("15 stale" in line for line in prepared.lines())
    assert set(files(tmp_path / "out")) == {
        "mine.png",
        "x2.json",
        "x2/notes.txt",
        "x2/HR/notes.txt",
        "x2/HR/a_y00000_x00000.png",
        "x2/LR/a_y00000_x00000.png",
    }
    assert read_opaque(tmp_path / "out/x2/HR/a_y00000_x00000.png").shape == (24, 24, 3)
    age(tmp_path / "out")
    assert run(tmp_path / "hr", patch_size=24, exclude=frozenset({"b"})).made == 0


def test_overwrite_does_not_leave_scales_of_two_kinds(tmp_path: Path) -> None:
    write(tmp_path / "hr/a.png", pixels(24, 24, 3))
    run(tmp_path / "hr", scales=(2, 3))
    before = files(tmp_path / "out")
    assert "(--scale 3)" in refused(tmp_path / "hr", patch_size=6, overwrite=True)
    assert files(tmp_path / "out") == before
    age(tmp_path / "out")
    assert run(tmp_path / "hr", overwrite=True).made == 1  # the same settings: x3 can stay
    assert {name[:2] for name in written(tmp_path / "out")} == {"x2"}
    assert files(tmp_path / "out") == before
    assert run(tmp_path / "hr", scales=(2, 3)).made == 0
    run(tmp_path / "hr", scales=(2, 3), patch_size=6, overwrite=True)


# --- pictures that cannot be prepared -------------------------------------------------------------


@pytest.mark.parametrize(
    "others", [("a.bmp",), ("a.jpg", "a.bmp"), ("b/c.png", "b-c.png"), ("a/b-c.png", "a-b/c.png")]
)
def test_pictures_of_one_name_are_all_prepared(tmp_path: Path, others: tuple[str, ...]) -> None:
    names = ("a.png", *others)
    for seed, name in enumerate(names):
        write(tmp_path / "hr" / name, pixels(12, 12, 3, seed=seed))
    prepared = run(tmp_path / "hr")
    assert prepared.pictures == prepared.made == len(names)
    shown = {read_opaque(pair.hr).tobytes() for pair in load_pair_list(prepared.lists[0].path)}
    assert shown == {read_opaque(tmp_path / "hr" / name).tobytes() for name in names}
    assert run(tmp_path / "hr").made == 0


def test_what_is_a_picture_is_told_by_its_content(tmp_path: Path) -> None:
    write(tmp_path / "hr/a.png", pixels(12, 12, 3)).rename(tmp_path / "hr/a.photo")
    write(tmp_path / "hr/b.jpg", pixels(12, 12, 3, seed=1)).rename(tmp_path / "hr/b.jfif")
    write(tmp_path / "hr/__MACOSX/c.png", pixels(12, 12, 3, seed=2))
    write(tmp_path / "hr/@eaDir/d.png", pixels(12, 12, 3, seed=3))
    write(tmp_path / "hr/e.png", pixels(12, 12, 3, seed=4)).rename(tmp_path / "hr/._e.png")
    (tmp_path / "hr/notes.txt").write_text("no picture")
    prepared = run(tmp_path / "hr")
    assert (prepared.pictures, prepared.problems) == (2, ())
    assert prepared.left_out == {SYSTEM: 1, NOT_A_PICTURE: 1}
    assert f"{NOT_A_PICTURE} (1)" in next(prepared.lines())


def test_turned_pictures_are_prepared_upright(tmp_path: Path) -> None:
    (tmp_path / "hr").mkdir()
    stored, exif = pixels(12, 24, 3), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "hr/a.png", exif=exif)
    (pair,) = load_pair_list(run(tmp_path / "hr", whole=True).lists[0].path)
    np.testing.assert_array_equal(read_opaque(pair.hr), np.rot90(stored, -1))


def test_folders_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "hr").mkdir()
    (tmp_path / "hr/notes.txt").write_text("no picture")
    assert str(tmp_path / "hr") in refused(tmp_path / "hr")
    assert "absent" in refused(tmp_path / "absent")
    assert "notes.txt" in refused(tmp_path / "hr/notes.txt", tmp_path / "out")
    write(tmp_path / "hr/a.png", pixels(12, 12, 3))
    assert "all are excluded" in refused(tmp_path / "hr", exclude=frozenset({"a"}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kinds", ["cut", "text", "clear", "cut text", "cut cut clear"])
def test_bad_pictures_are_named_and_the_rest_is_prepared(tmp_path: Path, kinds: str) -> None:
    write(tmp_path / "hr/a.png", pixels(24, 24, 3))
    first = run(tmp_path / "hr").lists[0].path
    listed = first.read_bytes()
    bad = []
    for number, kind in enumerate(kinds.split()):
        path = write(tmp_path / f"hr/{number}.png", pixels(40, 40, 4 if kind == "clear" else 3))
        if kind != "clear":
            path.write_bytes(path.read_bytes()[:2000] if kind == "cut" else b"no picture")
        bad.append(path)
    for output in (tmp_path / "out", tmp_path / "new"):
        for _ in range(2):  # the second time nothing is left to do but to name them again
            prepared = run(tmp_path / "hr", output)
            assert len(prepared.problems) == len(bad)
            for path, problem in zip(bad, prepared.problems, strict=True):
                assert problem.startswith(f"{path}: ")
                assert "\n" not in problem
            assert not list(output.rglob("[0-9]_*.png"))
            assert prepared.lists[0].path.read_bytes() == listed
            with pytest.raises(DataError, match=r"hr/0\.png"):
                prepared.without_problems()
    for number, path in enumerate(bad):
        write(path, pixels(12, 12, 3, seed=number))
    assert run(tmp_path / "hr").made == len(bad)


def test_only_bad_pictures_are_an_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"hr/{name}.png", pixels(24, 24, 3)).write_bytes(b"no picture")
    message = refused(tmp_path / "hr")
    assert "a.png: " in message
    assert "b.png: " in message
    assert not (tmp_path / "out").exists()


def test_command_names_bad_pictures_and_ends_with_status_1(tmp_path: Path) -> None:
    write(tmp_path / "hr/a.png", pixels(24, 24, 3))
    for i in range(12):
        write(tmp_path / f"hr/bad{i:02}.png", pixels(2, 2, 3)).write_bytes(b"no picture")
    result = srup_prepare(tmp_path / "hr", "--patch-size", 12, "--scale", 2, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert (tmp_path / "out/x2.json").exists()
    last = result.stderr.splitlines()[-1]
    assert "12" in last
    assert [f"bad{i:02}.png" in last for i in range(12)] == [True] * 10 + [False] * 2


# --- degraded pairs -------------------------------------------------------------------------------


def test_lr_is_degraded_by_the_seed_and_shown(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path / f"hr/{seed}.png", pixels(48, 60, 3, seed=seed))
    how = Degradation(noise=1.0, noise_sigma=(5.0, 5.0), noise_signal=0.0)
    settings: dict[str, Any] = {"whole": True, "degradation": how}
    prepared = run(tmp_path / "hr", tmp_path / "one", **settings)
    for pair in load_pair_list(prepared.lists[0].path):
        hr, lr = read_opaque(pair.hr), read_opaque(pair.lr)
        noise = lr.astype(float) - bicubic_resize(hr, scale=Fraction(1, 2))
        assert 3 < noise.std() < 6
    (sheet,) = prepared.samples
    assert read_opaque(sheet).shape[0] > 3 * 48
    run(tmp_path / "hr", tmp_path / "two", **settings)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    run(tmp_path / "hr", tmp_path / "three", **settings, seed=1)
    assert files(tmp_path / "one") != files(tmp_path / "three")
    assert run(tmp_path / "hr", tmp_path / "one", **settings).made == 0
    assert "--overwrite" in refused(tmp_path / "hr", tmp_path / "one", whole=True)


def test_patches_are_chosen_on_clean_pictures(tmp_path: Path) -> None:
    """Noise is detail that bicubic does not restore; it must not save a flat patch."""
    write(tmp_path / "hr/a.png", np.full((24, 24, 3), 99, np.uint8))
    write(tmp_path / "hr/b.png", pixels(24, 24, 3))
    how = Degradation(noise=1.0, noise_sigma=(50.0, 50.0))
    assert run(tmp_path / "hr", min_detail=20.0, degradation=how).lists[0].flat == 4


def test_command_degrades(tmp_path: Path) -> None:
    write(tmp_path / "hr/a.png", pixels(48, 48, 3))
    common = (tmp_path / "hr", "--scale", 2, "--whole", "-o", tmp_path / "out")
    result = srup_prepare(*common, "--degrade", "restore", "--degrade", "clean=0", "--seed", 3)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out/x2-degraded.png").exists()
    bad = srup_prepare(*common, "--degrade", "noise=2")
    assert bad.exit_code == 1
    assert "noise" in bad.stderr


# --- the disk and the manifest --------------------------------------------------------------------


def test_a_full_disk_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "hr/a.png", pixels(24, 24, 3))

    def full(self: Image.Image, path: Path, **_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert "No space left on device" in refused(tmp_path / "hr")


def test_the_manifest_survives_being_written(tmp_path: Path) -> None:
    data_set(tmp_path / "set", "")
    run(tmp_path / "set", tmp_path / "out", scales=(2, 3), min_variance=50)
    from train.prepare.manifest import open_manifest

    path = tmp_path / "out/prepare.json"
    before = path.read_bytes()
    settings = json.loads(before)["settings"]
    manifest = open_manifest(tmp_path / "out", settings=settings, scales=(2,), overwrite=False)
    assert isinstance(manifest, Manifest)
    status = (tmp_path / "set/HR/0001.png").stat()
    stamp = manifest.records["0001"].stamp
    assert (stamp.bytes, stamp.mtime_ns) == (status.st_size, status.st_mtime_ns)
    manifest.save()
    assert path.read_bytes() == before


# --- the command ----------------------------------------------------------------------------------


def srup_prepare(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["prepare", *map(str, arguments)])


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    write(tmp_path / "hr/a.png", pixels(24, 26, 3))
    write(tmp_path / "hr/b.png", np.zeros((24, 24, 3), np.uint8))
    words = (tmp_path / "hr", "-o", tmp_path / "out", "--patch-size", 12, "--min-variance", 1)
    result = srup_prepare(*words, "--scale", 2, "--scale", 3)
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines() == ["1 of 2 pictures", "2 of 2 pictures"]
    assert result.stdout.splitlines() == [
        f"{tmp_path / 'hr'}: 2 pictures",
        f"{tmp_path / 'out/x2.json'}  6 patches of 1 picture, 4 flat ones dropped; "
        "lr: 0 taken as distributed, 2 computed",
        f"{tmp_path / 'out/x3.json'}  4 patches of 1 picture, 4 flat ones dropped; "
        "lr: 0 taken as distributed, 2 computed",
    ]
    result = srup_prepare(*words)
    assert result.stdout.splitlines()[0] == f"{tmp_path / 'hr'}: 2 pictures"
    assert [path.name for path in sorted((tmp_path / "out").glob("x*.json"))] == [
        "x2.json",
        "x3.json",
        "x4.json",
    ]
    result = srup_prepare(tmp_path / "hr", "--whole", "-o", tmp_path / "val", "--scale", 2)
    assert result.stdout.splitlines()[1].startswith(f"{tmp_path / 'val/x2.json'}  2 pairs; lr: ")


def test_wrong_data_is_status_1_and_wrong_usage_2(tmp_path: Path) -> None:
    write(tmp_path / "hr/a.png", pixels(24, 24, 3))
    for arguments, code, words in (
        ((tmp_path / "absent",), 1, "absent: no such folder"),
        ((tmp_path / "hr", "-o", tmp_path / "out"), 1, "all are smaller than 192x192"),
        ((tmp_path / "hr", "--patch-size", 14), 2, "patch size 14: need a multiple of every scale (2, 3, 4)"),
        ((tmp_path / "hr", "--patch-size", 24, "--stride", 9), 2, "stride 9"),
        ((tmp_path / "hr", "--whole", "--stride", 24), 2, "--whole cuts no patches"),
        ((tmp_path / "hr", "--patch-size", 0), 2, "--patch-size"),
        ((tmp_path / "hr", "--min-variance", "nan"), 2, "min variance nan"),
        ((), 2, "HR_FOLDER"),
    ):
        result = srup_prepare(*arguments)
        assert result.exit_code == code, result.output
        assert result.stderr.splitlines()[-1].startswith("Error: ")
        assert words in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals here")
def test_the_progress_bar_is_drawn_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sr.cli.progress import picture_progress

    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with picture_progress() as progress:
            progress(1, 3)
            progress(3, 3)
        terminal.flush()
        seen = b""
        while b"3/3" not in seen and select.select([ours], [], [], 60)[0]:
            seen += os.read(ours, 10_000)  # as much as is there
        assert b"3/3" in seen
    os.close(ours)
