"""Crops of validation pictures side by side: lr, bicubic, the network's, hr."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sr.metrics import y_channel
from sr.resize import bicubic_resize
from train.data.pairs import load_pair, load_pair_list
from train.data.samples import below, beside, save_png
from train.evaluate import Upscale

Pixels = NDArray[np.uint8]

_PICTURES, _SIDE = 4, 48  # crops in a sheet, lr pixels of each
_AROUND = 24  # lr pixels that the network sees around a crop; more than its receptive field needs


def bicubic_upscale(scale: int) -> Upscale:
    """Return MATLAB's bicubic as a function on uint8 RGB pictures."""
    return lambda lr: bicubic_resize(lr, scale=scale)


@dataclass(frozen=True)
class _Crop:
    """A part of a picture with its surroundings; `inside` is where the part lies in them, in lr pixels."""

    lr: Pixels
    inside: tuple[slice, slice]
    bicubic: Pixels
    hr: Pixels


@dataclass(frozen=True)
class Crops:
    """The crops of a run: of each picture, the part that bicubic restores worst."""

    crops: list[_Crop]
    scale: int

    @staticmethod
    def of_list(path: Path, *, scale: int) -> Crops:
        """Choose them from the first pictures of a pair list.

        Raises:
            DataError: the list or a picture cannot be read.
        """
        pairs = load_pair_list(path)[:_PICTURES]
        return Crops([_worst_part(*load_pair(pair, scale=scale), scale) for pair in pairs], scale)

    def save(self, path: Path, upscale: Upscale) -> None:
        """Write a sheet with a row for each crop.

        Raises:
            TrainingError: it cannot be written.
        """
        path.parent.mkdir(exist_ok=True)
        save_png(path, below([self._row(crop, upscale) for crop in self.crops]))

    def _row(self, crop: _Crop, upscale: Upscale) -> Pixels:
        scale = self.scale
        sr = upscale(crop.lr)[tuple(slice(s.start * scale, s.stop * scale) for s in crop.inside)]
        lr = crop.lr[crop.inside].repeat(scale, 0).repeat(scale, 1)
        row = beside([lr, crop.bicubic, sr, crop.hr])
        # Pictures smaller than a crop leave white.
        full = np.full((_SIDE * scale, 4 * _SIDE * scale + row.shape[1] - 4 * lr.shape[1], 3), 255, np.uint8)
        full[: row.shape[0], : row.shape[1]] = row
        return full


def _worst_part(hr: Pixels, lr: Pixels, scale: int) -> _Crop:
    bicubic = bicubic_resize(lr, scale=scale)
    height, width = lr.shape[:2]
    error = np.abs(y_channel(hr) - y_channel(bicubic)).reshape(height, scale, width, scale).mean((1, 3))
    sides = min(_SIDE, height), min(_SIDE, width)
    sums = np.pad(error, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inside = sums[sides[0] :, sides[1] :] - sums[: -sides[0], sides[1] :]
    inside -= sums[sides[0] :, : -sides[1]] - sums[: -sides[0], : -sides[1]]
    top, left = (int(i) for i in np.unravel_index(np.argmax(inside), inside.shape))
    y, x = max(0, top - _AROUND), max(0, left - _AROUND)
    around = lr[y : top + sides[0] + _AROUND, x : left + sides[1] + _AROUND]
    part = tuple(
        slice(start * scale, (start + side) * scale) for start, side in zip((top, left), sides, strict=True)
    )
    place = slice(top - y, top - y + sides[0]), slice(left - x, left - x + sides[1])
    return _Crop(around, place, bicubic[part], hr[part])
