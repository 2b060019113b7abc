"""Killed folder runs: the short form of `python -m benchmarks.kills`."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import kills
from sr.errors import DataError
from sr.files import atomic_write
from sr.jobs.ledger import NAME


@pytest.mark.slow
def test_killed_runs_leave_nothing_partial_and_the_last_completes() -> None:
    tally = kills.run(6, pictures=10, seed=1)
    assert tally.kills == 6
    assert tally.whole_files_compared > 0
    assert tally.final_files == 10


def test_a_partial_file_is_detected(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"half")
    with pytest.raises(DataError, match=r"a\.png: "):
        kills._compare(tmp_path, {"a.png": b"half of it"})


def test_of_files_that_are_no_outputs_only_records_may_stay(tmp_path: Path) -> None:
    for name in ("a.png", NAME, ".srup-ledger.2.jsonl"):
        (tmp_path / name).touch()
    assert not kills._temporaries(tmp_path)
    with atomic_write(tmp_path / "b.png") as temporary:
        assert kills._temporaries(tmp_path) == [temporary]
        temporary.write_bytes(b"whole")
    assert not kills._temporaries(tmp_path)


@pytest.mark.slow
def test_two_runs_at_once_on_one_folder_both_end_well(tmp_path: Path) -> None:
    """Both compute everything; every file is whole, and neither removes the other's temporary files."""
    kills.make_pictures(tmp_path / "in", 8, seed=2)
    command = [sys.executable, "-m", "sr.cli", "upscale", str(tmp_path / "in")]
    alone = subprocess.run([*command, "-o", str(tmp_path / "alone")], cwd=kills.ROOT, capture_output=True)
    assert alone.returncode == 0
    both = [
        subprocess.Popen(
            [*command, "-o", str(tmp_path / "both"), "--overwrite"],
            cwd=kills.ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert kills._finished_files(tmp_path / "both") == kills._finished_files(tmp_path / "alone")
    assert not kills._temporaries(tmp_path / "both")
