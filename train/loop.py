"""The training loop: steps, stages, validation, checkpoints, resume."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sr.errors import DataError, TrainingError
from sr.network.checkpoint import Weights, save_weights
from sr.network.colour import network_image
from sr.network.model import SRNet, frozen_attention, model_cost
from train.config import TrainConfig
from train.data.degrade import degradation_from
from train.data.pairs import load_pair_list
from train.data.patches import Batch, Epoch, PatchSource, Sampling, pair_problems, prepared_ahead
from train.data.samples import degradation_sheet, save_png
from train.distributed import Group, single
from train.evaluate import Quality, evaluate, upscale_with
from train.initial import initial_model
from train.losses import loss_from_expression
from train.monitor import Metrics, Speed, plot_curves
from train.muon import Muon
from train.schedule import Schedule
from train.stage import Stage
from train.state import keep_epoch, load_state, require_same_settings, rng_state, save_state, set_rng_state

_AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Looking at a loss waits for the GPU, so there several are looked at together.
_LOSSES_AT_ONCE = {"cpu": 1, "cuda": 32}
# Steps after which several processes agree on whether they were asked to stop.
_STEPS_BETWEEN_AGREEMENTS = 8


class Stopped(Exception):
    """The run was asked to stop, and its state is saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class Trainer:
    """One training run, or one process's part in it."""

    def __init__(
        self,
        config: TrainConfig,
        *,
        group: Group | None = None,
        log: Callable[[str], object] = print,
        resume: bool = False,
    ) -> None:
        """Build the network, read the data, and check that everything fits.

        Args:
            group: the place of this process among those of the run; its only one, if not given.
            log: called with each line of the report, in the main process.
            resume: go on from the run's last checkpoint.

        Raises:
            DataError: the lists or pictures do not fit.
            TrainingError: the settings cannot work, or the run cannot be resumed.
        """
        self.config, self.group = config, group or single()
        self._log = log if self.group.is_main else lambda _: None
        parts = Schedule(config, patches_per_epoch=1).parts
        for part in parts:  # a mistake in the last stage should not wait for it
            self._loss(part.stage)
            if self.group.world > part.batch_size:
                raise TrainingError(
                    f"a batch of {part.batch_size} patches cannot be shared by {self.group.world} processes; "
                    "raise --batch-size"
                )
        self._degradation = degradation_from(config.degrade)
        torch.manual_seed(config.seed)
        self.source = self._checked_data(patch_size=max(part.patch_size for part in parts))
        patches = len(self.source) * config.patches_per_picture
        self.schedule = Schedule(config, patches_per_epoch=patches)
        self._frozen: dict[str, Any] = {}
        # What a run once started from may be gone when it is resumed.
        model, self._started_from = (
            (SRNet(config.model), {}) if resume else initial_model(config, log=self._log)
        )
        self._use(model)
        self.epoch, self.step, self.seconds = 0, 0, 0.0
        self._done_in_epoch, self._loss_sum = 0, 0.0
        self.best: float | None = None
        self.metrics = Metrics(config.file("metrics.jsonl"))
        self.speed = Speed(model_cost(config.model).macs_per_lr_px)
        if resume:
            self._resume()

    def _checked_data(self, *, patch_size: int) -> PatchSource:
        """Read the training pictures, and look at those of the validation lists: all problems at once."""
        config, scale = self.config, self.config.model.scale
        train, *others = (load_pair_list(path) for path in (config.train_list, *config.val_lists))
        problems: list[str] = []
        if self.group.local_rank == 0:
            problems = [problem for pairs in others for problem in pair_problems(pairs, scale=scale)]
        problems = self.group.from_machine_leader(problems)
        try:
            source = PatchSource.shared(train, scale=scale, patch_size=patch_size, group=self.group)
        except DataError as error:
            problems.insert(0, str(error))
        if problems:
            raise DataError("; ".join(problems))
        return source

    # --- the run --------------------------------------------------------------------------------

    def run(self) -> Quality | None:
        """Train to the last epoch; return the last measurement on the first validation list.

        Raises:
            TrainingError: a loss is not finite; the checkpoints from before stay.
            Stopped: the process got SIGTERM or SIGINT; its state is saved.
        """
        self._start()
        last: Quality | None = None
        try:
            with _asked_to_stop(alone=self.group.world == 1) as stop:
                while self.epoch < self.schedule.total_epochs:
                    self._enter_stage()
                    speed = self._train_epoch(stop)
                    last = self._finish_epoch(speed)
        finally:
            self.metrics.close()
        self._end()
        return last

    def _start(self) -> None:
        config, group = self.config, self.group
        if group.is_main:
            config.run_dir.mkdir(parents=True, exist_ok=True)
            self.metrics.start(epoch=self.epoch)
        what = f"{group.world} processes, " if group.world > 1 else ""
        where = _device_name(group.device)
        if group.device.type == "cpu":
            where += f" (no GPU is visible), {torch.get_num_threads()} threads"
        self._log(
            f"training x{config.model.scale} {config.preset} on {what}{where}: "
            f"{len(self.source)} pictures, {self.schedule.total_steps} steps, "
            f"{self.schedule.total_epochs} epochs; next is epoch {self.epoch + 1}"
        )
        self._log(
            f"training list {config.train_list}; validation {', '.join(map(str, config.val_lists)) or 'none'}"
        )

        if group.is_main and self._degradation is not None:
            save_png(path := config.file("degradation.png"), degradation_sheet(self._epoch_plan(0)))
            self._log(f"lr patches are degraded; {path} shows some: hr, lr before, lr after")

    def _train_epoch(self, stop: _StopFlag) -> Speed:
        """Do what is left of the epoch; on request save in the middle of it and raise `Stopped`."""
        plan, group = self._epoch_plan(self.epoch), self.group
        loss_of = self._loss(self.schedule.part(self.epoch).stage)
        batches = prepared_ahead(
            lambda step: plan.batch(step, rank=group.rank, world=group.world),
            range(self._done_in_epoch, len(plan)),
            workers=self.config.workers,
        )
        pending: list[Tensor] = []
        speed = Speed(self.speed.macs_per_lr_px)
        started = now = time.perf_counter()
        while True:
            batch = next(batches, None)
            speed.wait_seconds += time.perf_counter() - now
            if batch is None:
                break
            try:
                pending.append(self._train_step(batch, plan, loss_of))
            except torch.OutOfMemoryError as error:
                size = plan.sampling
                raise TrainingError(
                    f"out of memory on {_device_name(group.device)} with batches of {size.batch_size} "
                    f"patches of {size.patch_size} px; lower --batch-size or --patch-size, or --amp"
                ) from error
            self._done_in_epoch += 1
            self.step += 1
            speed.images += plan.size(self._done_in_epoch - 1)
            if len(pending) >= _LOSSES_AT_ONCE[group.device.type] or self._done_in_epoch == len(plan):
                self._look_at(pending, plan)
            if self._should_stop(stop):
                self._look_at(pending, plan)
                self.seconds += time.perf_counter() - started
                self._stop(stop)
            now = time.perf_counter()
        speed.seconds = time.perf_counter() - started
        speed.lr_pixels = speed.images * plan.sampling.patch_size**2
        self.seconds += speed.seconds
        return speed

    def _train_step(self, batch: Batch, plan: Epoch, loss_of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Do one step; return this process's share of the batch's mean loss, not yet looked at."""
        config, size = self.config, plan.size(self._done_in_epoch)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self.schedule.learning_rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        # A compiled graph would be compiled anew for the shape of a last, shorter batch.
        forward = self._forward if size == plan.sampling.batch_size else self._wrapped
        lr, hr = (self._on_device(images) for images in (batch.lr, batch.hr))
        mine = len(range(self.group.rank, size, self.group.world))
        uneven = size % self.group.world > 0
        if uneven:
            self._average_buffers()
        with torch.autocast(
            self.group.device.type,
            _AMP_DTYPES.get(config.amp, torch.bfloat16),
            enabled=config.amp != "off",
        ):
            sr = forward(lr)
        loss = loss_of(sr.float(), hr) * (mine / size)
        # DistributedDataParallel divides gradients by the number of processes.
        self._scaler.scale(loss * self.group.world).backward()
        if uneven and self._has_running_means:
            self.group.average_buffers(self.model, share=mine / size)
        if config.max_grad_norm:
            self._scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
        value = loss.detach()
        if self.group.device.type == "cpu" and self.group.any(not math.isfinite(float(value))):
            return value  # without the step, so that the weights which led here can be saved
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self._averaged is not None:
            self._averaged.update_parameters(self.model)
        return value

    def _on_device(self, images: Any) -> Tensor:
        """uint8 (N, H, W, 3) to float (N, C, H, W) in [0, 1] in the network's colour space, channels last."""
        tensor = torch.from_numpy(images)
        if self.group.device.type == "cuda":
            tensor = tensor.pin_memory().to(self.group.device, non_blocking=True)
        rgb = tensor.permute(0, 3, 1, 2).float() / 255
        return network_image(rgb, self.config.model.colour)

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
            f"of {', '.join(names[:3])}{more}); the state is in {path}, earlier checkpoints are left as they "
            "were; try a lower --lr, or --amp off"
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
        self.speed.add(speed)
        self._done_in_epoch, self._loss_sum = 0, 0.0
        self._average_buffers()
        last_epoch = self.epoch == self.schedule.total_epochs
        qualities = self._measure() if self.epoch % config.val_every == 0 or last_epoch else {}
        if qualities:
            record["quality"] = {name: asdict(quality) for name, quality in qualities.items()}
            if self._frozen:
                self._frozen["fine_tuned"] = {name: quality.psnr_y for name, quality in qualities.items()}
        first = next(iter(qualities.values()), None)
        self._log(
            f"epoch {self.epoch}/{self.schedule.total_epochs}  {stage.loss} {record['loss']:.5f}"
            f"{''.join(f'  {_list_name(n)} {q}' for n, q in qualities.items())}  "
            f"{speed.figures()['images_per_s']:,.0f} images/s  {self.seconds / 60:.1f} min"
        )
        if self.group.is_main:
            self.metrics.write(record)
            better = first is not None and (self.best is None or first.psnr_y > self.best)
            self.best = first.psnr_y if first is not None and better else self.best
            self._save(best=better, keep=self.epoch % config.save_every == 0 or last_epoch)
        return first

    def _measure(self) -> dict[str, Quality]:
        """Measure on every validation list; each process takes its share of the pictures."""
        upscale = upscale_with(self.shipped_model)
        return {
            path.as_posix(): evaluate(upscale, path, scale=self.config.model.scale, group=self.group)
            for path in self.config.val_lists
        }

    def _end(self) -> None:
        if not self.group.is_main:
            return
        if self.speed.images:
            self._log(f"trained {self.step} steps in {self.seconds / 60:.1f} min: {self.speed}")
        written = [self.config.file("last.safetensors")]
        written += [self.config.file("best.safetensors")] if self.best is not None else []
        if plot_curves(self.metrics.read(), path := self.config.file("curves.png")):
            written.append(path)
        else:
            self._log('no curves: matplotlib is not installed; pip install "srup[train]"')
        self._log(f"wrote {', '.join(map(str, written))}")

    # --- stopping -------------------------------------------------------------------------------

    def _should_stop(self, stop: _StopFlag) -> bool:
        if self.group.world == 1:
            return stop.signal_number is not None
        return self.step % _STEPS_BETWEEN_AGREEMENTS == 0 and self.group.any(stop.signal_number is not None)

    def _stop(self, stop: _StopFlag) -> None:
        self._average_buffers()
        if self.group.is_main:
            self._save(best=False, keep=False)
        batches = self.schedule.part(self.epoch).steps_per_epoch
        raise Stopped(
            f"stopped after step {self.step} (epoch {self.epoch + 1}, {self._done_in_epoch} of {batches} "
            f"batches); saved {self.config.file('last.pt')}; continue with --resume",
            stop.signal_number or signal.SIGTERM,
        )

    # --- the network and what trains it ---------------------------------------------------------

    @property
    def shipped_model(self) -> SRNet:
        """The network that is measured and shipped: the moving average, if there is one."""
        return self.model if self._averaged is None else cast(SRNet, self._averaged.module)

    def _use(self, model: SRNet) -> None:
        """Train `model` from now on, with an optimizer that has no history."""
        config, device = self.config, self.group.device
        self.model = model.train().to(device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        wrapped: nn.Module = self.model
        if config.model.norm == "batch" and device.type == "cuda" and self.group.world > 1:
            wrapped = nn.SyncBatchNorm.convert_sync_batchnorm(wrapped)
        self._wrapped = self.group.wrap(wrapped)
        self._forward: Callable[[Tensor], Tensor] = self._wrapped
        self._compiled_for = (0, 0)
        self.optimizer = _optimizer(config, self.model)
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.amp == "fp16")
        self._averaged = None
        if config.ema:
            self._averaged = AveragedModel(
                self.model, multi_avg_fn=_moving_average(config.ema), use_buffers=True
            )

    @property
    def _has_running_means(self) -> bool:
        return self.model.config.attention == "dynamic" or self.model.config.norm == "batch"

    def _average_buffers(self) -> None:
        for model in filter(None, (self.model, self._averaged)):
            if self._has_running_means:
                self.group.average_buffers(model)

    def _enter_stage(self) -> None:
        """Freeze the gates where the stage asks for it; compile for the shape of its batches."""
        part = self.schedule.part(self.epoch)
        if part.stage.frozen and self.model.config.attention == "dynamic":
            self._freeze()
        if self.config.compile and self._compiled_for != (part.batch_size, part.patch_size):
            # Each stage has one shape. Graphs of earlier stages would count towards the limit of
            # recompilations, after which torch runs uncompiled.
            torch.compiler.reset()
            self._forward = torch.compile(self._wrapped, dynamic=False)
            self._compiled_for = (part.batch_size, part.patch_size)

    def _freeze(self) -> None:
        """Fix the attention gates to their running mean, and report what that costs."""
        before = self._measure()
        self._use(frozen_attention(self.shipped_model))
        after = self._measure()
        self._frozen = {
            "epoch": self.epoch,
            "live": {name: quality.psnr_y for name, quality in before.items()},
            "at_once": {name: quality.psnr_y for name, quality in after.items()},
        }
        costs = [
            f"{_list_name(name)} {before[name].psnr_y:.3f} -> {after[name].psnr_y:.3f} dB" for name in before
        ]
        self._log("froze the attention gates to their running mean" + "".join(f"  {cost}" for cost in costs))

    def _loss(self, stage: Stage) -> Callable[[Tensor, Tensor], Tensor]:
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

    # --- saving and resuming --------------------------------------------------------------------

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
            "model": self.model.state_dict(),
            "attention": self.model.config.attention,
            "averaged": None if self._averaged is None else self._averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
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
            if state["attention"] == "frozen":
                self._use(frozen_attention(self.model))
            elif state["attention"] != self.config.model.attention:
                raise ValueError(f"attention is {state['attention']!r}")
            self.model.load_state_dict(state["model"])
            if self._averaged is not None:
                self._averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self._scaler.load_state_dict(state["scaler"])
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
        if self.step != self.schedule.first_step(self.epoch) + self._done_in_epoch:
            raise TrainingError(
                f"{path}: made with another number of pictures or other batch sizes in earlier stages: "
                f"epoch {self.epoch + 1} now starts at step {self.schedule.first_step(self.epoch)}; "
                "start a new run from it with --init-weights"
            )
        old = TrainConfig.from_dict(json.loads(state["config"]))
        saved = Schedule(old, patches_per_epoch=self.schedule.patches_per_epoch).part(self.epoch)
        here = self.schedule.part(self.epoch)
        if self._done_in_epoch and (saved.batch_size, saved.patch_size) != (here.batch_size, here.patch_size):
            raise TrainingError(
                f"{path}: saved within epoch {self.epoch + 1}, whose batches are {saved.batch_size} patches "
                f"of {saved.patch_size} px, not {here.batch_size} of {here.patch_size} px; batch and patch "
                "size can only change between epochs"
            )

    def weights(self) -> Weights:
        """Return the network's present weights with a summary of how they came about."""
        config, model = self.config, self.shipped_model
        training: dict[str, Any] = {
            "data": config.data_note,
            "pictures": len(self.source),
            "steps": self.step,
            "hours": round(self.seconds / 3600, 3),
            "device": _device_name(self.group.device),
            "stages": ", ".join(str(part.stage) for part in self.schedule.parts),
            "optimizer": config.optimizer,
            "learning_rate": config.learning_rate,
            "lr_schedule": config.lr_schedule,
            "batch_size": config.batch_size,
            "patch_size": config.patch_size,
            "ema": config.ema,
            "seed": config.seed,
        }
        if self._degradation is not None:
            training["degradation"] = asdict(self._degradation)
        if self._frozen:
            training["frozen"] = self._frozen
        if self._started_from:
            training["started_from"] = self._started_from
        return Weights(
            replace(config.model, attention=model.config.attention),
            {name: value.detach().cpu() for name, value in model.state_dict().items()},
            training,
            config.preset,
            licence=config.licence,
        )


def _optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "Muon":
        if not hasattr(torch.optim, "Muon"):
            raise TrainingError(f"optimizer Muon needs torch 2.9 or later, here is {torch.__version__}")
        return Muon(parameters, betas=(0.9, 0.99), **shared)
    if config.optimizer == "SGD":
        return torch.optim.SGD(parameters, momentum=0.9, **shared)
    kind = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[config.optimizer]
    return kind(parameters, betas=(0.9, 0.99), **shared)


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Return the update of an exponential moving average that forgets its start.

    The decay rises to `decay` as (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage:
    without that the initial weights would weigh for 1 / (1 - decay) steps.
    """

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], updates: Tensor | int) -> None:
        share = 1 - min(decay, (1 + int(updates)) / (10 + int(updates)))
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new, share)
            else:  # the step counter of a batch norm
                old.copy_(new)

    return update


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _list_name(path: str) -> str:
    """Name a list after its folder: pairs/val/Set5/x2.json is Set5."""
    return Path(path).parent.name or path


class _StopFlag:
    """Which signal asked the run to stop; None as long as none did."""

    signal_number: int | None = None


@contextmanager
def _asked_to_stop(*, alone: bool) -> Iterator[_StopFlag]:
    """Turn SIGTERM and SIGINT into a flag.

    A second SIGINT stops at once, if the process is alone: a launcher passes on the SIGINT which the
    terminal has already sent to all.
    """
    flag = _StopFlag()
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield flag
        return

    def handle(number: int, _: FrameType | None) -> None:
        if alone and flag.signal_number == number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.signal_number = number

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
