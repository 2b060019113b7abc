"""Colour spaces of networks: RGB to YCbCr and back, and any network as one from RGB to RGB.

Owns the conversion between pictures, which are always RGB, and the channels that a network was trained on.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sr.metrics import Y_FROM_RGB, Y_OFFSET
from sr.network.config import Colour
from sr.network.model import MID_GREY, SRNet

# MATLAB rgb2ycbcr (ITU-R BT.601, studio swing) for values in [0, 1]: Y in [16, 235] / 255, Cb and Cr
# in [16, 240] / 255. The first row is the luma of the protocol of record.
_YCBCR_FROM_RGB = np.array([Y_FROM_RGB * 255, [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
_YCBCR_OFFSET = np.array([Y_OFFSET, 128.0, 128.0]) / 255
_RGB_FROM_YCBCR = np.linalg.inv(_YCBCR_FROM_RGB)
_RGB_OFFSET = -_RGB_FROM_YCBCR @ _YCBCR_OFFSET


def ycbcr_from_rgb(rgb: Tensor) -> Tensor:
    """Return YCbCr of RGB, both (N, 3, H, W) floats in [0, 1], by ITU-R BT.601 in studio swing.

    This is MATLAB's rgb2ycbcr, in the dtype of the input and not rounded to levels.
    """
    return _linear_map(rgb, _YCBCR_FROM_RGB, _YCBCR_OFFSET)


def rgb_from_ycbcr(ycbcr: Tensor) -> Tensor:
    """Return RGB of YCbCr, the inverse of `ycbcr_from_rgb`; not clipped.

    YCbCr holds colours that RGB does not: those leave [0, 1].
    """
    return _linear_map(ycbcr, _RGB_FROM_YCBCR, _RGB_OFFSET)


def _linear_map(image: Tensor, matrix: np.ndarray, offset: np.ndarray) -> Tensor:
    """Apply a 3x3 matrix and an offset to the channels of (N, 3, H, W).

    Written out as products and sums, not as a 1x1 convolution: GPUs may compute convolutions of
    float32 in TF32, whose 10 bits of mantissa (2^-11 of products near 2) cost about half a level.
    """
    columns = [torch.tensor(column, dtype=image.dtype, device=image.device) for column in matrix.T.tolist()]
    total = torch.tensor(offset.tolist(), dtype=image.dtype, device=image.device).view(1, 3, 1, 1)
    for channel, column in enumerate(columns):
        total = total + column.view(1, 3, 1, 1) * image[:, channel : channel + 1]
    return total


def network_image(rgb: Tensor, colour: Colour) -> Tensor:
    """Return RGB, (N, 3, H, W) in [0, 1], as a network's image: (N, 3 or 1, H, W) in its colour space."""
    if colour == "RGB":
        return rgb
    ycbcr = ycbcr_from_rgb(rgb)
    return ycbcr if colour == "YCbCr" else ycbcr[:, :1]


def upscale_rgb(net: SRNet, rgb: Tensor) -> Tensor:
    """Upscale RGB, (N, 3, H, W) in [0, 1], to (N, 3, scale*H, scale*W), not clipped.

    A YCbCr network gets the converted picture. A Y network gets the luma, and the bicubic filter upscales the
    chroma. Only the body of a half-precision network runs in half precision; everything around it is computed
    in the dtype of the picture.
    """
    colour = net.config.colour
    if colour == "RGB":
        return _upscale(net, rgb)
    ycbcr = ycbcr_from_rgb(rgb)
    if colour == "YCbCr":
        return rgb_from_ycbcr(_upscale(net, ycbcr))
    luma = _upscale(net, ycbcr[:, :1])  # (N, 1, sH, sW)
    chroma = functional.interpolate(
        ycbcr[:, 1:], scale_factor=net.config.scale, mode="bicubic", align_corners=False
    )  # (N, 2, sH, sW)
    return rgb_from_ycbcr(torch.cat((luma, chroma), 1))


class RGBNet(nn.Module):
    """An `SRNet` of any colour space as a network from RGB to RGB: `upscale_rgb` as a module."""

    def __init__(self, net: SRNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, rgb: Tensor) -> Tensor:
        """Upscale RGB, (N, 3, H, W) in [0, 1], to (N, 3, scale*H, scale*W), not clipped."""
        return upscale_rgb(self.net, rgb)


def _upscale(net: SRNet, lr: Tensor) -> Tensor:
    """Run the network in its own colour space and precision."""
    dtype = next(net.parameters()).dtype
    if dtype == lr.dtype:
        return cast(Tensor, net(lr))
    return net.body((lr - MID_GREY).to(dtype)).to(lr.dtype) + MID_GREY
