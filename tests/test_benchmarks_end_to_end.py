"""The command that `benchmarks.end_to_end` times runs repeatedly."""

from typing import Any

import pytest

from benchmarks import end_to_end


@pytest.mark.slow
def test_both_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    results: dict[str, Any] = {}
    monkeypatch.setattr(end_to_end, "ROUNDS", 2)
    monkeypatch.setattr(end_to_end, "write_result", lambda name, result: results.update({name: result}))
    end_to_end.main()
    seconds = results["end-to-end"]["seconds"]
    assert 0 < seconds["inference"] < seconds["command"]
