"""Atomic writing: a file is whole or absent."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import pytest

from sr.files import TEMPORARY_PREFIX, atomic_write, fcntl, remove_left_over

needs_locks = pytest.mark.skipif(fcntl is None, reason="no file locks here")


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
    with pytest.raises(ValueError, match="nothing was written"), atomic_write(path):
        pass
    assert path.read_text() == "old"
    assert names(tmp_path) == ["out.txt"]


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
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


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "ours") as temporary:
        temporary.write_text("text")
    (tmp_path / "other").write_text("text")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "other").stat().st_mode


WRITER = """
import sys
from pathlib import Path
from sr.files import atomic_write
with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary.name, flush=True)
    sys.stdin.read()
"""


@needs_locks
def test_what_a_killed_process_left_is_removed_and_what_is_being_written_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "out.png")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        name = writer.stdout.readline().strip()
        remove_left_over(tmp_path)
        assert names(tmp_path) == [name], "it is being written"
        writer.send_signal(signal.SIGKILL)
    assert names(tmp_path) == [name]
    remove_left_over(tmp_path)
    assert names(tmp_path) == []


@needs_locks
def test_only_temporary_files_are_removed(tmp_path: Path) -> None:
    stays = [".srup-ledger.jsonl", ".srup-0123.png", f"{TEMPORARY_PREFIX}{'0' * 16}x.png", "a.png"]
    for name in stays:
        (tmp_path / name).touch()
    folder, link = (tmp_path / f"{TEMPORARY_PREFIX}{digit * 16}.png" for digit in "12")
    folder.mkdir()
    link.symlink_to(tmp_path / "a.png")
    os.mkfifo(pipe := tmp_path / f"{TEMPORARY_PREFIX}{'3' * 16}.png")
    (tmp_path / f"{TEMPORARY_PREFIX}{'4' * 16}.png").touch()
    remove_left_over(tmp_path)
    assert (
        {*stays, folder.name, link.name}
        <= set(names(tmp_path))
        <= {*stays, folder.name, link.name, pipe.name}
    )
    remove_left_over(tmp_path / "absent")
    remove_left_over(tmp_path / "a.png")


@needs_locks
def test_writing_goes_on_while_others_clean_up(tmp_path: Path) -> None:
    done = Event()

    def clean() -> None:
        while not done.is_set():
            remove_left_over(tmp_path)

    cleaner = Thread(target=clean)
    cleaner.start()
    try:
        for number in range(200):
            with atomic_write(tmp_path / f"{number}.txt") as temporary:
                temporary.write_text(str(number))
    finally:
        done.set()
        cleaner.join()
    assert [(tmp_path / f"{number}.txt").read_text() for number in range(200)] == list(map(str, range(200)))
    assert len(names(tmp_path)) == 200
