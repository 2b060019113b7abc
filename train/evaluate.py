"""PSNR and SSIM of anything that upscales, over a pair list or a folder, by the protocol of record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sr.errors import DataError, ImageError
from sr.metrics import psnr, psnr_y, shave, ssim, ssim_y
from train.data.pairs import Pair, load_pair, load_pair_list
from train.data.patches import named
from train.prepare.layout import distributed_lr, find_hr_folder, find_sources

if TYPE_CHECKING:
    from sr.network.model import SRNet
    from train.distributed import Group

Upscale = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]  # (H, W, 3) -> (s*H, s*W, 3)


@dataclass(frozen=True)
class Quality:
    """Means over a test set: PSNR in dB and SSIM, of luma and of RGB, `scale` pixels shaved."""

    psnr_y: float
    psnr_rgb: float
    ssim_y: float
    ssim_rgb: float
    pictures: int

    def __str__(self) -> str:
        return f"{self.psnr_y:.3f} dB {self.ssim_y:.4f}"


@dataclass(frozen=True)
class FolderQuality:
    """Means over the pictures of a folder, a text for each bad one, the number of other files by kind."""

    means: Quality
    problems: list[str]
    left_out: Counter[str]


def evaluate(upscale: Upscale, pair_list: Path, *, scale: int, group: Group | None = None) -> Quality:
    """Measure `upscale` on every pair of a list.

    Args:
        group: processes that share the pictures; each gets the whole result.

    Raises:
        DataError: the list or a picture in it cannot be read, or sizes do not fit the scale.
    """
    pairs = load_pair_list(pair_list)
    rank, world = (group.rank, group.world) if group else (0, 1)
    rows = [_measured(upscale, pair, scale) for pair in pairs[rank::world]]
    if group:
        rows = [row for part in group.gather(rows) for row in part]
    return _means(rows)


def evaluate_folder(upscale: Upscale, folder: Path, *, scale: int) -> FolderQuality:
    """Measure `upscale` on the hr pictures of a folder; bad ones are left out and named.

    lr pictures that a data set brings along are used, others made by MATLAB's bicubic.

    Raises:
        DataError: the folder has no picture that can be measured.
    """
    hr_folder = find_hr_folder(folder)
    distributed = distributed_lr(hr_folder, scale=scale)
    rows, problems = [], []
    found = find_sources(hr_folder)
    for path in found.pictures:
        lr = distributed.get(path.relative_to(hr_folder).with_suffix(""))
        try:
            rows.append(_measured(upscale, Pair(path, lr), scale))
        except DataError as error:
            problems.append(str(error))
    if not rows:
        raise DataError(named(problems))
    return FolderQuality(_means(rows), problems, found.left_out)


def _means(rows: list[tuple[float, float, float, float]]) -> Quality:
    luma, rgb, ssim_luma, ssim_rgb = (float(mean) for mean in np.mean(rows, axis=0))
    return Quality(luma, rgb, ssim_luma, ssim_rgb, len(rows))


def _measured(upscale: Upscale, pair: Pair, scale: int) -> tuple[float, float, float, float]:
    hr, lr = load_pair(pair, scale=scale)
    sr = upscale(lr)
    try:
        sr_part, hr_part = shave(sr, pixels=scale), shave(hr, pixels=scale)
        ssim_rgb = float(np.mean([ssim(sr_part[..., c], hr_part[..., c]) for c in range(3)]))
        return (
            psnr_y(sr, hr, scale=scale),
            psnr(sr_part, hr_part),
            ssim_y(sr, hr, scale=scale),
            ssim_rgb,
        )
    except ImageError as error:  # too small for a window
        raise DataError(f"{pair.hr}: {error}") from error


def upscale_with(model: SRNet) -> Upscale:
    """Return a function that upscales whole uint8 RGB pictures with `model` in evaluation mode."""
    import torch

    from sr.network.colour import RGBNet

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
