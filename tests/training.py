"""Small training runs: pairs of smooth pictures, tiny networks, the CPU as only device."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sr.network.config import ModelConfig
from sr.resize import bicubic_resize
from train.config import TrainConfig
from train.distributed import Group
from train.loop import Trainer

ROOT = Path(__file__).resolve().parent.parent
NETWORK = ModelConfig(scale=2, num_feats=8, num_blocks=1)
# What is compared bit for bit is computed on the CPU, also where there is a GPU.
CPU = Group(0, 1, 0, torch.device("cpu"))
# The network and the size of a run, as options of `srup train`.
TINY_RUN = [
    *("--num-feats", "8", "--num-blocks", "1", "--patch-size", "8", "--patches-per-picture", "7"),
    *("--batch-size", "4", "--total-epochs", "1", "--lr", "5e-3", "--warmup-steps", "2"),
]


def write_pairs(path: Path, *, scale: int, pictures: int = 2, side: int = 12) -> Path:
    """Write smooth lr pictures of side x side px, their hr pictures and the list `path`; return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = []
    for seed in range(pictures):
        coarse = np.random.default_rng(seed).integers(0, 256, (side // 2, side // 2, 3), dtype=np.uint8)
        hr = bicubic_resize(coarse, scale=2 * scale)
        for name, image in ((f"hr{seed}", hr), (f"lr{seed}", bicubic_resize(hr, scale=Fraction(1, scale)))):
            Image.fromarray(image).save(path.parent / f"{name}-x{scale}.png")
        entries.append({"HR": f"hr{seed}-x{scale}.png", "LR": f"lr{seed}-x{scale}.png"})
    path.write_text(json.dumps(entries))
    return path


def small_config(train_list: Path, checkpoint_dir: Path, **changes: Any) -> TrainConfig:
    """Return a run of 3 epochs of 4 batches of 4 patches; two pictures give 8 patches each."""
    config = TrainConfig(
        model=NETWORK,
        train_list=train_list,
        checkpoint_dir=checkpoint_dir,
        total_epochs=3,
        patches_per_picture=8,
        batch_size=4,
        patch_size=8,
        learning_rate=5e-3,
        warmup_steps=2,
        seed=1,
        loss="l1",
        optimizer="Adam",
        ema=0.0,
    )
    return replace(config, **changes)


def silent(_: str) -> None:
    pass


def trained(config: TrainConfig, **settings: Any) -> Trainer:
    """Run to the end on the CPU."""
    trainer = Trainer(config, group=CPU, **({"log": silent} | settings))
    trainer.run()
    return trainer


def metrics(config: TrainConfig) -> list[dict[str, Any]]:
    text = config.file("metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    timing = {"seconds", "images_per_s", "lr_pixels_per_s", "gflop_per_s", "data_wait_share"}
    assert timing < record.keys()
    return {name: value for name, value in record.items() if name not in timing}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Compare two state dicts bit for bit."""
    assert set(first) == set(second)
    for name, value in first.items():
        assert torch.equal(value.cpu(), second[name].cpu()), name


def assert_close(first: dict[str, Tensor], second: dict[str, Tensor], *, atol: float) -> None:
    assert set(first) == set(second)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=atol, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def optimizer_states(state_dict: dict[str, Any]) -> list[dict[str, Tensor]]:
    """Return the tensors for each parameter; Muon has Adam in it, and momenta for each shape of kernels."""
    adam = state_dict.get("adam", state_dict)
    momenta = [{"momentum": tensor} for tensor in state_dict.get("muon", [])]
    return momenta + list(adam["state"].values())


def command_line(arguments: Sequence[str | Path], *, module: Sequence[str] = ("train",)) -> list[str]:
    return [sys.executable, "-m", *module, *map(str, arguments)]


def cpu_environment() -> dict[str, str]:
    """Return the environment with no visible GPU and one thread a process."""
    return os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def train_command(
    arguments: Sequence[str | Path], *, cwd: Path, module: Sequence[str] = ("train",)
) -> subprocess.CompletedProcess[str]:
    """Run `python -m train` with arguments, on the CPU."""
    return subprocess.run(
        command_line(arguments, module=module),
        cwd=cwd,
        env=cpu_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
