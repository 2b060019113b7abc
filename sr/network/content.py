"""Synthetic pictures with the content of real ones, to measure networks with: the same ones each time.

Owns four kinds: texture, overlapping shapes, smooth shading, and text-like strokes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (H, W, 3) RGB


def contents(*, height: int, width: int) -> dict[str, Image]:
    """Return one picture of each kind, uint8 RGB (height, width, 3)."""
    rng = np.random.default_rng(0)
    return {
        "texture": _texture(rng, height, width),
        "shapes": _shapes(rng, height, width),
        "shading": _shading(rng, height, width),
        "text": _text(rng, height, width),
    }


def _texture(rng: np.random.Generator, height: int, width: int) -> Image:
    """Noise whose amplitude falls with frequency, as in photographs (Field, JOSA A 4(12), 1987)."""
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.maximum(np.hypot(y, x), 1 / max(height, width))
    planes = []
    for _ in range(3):
        noise = np.fft.rfft2(rng.normal(size=(height, width))) / frequency
        planes.append(np.fft.irfft2(noise, (height, width)))
    grey = planes[0] / planes[0].std()
    colours = [grey + 0.3 * plane / plane.std() for plane in planes]  # channels of photographs correlate
    return _levels(128 + 45 * np.stack(colours, axis=2))


def _shapes(rng: np.random.Generator, height: int, width: int) -> Image:
    """Discs that cover one another: dead leaves (Lee, Mumford and Huang, IJCV 41, 2001)."""
    picture = np.full((height, width, 3), 128.0)
    y, x = np.mgrid[:height, :width]
    for _ in range(height * width // 60):
        radius = 2 / np.sqrt(1 - rng.random() * (1 - (4 / max(height, width)) ** 2))
        row, column = rng.random(2) * (height, width)
        inside = (y - row) ** 2 + (x - column) ** 2 < radius**2
        picture[inside] = rng.random(3) * 255
    return _levels(picture)


def _shading(rng: np.random.Generator, height: int, width: int) -> Image:
    y, x = np.mgrid[:height, :width]
    slopes = np.stack([y / height, x / width, (x + y) / (height + width)], axis=2)
    return _levels(30 + 190 * slopes + rng.normal(0, 0.7, (height, width, 3)))


def _text(rng: np.random.Generator, height: int, width: int) -> Image:
    """Dark strokes, one and two pixels wide, on white: letters as far as a convolution can tell."""
    picture = np.full((height, width, 3), 250.0)
    for top in range(2, max(3, height - 9), 12):
        for left in range(2, max(3, width - 7), 7):
            for _ in range(3):
                row, column = top + rng.integers(0, 8), left + rng.integers(0, 5)
                length, thick = rng.integers(3, 7), rng.integers(1, 3)
                if rng.random() < 0.5:
                    picture[row : row + thick, column : column + length] = 20
                else:
                    picture[row : row + length, column : column + thick] = 20
    return _levels(picture)


def _levels(values: NDArray[np.float64]) -> Image:
    return values.round().clip(0, 255).astype(np.uint8)
