"""The training loop: epochs and steps, validation, saving and resuming."""

from __future__ import annotations

import json
import math
import signal
import time
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from sr.errors import TrainingError
from sr.network.checkpoint import Weights, save_weights
from sr.network.model import SRNet, frozen_attention
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
from train.report import Log, Progress, Report, StepReport, device_name
from train.schedule import Schedule, check_stages
from train.stage import Stage
from train.state import (
    keep_epoch,
    load_state,
    require_same_place,
    require_same_settings,
    rng_state,
    save_state,
    set_rng_state,
)
from train.stopping import StopFlag, Stopped, asked_to_stop
from train.summary import training_summary

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
        self.epoch, self.step, self.seconds = 0, 0, 0.0
        self._done_in_epoch, self._loss_sum = 0, 0.0
        self.best: float | None = None
        self._frozen: dict[str, Any] = {}
        self._started_from: dict[str, Any] = {}
        if resume:  # what a run once started from may be gone
            self.learner.use(SRNet(config.model))
            self._resume()
        else:
            model, self._started_from = initial_model(config, log=self.report.log)
            self.learner.use(model)

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
        if self.epoch >= total:
            self.report.log(
                f"{last_state}: this run is complete, {self.epoch} of {total} epochs; to train longer, raise "
                "--total-epochs or add a --stage"
            )
            return None
        self.report.start(pictures=len(self.source), schedule=self.schedule, epoch=self.epoch)
        if self._degradation is not None:
            self.report.degradation(self._epoch_plan(self.epoch))
        last: Quality | None = None
        try:
            with asked_to_stop(alone=self.group.world == 1) as stop:
                while self.epoch < total:
                    self._enter_stage()
                    speed = self._train_epoch(stop)
                    last = self._finish_epoch(speed)
        finally:
            self.report.close()
        self.report.end(steps=self.step, seconds=self.seconds)
        return last

    def _enter_stage(self) -> None:
        """Freeze the gates where the stage asks for it; compile for the shape of its batches."""
        part = self.schedule.part(self.epoch)
        if part.stage.frozen and self.model.config.attention == "dynamic":
            before = self._measure()
            self.learner.use(frozen_attention(self.shipped_model))
            after = self._measure()
            self._frozen = {
                "epoch": self.epoch,
                "live": {name: quality.psnr_y for name, quality in before.items()},
                "at_once": {name: quality.psnr_y for name, quality in after.items()},
            }
            self.report.frozen(before, after)
        self.learner.compile_for(part)

    def _train_epoch(self, stop: StopFlag) -> Speed:
        """Do what is left of the epoch; on request save in the middle of it and raise `Stopped`."""
        plan, group = self._epoch_plan(self.epoch), self.group
        loss_of = self._loss(self.schedule.part(self.epoch).stage)
        batches = prepared_ahead(
            lambda step: plan.batch(step, rank=group.rank, world=group.world),
            range(self._done_in_epoch, len(plan)),
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
            self._done_in_epoch += 1
            self.step += 1
            speed.images += plan.size(self._done_in_epoch - 1)
            if len(pending) >= _LOSSES_AT_ONCE[group.device.type] or self._done_in_epoch == len(plan):
                self._look_at(pending, plan)
                speed.seconds = time.perf_counter() - started
                self.report.step(lambda: self._step_report(plan, speed))
            if self._should_stop(stop):
                self._look_at(pending, plan)
                self.seconds += time.perf_counter() - started
                self._stop(stop)
            now = time.perf_counter()
        speed.seconds = time.perf_counter() - started
        speed.lr_pixels = speed.images * plan.sampling.patch_size**2
        self.seconds += speed.seconds
        return speed

    def _train_step(self, batch: Batch, plan: Epoch, loss_of: Loss) -> Tensor:
        """Do one step; return this process's share of the batch's mean loss, not yet looked at."""
        size = plan.size(self._done_in_epoch)
        try:
            return self.learner.step(
                batch,
                size=size,
                full=size == plan.sampling.batch_size,
                learning_rate=self.schedule.learning_rate(self.step),
                loss_of=loss_of,
            )
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"out of memory on {device_name(self.group.device)} with batches of "
                f"{plan.sampling.batch_size} patches of {plan.sampling.patch_size} px; lower --batch-size or "
                "--patch-size, or use --amp"
            ) from error

    def _step_report(self, plan: Epoch, speed: Speed) -> StepReport:
        done = sum(plan.size(step) for step in range(self._done_in_epoch))
        side = plan.sampling.patch_size
        left = self.schedule.lr_pixels_after(self.epoch + 1) + (len(plan.order) - done) * side**2
        rate = speed.images / max(speed.seconds, 1e-9)
        return StepReport(
            epoch=self.epoch + 1,
            total_epochs=self.schedule.total_epochs,
            step=self._done_in_epoch,
            steps=len(plan),
            loss=self._loss_sum / done,
            images_per_s=rate,
            seconds_left=left / (rate * side**2),
        )

    def _look_at(self, pending: list[Tensor], plan: Epoch) -> None:
        """Add up losses that were not looked at yet, and check that they are finite."""
        if not pending:
            return
        values = self.group.sum(torch.stack(pending)).tolist()
        first = self._done_in_epoch - len(values)
        pending.clear()
        for index, value in enumerate(values, start=first):
            if not math.isfinite(value):
                self._diverged(value, step=self.step - self._done_in_epoch + index, batch=index, plan=plan)
            self._loss_sum += value * plan.size(index)

    def _diverged(self, value: float, *, step: int, batch: int, plan: Epoch) -> None:
        # Not as last.pt: saving there would replace good weights by those that led here.
        path = self.config.file("diverged.pt")
        if self.group.is_main:
            save_state(path, self.config, self._state())
        names = plan.pictures(batch)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise TrainingError(
            f"the loss is {value} at step {step} (epoch {self.epoch + 1}, batch {batch + 1} of {len(plan)}, "
            f"of {', '.join(names[:3])}{more}); the state is in {path}, earlier checkpoints are unchanged; "
            "try a lower --lr, or --amp off"
        )

    def _finish_epoch(self, speed: Speed) -> Quality | None:
        """Measure, report and save what the epoch brought; return the first list's measurement."""
        config, stage = self.config, self.schedule.part(self.epoch).stage
        self.epoch += 1
        record: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": round(self.seconds, 1),
            "stage": str(stage),
            "loss": self._loss_sum / self.schedule.patches_per_epoch,
            "learning_rate": self.schedule.learning_rate(self.step),
            **speed.figures(),
        }
        self.report.speed.add(speed)
        self._done_in_epoch, self._loss_sum = 0, 0.0
        self.learner.average_buffers()
        last_epoch = self.epoch == self.schedule.total_epochs
        qualities = self._measure() if self.epoch % config.val_every == 0 or last_epoch else {}
        if qualities:
            record["quality"] = {name: asdict(quality) for name, quality in qualities.items()}
            self.report.crops(upscale_with(self.shipped_model), epoch=self.epoch)
            if self._frozen:
                self._frozen["fine_tuned"] = {name: quality.psnr_y for name, quality in qualities.items()}
        self.report.epoch(record, qualities, total_epochs=self.schedule.total_epochs)
        first = next(iter(qualities.values()), None)
        if self.group.is_main:
            better = first is not None and (self.best is None or first.psnr_y > self.best)
            self.best = first.psnr_y if first is not None and better else self.best
            self._save(best=better, keep=self.epoch % config.save_every == 0 or last_epoch)
        return first

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

    # --- stopping, saving and resuming ----------------------------------------------------------

    def _should_stop(self, stop: StopFlag) -> bool:
        if self.group.world == 1:
            return stop.signal_number is not None
        return self.step % _STEPS_BETWEEN_AGREEMENTS == 0 and self.group.any(stop.signal_number is not None)

    def _stop(self, stop: StopFlag) -> None:
        self.learner.average_buffers()
        if self.group.is_main:
            self._save(best=False, keep=False)
        batches = self.schedule.part(self.epoch).steps_per_epoch
        raise Stopped(
            f"stopped after step {self.step} (epoch {self.epoch + 1}, {self._done_in_epoch} of {batches} "
            f"batches); saved {self.config.file('last.pt')}; continue with --resume",
            stop.signal_number or signal.SIGTERM,
        )

    def _save(self, *, best: bool, keep: bool) -> None:
        """Write the weights and the resumable checkpoint, each atomically.

        The checkpoint comes last: it knows of the best weights, so they have to be there.
        """
        config, weights = self.config, self.weights()
        if best:
            save_weights(config.file("best.safetensors"), weights)
        save_weights(config.file("last.safetensors"), weights)
        save_state(config.file("last.pt"), config, self._state())
        if keep:
            keep_epoch(config, self.epoch)

    def save(self) -> None:
        """Write the resumable checkpoint and the weights, each atomically."""
        self.config.run_dir.mkdir(parents=True, exist_ok=True)
        self._save(best=False, keep=False)

    def _state(self) -> dict[str, Any]:
        return {
            "weights": self.weights().to_dict(),
            **self.learner.state(),
            "progress": {
                "epoch": self.epoch,
                "step": self.step,
                "done_in_epoch": self._done_in_epoch,
                "loss_sum": self._loss_sum,
                "seconds": self.seconds,
                "best": self.best,
                "frozen": json.dumps(self._frozen),
                "started_from": json.dumps(self._started_from),
            },
            "rng": rng_state(),
        }

    def _resume(self) -> None:
        """Take up the state in the run's last checkpoint.

        Raises:
            TrainingError: there is none, it is damaged, or it belongs to other settings.
        """
        path = self.config.file("last.pt")
        state = load_state(path)
        require_same_settings(path, state["config"], self.config)
        try:
            self.learner.load(state)
            progress = state["progress"]
            self.epoch, self.step, self.seconds = (progress[n] for n in ("epoch", "step", "seconds"))
            self._done_in_epoch, self._loss_sum = progress["done_in_epoch"], progress["loss_sum"]
            self.best = progress["best"]
            self._frozen = json.loads(progress["frozen"])
            self._started_from = json.loads(progress["started_from"])
            set_rng_state(state["rng"])
        except (AttributeError, KeyError, ValueError, TypeError, RuntimeError) as error:
            reason = f"{type(error).__name__} {error}".splitlines()[0]
            raise TrainingError(f"{path}: does not hold the state of this run ({reason})") from error
        require_same_place(path, state["config"], self.schedule, epoch=self.epoch, done=self._done_in_epoch,
                           step=self.step)  # fmt: skip

    def weights(self) -> Weights:
        """Return the network's present weights with a summary of how they came about."""
        config, model = self.config, self.shipped_model
        more = {
            "pictures": len(self.source),
            "device": device_name(self.group.device),
            "degradation": None if self._degradation is None else asdict(self._degradation),
            "frozen": self._frozen,
            "started_from": self._started_from,
        }
        return Weights(
            replace(config.model, attention=model.config.attention),
            {name: value.detach().cpu() for name, value in model.state_dict().items()},
            training_summary(config, self.schedule, steps=self.step, seconds=self.seconds, more=more),
            config.preset,
            licence=config.licence,
        )
