"""One high-quality resampling, from a size that networks reach to the one that was asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr.image.picture import Pixels


def resample(samples: Pixels, *, height: int, width: int, linear_light: bool = False) -> Pixels:
    """Resize (H, W) or (H, W, 3) samples with Lanczos' filter (a = 3), antialiased when shrinking.

    Args:
        samples: uint8 or uint16; the result has the same dtype, rounded and clipped.
        linear_light: average light instead of sRGB's values (IEC 61966-2-1), as optics do: fine
            bright detail on dark ground keeps its brightness.
    """
    if samples.shape[:2] == (height, width):
        return samples
    peak = np.iinfo(samples.dtype).max
    result = np.empty((height, width, *samples.shape[2:]), samples.dtype)
    for channel in np.ndindex(samples.shape[2:]):  # one at a time: float32 takes four times the memory
        plane = samples[(..., *channel)].astype(np.float32) / np.float32(peak)
        if linear_light:
            plane = _light_from_srgb(plane)
        resized = np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.LANCZOS))
        if linear_light:
            resized = _srgb_from_light(resized)
        result[(..., *channel)] = np.clip(np.rint(resized * np.float32(peak)), 0, peak)
    return result


def _light_from_srgb(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _srgb_from_light(light: NDArray[np.float32]) -> NDArray[np.float32]:
    light = np.clip(light, 0, None)  # Lanczos undershoots, and there is no root of that
    curve = 1.055 * light ** (1 / 2.4) - 0.055
    return np.where(light <= 0.0031308, light * 12.92, curve).astype(np.float32)
