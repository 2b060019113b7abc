"""The average of trained weights: one network from several runs that started from the same weights.

Such runs end on different sides of the same minimum, so their average is often better than each of them
(model soups, arXiv 2203.05482), and it costs no run time.

    python -m train.average first.safetensors second.safetensors:0.5 -o average.safetensors
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sr.errors import SrupError, TrainingError
from sr.network.checkpoint import Weights, load_weights, save_weights
from sr.network.history import training_runs


def average(members: Sequence[tuple[Weights, float]]) -> Weights:
    """Return the average of weights, each with its share, with the summary of the first one's training.

    The entry "average_of" of the summary names all; "beside" has the summaries of the runs that are not
    behind the first one. The halo and the strengths of a pair that were measured with the first one's
    weights are left out.

    Raises:
        TrainingError: they belong to different networks.
    """
    first, total = members[0][0], sum(share for _, share in members)
    for weights, _ in members:
        if weights.config != first.config:
            raise TrainingError(f"{weights.source}: belongs to another network than {first.source}")
    state = {
        name: torch.stack([share / total * weights.state[name].double() for weights, share in members])
        .sum(0)
        .float()
        for name in first.state
    }
    named = ", ".join(f"{weights.sha256[:12]} ({share / total:.2g})" for weights, share in members)
    beside = _beside([weights.training for weights, _ in members])
    training = {**first.training, "average_of": named, "beside": beside}
    return replace(first, state=state, halo=None, restores={}, training=training)


def _beside(trainings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs behind any of the weights that are not behind the first ones."""
    seen = training_runs(trainings[0])
    own = len(seen)
    for training in trainings[1:]:
        seen += [run for run in training_runs(training) if run not in seen]
    return seen[own:]


def _member(text: str) -> tuple[Path, float]:
    """Return path and share of WEIGHTS[:SHARE]."""
    path, colon, after = text.rpartition(":")
    if not colon or Path(text).is_file():
        return Path(text), 1.0
    try:
        share = float(after)
    except ValueError:
        share = math.nan
    if not 0 < share < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: the share after the colon must be a number above 0")
    return Path(path), share


def main() -> None:
    """Write the average."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "weights", type=_member, nargs="+", metavar="WEIGHTS[:SHARE]", help="file and its share [default: 1]"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="safetensors file")
    chosen = parser.parse_args()
    try:
        save_weights(chosen.output, average([(load_weights(path), share) for path, share in chosen.weights]))
    except SrupError as error:
        raise SystemExit(f"error: {error}") from None
    except OSError as error:
        raise SystemExit(f"error: {chosen.output}: cannot be written ({error.strerror or error})") from None


if __name__ == "__main__":
    main()
