"""The summary of a training that stands in the metadata of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.config import TrainConfig
from train.schedule import Schedule

_SETTINGS = ("optimizer", "learning_rate", "lr_schedule", "batch_size", "patch_size", "ema", "seed")


def training_summary(
    config: TrainConfig, schedule: Schedule, *, steps: int, seconds: float, more: Mapping[str, Any]
) -> dict[str, Any]:
    """Return JSON-ready values: the data, how long it took, the stages, the most important settings.

    Args:
        more: further entries; empty ones are left out.
    """
    return {
        "data": config.data_note,
        "steps": steps,
        "hours": round(seconds / 3600, 3),
        "stages": ", ".join(str(part.stage) for part in schedule.parts),
        **{name: getattr(config, name) for name in _SETTINGS},
        **{name: value for name, value in more.items() if value},
    }
