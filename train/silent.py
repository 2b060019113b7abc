"""Hidden units that never fire.

A unit before a ReLU whose value is negative on every patch gets no gradient, so it stays silent and is lost
to the network. Long training at a high learning rate can silence whole blocks. The loss hardly shows it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sr.network.colour import network_image
from sr.network.model import ResidualBlock, SRNet
from train.data.patches import Epoch

# Batches of patches on which a unit must have fired: enough for those that fire on rare textures.
_BATCHES = 16


def silent_units(model: SRNet, epoch: Epoch) -> list[Tensor]:
    """Return for each block which of its hidden units fire nowhere in the first batches of an epoch.

    Returns:
        bool (hidden channels,) for each block, on the CPU.
    """
    fired = [torch.zeros(model.config.hi, dtype=torch.bool) for _ in model.blocks]

    def watch(index: int) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, hidden: Tensor) -> None:
            fired[index] |= (hidden > 0).any(dim=(0, 2, 3)).cpu()

        return _block(model, index).expand.register_forward_hook(hook)

    hooks = [watch(index) for index in range(len(fired))]
    training = model.training
    try:
        with torch.inference_mode():
            for step in range(min(_BATCHES, len(epoch))):
                lr = torch.from_numpy(np.ascontiguousarray(epoch.batch(step, rank=0, world=1).lr))
                rgb = lr.to(model.base.weight).permute(0, 3, 1, 2) / 255
                model.eval()(network_image(rgb, model.config.colour))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return [~each for each in fired]


def share_of(silent: Sequence[Tensor]) -> float:
    """Return the share of units that are silent, 0 to 1."""
    return float(torch.cat(list(silent)).double().mean())


@torch.no_grad()
def renew(model: SRNet, silent: Sequence[Tensor]) -> None:
    """Give silent units new random kernels before them and zeros behind them.

    The network computes what it did, and the units learn again. Batch norm leaves no unit silent for long, so
    networks that have it stay as they are.
    """
    if model.config.norm == "batch":
        return
    fresh = SRNet(model.config).to(model.base.weight)
    for index, mask in enumerate(silent):
        if mask.any():
            _renew_block(_block(model, index), _block(fresh, index), mask.to(model.base.weight.device))


def _renew_block(block: ResidualBlock, fresh: ResidualBlock, mask: Tensor) -> None:
    before, new, behind = block.expand[-1], fresh.expand[-1], block.reduce[0]
    assert isinstance(before, nn.Conv2d)
    assert isinstance(new, nn.Conv2d)
    assert isinstance(behind, nn.Conv2d)
    assert before.bias is not None
    assert new.bias is not None
    if mask.all():  # then nothing reached the first kernel either
        block.expand.load_state_dict(fresh.expand.state_dict())
    else:
        _set_weight(before, torch.where(mask[:, None, None, None], new.weight, before.weight))
        before.bias.copy_(torch.where(mask, new.bias, before.bias))
    if mask.all() and parametrize.is_parametrized(behind):
        # Of weight norm the norms alone: a zero direction has no gradient.
        dict(behind.named_parameters())["parametrizations.weight.original0"].zero_()
    else:
        _set_weight(behind, torch.where(mask[None, :, None, None], 0.0, behind.weight))


def _set_weight(conv: nn.Conv2d, weight: Tensor) -> None:
    if parametrize.is_parametrized(conv):
        conv.weight = weight
    else:
        conv.weight.copy_(weight)


def _block(model: SRNet, index: int) -> ResidualBlock:
    block = model.blocks[index]
    assert isinstance(block, ResidualBlock)
    return block
