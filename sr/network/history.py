"""The training runs behind weights, as the summary in their file tells of them."""

from __future__ import annotations

from typing import Any

# Entries of a summary that belong to the weights and not to the run: other runs, what `train.average` made
# of them, and what `train.initial` notes of weights that a run starts from.
_OF_THE_WEIGHTS = ("started_from", "average_of", "beside", "scale", "attention", "num_blocks", "sha256")


def training_runs(training: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the summaries of the last run, of those that it started from, and of those averaged with them.

    Each run is there once, without the entries that belong to its weights.
    """
    runs: list[dict[str, Any]] = []
    earlier: Any = training
    while isinstance(earlier, dict) and earlier:
        for summary in (earlier, *earlier.get("beside", [])):
            run = {key: value for key, value in summary.items() if key not in _OF_THE_WEIGHTS}
            if run not in runs:
                runs.append(run)
        earlier = earlier.get("started_from")
    return runs
