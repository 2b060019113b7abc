"""The state of a run on disk: written atomically, read without executing a pickle.

Files of a run, all beginning with `<save_prefix>_x<scale>_`: `last.pt` (everything needed to continue),
`e0060.pt` (the same, kept), `last.safetensors` and `best.safetensors` (weights), `metrics.jsonl`,
`curves.png`, and `diverged.pt` where a loss was not finite.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sr.errors import SrupError, TrainingError
from sr.files import atomic_write
from sr.image.refusals import unreadable
from sr.network.checkpoint import TRAINING_FORMAT
from train.config import RESUMABLE, TrainConfig
from train.position import Position
from train.schedule import Schedule


def save_state(path: Path, config: TrainConfig, state: dict[str, Any]) -> None:
    """Write tensors, numbers, texts, lists and dicts, with the settings of the run."""
    buffer = io.BytesIO()
    torch.save({"format": TRAINING_FORMAT, "config": json.dumps(config.to_dict())} | state, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, onto the CPU.

    Raises:
        TrainingError: the file is missing, damaged or foreign.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: no checkpoint to resume from") from error
    except Exception as error:  # a damaged pickle raises anything: KeyError, IndexError, struct.error
        reason = unreadable(error) if isinstance(error, OSError) else "damaged, or not a checkpoint of srup"
        raise TrainingError(f"{path}: {reason}; start from an older one with --load-epoch") from error
    if not isinstance(state, dict) or state.get("format") != TRAINING_FORMAT:
        raise TrainingError(f"{path}: not a training checkpoint of srup")
    try:
        TrainConfig.from_dict(json.loads(state["config"]))
    except (KeyError, TypeError, ValueError, SrupError) as error:
        reason = f" ({error})" if isinstance(error, SrupError) else ""
        raise TrainingError(
            f"{path}: a checkpoint without settings that are known here{reason}; resume it with the srup "
            "that wrote it"
        ) from error
    return state


def load_config(path: Path) -> TrainConfig:
    """Return the settings in a checkpoint.

    Raises:
        TrainingError: see `load_state`.
    """
    return TrainConfig.from_dict(json.loads(load_state(path)["config"]))


def require_same_settings(path: Path, saved: str, config: TrainConfig) -> None:
    """Check that a run with `config` may continue from a checkpoint whose settings are `saved` (JSON).

    Raises:
        TrainingError: other settings than `RESUMABLE` differ; the message names all of them.
    """
    old, new = json.loads(saved), json.loads(json.dumps(config.to_dict()))
    old |= {f"model.{name}": value for name, value in old.pop("model").items()}
    new |= {f"model.{name}": value for name, value in new.pop("model").items()}
    changed = [
        f"{name} was {old.get(name)}, is {new[name]}"
        for name in new
        if old.get(name) != new[name] and name not in RESUMABLE
    ]
    if changed:
        raise TrainingError(f"{path}: made with other settings: {'; '.join(changed)}")


def require_same_place(path: Path, saved: str, schedule: Schedule, position: Position) -> None:
    """Check that `schedule` has the run at `position`, as when it was saved with the settings `saved` (JSON).

    Raises:
        TrainingError: the number of pictures or sizes of batches and patches are others.
    """
    epoch, done = position.epoch, position.done_in_epoch
    if position.step != schedule.first_step(epoch) + done:
        raise TrainingError(
            f"{path}: made with another number of pictures or other batch sizes in earlier stages: epoch "
            f"{epoch + 1} now starts at step {schedule.first_step(epoch)}; start a new run from it with "
            "--init-weights"
        )
    old = TrainConfig.from_dict(json.loads(saved))
    was = Schedule(old, patches_per_epoch=schedule.patches_per_epoch).part(epoch)
    now = schedule.part(epoch)
    if done and (was.batch_size, was.patch_size) != (now.batch_size, now.patch_size):
        raise TrainingError(
            f"{path}: saved within epoch {epoch + 1}, whose batches are {was.batch_size} patches of "
            f"{was.patch_size} px, not {now.batch_size} of {now.patch_size} px; batch and patch size can "
            "only change between epochs"
        )


def keep_epoch(config: TrainConfig, epoch: int) -> None:
    """Keep `last.pt` as the checkpoint of `epoch`; remove older ones beyond the newest `config.keep`."""
    last, kept = config.file("last.pt"), config.file(f"e{epoch:04d}.pt")
    kept.unlink(missing_ok=True)
    try:
        os.link(last, kept)  # `last.pt` is replaced, never changed, so both may share their bytes
    except OSError:  # a file system without hard links
        with atomic_write(kept) as temporary:
            temporary.write_bytes(last.read_bytes())
    pattern = re.compile(re.escape(config.file("").name) + r"e(\d{4,})\.pt")
    found = ((pattern.fullmatch(path.name), path) for path in config.run_dir.iterdir())
    epochs = {int(match[1]): path for match, path in found if match}
    # Checkpoints of later epochs belong to an earlier run in this folder.
    for old in sorted(number for number in epochs if number <= epoch)[: -config.keep]:
        with contextlib.suppress(FileNotFoundError):
            epochs[old].unlink()


def rng_state() -> dict[str, Any]:
    """Return the state of every random number generator of the process."""
    version, numbers, gauss = random.getstate()
    name, keys, *position = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, torch.from_numpy(np.array(keys, np.int64)), *position],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` returned; states of missing devices are ignored."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *position = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *position))
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
