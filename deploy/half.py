"""Half precision in which no overflow hides, so that the output `finite` of an fp16 file is a proof.

What overflows in the trunk reaches the output: only convolutions and additions follow, in which infinity
stays infinite or becomes NaN. Before a ReLU it could vanish: -inf becomes 0, and so does NaN on a GPU, whose
maximum ignores it. So what lies between the trunk and a ReLU of a block is made too small to overflow. A
power of two is taken out of each convolution there and given back behind the ReLU. That is exact but for
subnormal values: at the shipped networks it costs up to 1.9 dB of the PSNR of fp16 against fp32, which is 67
to 69 dB. The gates of dynamic attention, which see the mean of a picture, are left as they are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import nn

from sr.network.model import ResidualBlock, SRNet

_HALF_MAX = 65504.0
# The largest sum of the absolute weights of a channel, as a multiple of the root of their number; in the
# shipped networks it is 11.4. Not that of the weights at hand, since `sr.network.pair` interpolates files.
_MAX_SUM_PER_ROOT = 11.5


@torch.no_grad()
def without_hidden_overflow(net: SRNet) -> SRNet:
    """Return a network that computes the same and in which no overflow hides, for half precision.

    Args:
        net: folded, in float32.
    """
    net = copy.deepcopy(net)
    for before, after in _around_relus(net):
        total = 0
        for conv in before:
            bits = math.ceil(math.log2(_MAX_SUM_PER_ROOT * math.sqrt(conv.weight[0].numel())))
            total += bits
            conv.weight.mul_(2.0**-bits)
            if conv.bias is not None:
                conv.bias.mul_(2.0**-total)
        after.weight.mul_(2.0**total)
    return net


@torch.no_grad()
def may_hide_overflow(net: SRNet) -> bool:
    """Say whether what is before a ReLU could overflow, though the trunk does not.

    Args:
        net: as `without_hidden_overflow` returns it, in any precision.
    """
    for before, _ in _around_relus(net):
        for conv in before:
            largest = conv.weight.float().abs().sum((1, 2, 3)) * _HALF_MAX
            if conv.bias is not None:
                largest = largest + conv.bias.float().abs()
            if float(largest.max()) > 0.99 * _HALF_MAX:  # rounding included
                return True
    return False


def _around_relus(net: SRNet) -> Iterator[tuple[list[nn.Conv2d], nn.Conv2d]]:
    """Yield the convolutions between the trunk and each ReLU, in order, and the one behind it."""
    for block in net.blocks:
        block = cast(ResidualBlock, block)
        yield [conv for conv in block.expand if isinstance(conv, nn.Conv2d)], cast(nn.Conv2d, block.reduce[0])
