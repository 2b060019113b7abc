"""Colour spaces: the conversion is MATLAB's, and a network in any of them takes and gives RGB."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor
from torch.nn import functional

from sr.metrics import y_channel
from sr.network.colour import RGBNet, rgb_from_ycbcr, upscale_rgb, ycbcr_from_rgb
from sr.network.config import COLOUR_CHANNELS, ModelConfig
from sr.network.model import SRNet

TINY = ModelConfig(scale=3, num_feats=8, num_blocks=1, attention="frozen")

# rgb2ycbcr of uint8 RGB in MATLAB; the same are the 100% colour bars of ITU-R BT.601 in 8 bits.
PUBLISHED = {
    "black": ((0, 0, 0), (16, 128, 128)),
    "white": ((255, 255, 255), (235, 128, 128)),
    "red": ((255, 0, 0), (81, 90, 240)),
    "green": ((0, 255, 0), (145, 54, 34)),
    "blue": ((0, 0, 255), (41, 240, 110)),
    "cyan": ((0, 255, 255), (170, 166, 16)),
    "magenta": ((255, 0, 255), (106, 202, 222)),
    "yellow": ((255, 255, 0), (210, 16, 146)),
}


def picture(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def network(colour: Any, **changes: Any) -> SRNet:
    torch.manual_seed(0)
    config = replace(TINY, colour=colour, img_channels=COLOUR_CHANNELS[colour], **changes)
    return SRNet(config).double().eval()


# --- the conversion -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_pure_colours_have_the_published_values(name: str) -> None:
    rgb, expected = PUBLISHED[name]
    pixel = torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1) / 255
    assert (ycbcr_from_rgb(pixel) * 255).round().flatten().tolist() == list(expected)


def test_luma_is_that_of_the_protocol_of_record() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    rgb = torch.tensor(levels).permute(2, 0, 1)[None].double() / 255
    luma = ycbcr_from_rgb(rgb)[0, 0].numpy() * 255
    np.testing.assert_allclose(luma, y_channel(levels), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_there_and_back_changes_nothing(dtype: torch.dtype, tolerance: float) -> None:
    rgb = 3 * picture(2, 3, 20, 30, dtype=dtype) - 1  # beyond [0, 1] too: nothing is clipped
    ycbcr = ycbcr_from_rgb(rgb)
    assert ycbcr.dtype == dtype
    torch.testing.assert_close(rgb_from_ycbcr(ycbcr), rgb, rtol=0, atol=5 * tolerance)
    torch.testing.assert_close(ycbcr_from_rgb(rgb_from_ycbcr(rgb)), rgb, rtol=0, atol=5 * tolerance)


def test_every_level_survives_float32() -> None:
    """All greys, and a lattice of colours: rounded to levels they are what they were."""
    axis = torch.arange(0, 256, 5, dtype=torch.uint8)
    lattice = torch.cartesian_prod(axis, axis, axis).T.reshape(1, 3, 1, -1)
    greys = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    for levels in (lattice, greys):
        back = rgb_from_ycbcr(ycbcr_from_rgb(levels.float() / 255))
        assert torch.equal((back * 255).round().to(torch.uint8), levels)


def test_grey_has_no_chroma_and_stays_grey() -> None:
    grey = picture(1, 1, 8, 9).expand(1, 3, 8, 9)
    ycbcr = ycbcr_from_rgb(grey)
    torch.testing.assert_close(ycbcr[:, 1:], torch.full_like(ycbcr[:, 1:], 128 / 255), rtol=0, atol=1e-15)
    back = rgb_from_ycbcr(ycbcr)
    torch.testing.assert_close(back, back[:, :1].expand_as(back), rtol=0, atol=1e-15)


def test_pictures_do_not_mix() -> None:
    rgb = picture(4, 3, 5, 6)
    together = ycbcr_from_rgb(rgb)
    for index in range(4):
        assert torch.equal(ycbcr_from_rgb(rgb[index : index + 1])[0], together[index])


# --- networks -----------------------------------------------------------------------------------


def test_a_network_in_rgb_is_not_wrapped() -> None:
    net, lr = network("RGB"), picture(2, 3, 7, 9)
    assert torch.equal(RGBNet(net)(lr), net(lr))


def test_a_network_in_ycbcr_sees_and_makes_ycbcr() -> None:
    net, lr = network("YCbCr"), picture(2, 3, 7, 9)
    sr = RGBNet(net)(lr)
    assert sr.shape == (2, 3, 21, 27)
    torch.testing.assert_close(ycbcr_from_rgb(sr), net(ycbcr_from_rgb(lr)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_a_network_in_y_sees_luma_and_chroma_is_bicubic(scale: int) -> None:
    net, lr = network("Y", scale=scale), picture(2, 3, 7, 9)
    before, after = ycbcr_from_rgb(lr), ycbcr_from_rgb(RGBNet(net)(lr))
    assert after.shape == (2, 3, 7 * scale, 9 * scale)
    torch.testing.assert_close(after[:, :1], net(before[:, :1]), rtol=0, atol=1e-12)
    size = (7 * scale, 9 * scale)
    chroma = functional.interpolate(before[:, 1:], size=size, mode="bicubic", align_corners=False)
    torch.testing.assert_close(after[:, 1:], chroma, rtol=0, atol=1e-12)


def test_a_network_in_y_keeps_grey_grey() -> None:
    lr = picture(1, 1, 8, 9, dtype=torch.float32).expand(1, 3, 8, 9)
    sr = RGBNet(network("Y").float())(lr)
    torch.testing.assert_close(sr, sr[:, :1].expand_as(sr), rtol=0, atol=1e-5)


@pytest.mark.parametrize("colour", COLOUR_CHANNELS)
def test_half_precision_is_in_the_body_only(colour: Any) -> None:
    """The input is not rounded to half precision before the chroma is taken from it."""
    net, lr = network(colour).float(), picture(1, 3, 9, 8, dtype=torch.float32)
    with torch.inference_mode():
        expected = ycbcr_from_rgb(upscale_rgb(net, lr))
        found = upscale_rgb(net.half(), lr)
        assert found.dtype == torch.float32
        found = ycbcr_from_rgb(found)
    assert (found - expected).abs().max() < 2e-2
    if colour == "Y":
        torch.testing.assert_close(found[:, 1:], expected[:, 1:], rtol=0, atol=3e-6)


@pytest.mark.parametrize("colour", COLOUR_CHANNELS)
def test_gradients_reach_every_weight(colour: Any) -> None:
    net = network(colour, attention="none")
    RGBNet(net)(picture(1, 3, 6, 5)).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
