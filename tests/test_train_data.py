"""Training data: pair lists, pictures that are read, patches that are drawn."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sr.errors import DataError
from train.data.pairs import Pair, load_pair_list, read_opaque


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


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


def test_grey_becomes_rgb_and_16_bits_become_8(tmp_path: Path) -> None:
    grey = pixels(4, 5)
    got = read_opaque(write(tmp_path / "grey.png", grey))
    np.testing.assert_array_equal(got, np.stack([grey] * 3, axis=2))
    deep = tmp_path / "deep.png"
    Image.fromarray(grey.astype(np.uint16) * 257).save(deep)
    np.testing.assert_array_equal(read_opaque(deep), got)


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    stored = pixels(4, 5, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    path = tmp_path / "turned.png"
    Image.fromarray(stored).save(path, exif=exif)
    np.testing.assert_array_equal(read_opaque(path), np.rot90(stored, -1))


def test_transparent_and_missing_pictures_are_named(tmp_path: Path) -> None:
    write(tmp_path / "clear.png", pixels(4, 5, 4))
    for name in ("clear.png", "absent.png"):
        with pytest.raises(DataError, match=name):
            read_opaque(tmp_path / name)
