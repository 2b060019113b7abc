"""The network that a run starts with: a new one, or one made from weights that exist.

Weights of the same network are taken whole. Of another scale, only the trunk is. Of fewer blocks, the
missing ones are put between them and start as the identity, so that the deeper network computes
exactly what the shallower one did (net2deeper, arXiv 1511.05641, section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sr.errors import TrainingError
from sr.network.checkpoint import Weights, load_weights
from sr.network.model import ResidualBlock, SRNet, frozen_attention, trunk_state, with_norm, without_gates
from train.config import TrainConfig


def initial_model(config: TrainConfig, *, log: Callable[[str], object]) -> tuple[SRNet, dict[str, Any]]:
    """Return the network, and how the weights that it was made from came about ({} for a new one).

    Raises:
        ModelError: `config.init_weights` cannot be read.
        TrainingError: they do not fit the network.
    """
    if config.init_weights is None:
        return SRNet(config.model), {}
    weights = load_weights(config.init_weights)
    if weights.config.colour != config.model.colour:
        raise TrainingError(
            f"{config.init_weights}: weights for {weights.config.colour}, not for {config.model.colour}; "
            f"give --colour {weights.config.colour}"
        )
    model = SRNet(config.model)
    if weights.config.attention == "none":
        model = without_gates(model)
    _take(model, weights)
    what = (
        "weights" if weights.config.scale == config.model.scale else f"the trunk of x{weights.config.scale}"
    )
    if weights.config.num_blocks < config.model.num_blocks:
        what += (
            f", {weights.config.num_blocks} of {config.model.num_blocks} blocks; the others start as identity"
        )
    log(f"starting from {config.init_weights}: {what}")
    origin = {
        **weights.training,
        "scale": weights.config.scale,
        "attention": weights.config.attention,
        "sha256": weights.sha256,
    }
    if weights.config.num_blocks != config.model.num_blocks:
        origin["num_blocks"] = weights.config.num_blocks
    if weights.config.attention == "frozen" and config.model.attention == "dynamic":
        # Such weights have no usable live gates: they were not trained any further.
        return frozen_attention(model), origin
    return model, origin


def _take(model: SRNet, weights: Weights) -> None:
    """Load into `model` what fits of `weights`; its other blocks become the identity."""
    same_scale = weights.config.scale == model.config.scale
    state = weights.state
    if {weights.config.norm, model.config.norm} == {"weight", "none"}:
        state = with_norm(weights.build(), model.config.norm).state_dict()
    needed = model.state_dict()
    if not same_scale:
        state, needed = trunk_state(state), trunk_state(needed)
    old, new = weights.config.num_blocks, model.config.num_blocks
    places = [index * new // old for index in range(old)] if old <= new else list(range(old))
    state = {_moved(name, places): value for name, value in state.items()}
    if new > old:
        state = {name: _widened(name, value, places, new) for name, value in state.items()}
    added = [index for index in range(new) if index not in places]
    needed = {name: value for name, value in needed.items() if _block_of(name) not in added}
    if state.keys() != needed.keys():
        raise TrainingError(f"{weights.source}: weights of another kind of network ({weights.preset})")
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise TrainingError(f"{weights.source}: does not fit this network ({reason})") from error
    for index in added:
        _make_identity(model.blocks[index])


def _block_of(name: str) -> int | None:
    """Return the block to which an entry of a `state_dict` belongs; None if to none."""
    first, _, rest = name.partition(".")
    return int(rest.partition(".")[0]) if first == "blocks" else None


def _moved(name: str, places: list[int]) -> str:
    block = _block_of(name)
    if block is None:
        return name
    return f"blocks.{places[block]}.{name.split('.', 2)[2]}"


def _widened(name: str, value: Tensor, places: list[int], blocks: int) -> Tensor:
    """Give the kernel that joins the blocks' outputs zeros for new blocks, of which it knows nothing."""
    if not name.startswith("fuse.") or value.ndim < 2 or value.shape[1] == 1:
        return value
    channels = value.shape[1] // len(places)
    wide = value.new_zeros(value.shape[0], channels * blocks, *value.shape[2:])
    for old, new in enumerate(places):
        wide[:, new * channels : (new + 1) * channels] = value[:, old * channels : (old + 1) * channels]
    return wide


@torch.no_grad()
def _make_identity(block: nn.Module) -> None:
    """Make the branch of a new block zero: its gradient is not, so that it learns."""
    assert isinstance(block, ResidualBlock)
    conv, *batch_norm = block.reduce
    last = batch_norm[0] if batch_norm else conv
    for name, value in last.named_parameters():
        # Of weight norm (its norms, then its directions) the norms alone: a zero direction has no gradient.
        if not name.endswith("weight.original1"):
            value.zero_()
