"""What a run writes so that it can be continued and its network used: resumable states, and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sr.errors import TrainingError
from sr.network.checkpoint import Weights, save_weights
from train.config import TrainConfig
from train.learner import Learner
from train.position import Position
from train.schedule import Schedule
from train.state import (
    keep_epoch,
    load_state,
    require_same_place,
    require_same_settings,
    rng_state,
    save_state,
    set_rng_state,
)
from train.summary import training_summary


class Checkpoints:
    """Writes the files of a run, each atomically, and takes up the last one."""

    def __init__(
        self, config: TrainConfig, schedule: Schedule, learner: Learner, *, facts: Mapping[str, Any]
    ) -> None:
        """Take `facts`, further entries for the summary in the weights: pictures, device, degradation."""
        self._config, self._schedule, self._learner, self._facts = config, schedule, learner, facts

    def weights(self, position: Position) -> Weights:
        """Return the network's present weights with a summary of how they came about."""
        config, model = self._config, self._learner.shipped_model
        more = {**self._facts, "frozen": position.frozen, "started_from": position.started_from}
        return Weights(
            replace(config.model, attention=model.config.attention),
            {name: value.detach().cpu() for name, value in model.state_dict().items()},
            training_summary(
                config, self._schedule, steps=position.step, seconds=position.seconds, more=more
            ),
            config.preset,
            licence=config.licence,
        )

    def save(self, position: Position, *, best: bool = False, keep: bool = False) -> None:
        """Write the weights and the resumable checkpoint.

        The checkpoint comes last: it knows of the best weights, so they have to be there.

        Args:
            position: where the run is.
            best: these are the best weights so far.
            keep: keep the checkpoint of this epoch, and remove older ones.
        """
        config, weights = self._config, self.weights(position)
        if best:
            save_weights(config.file("best.safetensors"), weights)
        save_weights(config.file("last.safetensors"), weights)
        save_state(config.file("last.pt"), config, self._state(position))
        if keep:
            keep_epoch(config, position.epoch)

    def save_diverged(self, position: Position) -> None:
        """Write the state that led to an infinite loss, beside the last good one."""
        save_state(self._config.file("diverged.pt"), self._config, self._state(position))

    def _state(self, position: Position) -> dict[str, Any]:
        return {
            "weights": self.weights(position).to_dict(),
            **self._learner.state(),
            "progress": position.state(),
            "rng": rng_state(),
        }

    def resume(self) -> Position:
        """Take up the state in the run's last checkpoint; return where it was.

        Raises:
            TrainingError: there is none, it is damaged, or it belongs to other settings.
        """
        path = self._config.file("last.pt")
        state = load_state(path)
        require_same_settings(path, state["config"], self._config)
        position = self._taken_up(path, state)
        require_same_place(path, state["config"], self._schedule, position)
        return position

    def _taken_up(self, path: Path, state: Mapping[str, Any]) -> Position:
        try:
            self._learner.load(dict(state))
            position = Position.from_state(state["progress"])
            set_rng_state(state["rng"])
        except (AttributeError, KeyError, ValueError, TypeError, RuntimeError) as error:
            reason = f"{type(error).__name__} {error}".splitlines()[0]
            raise TrainingError(f"{path}: does not hold the state of this run ({reason})") from error
        return position
