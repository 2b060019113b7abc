"""What freezing the attention costs: live gates against their running mean, on synthetic pictures."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from torch import nn

from sr.metrics import psnr_y
from sr.network.colour import RGBNet
from sr.network.content import Image, contents
from sr.network.model import SRNet, frozen_attention
from sr.resize import bicubic_resize

# A loss in dB that is worth a note: a fifth of what int8 may lose (`deploy.verify.MAX_LOSS_DB`).
NOTABLE_LOSS_DB = 0.02

_SIDE = 192  # of the pictures in hr pixels
_KINDS = ("texture", "shapes")  # as in photographs; text and shading would dominate the mean


def freezing_cost(net: SRNet) -> float:
    """Return by how many dB of Y-PSNR frozen gates are worse than live ones.

    That is the mean over textures and shapes, shrunk by the bicubic filter and upscaled both ways.
    """
    scale = net.config.scale
    side = _SIDE - _SIDE % scale
    live, frozen = RGBNet(net.eval()), RGBNet(frozen_attention(net).eval())
    losses = []
    for kind in _KINDS:
        hr = contents(height=side, width=side)[kind]
        lr = bicubic_resize(hr, scale=Fraction(1, scale))
        before, after = (psnr_y(_upscaled(each, lr), hr, scale=scale) for each in (live, frozen))
        losses.append(before - after)
    return float(np.mean(losses))


@torch.inference_mode()
def _upscaled(net: nn.Module, lr: Image) -> Image:
    batch = torch.tensor(lr).permute(2, 0, 1)[None].float() / 255
    levels: Image = (net(batch)[0] * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return levels
