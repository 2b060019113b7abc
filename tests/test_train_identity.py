"""The network of scale 1 that returns its picture, from which restoring without enlarging starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sr.network.checkpoint import load_weights
from sr.network.config import preset_config
from sr.network.model import SRNet
from train.identity import identity


def levels(model: SRNet, picture: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        out = model(torch.from_numpy(picture).movedim(-1, 0)[None] / 255)
    return (out[0].movedim(0, -1) * 255).round().clip(0, 255).to(torch.uint8).numpy()


@pytest.mark.parametrize("changes", [{}, {"num_blocks": 2, "fusion": False}, {"colour": "Y"}])
def test_pictures_come_back_bit_for_bit(changes: dict) -> None:
    config = preset_config("tiny", scale=1, norm="none", attention="none", **changes)
    picture = np.random.default_rng(0).integers(0, 256, (19, 23, config.img_channels), np.uint8)
    assert np.array_equal(levels(identity(config), picture), picture)


def test_it_can_learn() -> None:
    """Only what leaves the blocks is zero, so every block's output gets a gradient that is not."""
    model = identity(preset_config("tiny", scale=1, norm="none", attention="none"))
    picture = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    model(picture).square().mean().backward()
    assert all(block.reduce[0].weight.grad.abs().max() > 0 for block in model.blocks)


def test_the_command_writes_weights(tmp_path: Path) -> None:
    path = tmp_path / "small_x1.safetensors"
    subprocess.run([sys.executable, "-m", "train.identity", "-o", path], check=True)
    weights = load_weights(path)
    assert (weights.preset, weights.config.scale) == ("small", 1)
    picture = np.random.default_rng(1).integers(0, 256, (9, 8, 3), np.uint8)
    assert np.array_equal(levels(weights.build(), picture), picture)
