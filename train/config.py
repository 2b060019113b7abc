"""The settings of a training run: one frozen dataclass, whose fields declare help, option and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sr.errors import TrainingError
from sr.network.config import ModelConfig
from train.setting import COMPUTATION, DATA, FILES, LOSS, OPTIMIZER, Setting, setting
from train.stage import STAGE_SYNTAX, Stage

Optimizer = Literal["Adam", "AdamW", "SGD", "Muon"]
Schedule = Literal["cosine", "step"]
Amp = Literal["off", "bf16", "fp16"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one run; stored in every checkpoint. Each field says what it is.

    The defaults are the recipe that learned fastest in `benchmarks/README.md`. Files of the run are
    `checkpoint_dir/save_subdir/<save_prefix>_x<scale>_*`. `preset` is the name recorded with the
    weights: "custom" if the network is none of the presets.
    """

    model: ModelConfig
    train_list: Path = setting(
        "JSON pair list to train on, as srup prepare writes it.",
        DATA,
        said="pairs/train/x<scale>.json",
        resumable=True,
    )
    val_lists: tuple[Path, ...] = setting(
        "JSON pair list to measure on; repeat it for several. The first decides which weights are best.",
        DATA,
        default=(),
        said="all pairs/val/*/x<scale>.json",
        option=("--val-list",),
        resumable=True,
    )
    patch_size: int = setting("Side of a patch in lr pixels.", DATA, default=24, at_least=1)
    patches_per_picture: int = setting(
        "Random patches of each picture in an epoch.", DATA, default=16, at_least=1
    )
    batch_size: int = setting("Patches per step, over all processes together.", DATA, default=16, at_least=1)
    workers: int = setting(
        "Threads that prepare batches; 0 prepares them between steps.",
        DATA,
        default=1,
        at_least=0,
        resumable=True,
    )
    degrade: tuple[str, ...] = setting(
        "Degrade lr patches as 'restore' does (filters, blur, noise, JPEG, WebP) or as a TOML file says; "
        "KEY=VALUE changes one key of it. Repeat it to combine them.",
        DATA,
        default=(),
        metavar="restore|FILE.toml|KEY=VALUE",
    )
    pair_base: Path | None = setting(
        "Weights of the base of a pair: half of the steps train the network at a strength between them and "
        "its own, so that all strengths serve.",
        DATA,
        default=None,
    )
    data_note: str = setting(
        "What the data are, for the metadata of the weights.", DATA, default="", resumable=True
    )
    licence: str = setting(
        "Licence of the weights, for their metadata; none is stated otherwise.",
        DATA,
        default="",
        resumable=True,
    )
    loss: str = setting("Loss of a run without stages, e.g. l1+0.05*fftloss.", LOSS, default="l1+3*luma")
    total_epochs: int = setting(
        "Epochs of a run without stages.", LOSS, default=100, at_least=1, resumable=True
    )
    stages: tuple[str, ...] = setting(
        "Part of the run with its own loss; repeat it. Batch size, patch size and learning rate hold until "
        "a later stage changes them; 'frozen' fixes the attention gates.",
        LOSS,
        default=(),
        option=("--stage",),
        metavar=STAGE_SYNTAX,
        resumable=True,
    )
    fft_cutoff: float = setting(
        "Cut-off of fftloss in cycles per pixel; 0 keeps all frequencies.", LOSS, default=0.0, at_least=0
    )
    optimizer: Optimizer = setting("Muon learns fastest, best with --norm none.", OPTIMIZER, default="Muon")
    learning_rate: float = setting(
        "Learning rate at the start.",
        OPTIMIZER,
        default=3e-3,
        said="0.003; 0.001 from trained weights",
        option=("--lr",),
        above=0,
    )
    lr_schedule: Schedule = setting(
        "'cosine' falls to zero at the end; 'step' halves every --lr-halve-step epochs.",
        OPTIMIZER,
        default="cosine",
        said="cosine; step if --lr-halve-step is given",
    )
    lr_halve_step: int = setting("Epochs between halvings.", OPTIMIZER, default=60, at_least=1)
    warmup_steps: int = setting(
        "Steps in which the learning rate rises linearly.", OPTIMIZER, default=100, at_least=0
    )
    weight_decay: float = setting("Weight decay of the optimizer.", OPTIMIZER, default=0.0, at_least=0)
    max_grad_norm: float = setting(
        "Gradients are scaled down to this norm; 0 switches it off.", OPTIMIZER, default=1.0, at_least=0
    )
    ema: float = setting(
        "Decay of a moving average of the weights, which is then what is measured and shipped; 0 switches it "
        "off. Without a value it means 0.999.",
        OPTIMIZER,
        default=0.998,
        alone=0.999,
        at_least=0,
        below=1,
    )
    amp: Amp = setting(
        "Mixed precision of forward and backward pass. Without a value it means bf16.",
        COMPUTATION,
        default="off",
        alone="bf16",
    )
    compile: bool = setting("Train through torch.compile.", COMPUTATION, default=False, resumable=True)
    seed: int = setting("Seed of initialisation and of every patch drawn.", COMPUTATION, default=0)
    checkpoint_dir: Path = setting("Folder of all runs.", FILES, default=Path("checkpoints"), resumable=True)
    save_subdir: str = setting("Folder of this run in it.", FILES, default="", resumable=True)
    save_prefix: str = setting("First part of its file names.", FILES, default="srup", resumable=True)
    save_every: int = setting(
        "Epochs between checkpoints that are kept; the last state is saved after each epoch.",
        FILES,
        default=10,
        at_least=1,
        resumable=True,
    )
    keep: int = setting("How many of these are kept.", FILES, default=3, at_least=1, resumable=True)
    val_every: int = setting(
        "Epochs between measurements; the last epoch is always measured.",
        FILES,
        default=1,
        at_least=1,
        resumable=True,
    )
    init_weights: Path | None = setting(
        "Start from these weights or this checkpoint; another scale gives its trunk, fewer blocks are made "
        "into more.",
        FILES,
        default=None,
        resumable=True,
    )
    preset: str = "custom"

    def __post_init__(self) -> None:
        for name, declared in DECLARED.items():
            value = getattr(self, name)
            if declared.kind in (int, float) and (problem := declared.setting.problem(value)):
                raise TrainingError(f"{name} is {value}, {problem}")
            if declared.choices and value not in declared.choices:
                raise TrainingError(f"{name} {value!r} is unknown, need {' or '.join(declared.choices)}")
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
            for name, declared in DECLARED.items():
                if values.get(name) is not None:
                    values[name] = declared.from_json(values[name])
            return TrainConfig(**values)
        except (KeyError, TypeError) as error:
            raise TrainingError(f"settings of a run: {error}") from error


