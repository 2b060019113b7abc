"""Trained weights with their metadata, in one safetensors file or inside a training checkpoint.

The metadata are strings: JSON of the network's configuration and of a summary of the training. So a file
describes itself, and no pickle is executed.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sr.errors import ModelError
from sr.files import atomic_write
from sr.network.config import ModelConfig
from sr.network.descriptor import ENDS, ModelDescriptor
from sr.network.model import SRNet, model_cost

FORMAT = "srup-weights-1"
TRAINING_FORMAT = "srup-training-2"  # of checkpoints, whose entry "weights" is `Weights.to_dict`


@dataclass(frozen=True)
class Weights:
    """A trained network, as a file stores it.

    Attributes:
        config: of the network that the tensors belong to.
        state: the `state_dict`, float32 on the CPU.
        training: a summary of the training, e.g. {"data": ..., "steps": ...}; "started_from" holds that
            of the initial weights.
        preset: name of the preset, or "custom".
        halo: smallest halo in lr pixels with which tiles were measured to match; None if not measured.
        licence: of the weights; empty if nobody stated one.
        restores: as `ModelDescriptor.restores`.
        sha256: of the file that was read; empty before writing.
        source: path of the file that was read, for messages; empty before writing.
    """

    config: ModelConfig
    state: dict[str, Tensor]
    training: dict[str, Any] = field(default_factory=dict)
    preset: str = "custom"
    halo: int | None = None
    licence: str = ""
    restores: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    source: str = field(default="", compare=False)

    def build(self) -> SRNet:
        """Return the network with these weights, in evaluation mode.

        Raises:
            ModelError: the tensors do not belong to the configuration.
        """
        model = SRNet(self.config)
        try:
            model.load_state_dict(self.state)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            where = f"{self.source}: " if self.source else ""
            raise ModelError(f"{where}the weights do not belong to their configuration: {reason}") from error
        return model.eval()

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return {"metadata": strings, "tensors": the state on the CPU}."""
        metadata = {
            "format": FORMAT,
            "config": json.dumps(self.config.to_dict()),
            "training": json.dumps(self.training),
            "preset": self.preset,
            "halo": json.dumps(self.halo),
            "licence": self.licence,
        } | ({"restores": json.dumps(self.restores)} if self.restores else {})
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state.items()}
        return {"metadata": metadata, "tensors": tensors}


def descriptor_from_weights(weights: Weights, **changes: Any) -> ModelDescriptor:
    """Describe the float32 network that `weights` hold; `changes` replace fields of the descriptor."""
    config, cost = weights.config, model_cost(weights.config)
    radius = config.receptive_field_radius
    values: dict[str, Any] = {
        "name": weights.preset,
        "scale": config.scale,
        "channels": config.img_channels,
        "colour": config.colour,
        "ends": ENDS["uint8"],
        "precision": "fp32",
        "attention": config.attention,
        "receptive_field_radius": radius,
        "halo": radius if weights.halo is None else weights.halo,
        "params": cost.params,
        "macs_per_lr_px": cost.macs_per_lr_px,
        "activation_bytes_per_lr_px": cost.activation_bytes_per_lr_px,
        "weights_sha256": weights.sha256,
        "training": weights.training,
        "licence": weights.licence,
        "restores": weights.restores,
    } | changes
    return ModelDescriptor(tiles_exact=values["attention"] != "dynamic", **values)


def save_weights(path: Path, weights: Weights) -> None:
    """Write `weights` atomically to `path` as safetensors."""
    content = weights.to_dict()
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(content["tensors"], content["metadata"]))


def load_weights(path: str | os.PathLike[str]) -> Weights:
    """Read a file that `save_weights` wrote, or the weights in a training checkpoint (`.pt`).

    Raises:
        ModelError: the file is missing, damaged, or not ours.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file")
    metadata, state = _read_checkpoint(path) if path.suffix == ".pt" else _read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path}: weights, but not from srup (no {FORMAT!r} in its metadata)")
    try:
        return Weights(
            config=ModelConfig.from_dict(json.loads(metadata["config"])),
            state={name: value.to(torch.float32) for name, value in state.items()},
            training=json.loads(metadata["training"]),
            preset=metadata["preset"],
            halo=json.loads(metadata["halo"]),
            licence=metadata["licence"],
            restores=json.loads(metadata.get("restores", "{}")),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            source=str(path),
        )
    except KeyError as error:
        raise ModelError(f"{path}: has no {error} in its metadata") from error
    except (ModelError, json.JSONDecodeError) as error:
        raise ModelError(f"{path}: damaged metadata ({error})") from error


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as archive:
            metadata = archive.metadata() or {}
            return metadata, {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118  an archive is no dict
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error})") from error


def _read_checkpoint(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises anything: KeyError, IndexError, struct.error
        # PyTorch's text is not for users: it advises to execute what the file contains.
        reason = (
            error.strerror
            if isinstance(error, OSError) and error.strerror
            else "damaged, or another kind of file"
        )
        raise ModelError(f"{path}: not a readable checkpoint ({reason})") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != TRAINING_FORMAT:
        raise ModelError(f"{path}: not a training checkpoint of srup")
    try:
        metadata, tensors = checkpoint["weights"]["metadata"], checkpoint["weights"]["tensors"]
        if not all(isinstance(value, Tensor) for value in tensors.values()):
            raise TypeError("not tensors")
        return dict(metadata), dict(tensors)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: a checkpoint without weights ({error})") from error
