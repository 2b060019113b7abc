"""Atomic writing: a file is whole or not there."""

from pathlib import Path

import pytest

from sr.files import TEMPORARY_PREFIX, atomic_write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_content_is_whole_after_success(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    content = bytes(range(256)) * 1000
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
        assert not path.exists()
    assert path.read_bytes() == content
    assert names(tmp_path) == ["out.bin"]


def test_existing_file_is_replaced_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["out.txt"]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("existing", [True, False])
def test_failure_leaves_everything_as_it_was(
    tmp_path: Path, error: type[BaseException], existing: bool
) -> None:
    path = tmp_path / "out.txt"
    if existing:
        path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:  # noqa: PT012  the block is what fails
        temporary.write_text("half")
        raise error
    assert names(tmp_path) == (["out.txt"] if existing else [])
    assert not existing or path.read_text() == "old"


def test_block_that_writes_nothing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_write(path):
        pass
    assert path.read_text() == "old"
    assert names(tmp_path) == ["out.txt"]


def test_missing_folder_is_the_callers_to_make(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"), atomic_write(tmp_path / "nowhere/out.txt") as temporary:
        temporary.write_text("text")
    assert names(tmp_path) == []


def test_folder_in_the_place_of_the_file_stays(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/inside").touch()
    with pytest.raises(OSError, match="out"), atomic_write(tmp_path / "out") as temporary:
        temporary.write_text("text")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["inside"]


def test_temporary_lies_beside_and_is_recognisable(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.png") as first, atomic_write(tmp_path / "a.png") as second:
        assert first != second
        for temporary in (first, second):
            assert temporary.parent == tmp_path
            assert temporary.suffix == ".png"
            assert temporary.name.startswith(TEMPORARY_PREFIX)
        second.write_text("second")
        first.write_text("first")
    assert (tmp_path / "a.png").read_text() == "first"
    assert names(tmp_path) == ["a.png"]
