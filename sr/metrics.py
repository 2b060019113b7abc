"""PSNR and SSIM by the field's protocol of record: Y channel, `scale` pixels shaved.

Pure arithmetic on arrays. The protocol reproduces published figures, e.g. those of IMDN
(arXiv 1909.11856, table 4), when given the uint8-rounded output.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sr.errors import ImageError

# MATLAB rgb2ycbcr (ITU-R BT.601, studio swing), first row, for inputs in [0, 255].
Y_FROM_RGB = np.array([65.481, 128.553, 24.966]) / 255.0
Y_OFFSET = 16.0

# Wang et al., IEEE Trans. Image Processing 13(4), 2004: 11x11 Gaussian, sigma 1.5, K1, K2.
_SSIM_WINDOW, _SSIM_SIGMA, _SSIM_K1, _SSIM_K2 = 11, 1.5, 0.01, 0.03


def y_channel(image: NDArray) -> NDArray[np.float64]:
    """Return luma in [16, 235], (H, W) float64 and not rounded, of RGB (H, W, 3) in [0, 255].

    A grey image (H, W) is taken as R = G = B.
    """
    if image.ndim == 2:
        return image.astype(np.float64) * Y_FROM_RGB.sum() + Y_OFFSET
    return image.astype(np.float64) @ Y_FROM_RGB + Y_OFFSET


def shave(image: NDArray, *, pixels: int) -> NDArray:
    """Cut `pixels` from each side; returns a view."""
    if 2 * pixels >= min(image.shape[:2]):
        raise ImageError(f"cannot shave {pixels} px from a {image.shape[1]}x{image.shape[0]} picture")
    return image[pixels : image.shape[0] - pixels, pixels : image.shape[1] - pixels]


def psnr(first: NDArray, second: NDArray, *, peak: float = 255.0) -> float:
    """Return the peak signal-to-noise ratio in dB of two equal-shaped arrays; inf if equal."""
    _require_same_shape(first, second)
    error = np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2)
    return math.inf if error == 0 else float(10 * np.log10(peak**2 / error))


def ssim(first: NDArray, second: NDArray, *, peak: float = 255.0) -> float:
    """Return the mean structural similarity of two (H, W) arrays, valid windows only."""
    _require_same_shape(first, second)
    if first.ndim != 2 or min(first.shape) < _SSIM_WINDOW:
        raise ImageError(f"SSIM needs one channel of at least 11x11 px, got shape {first.shape}")
    x, y = first.astype(np.float64), second.astype(np.float64)
    c1, c2 = (_SSIM_K1 * peak) ** 2, (_SSIM_K2 * peak) ** 2
    mean_x, mean_y = _gaussian_valid(x), _gaussian_valid(y)
    var_x = _gaussian_valid(x * x) - mean_x**2
    var_y = _gaussian_valid(y * y) - mean_y**2
    covariance = _gaussian_valid(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    denominator = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float(np.mean(numerator / denominator))


def psnr_y(sr: NDArray, hr: NDArray, *, scale: int) -> float:
    """Return the Y-PSNR in dB of uint8 RGB (H, W, 3) images, `scale` pixels shaved."""
    return psnr(y_channel(shave(sr, pixels=scale)), y_channel(shave(hr, pixels=scale)))


def ssim_y(sr: NDArray, hr: NDArray, *, scale: int) -> float:
    """Return the Y-SSIM of uint8 RGB (H, W, 3) images, `scale` pixels shaved."""
    return ssim(y_channel(shave(sr, pixels=scale)), y_channel(shave(hr, pixels=scale)))


def _gaussian_valid(image: NDArray[np.float64]) -> NDArray[np.float64]:
    offsets = np.arange(_SSIM_WINDOW) - _SSIM_WINDOW // 2
    kernel = np.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    kernel /= kernel.sum()
    height, width = image.shape[0] - _SSIM_WINDOW + 1, image.shape[1] - _SSIM_WINDOW + 1
    rows = np.zeros((height, image.shape[1]))
    for tap, weight in enumerate(kernel):
        rows += weight * image[tap : tap + height]
    out = np.zeros((height, width))
    for tap, weight in enumerate(kernel):
        out += weight * rows[:, tap : tap + width]
    return out


def _require_same_shape(first: NDArray, second: NDArray) -> None:
    if first.shape != second.shape:
        raise ImageError(f"cannot compare images of shapes {first.shape} and {second.shape}")
