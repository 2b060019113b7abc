"""Training data: pair lists, pictures that are read, patches that are drawn."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sr.errors import DataError
from train.data import Pair, PatchSource, load_pair_list, read_rgb


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def enlarged(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Repeat each pixel of (H, W, C) scale x scale times."""
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


# --- pair lists ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '[{"HR": "hr/a.png", "LR": "lr/a.png"}, {"HR": "/data/b.png", "LR": "lr/b.png"}]',
        "[{'HR': 'hr/a.png', 'LR': 'lr/a.png'}, {'LR': 'lr/b.png', 'HR': '/data/b.png'}]",
        '[{"HR": "hr/a.png", "LR": "lr/a.png", "note": null},\n {"HR": "/data/b.png", "LR": "lr/b.png"}]\n',
    ],
    ids=["json", "single quotes", "json with more keys"],
)
def test_pair_list_is_read_relative_to_its_folder(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(text)
    assert load_pair_list(path) == [
        Pair(hr=tmp_path / "hr/a.png", lr=tmp_path / "lr/a.png"),
        Pair(hr=Path("/data/b.png"), lr=tmp_path / "lr/b.png"),
    ]


def test_pair_list_names_files_in_any_script(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text('[{"HR": "größe 猫.png", "LR": "klein 猫.png"}]', encoding="utf-8")
    assert load_pair_list(path) == [Pair(hr=tmp_path / "größe 猫.png", lr=tmp_path / "klein 猫.png")]


def refused_list(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_pair_list(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


def test_missing_pair_list(tmp_path: Path) -> None:
    assert "No such file" in refused_list(tmp_path / "absent.json")
    assert "cannot read" in refused_list(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"HR": "a.png", "LR": "b.png"}',
        b"null",
        b"12",
        b'["a.png"]',
        b'[{"HR": "a.png"}]',
        b'[{"hr": "a.png", "lr": "b.png"}]',
        b'[{"HR": "a.png", "LR": null}]',
        b'[{"HR": 1, "LR": 2}]',
        b'[{"HR": "a.png", "LR": "b.png"},',
        b"[{'HR': open('a.png'), 'LR': 'b.png'}]",
        b"{[]: 1}",
        b"a.png b.png\nc.png d.png\n",
        b"\x89PNG\r\n\x1a\n\x00\x00",
    ],
)
def test_malformed_pair_list(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "list.json"
    path.write_bytes(content)
    refused_list(path)


def test_pair_list_is_never_executed(tmp_path: Path) -> None:
    path, witness = tmp_path / "list.json", tmp_path / "executed"
    path.write_text(f"[{{'HR': __import__('pathlib').Path({str(witness)!r}).touch(), 'LR': 'b.png'}}]")
    refused_list(path)
    assert not witness.exists()


# --- reading pictures ---------------------------------------------------------------------------


def test_grey_and_transparent_pictures_become_rgb(tmp_path: Path) -> None:
    grey, rgba = pixels(4, 5), pixels(4, 5, 4)
    got = read_rgb(write(tmp_path / "grey.png", grey))
    np.testing.assert_array_equal(got, np.stack([grey] * 3, axis=2))
    np.testing.assert_array_equal(read_rgb(write(tmp_path / "rgba.png", rgba)), rgba[:, :, :3])


def test_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.png: cannot read the picture"):
        read_rgb(tmp_path / "absent.png")


# --- patches ------------------------------------------------------------------------------------


def source_of(folder: Path, pictures: list[NDArray[np.uint8]], *, scale: int, patch_size: int) -> PatchSource:
    """Return a source of lr pictures whose hr pictures are their pixels enlarged."""
    pairs = []
    for index, lr in enumerate(pictures):
        hr_path = write(folder / f"hr/{index}.png", enlarged(lr, scale))
        pairs.append(Pair(hr=hr_path, lr=write(folder / f"lr/{index}.png", lr)))
    return PatchSource(pairs, scale=scale, patch_size=patch_size)


def drawn(
    source: PatchSource, *, seed: int = 0, epoch: int = 0, batch_size: int = 1, patches_per_picture: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return all lr and hr patches of an epoch, each (N, 3, side, side)."""
    batches = list(
        source.epoch(seed=seed, epoch=epoch, batch_size=batch_size, patches_per_picture=patches_per_picture)
    )
    assert all(len(lr) == len(hr) == batch_size for lr, hr in batches)
    return np.concatenate([lr for lr, _ in batches]), np.concatenate([hr for _, hr in batches])


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_hr_patch_shows_what_its_lr_patch_shows(tmp_path: Path, scale: int) -> None:
    pictures = [pixels(9, 13, 3), pixels(6, 5, 3, seed=1)]
    source = source_of(tmp_path, pictures, scale=scale, patch_size=5)
    lr, hr = drawn(source, batch_size=4, patches_per_picture=40)
    assert lr.shape == (80, 3, 5, 5)
    assert hr.shape == (80, 3, 5 * scale, 5 * scale)
    assert lr.dtype == hr.dtype == np.uint8
    np.testing.assert_array_equal(hr, lr.repeat(scale, axis=2).repeat(scale, axis=3))


def test_patches_are_the_eight_symmetries_of_every_place(tmp_path: Path) -> None:
    picture = pixels(5, 6, 3)  # six patches of 4x4, all different, none symmetric
    places = [picture[top : top + 4, left : left + 4] for top in range(2) for left in range(3)]
    expected = Counter()
    for place in places:
        for turns in range(4):
            turned = np.rot90(place, turns)
            for image in (turned, turned[:, ::-1]):
                expected[np.ascontiguousarray(image.transpose(2, 0, 1)).tobytes()] += 1
    assert len(expected) == 48
    source = source_of(tmp_path, [picture], scale=2, patch_size=4)
    lr, _ = drawn(source, patches_per_picture=1000)
    counts = Counter(patch.tobytes() for patch in lr)
    assert set(counts) == set(expected)
    # Each is expected 20.8 times; 48 fair counts stay within five standard deviations.
    assert all(1 <= count <= 21 + 5 * 4.6 for count in counts.values())


def test_each_picture_is_drawn_equally_often_in_mixed_order(tmp_path: Path) -> None:
    pictures = [np.full((4, 4, 3), level, np.uint8) for level in range(5)]
    source = source_of(tmp_path, pictures, scale=1, patch_size=4)
    assert len(source) == 5
    lr, _ = drawn(source, batch_size=5, patches_per_picture=7)
    order = lr[:, 0, 0, 0].tolist()
    assert Counter(order) == dict.fromkeys(range(5), 7)
    assert order != sorted(order)


def test_last_short_batch_is_dropped(tmp_path: Path) -> None:
    pictures = [np.full((4, 4, 3), level, np.uint8) for level in range(5)]
    source = source_of(tmp_path, pictures, scale=1, patch_size=4)
    lr, _ = drawn(source, batch_size=4, patches_per_picture=3)
    assert len(lr) == 12
    assert max(Counter(lr[:, 0, 0, 0].tolist()).values()) <= 3


def test_patches_depend_on_seed_and_epoch_only(tmp_path: Path) -> None:
    pictures = [pixels(9, 9, 3), pixels(9, 9, 3, seed=1)]
    source = source_of(tmp_path / "a", pictures, scale=2, patch_size=4)
    again = source_of(tmp_path / "b", pictures, scale=2, patch_size=4)
    epochs = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1)):
        first = drawn(source, seed=seed, epoch=epoch, batch_size=2, patches_per_picture=6)
        second = drawn(again, seed=seed, epoch=epoch, batch_size=2, patches_per_picture=6)
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, other)
        epochs[seed, epoch] = first[0].tobytes()
    assert len(set(epochs.values())) == 4


# --- pictures that do not fit -------------------------------------------------------------------


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
        PatchSource(pairs, scale=2, patch_size=6)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{tmp_path / 'absent.png'}: cannot read the picture" in message
    assert f"{no_picture}: cannot read the picture" in message
    assert f"{tmp_path / 'odd-hr.png'}: is 17x16, need 16x16 for scale 2" in message
    assert f"{tmp_path / 'small.png'}: smaller than the patch size 6" in message
    assert len(message.split("; ")) == 4
    assert len(PatchSource([pairs[1]], scale=2, patch_size=8)) == 1
