"""A training run from its settings: where they come from, and which processes it is given to."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from sr.errors import TrainingError
from sr.memory import keep_freed_memory
from train.config import TrainConfig
from train.distributed import ProcessDied, joined, launch, launched_by_torchrun
from train.loop import Stopped, Trainer
from train.report import Log, Progress, now_and_then
from train.settings import Settings, config_from_settings, settings_from_toml
from train.state import load_config

# Settings that decide which checkpoint a run continues from.
_PLACE = ("checkpoint_dir", "save_subdir", "save_prefix", "upscale_factor")
# Settings that name a checkpoint to start a new run from.
_LOAD = ("load_subdir", "load_prefix", "load_epoch")


def run_training(
    settings: Settings,
    *,
    config_file: Path | None = None,
    resume: bool = False,
    processes: int | None = None,
    log: Log = print,
    progress: Progress | None = None,
) -> int:
    """Train; return the exit status: 0, or 128 and the number of the signal that stopped the run.

    Args:
        settings: flat settings, see `train.settings.SETTINGS`; they override those of the file.
            `load_subdir`, `load_prefix` and `load_epoch` name a checkpoint to start from.
        config_file: TOML file with further settings.
        resume: continue from the run's last checkpoint, with its settings where none are given.
        processes: how many to start; one for each visible GPU, if not given.
        log: called with each line of the report.
        progress: called when the run has moved on within an epoch; with several processes, they print
            such lines themselves.

    Raises:
        SrupError: the run cannot start, or it failed.
    """
    given = (settings_from_toml(config_file) if config_file else {}) | dict(settings)
    config = _resumed_config(given) if resume else _new_config(given)
    if launched_by_torchrun():
        return _work(config, resume, log, progress)
    processes = processes or max(1, torch.cuda.device_count())
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise TrainingError(f"{processes} processes for {torch.cuda.device_count()} visible GPU(s)")
    if processes == 1:
        return _work(config, resume, log, progress)
    try:
        stopped_by = launch(_worker, config, resume, processes=processes)
    except ProcessDied as error:
        last = config.file("last.pt")
        remedy = f"; continue from {last} with --resume" if last.exists() else ""
        raise TrainingError(f"{error}{remedy}") from error
    return 128 + stopped_by if stopped_by else 0


def _work(config: TrainConfig, resume: bool, log: Log, progress: Progress | None) -> int:
    """Be the run, or one of its processes."""
    keep_freed_memory()
    with joined() as group:
        try:
            Trainer(config, group=group, log=log, progress=progress, resume=resume).run()
        except Stopped as stopped:
            if group.is_main:
                log(str(stopped))
            return 128 + stopped.signal_number
    return 0


def _worker(config: TrainConfig, resume: bool) -> None:
    """Be one of the processes that `launch` started."""

    def show(line: object) -> None:
        print(line, flush=True)

    status = _work(config, resume, show, now_and_then(show))
    if status:
        sys.exit(status)  # one that returns would wait for the launcher, which waits for it to end


def _new_config(given: Mapping[str, Any]) -> TrainConfig:
    values = dict(given)
    load = {name: values.pop(name, None) for name in _LOAD}
    if any(value is not None for value in load.values()):
        if values.get("init_weights"):
            raise TrainingError("give --init-weights or --load-..., not both")
        values["init_weights"] = _checkpoint_to_load(values, **load)
    config = config_from_settings(values)
    if not config.train_list.exists() and "train_list" not in given:
        raise TrainingError(
            f"{config.train_list}: no such pair list; make it with: srup prepare FOLDER "
            f"--scale {config.model.scale}, or name another with --train-list"
        )
    if (last := config.file("last.pt")).exists():
        raise TrainingError(
            f"{last}: a run already exists here; continue with --resume, or choose another --save-subdir or "
            "--save-prefix"
        )
    return config


def _checkpoint_to_load(
    values: Mapping[str, Any], *, load_subdir: str | None, load_prefix: str | None, load_epoch: int | None
) -> Path:
    """Return the checkpoint to start from: of the same scale, else of any one, for its trunk.

    Raises:
        TrainingError: there is none.
    """
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    get = {name: values.get(name, defaults.get(name)) for name in _PLACE}
    folder = Path(get["checkpoint_dir"]) / (get["save_subdir"] if load_subdir is None else load_subdir)
    prefix = get["save_prefix"] if load_prefix is None else load_prefix
    name = "last.pt" if load_epoch is None else f"e{load_epoch:04d}.pt"
    wanted = folder / f"{prefix}_x{values.get('upscale_factor', 2)}_{name}"
    others = re.compile(re.escape(f"{prefix}_x") + r"\d+" + re.escape(f"_{name}"))
    beside = sorted(path for path in folder.glob(f"*_{name}") if others.fullmatch(path.name))
    found = [path for path in (wanted, *beside) if path.is_file()]
    if not found:
        raise TrainingError(f"{wanted}: no such checkpoint to load, and none of another scale beside it")
    return found[0]


def _resumed_config(given: Mapping[str, Any]) -> TrainConfig:
    """Return the settings stored in the run's last checkpoint, with those given in their place.

    Those that would make it another run are refused when the state is read.
    """
    if any(name in given for name in _LOAD):
        raise TrainingError("--resume continues a run, --load-... starts a new one; give one of them")
    place = config_from_settings(_only_place(given))
    stored = load_config(place.file("last.pt"))
    asked = config_from_settings({"norm": stored.model.norm, **given})
    changes = {f.name: getattr(asked, f.name) for f in fields(TrainConfig) if f.init and f.name in given}
    model = stored.model.to_dict()
    model |= {name: getattr(asked.model, name) for name in model if name in given}
    if "colour" in given:
        model["img_channels"] = asked.model.img_channels
    if given.get("preset", stored.preset) != stored.preset:
        model = asked.model.to_dict()
    where = {name: getattr(place, name) for name in ("checkpoint_dir", "save_subdir", "save_prefix")}
    return TrainConfig.from_dict(stored.to_dict() | {"model": model} | changes | where)


def _only_place(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in _PLACE if name in given}
