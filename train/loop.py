"""The training loop: steps, schedule, metrics, checkpoints, resume."""

from __future__ import annotations

import io
import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sr.checkpoint import Weights, load_weights, save_weights
from sr.errors import TrainingError
from sr.files import atomic_write
from sr.model import SRNet, frozen_attention, trunk_state
from train.config import TrainConfig
from train.data import PatchSource, load_pair_list
from train.evaluate import Quality, evaluate, upscale_with
from train.losses import loss_from_name

CHECKPOINT_FORMAT = "srup-training-1"


class Trainer:
    """One training run on this process's device: CUDA where there is one, else the CPU."""

    def __init__(self, config: TrainConfig, *, log: Any = print) -> None:
        """Build the network, read the data, and check that everything fits.

        Raises:
            DataError: the lists or pictures do not fit.
            TrainingError: the settings cannot work.
        """
        self.config, self._log = config, log
        self._started_from: dict[str, Any] = {}
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(config.seed)
        self.loss = loss_from_name(config.loss)
        self.source = PatchSource(
            load_pair_list(config.train_list), scale=config.model.scale, patch_size=config.patch_size
        )
        self.steps_per_epoch = len(self.source) * config.patches_per_picture // config.batch_size
        if self.steps_per_epoch < 1:
            raise TrainingError(
                f"{len(self.source)} pictures x {config.patches_per_picture} patches do not fill "
                f"one batch of {config.batch_size}"
            )
        self.model = self._initial_model().train().to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        self._forward = torch.compile(self.model) if config.compile else self.model
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trainable, lr=config.learning_rate, betas=(0.9, 0.99))
        self.epoch, self.step, self.seconds = 0, 0, 0.0

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.config.total_epochs

    def run(self) -> Quality | None:
        """Train to the last epoch; return the last measurement on the first validation list.

        Raises:
            TrainingError: the loss is not finite; what was saved before stays.
        """
        config = self.config
        config.run_dir.mkdir(parents=True, exist_ok=True)
        self._log(f"training on {self.device}, {self.total_steps} steps, epoch {self.epoch + 1} is next")
        last: Quality | None = None
        while self.epoch < config.total_epochs:
            mean_loss = self._train_epoch()
            self.epoch += 1
            record = {"epoch": self.epoch, "step": self.step, "seconds": round(self.seconds, 1)}
            record |= {"loss": mean_loss, "learning_rate": self._learning_rate(self.step)}
            if self.epoch % config.val_every == 0 or self.epoch == config.total_epochs:
                last = self._validate(record)
                self.save()
            self._write_metrics(record)
        return last

    def _train_epoch(self) -> float:
        config, total = self.config, torch.zeros((), device=self.device)
        started = time.perf_counter()
        batches = self.source.epoch(
            seed=config.seed,
            epoch=self.epoch,
            batch_size=config.batch_size,
            patches_per_picture=config.patches_per_picture,
        )
        for lr, hr in batches:
            for group in self.optimizer.param_groups:
                group["lr"] = self._learning_rate(self.step)
            self.optimizer.zero_grad(set_to_none=True)
            sr = self._forward(self._on_device(lr))
            loss = self.loss(sr, self._on_device(hr))
            loss.backward()
            if config.max_grad_norm:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
            if not math.isfinite(value := loss.item()):
                # Saving now would replace good weights by those that led here.
                raise TrainingError(
                    f"the loss is {value} at step {self.step} (epoch {self.epoch + 1}); what was saved "
                    f"before in {config.run_dir} is left as it was; try a lower --lr"
                )
            self.optimizer.step()
            self.step += 1
            total += loss.detach()
        self.seconds += time.perf_counter() - started
        return float(total) / self.steps_per_epoch

    def _on_device(self, batch: Any) -> Tensor:
        """uint8 (N, C, H, W) array to float in [0, 1], channels last."""
        tensor = torch.from_numpy(batch).to(self.device, memory_format=torch.channels_last)
        return tensor.float().div_(255)

    def _learning_rate(self, step: int) -> float:
        config = self.config
        rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
        if config.lr_schedule == "cosine":
            return rate * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.total_steps)))
        return float(rate * 0.5 ** (step // self.steps_per_epoch // config.lr_halve_step))

    def _validate(self, record: dict[str, Any]) -> Quality | None:
        qualities = {}
        for path in self.config.val_lists:
            qualities[path.as_posix()] = evaluate(
                upscale_with(self.model), path, scale=self.config.model.scale
            )
        record["quality"] = {name: asdict(quality) for name, quality in qualities.items()}
        scores = "  ".join(f"{Path(n).parent.name} {q.psnr_y:.3f} dB" for n, q in qualities.items())
        self._log(
            f"epoch {self.epoch}/{self.config.total_epochs}  loss {record['loss']:.5f}  {scores}  "
            f"{self.seconds / 60:.1f} min"
        )
        return next(iter(qualities.values()), None)

    def _write_metrics(self, record: dict[str, Any]) -> None:
        with (self.config.run_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    # --- starting, saving, resuming -------------------------------------------------------------

    def _initial_model(self) -> SRNet:
        config = self.config
        model = SRNet(config.model)
        if config.init_weights is not None:
            weights = load_weights(config.init_weights)
            self._started_from = {
                **weights.training,
                "scale": weights.config.scale,
                "attention": weights.config.attention,
                "sha256": weights.sha256,
            }
            same_scale = weights.config.scale == config.model.scale
            state = weights.state if same_scale else trunk_state(weights.state)
            needed = model.state_dict() if same_scale else trunk_state(model.state_dict())
            if state.keys() != needed.keys():
                raise TrainingError(f"{config.init_weights}: weights of another kind of network")
            try:
                model.load_state_dict(state, strict=False)
            except RuntimeError as error:
                reason = str(error).splitlines()[-1].strip()
                raise TrainingError(f"{config.init_weights}: does not fit this network ({reason})") from error
        return frozen_attention(model) if config.freeze_attention else model

    def save(self) -> None:
        """Write the resumable checkpoint and the weights, each atomically."""
        config = self.config
        checkpoint = {
            "format": CHECKPOINT_FORMAT,
            "config": json.dumps(config.to_dict()),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": {"epoch": self.epoch, "step": self.step, "seconds": self.seconds},
        }
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(config.run_dir / "last.pt") as temporary:
            temporary.write_bytes(buffer.getvalue())
        save_weights(config.run_dir / "weights.safetensors", self.weights())

    def weights(self) -> Weights:
        """Return the network's present weights with a summary of how they came about."""
        config = self.config
        training: dict[str, Any] = {
            "data": config.data_note,
            "steps": self.step,
            "hours": round(self.seconds / 3600, 3),
            "device": str(self.device),
            "loss": config.loss,
            "batch_size": config.batch_size,
            "patch_size": config.patch_size,
            "learning_rate": config.learning_rate,
            "pictures": len(self.source),
        }
        if self._started_from:
            training["started_from"] = self._started_from
        model_config = replace(config.model, attention=self.model.config.attention)
        return Weights(model_config, self.model.state_dict(), training, config.preset)

    def resume(self) -> None:
        """Go on from the run's last checkpoint.

        Raises:
            TrainingError: there is none, it is damaged, or it belongs to other settings.
        """
        path = self.config.run_dir / "last.pt"
        try:
            checkpoint = torch.load(path, map_location=self.device, weights_only=True)
        except FileNotFoundError as error:
            raise TrainingError(f"{path}: no checkpoint to resume from") from error
        except Exception as error:  # a damaged pickle raises anything: KeyError, IndexError, struct.error
            reason = f"{type(error).__name__} {error}".splitlines()[0].strip()
            raise TrainingError(f"{path}: not a readable checkpoint ({reason})") from error
        if not isinstance(checkpoint, dict) or checkpoint.get("format") != CHECKPOINT_FORMAT:
            raise TrainingError(f"{path}: not a training checkpoint of srup")
        saved, ours = json.loads(checkpoint["config"]), json.loads(json.dumps(self.config.to_dict()))
        changed = [
            f"{name} was {saved.get(name)}, is {ours[name]}"
            for name in ours
            if saved.get(name) != ours[name] and name not in self.config.RESUMABLE_CHANGES
        ]
        if changed:
            raise TrainingError(f"{path}: made with other settings: {'; '.join(changed)}")
        self.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        progress = checkpoint["progress"]
        self.epoch, self.step, self.seconds = progress["epoch"], progress["step"], progress["seconds"]
