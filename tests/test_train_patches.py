"""Patches: which are drawn when, how processes share them, and that batches come in order."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sr.errors import DataError
from tests.training import CPU
from train.data.pairs import Pair
from train.data.patches import Epoch, PatchSource, Sampling, prepared_ahead

Pixels = NDArray[np.uint8]


def pixels(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, image: Pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def enlarged(image: Pixels, scale: int) -> Pixels:
    """Repeat each pixel of (H, W, C) scale x scale times."""
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def pairs_of(folder: Path, pictures: list[Pixels], *, scale: int) -> list[Pair]:
    """Write lr pictures and hr pictures that are their pixels enlarged."""
    return [
        Pair(
            hr=write(folder / f"hr/{index}.png", enlarged(lr, scale)),
            lr=write(folder / f"lr/{index}.png", lr),
        )
        for index, lr in enumerate(pictures)
    ]


def source_of(pictures: list[Pixels], *, scale: int) -> PatchSource:
    """Return a source whose hr pictures are the lr pictures' pixels enlarged."""
    decoded = [(enlarged(lr, scale), lr) for lr in pictures]
    names = [f"{index}.png" for index in range(len(pictures))]
    return PatchSource(decoded, names, scale=scale)


def levels(count: int) -> PatchSource:
    """Return a source of one-patch pictures, each of one grey level, its index."""
    pictures = [np.full((4, 4, 3), level, np.uint8) for level in range(count)]
    return source_of(pictures, scale=1)


def drawn(plan: Epoch) -> tuple[Pixels, Pixels]:
    """Return all lr and hr patches of an epoch, each (N, side, side, 3)."""
    batches = [plan.batch(step) for step in range(len(plan))]
    assert [len(b.lr) for b in batches] == [len(b.hr) for b in batches] == [*map(plan.size, range(len(plan)))]
    return np.concatenate([b.lr for b in batches]), np.concatenate([b.hr for b in batches])


def plan_of(source: PatchSource, **changes: Any) -> Epoch:
    """Return the plan of an epoch of one patch of 4 px a picture and batch, with `changes`."""
    settings = {"seed": 0, "batch_size": 1, "patch_size": 4, "patches_per_picture": 1} | changes
    return source.epoch(settings.pop("epoch", 0), Sampling(**settings))


# --- what is drawn ------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_hr_patch_shows_what_its_lr_patch_shows(scale: int) -> None:
    source = source_of([pixels(9, 13, 3), pixels(6, 5, 3, seed=1)], scale=scale)
    lr, hr = drawn(plan_of(source, batch_size=7, patch_size=5, patches_per_picture=40))
    assert lr.shape == (80, 5, 5, 3)
    assert hr.shape == (80, 5 * scale, 5 * scale, 3)
    assert lr.dtype == hr.dtype == np.uint8
    np.testing.assert_array_equal(hr, lr.repeat(scale, axis=1).repeat(scale, axis=2))


def test_patches_are_the_eight_symmetries_of_every_place() -> None:
    picture = pixels(5, 6, 3)  # six patches of 4x4, all different, none symmetric
    expected = Counter[bytes]()
    for top in range(2):
        for left in range(3):
            for turns in range(4):
                turned = np.rot90(picture[top : top + 4, left : left + 4], turns)
                for image in (turned, turned[:, ::-1]):
                    expected[np.ascontiguousarray(image).tobytes()] += 1
    assert len(expected) == 48
    lr, _ = drawn(plan_of(source_of([picture], scale=2), patches_per_picture=1000))
    counts = Counter(patch.tobytes() for patch in lr)
    assert set(counts) == set(expected)
    # Each is expected 20.8 times; 48 fair counts stay within five standard deviations.
    assert all(1 <= count <= 21 + 5 * 4.6 for count in counts.values())


def test_border_is_reached_on_every_side() -> None:
    rows, columns = np.mgrid[:6, :9]
    picture = np.stack([rows, columns, 0 * rows], axis=2).astype(np.uint8)
    lr, _ = drawn(plan_of(source_of([picture], scale=1), patches_per_picture=500))
    assert {lr[..., 0].min(), lr[..., 0].max()} == {0, 5}
    assert {lr[..., 1].min(), lr[..., 1].max()} == {0, 8}


def test_picture_of_the_size_of_a_patch_is_taken_whole() -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    lr, _ = drawn(plan_of(source_of([picture], scale=1), patches_per_picture=8))
    assert all(sorted(patch.ravel()) == list(range(48)) for patch in lr)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 35, 99])
def test_each_picture_is_drawn_equally_often_in_mixed_order(batch_size: int) -> None:
    plan = plan_of(levels(5), batch_size=batch_size, patches_per_picture=7)
    assert len(plan) == -(-35 // batch_size)
    assert plan.size(len(plan) - 1) == (35 % batch_size or batch_size)  # the last one is short
    order = drawn(plan)[0][:, 0, 0, 0].tolist()
    assert Counter(order) == dict.fromkeys(range(5), 7)
    assert order != sorted(order)


def test_patches_depend_on_seed_and_epoch_only() -> None:
    pictures = [pixels(9, 9, 3), pixels(9, 9, 3, seed=1)]
    epochs = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1)):
        first, second = (
            drawn(
                plan_of(
                    source_of(pictures, scale=2),
                    seed=seed,
                    epoch=epoch,
                    batch_size=batch_size,
                    patches_per_picture=6,
                )
            )
            for batch_size in (2, 5)
        )
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])
        epochs[seed, epoch] = first[0].tobytes()
    assert len(set(epochs.values())) == 4


