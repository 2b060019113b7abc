"""Networks of other shapes are timed against `small`."""

import pytest
from click.testing import CliRunner

from benchmarks import shapes


@pytest.mark.slow
def test_a_smaller_network_takes_less_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {}
    monkeypatch.setattr(shapes, "store_result", lambda theme, figures: stored.update({theme: figures}))
    result = CliRunner().invoke(
        shapes.main, ["--rounds", "2", "--variant", "thin:num_feats=8,attention=none"]
    )
    assert result.exit_code == 0, result.output
    small, thin = stored["shapes-x2"]["rows"]
    assert small["time_of_small"] == 1.0
    assert (thin["variant"], thin["settings"]["num_feats"]) == ("thin", 8)
    assert thin["macs_per_lr_px"] < small["macs_per_lr_px"]
    assert thin["time_of_small"] > 0
