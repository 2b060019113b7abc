"""The network in training and what trains it: optimizer, mixed precision, moving average, compiled graph.

Owns one step, from a batch to changed weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sr.network.colour import network_image
from sr.network.model import SRNet, frozen_attention, without_gates
from train.between import Between, strength_of
from train.config import TrainConfig
from train.data.patches import Batch
from train.distributed import Group
from train.losses import Loss
from train.muon import Muon
from train.schedule import Part

_AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Learner:
    """A network with its optimizer; `use` puts in another network."""

    model: SRNet
    optimizer: torch.optim.Optimizer

    def __init__(self, config: TrainConfig, group: Group) -> None:
        self._config, self._group = config, group
        self._between = None if config.pair_base is None else Between(config.pair_base, group.device)

    def use(self, model: SRNet) -> None:
        """Train `model` from now on, with an optimizer that has no history."""
        config, group = self._config, self._group
        self.model = model.train().to(group.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        wrapped: nn.Module = self.model
        if config.model.norm == "batch" and group.device.type == "cuda" and group.world > 1:
            wrapped = nn.SyncBatchNorm.convert_sync_batchnorm(wrapped)
        self._wrapped = group.wrap(wrapped)
        self._forward: Callable[[Tensor], Tensor] = self._wrapped
        self._compiled_for = (0, 0)
        self.optimizer = _optimizer(config, self.model)
        self._scaler = torch.amp.GradScaler(group.device.type, enabled=config.amp == "fp16")
        self.averaged = None
        if config.ema:
            average = _moving_average(config.ema)
            self.averaged = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)

    @property
    def shipped_model(self) -> SRNet:
        """The network that is measured and shipped: the moving average, if there is one."""
        return self.model if self.averaged is None else cast(SRNet, self.averaged.module)

    def compile_for(self, part: Part) -> None:
        """Compile for the batch shape of a stage, if the run uses torch.compile."""
        shape = (part.batch_size, part.patch_size)
        if self._config.compile and self._compiled_for != shape:
            # Each stage has one shape. Graphs of earlier stages would count towards the limit of
            # recompilations, after which torch runs uncompiled.
            torch.compiler.reset()
            self._forward = torch.compile(self._wrapped, dynamic=False)
            self._compiled_for = shape

    def step(
        self, batch: Batch, number: int, *, size: int, full: bool, learning_rate: float, loss_of: Loss
    ) -> Tensor:
        """Do one step; return this process's share of the batch's mean loss, not yet looked at.

        Args:
            batch: the patches of this process.
            number: of the step in the run.
            size: patches of all processes together.
            full: the batch has the size of all batches of the stage.
            learning_rate: of this step.
            loss_of: the loss of (sr, hr).
        """
        group = self._group
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        mine = len(range(group.rank, size, group.world))
        uneven = size % group.world > 0
        if uneven:
            self.average_buffers()
        with self._weights_of_step(number):
            loss = self._loss(batch, loss_of, full=full) * (mine / size)
            # DistributedDataParallel divides gradients by the number of processes.
            self._scaler.scale(loss * group.world).backward()
        if uneven and self._has_running_means:
            group.average_buffers(self.model, share=mine / size)
        value = loss.detach()
        self._apply_gradients(value)
        return value

    def check_pair(self) -> None:
        """Check that the base of a pair, if there is one, fits the network.

        Raises:
            TrainingError: it does not.
        """
        if self._between is not None:
            self._between.check(self.model)

    def strength(self, number: int) -> float:
        """Return the strength of a step: 1, or one of those of a pair."""
        return 1.0 if self._between is None else strength_of(number, seed=self._config.seed)

    def _weights_of_step(self, number: int) -> AbstractContextManager[None]:
        """Give the network the weights of a step's strength."""
        return nullcontext() if self._between is None else self._between.at(self.model, self.strength(number))

    def _loss(self, batch: Batch, loss_of: Loss, *, full: bool) -> Tensor:
        lr, hr = (self._on_device(images) for images in (batch.lr, batch.hr))
        # A compiled graph would be compiled anew for the shape of a last, shorter batch.
        forward = self._forward if full else self._wrapped
        amp = self._config.amp
        dtype = _AMP_DTYPES.get(amp, torch.bfloat16)
        with torch.autocast(self._group.device.type, dtype, enabled=amp != "off"):
            sr = forward(lr)
        return loss_of(sr.float(), hr)

    def _apply_gradients(self, loss: Tensor) -> None:
        if self._config.max_grad_norm:
            self._scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._config.max_grad_norm)
        if self._group.device.type == "cpu" and self._group.any(not math.isfinite(float(loss))):
            return  # without the step, so that the weights which led here can be saved
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def _on_device(self, images: NDArray[Any]) -> Tensor:
        """uint8 (N, H, W, 3) to float (N, C, H, W) in [0, 1] in the network's colour space, channels last."""
        tensor = torch.from_numpy(images)
        if self._group.device.type == "cuda":
            tensor = tensor.pin_memory().to(self._group.device, non_blocking=True)
        rgb = tensor.permute(0, 3, 1, 2).float() / 255
        return network_image(rgb, self._config.model.colour)

    @property
    def _has_running_means(self) -> bool:
        return self.model.config.attention == "dynamic" or self.model.config.norm == "batch"

    def average_buffers(self) -> None:
        """Make running means those of all processes together."""
        for model in filter(None, (self.model, self.averaged)):
            if self._has_running_means:
                self._group.average_buffers(model)

    def state(self) -> dict[str, Any]:
        """Return what `load` takes up."""
        return {
            "model": self.model.state_dict(),
            "attention": self.model.config.attention,
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up a state.

        Raises:
            KeyError, ValueError, TypeError, AttributeError, RuntimeError: it is that of something else.
        """
        if state["attention"] == "frozen":
            self.use(frozen_attention(self.model))
        elif state["attention"] == "none":
            self.use(without_gates(self.model))
        if state["attention"] != self.model.config.attention:
            raise ValueError(f"attention is {state['attention']!r}")
        self.model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])


def _optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Adam and AdamW with betas (0.9, 0.99), SGD with momentum 0.9, or `train.muon.Muon`."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "Muon":
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
