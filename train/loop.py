"""The training loop: epochs and steps, validation, saving and resuming."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from sr.errors import TrainingError
from sr.network.checkpoint import Weights
from sr.network.model import SRNet, frozen_attention
from train.checkpoints import Checkpoints
from train.config import TrainConfig
from train.data.degrade import degradation_from
from train.data.patches import Batch, Epoch, Sampling, prepared_ahead
from train.data.source import checked_source
from train.distributed import Group, single
from train.evaluate import Quality, upscale_with
from train.initial import initial_model
from train.learner import Learner
from train.losses import Loss, loss_from_expression
from train.monitor import Speed
from train.position import Position
from train.report import Log, Progress, Report, device_name, step_report
from train.schedule import Schedule, check_stages
from train.silent import renew, share_of, silent_units
from train.stage import Stage
from train.stopping import StopFlag, Stopped, asked_to_stop

__all__ = ["Stopped", "Trainer"]

# Looking at a loss waits for the GPU, so there several are looked at together.
_LOSSES_AT_ONCE = {"cpu": 1, "cuda": 32}
# Steps after which several processes agree on whether they were asked to stop.
_STEPS_BETWEEN_AGREEMENTS = 8


class Trainer:
    """One training run, or one process's part in it."""

    def __init__(
        self,
        config: TrainConfig,
        *,
        group: Group | None = None,
        log: Log = print,
        progress: Progress | None = None,
        resume: bool = False,
    ) -> None:
        """Build the network, read the data, and check that everything fits.

        Args:
            group: the place of this process among those of the run; its only one, if not given.
            log: called with each line of the report, in the main process.
            progress: called in the main process when the run has moved on within an epoch.
            resume: continue from the run's last checkpoint.

        Raises:
            DataError: the lists or pictures do not fit.
            TrainingError: the settings cannot work, or the run cannot be resumed.
        """
        self.config, self.group = config, group or single()
        check_stages(config, processes=self.group.world)
        self._degradation = degradation_from(config.degrade)
        torch.manual_seed(config.seed)
        self.source = checked_source(config, self.group)
        patches = len(self.source) * config.patches_per_picture
        self.schedule = Schedule(config, patches_per_epoch=patches)
        self.report = Report(config, self.group, log, progress)
        self.learner = Learner(config, self.group)
        self._checkpoints = Checkpoints(config, self.schedule, self.learner, facts=self._facts())
        if resume:  # what a run once started from may be gone
            self.learner.use(SRNet(config.model))
            self.at = self._checkpoints.resume()
        else:
            model, started_from = initial_model(config, log=self.report.log)
            if started_from:
                self._renew_silent_units(model)
            self.learner.use(model)
            self.at = Position(started_from=started_from)
        self.learner.check_pair()

    def _renew_silent_units(self, model: SRNet) -> None:
        silent = silent_units(model, self._epoch_plan(0))
        if share_of(silent):
            renew(model, silent)
            self.report.log(f"{share_of(silent):.1%} of the hidden units never fired; they start anew")

    def _facts(self) -> dict[str, Any]:
        """Return what the weights say about the data and the device."""
        degradation = self._degradation
        return {
            "pictures": len(self.source),
            "device": device_name(self.group.device),
            "degradation": None if degradation is None else asdict(degradation),
        }

    @property
    def model(self) -> SRNet:
        """The network in training."""
        return self.learner.model

    @property
    def shipped_model(self) -> SRNet:
        """The network that is measured and shipped: the moving average, if there is one."""
        return self.learner.shipped_model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What trains it."""
        return self.learner.optimizer

    # --- the run --------------------------------------------------------------------------------

    def run(self) -> Quality | None:
        """Train to the last epoch; return the last measurement on the first validation list.

        Raises:
            TrainingError: a loss is not finite; earlier checkpoints stay.
            Stopped: the process got SIGTERM or SIGINT; its state is saved.
        """
        total, last_state = self.schedule.total_epochs, self.config.file("last.pt")
        if self.at.epoch >= total:
            self.report.log(
                f"{last_state}: this run is complete, {self.at.epoch} of {total} epochs; to train longer, "
                "raise --total-epochs or add a --stage"
            )
            return None
        self.report.start(pictures=len(self.source), schedule=self.schedule, epoch=self.at.epoch)
        if self._degradation is not None:
            self.report.degradation(self._epoch_plan(self.at.epoch))
        last: Quality | None = None
        try:
            with asked_to_stop(alone=self.group.world == 1) as stop:
                while self.at.epoch < total:
                    self._enter_stage()
                    speed = self._train_epoch(stop)
                    last = self._finish_epoch(speed)
        finally:
            self.report.close()
        self.report.end(steps=self.at.step, seconds=self.at.seconds)
        return last

    def _enter_stage(self) -> None:
        """Freeze the gates where the stage asks for it; compile for the shape of its batches."""
        part = self.schedule.part(self.at.epoch)
        if part.stage.frozen and self.model.config.attention == "dynamic":
            before = self._measure()
            self.learner.use(frozen_attention(self.shipped_model))
            after = self._measure()
            self.at.frozen = {
                "epoch": self.at.epoch,
                "live": {name: quality.psnr_y for name, quality in before.items()},
                "at_once": {name: quality.psnr_y for name, quality in after.items()},
            }
            self.report.frozen(before, after)
        self.learner.compile_for(part)

    def _train_epoch(self, stop: StopFlag) -> Speed:
        """Do what is left of the epoch; on request save in the middle of it and raise `Stopped`."""
        plan, group = self._epoch_plan(self.at.epoch), self.group
        loss_of = self._loss(self.schedule.part(self.at.epoch).stage)
        first = self.at.step - self.at.done_in_epoch

        def batch_of(step: int) -> Batch:
            # A strength between those of a pair is trained on that share of the damage.
            suited = plan.milder(self.learner.strength(first + step))
            return suited.batch(step, rank=group.rank, world=group.world)

        batches = prepared_ahead(
            batch_of,
            range(self.at.done_in_epoch, len(plan)),
            workers=self.config.workers,
        )
        pending: list[Tensor] = []
        speed = Speed(self.report.speed.macs_per_lr_px)
        started = now = time.perf_counter()
        while True:
            batch = next(batches, None)
            speed.wait_seconds += time.perf_counter() - now
            if batch is None:
                break
            pending.append(self._train_step(batch, plan, loss_of))
            self.at.done_in_epoch += 1
            self.at.step += 1
            speed.images += plan.size(self.at.done_in_epoch - 1)
            if len(pending) >= _LOSSES_AT_ONCE[group.device.type] or self.at.done_in_epoch == len(plan):
                self._look_at(pending, plan)
                speed.seconds = time.perf_counter() - started
                self.report.step(lambda: step_report(self.at, plan, speed, self.schedule))
            if self._should_stop(stop):
                self._look_at(pending, plan)
                self.at.seconds += time.perf_counter() - started
                self._stop(stop)
            now = time.perf_counter()
        speed.seconds = time.perf_counter() - started
        speed.lr_pixels = speed.images * plan.sampling.patch_size**2
        self.at.seconds += speed.seconds
        return speed

    def _train_step(self, batch: Batch, plan: Epoch, loss_of: Loss) -> Tensor:
        """Do one step; return this process's share of the batch's mean loss, not yet looked at."""
        size = plan.size(self.at.done_in_epoch)
        try:
            return self.learner.step(
                batch,
                self.at.step,
                size=size,
                full=size == plan.sampling.batch_size,
                learning_rate=self.schedule.learning_rate(self.at.step),
                loss_of=loss_of,
            )
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"out of memory on {device_name(self.group.device)} with batches of "
                f"{plan.sampling.batch_size} patches of {plan.sampling.patch_size} px; lower --batch-size or "
                "--patch-size, or use --amp"
            ) from error

    def _look_at(self, pending: list[Tensor], plan: Epoch) -> None:
        """Add up losses that were not looked at yet, and check that they are finite."""
        if not pending:
            return
        values = self.group.sum(torch.stack(pending)).tolist()
        first = self.at.done_in_epoch - len(values)
        pending.clear()
        for index, value in enumerate(values, start=first):
            if not math.isfinite(value):
                step = self.at.step - self.at.done_in_epoch + index
                self._diverged(value, step=step, batch=index, plan=plan)
            self.at.loss_sum += value * plan.size(index)

    def _diverged(self, value: float, *, step: int, batch: int, plan: Epoch) -> None:
        # Not as last.pt: saving there would replace good weights by those that led here.
        at, path = self.at, self.config.file("diverged.pt")
        if self.group.is_main:
            self._checkpoints.save_diverged(self.at)
        names = plan.pictures(batch)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise TrainingError(
            f"the loss is {value} at step {step} (epoch {at.epoch + 1}, batch {batch + 1} of {len(plan)}, "
            f"of {', '.join(names[:3])}{more}); the state is in {path}, earlier checkpoints are unchanged; "
            "try a lower --lr, or --amp off"
        )

    def _finish_epoch(self, speed: Speed) -> Quality | None:
        """Measure, report and save what the epoch brought; return the first list's measurement."""
        at, config = self.at, self.config
        record = self._epoch_record(speed)
        self.report.speed.add(speed)
        at.epoch += 1
        at.done_in_epoch, at.loss_sum = 0, 0.0
        self.learner.average_buffers()
        last_epoch = at.epoch == self.schedule.total_epochs
        qualities = self._measure() if at.epoch % config.val_every == 0 or last_epoch else {}
        if qualities:
            record["quality"] = {name: asdict(quality) for name, quality in qualities.items()}
            record["silent_units"] = share_of(silent_units(self.shipped_model, self._epoch_plan(0)))
            self.report.crops(upscale_with(self.shipped_model), epoch=at.epoch)
            if at.frozen:
                at.frozen["fine_tuned"] = {name: quality.psnr_y for name, quality in qualities.items()}
        self.report.epoch(record, qualities, total_epochs=self.schedule.total_epochs)
        first = next(iter(qualities.values()), None)
        if self.group.is_main:
            better = first is not None and (at.best is None or first.psnr_y > at.best)
            at.best = first.psnr_y if first is not None and better else at.best
            self._checkpoints.save(at, best=better, keep=at.epoch % config.save_every == 0 or last_epoch)
        return first

    def _epoch_record(self, speed: Speed) -> dict[str, Any]:
        """Return what `metrics.jsonl` holds of the epoch that ends, but for measurements."""
        at = self.at
        return {
            "epoch": at.epoch + 1,
            "step": at.step,
            "seconds": round(at.seconds, 1),
            "stage": str(self.schedule.part(at.epoch).stage),
            "loss": at.loss_sum / self.schedule.patches_per_epoch,
            "learning_rate": self.schedule.learning_rate(at.step),
            **speed.figures(),
        }

    def _measure(self) -> dict[str, Quality]:
        return self.report.measure(upscale_with(self.shipped_model))

    def _loss(self, stage: Stage) -> Loss:
        return loss_from_expression(stage.loss, fft_cutoff=self.config.fft_cutoff)

    def _epoch_plan(self, epoch: int) -> Epoch:
        config, part = self.config, self.schedule.part(epoch)
        sampling = Sampling(
            seed=config.seed,
            batch_size=part.batch_size,
            patch_size=part.patch_size,
            patches_per_picture=config.patches_per_picture,
            degradation=self._degradation,
        )
        return self.source.epoch(epoch, sampling)

    # --- stopping and saving --------------------------------------------------------------------

    def _should_stop(self, stop: StopFlag) -> bool:
        if self.group.world == 1:
            return stop.signal_number is not None
        return self.at.step % _STEPS_BETWEEN_AGREEMENTS == 0 and self.group.any(
            stop.signal_number is not None
        )

    def _stop(self, stop: StopFlag) -> None:
        self.learner.average_buffers()
        if self.group.is_main:
            self._checkpoints.save(self.at)
        at, batches = self.at, self.schedule.part(self.at.epoch).steps_per_epoch
        raise Stopped(
            f"stopped after step {at.step} (epoch {at.epoch + 1}, {at.done_in_epoch} of {batches} "
            f"batches); saved {self.config.file('last.pt')}; continue with --resume",
            stop.signal_number or signal.SIGTERM,
        )

    def save(self) -> None:
        """Write the resumable checkpoint and the weights, each atomically."""
        self.config.run_dir.mkdir(parents=True, exist_ok=True)
        self._checkpoints.save(self.at)

    def weights(self) -> Weights:
        """Return the network's present weights with a summary of how they came about."""
        return self._checkpoints.weights(self.at)
