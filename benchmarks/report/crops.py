"""Crops side by side: the truth, bicubic, and each backend that runs here."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.lib.paths import EXAMPLES
from benchmarks.parity import NAMES, cases
from sr.errors import SrupError
from sr.image import read_picture
from sr.metrics import psnr_y
from sr.network.modelfile import shipped_scales
from sr.resize import bicubic_resize, modulo_crop

CROP = (96, 144)  # height and width in hr pixels


@dataclass(frozen=True)
class Shown:
    """A crop of one version of a picture.

    Attributes:
        label: the method.
        uri: the crop, as a data URI.
        psnr: Y-PSNR in dB of the whole picture against the truth; None for the truth.
    """

    label: str
    uri: str
    psnr: float | None = None


@dataclass(frozen=True)
class Crop:
    """The same part of a picture in several versions."""

    name: str
    scale: int
    shown: tuple[Shown, ...]


def example_crops() -> Iterator[Crop]:
    """Yield one crop for each scale, of an example reduced by bicubic and upscaled again."""
    for scale, path in zip(shipped_scales(), EXAMPLES, strict=False):
        hr = modulo_crop(read_picture(path).pixels, scale=scale)
        lr = bicubic_resize(hr, scale=Fraction(1, scale))
        part = _detailed(hr)
        shown = [
            Shown("truth", _uri(hr[part])),
            _shown("bicubic", bicubic_resize(lr, scale=scale), hr, scale, part),
        ]
        for case in cases(NAMES):
            try:
                with case.open(scale, max(lr.shape)) as upscaler:
                    sr = upscaler(lr)
            except SrupError:  # the parity section gives the reason
                continue
            shown.append(_shown(f"{case.backend} {case.device} {case.precision}", sr, hr, scale, part))
        yield Crop(path.stem, scale, tuple(shown))


def _shown(label: str, sr: NDArray, hr: NDArray, scale: int, part: tuple[slice, slice]) -> Shown:
    return Shown(label, _uri(sr[part]), psnr_y(sr, hr, scale=scale))


def _detailed(hr: NDArray) -> tuple[slice, slice]:
    """Return the part of size `CROP` with the most detail, on a grid of half its size."""
    edges = np.abs(np.diff(hr.astype(np.int16).sum(axis=2), axis=1))
    height, width = CROP
    places = [
        (top, left)
        for top in range(0, hr.shape[0] - height, height // 2)
        for left in range(0, hr.shape[1] - width, width // 2)
    ]
    top, left = max(places, key=lambda at: edges[at[0] : at[0] + height, at[1] : at[1] + width].sum())
    return slice(top, top + height), slice(left, left + width)


def _uri(pixels: NDArray) -> str:
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "WEBP", lossless=True)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
