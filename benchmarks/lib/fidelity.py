"""How near a picture is to the truth: PSNR, SSIM, PSNR-B and SSIMULACRA2."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr.errors import require_extra
from sr.metrics import psnr_y, shave, ssim_y, y_channel

Pixels = NDArray[np.uint8]

_BLOCK = 8  # px of lr
_SMALLEST = 64  # px: SSIMULACRA2 halves pictures five times


def fidelity(sr: Pixels, hr: Pixels, *, scale: int, perceptual: bool) -> dict[str, float]:
    """Return the metrics of RGB (H, W, 3) by name; SSIMULACRA2, the slow one, only if `perceptual`."""
    found = {
        "psnr_y": psnr_y(sr, hr, scale=scale),
        "ssim_y": ssim_y(sr, hr, scale=scale),
        "psnr_b": psnr_b(sr, hr, scale=scale),
    }
    if perceptual and min(hr.shape[:2]) >= _SMALLEST:
        found["ssimulacra2"] = ssimulacra2(sr, hr)
    return found


def psnr_b(sr: Pixels, hr: Pixels, *, scale: int) -> float:
    """Return the Y-PSNR in dB whose error counts the edges of blocks of lr, 8 * `scale` px apart.

    Yim and Bovik, IEEE Trans. Image Processing 20(1), 2011, equations 11 to 20; `scale` pixels are shaved.
    """
    first, second = (y_channel(shave(image, pixels=scale)) for image in (sr, hr))
    error = float(np.mean((first - second) ** 2)) + _blocking(first, block=_BLOCK * scale, start=scale)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _blocking(luma: NDArray[np.float64], *, block: int, start: int) -> float:
    """Return the blocking effect factor; `start` px of the first block are cut off."""
    across: list[NDArray[np.float64]] = []
    inside: list[NDArray[np.float64]] = []
    for part in (luma, luma.T):
        steps = np.diff(part, axis=1) ** 2
        edges = (np.arange(steps.shape[1]) + 1 + start) % block == 0
        across.append(steps[:, edges].ravel())
        inside.append(steps[:, ~edges].ravel())
    at_edges, elsewhere = (float(np.concatenate(each).mean()) for each in (across, inside))
    weight = math.log2(block) / math.log2(min(luma.shape))
    return weight * max(0.0, at_edges - elsewhere)


def ssimulacra2(sr: Pixels, hr: Pixels) -> float:
    """Return SSIMULACRA2 of the package of that name: 100 is equal, 70 high quality, below 50 poor."""
    require_extra("dev", "ssimulacra2", purpose="SSIMULACRA2")
    from ssimulacra2 import compute_ssimulacra2

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("hr.png", "sr.png")]
        for path, image in zip(files, (hr, sr), strict=True):
            Image.fromarray(image).save(path, compress_level=0)
        return float(compute_ssimulacra2(str(files[0]), str(files[1])))
