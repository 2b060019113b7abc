"""The settings of a training run, all of them, in one frozen dataclass."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sr.errors import TrainingError
from sr.model import ModelConfig


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one run; stored in every checkpoint.

    Attributes:
        model: the network to train.
        train_list: JSON pair list to train on.
        val_lists: JSON pair lists to measure on.
        run_dir: where checkpoints and metrics go.
        preset: name recorded with the weights.
        loss: name of a loss in `train.losses.LOSSES`.
        total_epochs: epochs of the whole run; the schedule ends there.
        patches_per_picture: random patches that each picture contributes to an epoch.
        batch_size: patches a step.
        patch_size: side of an lr patch in pixels.
        learning_rate: at the start.
        lr_schedule: "cosine" falls to zero at the end; "step" halves every `lr_halve_step` epochs.
        warmup_steps: steps over which the learning rate rises linearly from zero.
        max_grad_norm: gradients are scaled down to this norm; 0 switches it off.
        val_every: epochs between measurements; the last epoch is always measured.
        seed: of initialisation and of every patch drawn.
        compile: train through `torch.compile`.
        init_weights: weights to start from (trunk only, if their scale differs).
        freeze_attention: replace the gates by their running mean before training.
        data_note: what the training data are, for the model's metadata.
    """

    model: ModelConfig
    train_list: Path
    run_dir: Path
    val_lists: tuple[Path, ...] = ()
    preset: str = "custom"
    loss: str = "l1"
    total_epochs: int = 100
    patches_per_picture: int = 16
    batch_size: int = 16
    patch_size: int = 24
    learning_rate: float = 1e-3
    lr_schedule: Literal["cosine", "step"] = "cosine"
    lr_halve_step: int = 60
    warmup_steps: int = 100
    max_grad_norm: float = 1.0
    val_every: int = 5
    seed: int = 0
    compile: bool = False
    init_weights: Path | None = None
    freeze_attention: bool = False
    data_note: str = ""
    # Settings under which a checkpoint may be resumed although they differ from the run's.
    RESUMABLE_CHANGES: frozenset[str] = field(
        default=frozenset(
            {
                "run_dir",
                "train_list",
                "val_lists",
                "val_every",
                "compile",
                "init_weights",
                "total_epochs",
                "data_note",
            }
        ),
        init=False,
        repr=False,
    )

    def __post_init__(self) -> None:
        for name in ("total_epochs", "patches_per_picture", "batch_size", "patch_size", "val_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}, need at least 1")
        if not self.learning_rate > 0:
            raise TrainingError(f"learning rate is {self.learning_rate}, need more than 0")
        if self.lr_schedule not in ("cosine", "step"):
            raise TrainingError(f"lr schedule {self.lr_schedule!r} is unknown, need cosine or step")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values."""
        fields = asdict(self)
        del fields["RESUMABLE_CHANGES"]
        for name, value in fields.items():
            if isinstance(value, Path):
                fields[name] = value.as_posix()
        fields["val_lists"] = [path.as_posix() for path in self.val_lists]
        return fields
