"""A pair of tiny networks: a base, and a partner that restores, in all their forms."""

from dataclasses import replace
from pathlib import Path

import torch

from deploy.export import ExportSpec, export_onnx
from sr.network.checkpoint import Weights, save_weights
from sr.network.config import ModelConfig
from sr.network.model import SRNet
from sr.network.pair import STEPS, Restores, weights_sha256

TINY = ModelConfig(scale=2, num_feats=4, num_blocks=1, attention="none", norm="none")
STRENGTHS = {
    "jpeg": ((60.0, 1.0), (80.0, 0.5), (95.0, 0.0)),
    "webp": ((0.0, 0.0), (40.0, 1.0)),
}


def write_pair(folder: Path, *, base: str = "tiny", config: ModelConfig = TINY, steps: int = STEPS) -> Path:
    """Write the weights of a base and of its partner; return the base's file."""
    torch.manual_seed(0)
    path, partner = folder / f"{base}_x2.safetensors", folder / f"{base}-restore_x2.safetensors"
    net, other = SRNet(config), SRNet(config)
    save_weights(path, Weights(config, net.state_dict(), preset=base))
    moved = {name: value + 0.3 * other.state_dict()[name] for name, value in net.state_dict().items()}
    restores = Restores(weights_sha256(path), STRENGTHS, {"jpeg": 75.0}, steps)
    weights = Weights(config, moved, preset=f"{base}-restore", halo=9, restores=restores.to_dict())
    save_weights(partner, weights)
    return path


def write_onnx_pair(folder: Path, spec: ExportSpec | None = None, *, steps: int = STEPS) -> Path:
    """Write a pair as ONNX files, too; return the base's file."""
    path = write_pair(folder, steps=steps)
    spec = spec or ExportSpec()
    export_onnx(path.with_name(path.name.replace("_x2", "-restore_x2")), folder, replace(spec, restore=0.0))
    return export_onnx(path, folder, spec)