def test_names_of_a_batch_are_those_of_its_pictures() -> None:
    plan = plan_of(levels(5), batch_size=4, patches_per_picture=2)
    for step in range(len(plan)):
        shown = {f"{level}.png" for level in plan.batch(step).lr[:, 0, 0, 0]}
        assert plan.pictures(step) == sorted(shown)


# --- sharing a batch ----------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [3, 4, 7])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_each_patch_goes_to_exactly_one_process(world: int, batch_size: int) -> None:
    plan = plan_of(levels(5), batch_size=batch_size, patches_per_picture=5)
    seen: list[int] = []
    for step in range(len(plan)):
        whole = plan.batch(step).lr[:, 0, 0, 0].tolist()
        size = plan.size(step)
        assert len(whole) == size
        shares = [plan.batch(step, rank=rank, world=world).lr[:, 0, 0, 0].tolist() for rank in range(world)]
        for rank, share in enumerate(shares):
            if rank < size:
                assert share == whole[rank::world]
                seen += share
            else:
                assert share == whole[:1]  # nothing is left for it: a filler, which counts for nothing
    assert Counter(seen) == dict.fromkeys(range(5), 5)


def test_a_single_process_shares_nothing(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, [pixels(6, 5, 3)], scale=2)
    source = PatchSource.shared(pairs, scale=2, patch_size=4, group=CPU)
    direct = PatchSource.decoded(pairs, scale=2, patch_size=4)
    first, second = (drawn(plan_of(s, patches_per_picture=9)) for s in (source, direct))
    np.testing.assert_array_equal(first[1], second[1])


# --- reading the pictures -----------------------------------------------------------------------


def test_pictures_are_read_as_they_are(tmp_path: Path) -> None:
    pictures = [pixels(9, 13, 3), pixels(6, 5, 3, seed=1)]
    source = PatchSource.decoded(pairs_of(tmp_path, pictures, scale=2), scale=2, patch_size=5)
    assert len(source) == 2
    assert source.name(1) == "1.png"
    expected = drawn(plan_of(source_of(pictures, scale=2), patch_size=5, patches_per_picture=20))
    for got, wanted in zip(
        drawn(plan_of(source, patch_size=5, patches_per_picture=20)), expected, strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_all_bad_pictures_are_named_at_once(tmp_path: Path) -> None:
    good = write(tmp_path / "good-hr.png", pixels(16, 16, 3)), write(tmp_path / "good.png", pixels(8, 8, 3))
    no_picture = tmp_path / "text.png"
    no_picture.write_text("no picture")
    pairs = [
        Pair(hr=good[0], lr=tmp_path / "absent.png"),
        Pair(hr=good[0], lr=good[1]),
        Pair(hr=no_picture, lr=good[1]),
        Pair(hr=write(tmp_path / "odd-hr.png", pixels(16, 17, 3)), lr=good[1]),
        Pair(
            hr=write(tmp_path / "small-hr.png", pixels(10, 16, 3)),
            lr=write(tmp_path / "small.png", pixels(5, 8, 3)),
        ),
    ]
    with pytest.raises(DataError) as caught:
        PatchSource.decoded(pairs, scale=2, patch_size=6)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{tmp_path / 'absent.png'}: " in message
    assert f"{no_picture}: " in message
    assert f"{tmp_path / 'odd-hr.png'}: is 17x16, need 16x16" in message
    assert f"{tmp_path / 'small.png'}: smaller than the patch size 6" in message
    assert message.count(".png: ") == 4
    assert len(PatchSource.decoded([pairs[1]], scale=2, patch_size=8)) == 1


def test_of_many_bad_pictures_ten_are_named_and_all_are_counted(tmp_path: Path) -> None:
    pairs = [Pair(hr=tmp_path / f"hr{i}.png", lr=tmp_path / f"lr{i}.png") for i in range(25)]
    with pytest.raises(DataError) as caught:
        PatchSource.decoded(pairs, scale=2, patch_size=6)
    message = str(caught.value)
    assert [f"hr{i}.png" in message for i in range(25)] == [True] * 10 + [False] * 15
    assert "15 more" in message
    assert "25" in message


# --- preparing ahead ----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order(workers: int) -> None:
    def make(step: int) -> int:
        time.sleep(0.002 * (step % 3))  # the later ones of three are done first
        return step * step

    assert list(prepared_ahead(make, range(3, 20), workers=workers)) == [s * s for s in range(3, 20)]
    assert list(prepared_ahead(make, range(0), workers=workers)) == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_exception_arrives_in_its_place(workers: int) -> None:
    def make(step: int) -> int:
        if step == 4:
            raise DataError("picture 4")
        return step

    got: list[int] = []
    with pytest.raises(DataError, match="picture 4"):
        collect(prepared_ahead(make, range(9), workers=workers), got)
    assert got == [0, 1, 2, 3]


def collect(results: Iterator[int], got: list[int]) -> None:
    for result in results:
        got.append(result)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_stopping_early_leaves_no_thread_and_little_work(workers: int) -> None:
    made: list[int] = []
    before = threading.active_count()
    batches = prepared_ahead(lambda step: made.append(step) or step, range(1000), workers=workers)
    assert [next(batches), next(batches)] == [0, 1]
    assert isinstance(batches, Iterator)
    batches.close()  # type: ignore[attr-defined]  # it is a generator
    assert threading.active_count() == before
    assert len(made) <= 2 + 2 * workers + 1


def test_steps_are_taken_as_they_are_needed() -> None:
    asked: list[int] = []

    def steps() -> Iterator[int]:
        for step in range(1000):
            asked.append(step)
            yield step

    batches = prepared_ahead(lambda step: step, steps(), workers=2)
    next(batches)
    assert len(asked) == 5  # two ahead for each worker
    batches.close()  # type: ignore[attr-defined]
