"""Runs at once on one output folder share its pictures; those that are killed lose nothing."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import sharing
from sr.files import TEMPORARY_PREFIX
from sr.jobs import claims
from sr.jobs.claims import Claims
from sr.jobs.job import FileJob
from sr.jobs.ledger import NAME, Ledger

unix = pytest.mark.skipif(sys.platform == "win32", reason="locks and signals the Unix way")


@pytest.mark.slow
@unix
def test_shards_and_a_run_of_all_that_are_killed_lose_nothing_and_make_only_twice_what_was_in_flight() -> (
    None
):
    result = sharing.run(80, 8)
    assert result.kills > 0
    assert result.made_twice_undisturbed == 0
    assert result.made_twice <= 3 * result.kills, "those between the network and the file"


@pytest.mark.slow
@unix
def test_two_runs_of_all_make_nothing_twice() -> None:
    result = sharing.run(60, 0, parts=((), ()))
    assert result.made == result.pictures
    assert result.made_twice == 0


# Claims a job, says so, and waits for its end.
HOLDER = """
import sys
from pathlib import Path
from sr.jobs.claims import Claims
from sr.jobs.job import FileJob

out = Path(sys.argv[1])
claims = Claims()
print(claims.take(FileJob(Path("a.png"), out / "a_x2.png", ledger=out)), flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(out: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that holds a claim on a_x2.png."""
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def job(out: Path, stem: str) -> FileJob:
    return FileJob(Path(f"{stem}.png"), out / f"{stem}_x2.png", ledger=out)


@unix
def test_a_claim_ends_with_its_owner(tmp_path: Path) -> None:
    out, ours = tmp_path / "out", Claims()
    with holder(out) as process:
        assert not ours.take(job(out, "a"))
        assert ours.take(job(out, "b"))
        assert not ours.take(job(out, "b")), "it is in hand already"
        ours.release(job(out, "b"))
        assert ours.take(job(out, "b"))
        process.kill()
        process.wait()
        assert ours.take(job(out, "a")), "at once, without a look at a clock"
    ours.close()
    assert list(out.iterdir()) == []


@unix
def test_a_run_that_writes_nothing_leaves_no_folder(tmp_path: Path) -> None:
    out, ours = tmp_path / "deep" / "out", Claims()
    assert ours.take(job(out, "a"))
    assert out.exists()
    ours.close()
    assert list(tmp_path.iterdir()) == []


@unix
def test_the_last_of_several_runs_removes_the_file_of_claims(tmp_path: Path) -> None:
    out, ours = tmp_path / "out", Claims()
    with holder(out):
        ours.take(job(out, "b"))
        ours.close()
        assert (out / claims.NAME).exists()
        late = Claims()
        assert not late.take(job(out, "a")), "they still see each other"
    late.close()
    assert not (out / claims.NAME).exists()


def test_without_a_folder_that_can_be_made_every_claim_is_granted(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ours = Claims()
    assert ours.take(job(tmp_path / "file" / "out", "a"))
    ours.release(job(tmp_path / "file" / "out", "a"))
    ours.close()


@unix
def test_processes_append_to_records_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    first, second, third = (Ledger(tmp_path, settings="s") for _ in range(3))
    for ledger, stem in ((first, "a"), (second, "b"), (third, "c")):
        done = FileJob(tmp_path / "a.png", tmp_path / f"{stem}_x2.png", ledger=tmp_path)
        ledger.begin([done])
        ledger.add(done)
    names = {path.name for path in tmp_path.glob(f"{TEMPORARY_PREFIX}ledger*")}
    assert names == {NAME, ".srup-ledger.2.jsonl", ".srup-ledger.3.jsonl"}
    del first, ledger, third
    again = Ledger(tmp_path, settings="other")
    again.begin([FileJob(tmp_path / "a.png", tmp_path / "b_x2.png", ledger=tmp_path)])
    assert {path.name for path in tmp_path.glob(f"{TEMPORARY_PREFIX}ledger*")} == names, "taken over"
