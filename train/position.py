"""Where a run is: epochs, steps and time so far, and what later parts of it need to know of earlier ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# Texts in a checkpoint, where they may be nested.
_NESTED = ("frozen", "started_from")


@dataclass
class Position:
    """How far a run has come; changes with each step.

    Attributes:
        epoch: complete epochs.
        step: steps done in all.
        seconds: spent on them.
        done_in_epoch: steps done in the present epoch.
        loss_sum: over the patches of these steps, as far as losses were looked at.
        best: best PSNR on Y so far on the first validation list, in dB; None before the first measurement.
        frozen: when the gates were frozen and what it cost; empty before.
        started_from: a summary of the weights that the run began with; empty if they were random.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    done_in_epoch: int = 0
    loss_sum: float = 0.0
    best: float | None = None
    frozen: dict[str, Any] = field(default_factory=dict)
    started_from: dict[str, Any] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Return numbers and texts from which `from_state` makes the same position."""
        return asdict(self) | {name: json.dumps(getattr(self, name)) for name in _NESTED}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Position:
        """Return the position that `state` was made of.

        Raises:
            KeyError, TypeError, ValueError: it is that of something else.
        """
        values = {name: state[name] for name in cls.__dataclass_fields__}
        return cls(**values | {name: json.loads(values[name]) for name in _NESTED})
