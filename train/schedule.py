"""When what happens in a run: stages, epochs, steps and the learning rate of each step."""

from __future__ import annotations

import math
from itertools import accumulate

from train.config import Stage, TrainConfig


class Schedule:
    """The timetable of a run. Epochs and steps count from 0 through all stages."""

    def __init__(self, config: TrainConfig, *, steps_per_epoch: int) -> None:
        """Lay out the stages of `config`.

        Raises:
            TrainingError: a stage does not parse.
        """
        self._config = config
        self.stages = config.plan()
        self.steps_per_epoch = steps_per_epoch
        self._ends = list(accumulate(stage.epochs for stage in self.stages))

    @property
    def total_epochs(self) -> int:
        """Epochs of the whole run."""
        return self._ends[-1]

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.total_epochs * self.steps_per_epoch

    def stage(self, epoch: int) -> Stage:
        """Return the stage to which an epoch belongs; the last one for all later epochs."""
        return self.stages[self._index(epoch)]

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step.

        It rises linearly over `warmup_steps`, then falls by a cosine to zero or halves in steps. A
        stage with a rate of its own starts this anew.
        """
        config, index = self._config, self._index(step // self.steps_per_epoch)
        first = max(i for i in range(index + 1) if i == 0 or self.stages[i].learning_rate is not None)
        after = [i for i in range(index + 1, len(self.stages)) if self.stages[i].learning_rate is not None]
        start = self._ends[first - 1] * self.steps_per_epoch if first else 0
        end = (self._ends[after[0] - 1] if after else self.total_epochs) * self.steps_per_epoch
        done, length = step - start, end - start
        rate = self.stages[first].learning_rate or config.learning_rate
        rate *= min(1.0, (done + 1) / max(1, config.warmup_steps))
        if config.lr_schedule == "cosine":
            return rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done / length)))
        return float(rate * 0.5 ** (done // self.steps_per_epoch // config.lr_halve_step))

    def _index(self, epoch: int) -> int:
        return next((i for i, end in enumerate(self._ends) if epoch < end), len(self.stages) - 1)
