"""Damage that lr pictures have in practice, one kind and one size at a time, drawn from fixed seeds."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr.image.compression import LOSSLESS, Compression, compression_of
from sr.resize import bicubic_resize
from train.data.shrink import shrink

Pixels = NDArray[np.uint8]

JPEG_QUALITIES = (100, 95, 90, 85, 75, 70, 60, 50, 40, 30, 20)
_SHIFT = 4  # px, half a block: as far from the first grid as can be
_SUBSAMPLED = 2  # 4:2:0 in Pillow
_SEED = 14
_NAMES = {"JPEG": "JPEG", "WEBP": "WebP", "AVIF": "AVIF"}  # of the `FormatSpec`, by Pillow's


@dataclass(frozen=True)
class Damaged:
    """An lr picture, and what a file with it would say of its compression."""

    pixels: Pixels
    compression: Compression = LOSSLESS


Damage = Callable[[Pixels, int], Damaged]  # hr (H, W, 3), its sides multiples of the scale, and the scale


def bicubic_lr(hr: Pixels, scale: int) -> Pixels:
    """Shrink as MATLAB does: the protocol of record."""
    lr: Pixels = bicubic_resize(hr, scale=Fraction(1, scale))
    return lr


def coded(pixels: Pixels, kind: str, **settings: int) -> Damaged:
    """Return what is left of a picture after a lossy format of Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **settings)
    said = compression_of(buffer, _NAMES[kind])
    buffer.seek(0)
    return Damaged(np.asarray(Image.open(buffer).convert("RGB")), said)


def jpeg(pixels: Pixels, quality: int) -> Damaged:
    """Return what is left of a picture after a JPEG with subsampled chroma."""
    return coded(pixels, "JPEG", quality=quality, subsampling=_SUBSAMPLED)


def noisy(pixels: Pixels, sigma: float) -> Damaged:
    """Return a picture with white noise of a deviation in levels of 255, another one in each channel."""
    noise = np.random.default_rng(_SEED).standard_normal(pixels.shape) * sigma
    return Damaged(_rounded(pixels + noise))


def _twice(hr: Pixels, scale: int, *, first: int, second: int) -> Damaged:
    once = jpeg(bicubic_lr(hr, scale), first).pixels
    margin = ((_SHIFT, 0), (_SHIFT, 0), (0, 0))
    again = jpeg(np.pad(once, margin, mode="edge"), second)
    return Damaged(again.pixels[_SHIFT:, _SHIFT:], again.compression)


def _noisy(hr: Pixels, scale: int, *, sigma: float) -> Damaged:
    return noisy(bicubic_lr(hr, scale), sigma)


def _filtered(hr: Pixels, scale: int, *, name: str, sigma: float = 0.0) -> Damaged:
    return Damaged(_rounded(shrink(hr, name, scale=scale, sigma=sigma)))


def _rounded(pixels: NDArray) -> Pixels:
    return np.clip(np.floor(pixels + 0.5), 0, 255).astype(np.uint8)


def _jpeg(hr: Pixels, scale: int, *, quality: int) -> Damaged:
    return jpeg(bicubic_lr(hr, scale), quality)


def _coded(hr: Pixels, scale: int, *, kind: str, quality: int) -> Damaged:
    return coded(bicubic_lr(hr, scale), kind, quality=quality)


CONDITIONS: dict[str, Damage] = {
    "clean": lambda hr, scale: Damaged(bicubic_lr(hr, scale)),
    **{f"JPEG {quality}": partial(_jpeg, quality=quality) for quality in JPEG_QUALITIES},
    "JPEG 90, then 75": partial(_twice, first=90, second=75),
    "JPEG 75 twice": partial(_twice, first=75, second=75),
    "JPEG 75 as PNG": lambda hr, scale: Damaged(_jpeg(hr, scale, quality=75).pixels),
    "WebP 75": partial(_coded, kind="WEBP", quality=75),
    "AVIF 75": partial(_coded, kind="AVIF", quality=75),
    **{f"noise {sigma}": partial(_noisy, sigma=sigma) for sigma in (3, 5, 10)},
    "blur 0.7": partial(_filtered, name="bicubic", sigma=0.7),
    "area": partial(_filtered, name="area"),
    "Lanczos": partial(_filtered, name="lanczos"),
}
