"""Damaged files through the decoders: faults are counted by kind, and can be repeated."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import fuzz
from sr.errors import ImageError

pytest.importorskip("pyvips")


def test_the_decoders_survive_damaged_files() -> None:
    tally = fuzz.decode_batch(range(150), [])
    assert tally.faults == {}
    assert tally.outcomes.total() == 150
    assert tally.outcomes.keys() == {"decoded", "refused"}


@pytest.mark.parametrize(
    ("error", "outcome", "fault"),
    [
        (ValueError("bad"), "fault", "ValueError at test_benchmarks_fuzz.py:"),
        (ImageError("in two\nlines"), "fault", "in two"),
        (ImageError("without a name"), "fault", "without a name"),
        (MemoryError(), "out of memory", ""),
    ],
)
def test_other_outcomes_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: str, fault: str
) -> None:
    def failing(path: Path, *, max_pixels: int) -> None:
        raise error

    monkeypatch.setattr(fuzz, "open_picture", failing)
    path = tmp_path / "in"
    path.write_bytes(b"not a picture")
    found, kind = fuzz.decoded(path)
    assert found == outcome
    assert fault in kind


class Deadly:
    """A file that ends the process when it is passed to it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        import os

        return os._exit, (3,)


def test_a_crash_is_one_fault_for_each_file_that_crashes() -> None:
    tally = fuzz.run(2, files=[Deadly()], jobs=1)  # type: ignore[list-item]
    assert tally.outcomes == {"crash": 2}
    assert list(tally.faults.values()) == [0]


def test_from_the_command_line(tmp_path: Path) -> None:
    path = Path(__file__).resolve().parent.parent / "examples" / "kitten.png"
    answer = CliRunner().invoke(fuzz.main, [str(path), "--count", "2", "--first", "7", "--jobs", "1"])
    assert answer.exit_code == 0, answer.output
    assert "refused" in answer.output or "decoded" in answer.output
