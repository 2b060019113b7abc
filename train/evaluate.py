"""PSNR and SSIM of anything that upscales, over a pair list, by the protocol of record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sr.metrics import psnr, psnr_y, shave, ssim_y
from train.data import load_pair_list, read_rgb

if TYPE_CHECKING:
    from sr.model import SRNet

Upscale = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]  # (H, W, 3) -> (s*H, s*W, 3)


@dataclass(frozen=True)
class Quality:
    """Means over a test set: Y-PSNR and RGB-PSNR in dB, Y-SSIM."""

    psnr_y: float
    psnr_rgb: float
    ssim_y: float
    pictures: int


def evaluate(upscale: Upscale, pair_list: Path, *, scale: int) -> Quality:
    """Measure `upscale` on every pair of a list.

    Raises:
        DataError: the list or a picture in it cannot be read.
    """
    rows = []
    for pair in load_pair_list(pair_list):
        hr, sr = read_rgb(pair.hr), upscale(read_rgb(pair.lr))
        rgb = psnr(shave(sr, pixels=scale), shave(hr, pixels=scale))
        rows.append((psnr_y(sr, hr, scale=scale), rgb, ssim_y(sr, hr, scale=scale)))
    luma, rgb_mean, structure = (float(mean) for mean in np.mean(rows, axis=0))
    return Quality(psnr_y=luma, psnr_rgb=rgb_mean, ssim_y=structure, pictures=len(rows))


def upscale_with(model: SRNet) -> Upscale:
    """Return `model`, of any colour space, as a function on uint8 RGB pictures, whole, in evaluation mode."""
    import torch

    from sr.colour import RGBNet

    rgb_net = RGBNet(model)

    def upscale(lr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        training, device = model.training, next(model.parameters()).device
        model.eval()
        with torch.inference_mode():
            batch = torch.tensor(lr, device=device).permute(2, 0, 1)[None].float() / 255  # (1, 3, H, W)
            sr = (rgb_net(batch) * 255).round().clamp(0, 255).to(torch.uint8)
        model.train(training)
        return sr[0].permute(1, 2, 0).cpu().numpy()

    return upscale
