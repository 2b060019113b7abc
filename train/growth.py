"""Weights of one shape made into weights of a larger or narrower one, so that training need not start anew.

A network that is to be deeper gets more blocks, one whose blocks are to be joined gets the joining
convolution, and one whose 1x5 is to be narrower gets the nearest kernels of that width. What is lost comes
back within minutes of training, see docs/train.md.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sr.network.config import ModelConfig
from sr.network.model import ResidualBlock, SRNet


def alike(config: ModelConfig, wanted: ModelConfig) -> bool:
    """Return whether `grown` would leave a network as it is."""
    return (config.num_blocks, config.fusion, config.mid) == (wanted.num_blocks, wanted.fusion, wanted.mid)


@torch.no_grad()
def grown(model: SRNet, wanted: ModelConfig) -> SRNet:
    """Return a network with the blocks, fusion and width of the 1x5 that `wanted` has, from a trained one.

    Only these three change, and only towards more blocks, fusion and a narrower 1x5; the rest stays as it is
    in `model`, which must have no weight norm.
    """
    config = model.config
    if wanted.asymmetric and config.asymmetric and wanted.mid < config.mid:
        model = _narrowed(model, wanted)
    if wanted.fusion and not config.fusion:
        fused = SRNet(replace(model.config, fusion=True))
        fused.load_state_dict(model.state_dict(), strict=False)
        model = fused
    return _deepened(model, wanted.num_blocks) if wanted.num_blocks > config.num_blocks else model


def _deepened(model: SRNet, blocks: int) -> SRNet:
    """Make several blocks of each, which do its step in equal parts: they start with features that serve.

    Blocks that start as the identity with random features (net2deeper, arXiv 1511.05641) fared worse: Muon at
    1.5e-3 silenced most units of one at x3, and left those of one at x2 nearly silent, see docs/train.md.
    """
    old = model.config.num_blocks
    origin = [index * old // blocks for index in range(blocks)]
    deeper = SRNet(replace(model.config, num_blocks=blocks))
    state = {
        name: value for name, value in model.state_dict().items() if not name.startswith(("blocks.", "fuse."))
    }
    deeper.load_state_dict(state, strict=False)
    for index, source in enumerate(origin):
        block = deeper.blocks[index]
        block.load_state_dict(model.blocks[source].state_dict())
        assert isinstance(block, ResidualBlock)
        for value in block.reduce[-1].parameters():  # its kernel and bias, or those of its batch norm
            value.div_(origin.count(source))
    if model.fuse is not None and deeper.fuse is not None:
        _spread(model.fuse.weight, deeper.fuse.weight, origin)
        deeper.fuse.load_state_dict({**model.fuse.state_dict(), "weight": deeper.fuse.weight})
    return deeper


def _spread(joined: Tensor, wider: Tensor, origin: list[int]) -> None:
    """Copy the kernel that joins blocks: the last of the blocks made of one stands for it."""
    channels = wider.shape[1] // len(origin)
    wider.zero_()
    for source in set(origin):
        last = len(origin) - 1 - origin[::-1].index(source)
        wider[:, last * channels : (last + 1) * channels] = joined[
            :, source * channels : (source + 1) * channels
        ]


def _narrowed(model: SRNet, wanted: ModelConfig) -> SRNet:
    """Take of each pair of 1x5 and 5x1 the product of lower rank that is nearest."""
    config = replace(model.config, asym_width=wanted.asym_width)
    state = model.state_dict()
    for index in range(config.num_blocks):
        first, second = (f"blocks.{index}.expand.{place}.weight" for place in (0, 1))
        state[first], state[second] = _of_rank(state[first], state[second], config.mid)
    narrower = SRNet(config)
    narrower.load_state_dict(state)
    return narrower


def _of_rank(first: Tensor, second: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the 1x5 (rank, in, 1, 5) and 5x1 (out, rank, 5, 1) whose product is nearest to the given one."""
    width, channels, _, across = first.shape
    out, _, down, _ = second.shape
    rows = second[..., 0].permute(0, 2, 1).reshape(out * down, width)
    product = rows.double() @ first.reshape(width, channels * across).double()
    left, values, right = torch.linalg.svd(product, full_matrices=False)
    root = values[:rank].sqrt()
    narrow = (root[:, None] * right[:rank]).reshape(rank, channels, 1, across)
    tall = (left[:, :rank] * root).reshape(out, down, rank).permute(0, 2, 1)[..., None]
    return narrow.to(first), tall.to(second)
