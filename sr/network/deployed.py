"""From the trained form of the network to the deployed one: everything constant is multiplied in.

Weight norm becomes plain weights; batch norm goes into the convolution before it; frozen attention
gates and the residual scale go into the last convolution of the block. What is left of a network
with frozen attention is convolutions, ReLUs, additions and one pixel shuffle. Each fold is exact
but for rounding.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from sr.errors import ModelError
from sr.network.checkpoint import Weights, load_weights
from sr.network.model import ChannelAttention, ResidualBlock, SRNet
from sr.network.pair import between_sha256, partner_of, restored_name


@torch.no_grad()
def fold(model: SRNet) -> SRNet:
    """Return the deployed form of `model`, in evaluation mode and the same dtype.

    Frozen gates are folded away; dynamic attention stays, the rest is folded around it. To fold a
    network that was trained with dynamic attention, freeze it first: `sr.network.model.frozen_attention`.
    """
    config = model.config
    attention = "none" if config.attention == "frozen" else config.attention
    plain_config = replace(config, norm="none", residual_scale=1.0, attention=attention)
    plain = SRNet(plain_config).to(model.base.weight.dtype)
    _copy_conv(model.base, plain.base)
    _copy_conv(model.upsampler.widen, plain.upsampler.widen)
    _copy_conv(model.upsampler.refine, plain.upsampler.refine)
    if model.fuse is not None and plain.fuse is not None:
        _copy_conv(model.fuse, plain.fuse)
    for block, plain_block in zip(_blocks(model), _blocks(plain), strict=True):
        _fold_block(block, plain_block)
    return plain.eval()


def restored_weights(base: Path, strength: float) -> Weights:
    """Return the weights in a file, or those between it and its partner, folded.

    Args:
        base: the file of strength 0, safetensors.
        strength: of restoration, from 0 to 1.

    Raises:
        ModelError: a file is damaged or not ours, there is no partner, or it has another structure.
    """
    weights = load_weights(base)
    return (
        weights
        if strength == 0
        else between(weights, load_weights(partner_of(base, strength).path), strength)
    )


def between(base: Weights, partner: Weights, strength: float) -> Weights:
    """Return the weights between two networks, folded, because products such as gates are not linear.

    Raises:
        ModelError: they have another structure, or gates that depend on the picture.
    """
    if base.config.attention == "dynamic" or partner.config.attention == "dynamic":
        raise ModelError(
            f"{base.source}: live gates cannot be interpolated; freeze them in a stage of srup train"
        )
    low, high = fold(base.build()), fold(partner.build())
    if low.config != high.config:
        raise ModelError(f"{partner.source}: has another structure than {base.source}")
    other = high.state_dict()
    halos = [base.halo, partner.halo]
    return replace(
        base,
        config=low.config,
        state={
            name: ((1 - strength) * value.double() + strength * other[name].double()).float()
            for name, value in low.state_dict().items()
        },
        preset=restored_name(base.preset, strength),
        training=partner.training,
        restores=partner.restores if strength == 1 else {},
        halo=None if None in halos else max(halo for halo in halos if halo is not None),
        sha256=between_sha256(base.sha256, partner.sha256, strength),
    )


def _fold_block(block: ResidualBlock, plain: ResidualBlock) -> None:
    _fold_sequence(block.expand, plain.expand)
    factor = torch.as_tensor(block.residual_scale, dtype=cast(nn.Conv2d, block.reduce[0]).weight.dtype)
    if isinstance(block.attention, ChannelAttention):
        if block.attention.frozen:
            factor = factor * block.attention.gate_mean.flatten()  # (lo,)
        else:
            _fold_attention(block.attention, cast(ChannelAttention, plain.attention), block.residual_scale)
    if block.gate is not None and plain.gate is not None:
        _copy_conv(block.gate.conv, plain.gate.conv)
        plain.gate.conv.weight.div_(block.residual_scale)  # sees a branch that is already scaled
    _fold_sequence(block.reduce, plain.reduce)
    _scale_outputs(cast(nn.Conv2d, plain.reduce[-1]), factor)


def _fold_attention(trained: ChannelAttention, plain: ChannelAttention, residual_scale: float) -> None:
    """Copy live attention; it will see a branch that is already scaled, so undo that on its input."""
    _copy_conv(trained.squeeze, plain.squeeze)
    plain.squeeze.weight.div_(residual_scale)
    _copy_conv(trained.excite, plain.excite)
    plain.gate_mean.copy_(trained.gate_mean)


def _fold_sequence(trained: nn.Sequential, plain: nn.Sequential) -> None:
    """Copy the convolutions, and fold a batch norm behind the last one into it."""
    for source, target in zip(trained, plain, strict=False):
        _copy_conv(cast(nn.Conv2d, source), cast(nn.Conv2d, target))
    if isinstance(norm := trained[-1], nn.BatchNorm2d):
        conv = cast(nn.Conv2d, plain[-1])
        deviation = torch.sqrt(cast(Tensor, norm.running_var) + norm.eps)
        factor = norm.weight / deviation
        _scale_outputs(conv, factor)
        cast(Tensor, conv.bias).add_(norm.bias - cast(Tensor, norm.running_mean) * factor)


def _copy_conv(source: nn.Conv2d, target: nn.Conv2d) -> None:
    """Copy the effective weights: reading `.weight` applies a weight normalisation."""
    target.weight.copy_(source.weight)
    if source.bias is not None:
        cast(Tensor, target.bias).copy_(source.bias)


def _scale_outputs(conv: nn.Conv2d, factor: Tensor) -> None:
    """Multiply each output channel; `factor` is () or (out_channels,)."""
    conv.weight.mul_(factor.reshape(-1, 1, 1, 1))
    cast(Tensor, conv.bias).mul_(factor)


def _blocks(model: SRNet) -> list[ResidualBlock]:
    return [cast(ResidualBlock, block) for block in model.blocks]
