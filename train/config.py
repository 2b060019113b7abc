"""The settings of a training run: one frozen dataclass, from defaults, a TOML file and the command line."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sr.errors import TrainingError
from sr.network.config import ModelConfig, preset_config
from train.stage import Stage

Optimizer = Literal["Adam", "AdamW", "SGD", "Muon"]
Schedule = Literal["cosine", "step"]
Amp = Literal["off", "bf16", "fp16"]

# Fields of `ModelConfig` that a run may set beside its preset.
MODEL_FIELDS = (
    "num_feats",
    "wa_rate",
    "num_blocks",
    "residual_scale",
    "attention",
    "norm",
    "asymmetric",
    "asym_width",
)
_NOT_SETTINGS = ("model", "RESUMABLE_CHANGES")
# Where `srup prepare` puts its lists.
TRAIN_LIST, VAL_LISTS = "pairs/train/x{scale}.json", "pairs/val/*/x{scale}.json"


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one run; stored in every checkpoint.

    Attributes:
        model: the network to train.
        train_list: JSON pair list to train on.
        val_lists: JSON pair lists to measure on; the first decides which weights are the best.
        checkpoint_dir, save_subdir, save_prefix: files go to
            `checkpoint_dir/save_subdir/<save_prefix>_x<scale>_*`.
        preset: name recorded with the weights; "custom" if the network is none of the presets.
        loss: an expression of `train.losses`, for runs without stages.
        fft_cutoff: of the FFT loss, cycles per pixel.
        stages: parts of the run, `Stage` as text; they replace `loss` and `total_epochs`.
        total_epochs: epochs of the whole run; the schedule ends there.
        patches_per_picture: random patches that each picture contributes to an epoch.
        batch_size: patches a step, over all processes together.
        patch_size: side of an lr patch in pixels.
        optimizer: Adam and AdamW with betas (0.9, 0.99), SGD with momentum 0.9, `train.muon.Muon`.
        weight_decay: of the optimizer.
        learning_rate: at the start.
        lr_schedule: "cosine" falls to zero at the end; "step" halves every `lr_halve_step` epochs.
        warmup_steps: steps over which the learning rate rises linearly from zero.
        max_grad_norm: gradients are scaled down to this norm; 0 switches it off.
        amp: mixed precision of forward and backward pass.
        ema: decay of the exponential moving average of the weights, which is then what is measured
            and shipped; 0 switches it off.
        val_every: epochs between measurements; the last epoch is always measured.
        save_every: epochs between checkpoints that are kept; the last state is saved each epoch.
        keep: how many of these are kept.
        seed: of initialisation and of every patch drawn.
        workers: threads that prepare batches; 0 prepares them in line.
        compile: train through `torch.compile`.
        init_weights: weights or checkpoint to start from (trunk only, if their scale differs).
        data_note: what the training data are, for the model's metadata.
    """

    model: ModelConfig
    train_list: Path
    val_lists: tuple[Path, ...] = ()
    checkpoint_dir: Path = Path("checkpoints")
    save_subdir: str = ""
    save_prefix: str = "srup"
    preset: str = "custom"
    loss: str = "l1"
    fft_cutoff: float = 0.0
    stages: tuple[str, ...] = ()
    total_epochs: int = 100
    patches_per_picture: int = 16
    batch_size: int = 16
    patch_size: int = 24
    optimizer: Optimizer = "Adam"
    weight_decay: float = 0.0
    learning_rate: float = 1e-3
    lr_schedule: Schedule = "cosine"
    lr_halve_step: int = 60
    warmup_steps: int = 100
    max_grad_norm: float = 1.0
    amp: Amp = "off"
    ema: float = 0.0
    val_every: int = 1
    save_every: int = 10
    keep: int = 3
    seed: int = 0
    workers: int = 1
    compile: bool = False
    init_weights: Path | None = None
    data_note: str = ""
    # Settings that may change when a run goes on: none of them alters what has been trained so far.
    RESUMABLE_CHANGES: frozenset[str] = field(
        default=frozenset(
            {
                "train_list",
                "val_lists",
                "checkpoint_dir",
                "save_subdir",
                "save_prefix",
                "total_epochs",
                "stages",
                "val_every",
                "save_every",
                "keep",
                "workers",
                "compile",
                "init_weights",
                "data_note",
            }
        ),
        init=False,
        repr=False,
    )

    def __post_init__(self) -> None:
        at_least_one = ("total_epochs", "patches_per_picture", "batch_size", "patch_size", "val_every")
        for name in (*at_least_one, "save_every", "keep", "lr_halve_step"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}, need at least 1")
        for name in ("warmup_steps", "max_grad_norm", "weight_decay", "fft_cutoff", "workers"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TrainingError(f"{name} is {getattr(self, name)}, need at least 0")
        if not 0 < self.learning_rate < math.inf:
            raise TrainingError(f"learning rate is {self.learning_rate}, need more than 0")
        if not 0 <= self.ema < 1:
            raise TrainingError(f"ema is {self.ema}, need a decay of at least 0 and less than 1, e.g. 0.999")
        for name, choices in (("optimizer", Optimizer), ("lr_schedule", Schedule), ("amp", Amp)):
            if getattr(self, name) not in get_args(choices):
                raise TrainingError(
                    f"{name} {getattr(self, name)!r} is unknown, need {' or '.join(get_args(choices))}"
                )
        if self.model.attention == "frozen":
            raise TrainingError("a run starts with live attention or none; freeze the gates in a stage")

    @property
    def run_dir(self) -> Path:
        """Where the run's files go."""
        return self.checkpoint_dir / self.save_subdir

    def file(self, what: str) -> Path:
        """Return the path of one of the run's files, e.g. `file("last.pt")`."""
        return self.run_dir / f"{self.save_prefix}_x{self.model.scale}_{what}"

    def plan(self) -> tuple[Stage, ...]:
        """Return the stages of the run; one, if none were given.

        Raises:
            TrainingError: a stage does not parse, or gates would thaw.
        """
        if not self.stages:
            return (Stage(self.loss, self.total_epochs),)
        plan = tuple(Stage.parse(text) for text in self.stages)
        for before, after in pairwise(plan):
            if before.frozen and not after.frozen:
                raise TrainingError(f"stage {after}: gates that were frozen in {before} cannot thaw")
        if plan[-1].frozen and self.model.attention != "dynamic":
            raise TrainingError(
                f"stage {plan[-1]}: attention {self.model.attention!r} has no channel gates to freeze; "
                "leave out 'frozen'"
            )
        return plan

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values."""
        settings = asdict(self)
        del settings["RESUMABLE_CHANGES"]
        for name, value in settings.items():
            if isinstance(value, Path):
                settings[name] = value.as_posix()
            elif isinstance(value, tuple):
                settings[name] = [item.as_posix() if isinstance(item, Path) else item for item in value]
        return settings

    @staticmethod
    def from_dict(settings: Mapping[str, Any]) -> TrainConfig:
        """Rebuild a configuration from `to_dict`.

        Raises:
            TrainingError: a setting is unknown or missing.
            ModelError: the network's configuration is not one.
        """
        values = dict(settings)
        try:
            values["model"] = ModelConfig.from_dict(values["model"])
            values["val_lists"] = tuple(Path(path) for path in values.get("val_lists", ()))
            values["stages"] = tuple(values.get("stages", ()))
            for name in ("train_list", "checkpoint_dir", "init_weights"):
                if values.get(name) is not None:
                    values[name] = Path(values[name])
            return TrainConfig(**values)
        except (KeyError, TypeError) as error:
            raise TrainingError(f"settings of a run: {error}") from error

    @staticmethod
    def from_settings(settings: Mapping[str, Any]) -> TrainConfig:
        """Make a configuration from flat settings, as on the command line or in a TOML file.

        `upscale_factor`, `colour`, `preset` and `MODEL_FIELDS` determine the network; the rest are
        fields of this class. Lists that are not given are those that `srup prepare` makes.

        Raises:
            TrainingError: a setting is unknown or impossible.
            ModelError: the network is impossible.
        """
        values = dict(settings)
        scale, preset = values.pop("upscale_factor", 2), values.pop("preset", "small")
        colour = values.pop("colour", "RGB")
        changes = {name: values.pop(name) for name in MODEL_FIELDS if name in values}
        model = preset_config(
            preset, scale=scale, colour=colour, img_channels=1 if colour == "Y" else 3, **changes
        )
        if unknown := values.keys() - {f.name for f in fields(TrainConfig)}:
            raise TrainingError(f"unknown setting {', '.join(sorted(unknown))}")
        if "lr_halve_step" in values:
            values.setdefault("lr_schedule", "step")
        if not values.get("train_list"):
            values["train_list"] = Path(TRAIN_LIST.format(scale=scale))
        if not values.get("val_lists"):
            values["val_lists"] = tuple(sorted(Path().glob(VAL_LISTS.format(scale=scale))))
        # The normalization is folded away: what is deployed is the preset's network with any.
        plain = preset_config(
            preset, scale=scale, colour=colour, img_channels=model.img_channels, norm=model.norm
        )
        return TrainConfig(model=model, preset=preset if model == plain else "custom", **values)


def settings_from_toml(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file: the names of the options, with _ or -, e.g. `total-epochs = 300`.

    Lists of files are taken from the folder of the TOML file. Types are checked.

    Raises:
        TrainingError: the file cannot be read, or a setting is unknown or of another type.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"{path}: cannot read the settings ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: not a TOML file ({error})") from error
    settings = {}
    for key, value in content.items():
        name = TOML_NAMES.get(key.replace("-", "_"), key.replace("-", "_"))
        if name not in _HINTS:
            raise TrainingError(f"{path}: unknown setting {key!r}")
        settings[name] = _typed(value, _HINTS[name], where=f"{path}: {key}", folder=path.parent)
    return settings


# Options whose name differs from that of their field.
TOML_NAMES = {"lr": "learning_rate", "val_list": "val_lists", "stage": "stages"}

_HINTS = (
    {"upscale_factor": int, "colour": str}
    | {name: hint for name, hint in get_type_hints(ModelConfig).items() if name in MODEL_FIELDS}
    | {name: hint for name, hint in get_type_hints(TrainConfig).items() if name not in _NOT_SETTINGS}
)
_WORDS = {Path: "a path", str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _typed(value: Any, hint: Any, *, where: str, folder: Path) -> Any:
    if get_origin(hint) is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_typed(item, get_args(hint)[0], where=where, folder=folder) for item in items)
    kind = next((kind for kind in _WORDS if hint in (kind, kind | None)), str)  # a Literal is a text
    if kind is Path and isinstance(value, str):
        return folder / value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TrainingError(f"{where} is {value!r}, need {_WORDS[kind]}")
    return value
