"""When what happens in a run: stages, epochs, steps and the learning rate of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sr.errors import TrainingError
from train.config import TrainConfig
from train.losses import loss_from_expression
from train.stage import Stage


@dataclass(frozen=True)
class Part:
    """A stage in its place in the run. Epochs and steps count from 0 through all stages.

    Attributes:
        stage: as it was given.
        batch_size: patches a step, its own or that of the stage before.
        patch_size: side of an lr patch, likewise.
        first_epoch: epochs before it.
        first_step: steps before it.
        steps_per_epoch: steps in each of its epochs; the last one may take fewer patches.
    """

    stage: Stage
    batch_size: int
    patch_size: int
    first_epoch: int
    first_step: int
    steps_per_epoch: int

    @property
    def end_epoch(self) -> int:
        """The first epoch after it."""
        return self.first_epoch + self.stage.epochs

    @property
    def end_step(self) -> int:
        """The first step after it."""
        return self.first_step + self.stage.epochs * self.steps_per_epoch


class Schedule:
    """The timetable of a run."""

    def __init__(self, config: TrainConfig, *, patches_per_epoch: int) -> None:
        """Lay out the stages of `config`.

        Raises:
            TrainingError: a stage does not parse.
        """
        self._config = config
        self.patches_per_epoch = patches_per_epoch
        parts: list[Part] = []
        before = Part(Stage("", 0), config.batch_size, config.patch_size, 0, 0, 0)
        for stage in config.plan():
            batch_size = stage.batch_size or before.batch_size
            before = Part(
                stage,
                batch_size=batch_size,
                patch_size=stage.patch_size or before.patch_size,
                first_epoch=before.end_epoch,
                first_step=before.end_step,
                steps_per_epoch=-(-patches_per_epoch // batch_size),
            )
            parts.append(before)
        self.parts = tuple(parts)

    @property
    def total_epochs(self) -> int:
        """Epochs of the whole run."""
        return self.parts[-1].end_epoch

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.parts[-1].end_step

    def part(self, epoch: int) -> Part:
        """Return the part to which an epoch belongs; the last one for all later epochs."""
        return next((part for part in self.parts if epoch < part.end_epoch), self.parts[-1])

    def first_step(self, epoch: int) -> int:
        """Return the number of steps before an epoch."""
        part = self.part(epoch)
        return part.first_step + (epoch - part.first_epoch) * part.steps_per_epoch

    def lr_pixels_after(self, epoch: int) -> int:
        """Return how many lr pixels the epochs from `epoch` on will train on."""
        later = ((part.end_epoch - max(epoch, part.first_epoch), part.patch_size) for part in self.parts)
        return self.patches_per_epoch * sum(max(0, epochs) * side**2 for epochs, side in later)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step.

        It rises linearly over `warmup_steps`, then falls by a cosine to zero or halves in steps. A
        stage with a rate of its own restarts this.
        """
        config, here = self._config, self._part_of_step(step)
        restarts = [i for i, part in enumerate(self.parts) if i == 0 or part.stage.learning_rate is not None]
        first = self.parts[max(i for i in restarts if i <= here)]
        end = min((self.parts[i].first_step for i in restarts if i > here), default=self.total_steps)
        done = step - first.first_step
        rate = first.stage.learning_rate or config.learning_rate
        rate *= min(1.0, (done + 1) / max(1, config.warmup_steps))
        if config.lr_schedule == "cosine":
            return rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done / (end - first.first_step))))
        part = self.parts[here]
        epoch = part.first_epoch + (step - part.first_step) // part.steps_per_epoch
        return float(rate * 0.5 ** ((epoch - first.first_epoch) // config.lr_halve_step))

    def _part_of_step(self, step: int) -> int:
        last = len(self.parts) - 1
        return next((i for i, part in enumerate(self.parts) if step < part.end_step), last)


def check_stages(config: TrainConfig, *, processes: int) -> None:
    """Find mistakes in the last stage before the first one runs.

    Raises:
        TrainingError: a stage does not parse, its loss is unknown, or its batches are too small to share.
    """
    for part in Schedule(config, patches_per_epoch=1).parts:
        loss_from_expression(part.stage.loss, fft_cutoff=config.fft_cutoff)
        if processes > part.batch_size:
            raise TrainingError(
                f"a batch of {part.batch_size} patches cannot be shared by {processes} processes; "
                "raise --batch-size"
            )
