"""Training losses, and the expressions that combine them.

A loss is a function of (sr, hr), two (N, C, H, W) tensors, to a scalar; the loss of a batch is the
mean of the losses of its pictures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from sr.errors import TrainingError

Loss = Callable[[Tensor, Tensor], Tensor]

# LapSRN (arXiv 1704.03915, section 3.2).
CHARBONNIER_EPSILON = 1e-3

# Where smooth L1 turns from square to straight. At PyTorch's 1.0 it would be half of L2 on images in
# [0, 1]; five levels of 255 is about the error of a trained network.
SMOOTH_L1_BETA = 5 / 255

# Shares of R, G and B in luma (ITU-R BT.601-7, 2.5.1).
LUMA = (0.299, 0.587, 0.114)

# Mean squared error of rounding to 8 bits: errors spread evenly over one level have a variance of 1/12.
ROUNDING_MSE = 1 / 255**2 / 12

_TERM = re.compile(r"\s*(?:([0-9.]+(?:e[+-]?[0-9]+)?)\s*\*\s*)?([a-z][a-z0-9_]*)\s*")


def charbonnier(sr: Tensor, hr: Tensor) -> Tensor:
    """Return mean sqrt((sr - hr)^2 + epsilon^2), a smooth L1 (LapSRN, arXiv 1704.03915, eq. 3)."""
    return torch.sqrt((sr - hr) ** 2 + CHARBONNIER_EPSILON**2).mean()


def fft_loss(sr: Tensor, hr: Tensor, *, cutoff: float = 0.0) -> Tensor:
    """Return the mean modulus of the spectrum of `sr - hr` above a cut-off frequency.

    The transform is linear, so |HP(FFT(sr)) - HP(FFT(hr))| is |HP(FFT(sr - hr))| and one transform
    does. It is the real two-dimensional FFT, orthonormal: white noise of deviation d has coefficients
    of root mean square d at every frequency and every size, so the loss is of the size of L1. The
    mean goes over the frequencies that pass, each counted as often as in the full plane.

    Args:
        cutoff: frequencies below are left out, in cycles per pixel: the length of (fy, fx), which
            reaches 0.5 along an axis and 0.707 in the corner. 0 lets all pass.

    Raises:
        TrainingError: no frequency of such a picture passes.
    """
    height, width = sr.shape[-2:]
    spectrum = torch.fft.rfft2(sr.float() - hr.float(), norm="ortho")  # (N, C, H, W // 2 + 1)
    weight = _high_pass(height, width, cutoff, sr.device)
    return (spectrum.abs() * weight).sum() / (spectrum.shape[0] * spectrum.shape[1])


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept must also serve a backward pass
def _high_pass(height: int, width: int, cutoff: float, device: torch.device) -> Tensor:
    """Return weights (H, W // 2 + 1) that sum to 1 over the frequencies of at least `cutoff`."""
    fy, fx = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    weight = (torch.hypot(fy, fx) >= cutoff).to(torch.float64)
    weight[:, 1 : (width + 1) // 2] *= 2  # their mirror images are not stored
    if not weight.any():
        raise TrainingError(
            f"the FFT loss cuts off everything below {cutoff} cycles per pixel: nothing of a "
            f"{width}x{height} patch is left; the largest useful value is {math.sqrt(0.5):.3f}"
        )
    return (weight / weight.sum()).to(device, torch.float32)


def luma_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the L1 of BT.601 luma, on which quality is measured; plain L1 for one channel."""
    return _luma(sr - hr).abs().mean()


def psnr_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the mean over the pictures of ln(1 + MSE / ROUNDING_MSE): a mean PSNR, but for its sign.

    L1 and L2 follow the pictures with the largest errors; here all weigh the same, as in the mean PSNR
    of a test set (HINet, arXiv 2105.06086). Errors below the rounding to 8 bits count little.
    """
    return torch.log1p((sr - hr).square().mean((1, 2, 3)) / ROUNDING_MSE).mean()


def psnr_luma_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Return `psnr_loss` of BT.601 luma; that of the channel itself for one channel."""
    return psnr_loss(_luma(sr), _luma(hr))


def _luma(pictures: Tensor) -> Tensor:
    """Return the luma (N, 1, H, W) of RGB, also of a difference; one channel as it is."""
    if pictures.shape[1] != 3:
        return pictures
    return (pictures * pictures.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


LOSSES: dict[str, Loss] = {
    "l1": F.l1_loss,
    "luma": luma_loss,
    "l2": F.mse_loss,
    "psnr": psnr_loss,
    "psnr_luma": psnr_luma_loss,
    "smooth_l1": partial(F.smooth_l1_loss, beta=SMOOTH_L1_BETA),
    "charbonnier": charbonnier,
    "fftloss": fft_loss,
}


def loss_from_expression(expression: str, *, fft_cutoff: float = 0.0) -> Loss:
    """Return the loss that an expression names, e.g. "l1" or "l1+0.05*fftloss".

    Args:
        expression: names of `LOSSES`, each with an optional positive factor, joined by "+".
        fft_cutoff: cut-off of the FFT loss, in cycles per pixel.

    Raises:
        TrainingError: the expression does not parse, or names an unknown loss.
    """
    terms: list[tuple[float, Loss]] = []
    for term in expression.lower().split("+"):
        match = _TERM.fullmatch(term)
        name = match[2] if match else ""
        if not match or name not in LOSSES:
            raise TrainingError(
                f"loss {expression!r}: cannot read {term.strip()!r}; "
                f"write e.g. l1+0.05*fftloss, with {', '.join(LOSSES)}"
            )
        weight = _weight(match[1], expression)
        terms.append((weight, partial(fft_loss, cutoff=fft_cutoff) if name == "fftloss" else LOSSES[name]))
    if len(terms) == 1 and terms[0][0] == 1:
        return terms[0][1]
    return lambda sr, hr: torch.stack([weight * loss(sr, hr) for weight, loss in terms]).sum()


def _weight(text: str | None, expression: str) -> float:
    try:
        weight = float(text or 1)
    except ValueError as error:
        raise TrainingError(f"loss {expression!r}: {text!r} is no factor") from error
    if not 0 < weight < math.inf:
        raise TrainingError(f"loss {expression!r}: factor {text}, need more than 0")
    return weight
