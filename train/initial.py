"""The network that a run starts with: a new one, or one made from weights that exist.

Weights of the same network are taken whole. Of another scale, only the trunk is. `train.growth` makes fewer
blocks into more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sr.errors import TrainingError
from sr.network.checkpoint import Weights, load_weights
from sr.network.model import SRNet, frozen_attention, trunk_state, with_norm, without_gates
from train.config import TrainConfig
from train.growth import alike, grown


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
        what += f", {weights.config.num_blocks} blocks made into {config.model.num_blocks}"
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
    """Load into `model` what fits of `weights`, grown to its shape."""
    same_scale = weights.config.scale == model.config.scale
    if weights.config.num_blocks > model.config.num_blocks:
        raise TrainingError(_of_another_kind(weights))
    source, norms = weights.build(), {weights.config.norm, model.config.norm}
    if norms == {"weight", "none"} or not alike(weights.config, model.config):
        plain = with_norm(source, "none") if "batch" not in norms else source
        source = grown(plain, model.config)
        source = with_norm(source, model.config.norm) if "batch" not in norms else source
    state, needed = source.state_dict(), model.state_dict()
    if not same_scale:
        state, needed = trunk_state(state), trunk_state(needed)
    if state.keys() != needed.keys():
        raise TrainingError(_of_another_kind(weights))
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise TrainingError(f"{weights.source}: does not fit this network ({reason})") from error


def _of_another_kind(weights: Weights) -> str:
    return f"{weights.source}: weights of another kind of network ({weights.preset})"