@dataclass(frozen=True)
class Declared:
    """A setting with its name, type and default.

    Attributes:
        hint: its type; of a Literal, `choices` are the values.
        default: None where there is none.
    """

    name: str
    hint: Any
    default: Any
    setting: Setting

    @property
    def several(self) -> bool:
        """Whether it is a tuple, whose items may be given one by one."""
        return get_origin(self.hint) is tuple

    @property
    def kind(self) -> type:
        """The type of a value, or of an item: bool, int, float, str or Path."""
        hint = get_args(self.hint)[0] if self.several else self.hint
        return next((kind for kind in (bool, int, float, Path) if hint in (kind, kind | None)), str)

    @property
    def choices(self) -> tuple[str, ...]:
        """The possible values of a Literal; () for all else."""
        return get_args(self.hint) if get_origin(self.hint) is Literal else ()

    @property
    def options(self) -> tuple[str, ...]:
        """Its names on the command line."""
        return self.setting.option or ("--" + self.name.replace("_", "-"),)

    def from_json(self, value: Any) -> Any:
        """Return a value of `TrainConfig.to_dict` with its own type again."""
        convert = self.kind if self.kind is Path else lambda item: item
        return tuple(convert(item) for item in value) if self.several else convert(value)


def _declared() -> dict[str, Declared]:
    hints = get_type_hints(TrainConfig)
    return {
        f.name: Declared(
            f.name, hints[f.name], None if f.default is MISSING else f.default, f.metadata["setting"]
        )
        for f in fields(TrainConfig)
        if "setting" in f.metadata
    }


DECLARED = _declared()
RESUMABLE = frozenset(name for name, one in DECLARED.items() if one.setting.resumable)
