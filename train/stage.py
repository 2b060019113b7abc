"""A stage of a run: its loss, its length, and what it changes. Read from text and written as text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sr.errors import TrainingError

STAGE_SYNTAX = "LOSS:EPOCHS[:batch=N][:patch=PX][:lr=RATE][:frozen]"


@dataclass(frozen=True)
class Stage:
    """A part of the run.

    Batch size, patch size and learning rate hold until a later stage changes them; without a value
    the first stage takes those of the run.

    Attributes:
        loss: an expression of `train.losses`.
        epochs: how long it lasts.
        batch_size: patches a step, over all processes together.
        patch_size: side of an lr patch in pixels.
        learning_rate: the schedule restarts here from this rate, warm-up included.
        frozen: attention gates are fixed to their running mean from its start on.
    """

    loss: str
    epochs: int
    batch_size: int | None = None
    patch_size: int | None = None
    learning_rate: float | None = None
    frozen: bool = False

    @staticmethod
    def parse(text: str) -> Stage:
        """Read `STAGE_SYNTAX`; what follows the epochs may come in any order.

        Raises:
            TrainingError: it does not parse.
        """
        loss, *rest = text.split(":")
        try:
            epochs = int(rest[0])
            if epochs < 1:
                raise ValueError(f"{epochs} epochs")
            return Stage(loss, epochs, **_changes(rest[1:]))
        except (IndexError, KeyError, ValueError) as error:
            raise TrainingError(
                f"cannot read stage {text!r}; write {STAGE_SYNTAX}, e.g. l1:200:batch=8 or l2:16:lr=1e-4"
            ) from error

    def __str__(self) -> str:
        parts = [self.loss, str(self.epochs)]
        for key, (name, _) in _KEYS.items():
            if (value := getattr(self, name)) is not None:
                parts.append(f"{key}={value!r}")
        return ":".join([*parts, *(["frozen"] if self.frozen else [])])


_KEYS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "batch": ("batch_size", int),
    "patch": ("patch_size", int),
    "lr": ("learning_rate", float),
}


def _changes(items: list[str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for item in items:
        if item == "frozen":
            changes["frozen"] = True
            continue
        key, _, value = item.partition("=")
        name, kind = _KEYS[key]
        if name in changes or not 0 < kind(value) < math.inf:
            raise ValueError(item)
        changes[name] = kind(value)
    return changes
