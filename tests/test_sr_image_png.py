"""PNG files that are filtered and deflated here."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from sr.image import deflate
from sr.image.deflate import compressed_pixels
from sr.image.formats.png_chunks import write_png

ROOT = Path(__file__).parents[1]
SHAPES = {"grey": (), "grey and alpha": (2,), "RGB": (3,), "RGBA": (4,)}


def png(pixels: np.ndarray, level: int = 1) -> bytes:
    buffer = BytesIO()
    write_png(buffer, pixels, b"", compress_level=level)
    return buffer.getvalue()


def read_back(content: bytes) -> np.ndarray:
    with Image.open(BytesIO(content)) as opened:
        opened.verify()
    with Image.open(BytesIO(content)) as opened:
        return np.asarray(opened)


def photograph(height: int, width: int, channels: tuple[int, ...]) -> np.ndarray:
    """Return something smooth with fine noise."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).normal(0, 2, (height, width, *channels))
    smooth = (120 + 80 * np.sin(x / 31) * np.cos(y / 23)).reshape(height, width, *([1] * len(channels)))
    return (smooth + noise).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("level", [0, 1, 6])
@pytest.mark.parametrize("channels", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (700, 501)])
def test_pixels_come_back(size: tuple[int, int], channels: tuple[int, ...], level: int) -> None:
    pixels = photograph(*size, channels)
    assert (read_back(png(pixels, level)) == pixels).all()


@settings(max_examples=150, deadline=None, database=None)
@given(
    pixels=st.one_of(
        arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20))),
        arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(2, 4))),
    ),
    band_bytes=st.integers(1, 200),
)
def test_any_pixels_come_back_whatever_the_bands(pixels: np.ndarray, band_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deflate, "_BAND_BYTES", band_bytes)
        assert (read_back(png(pixels)) == pixels).all()


Y, X = np.mgrid[:64, :64]
SUITED: dict[str, tuple[int, Callable[[], np.ndarray]]] = {
    "dots": (0, lambda: np.random.default_rng(0).binomial(1, 0.1, (64, 64)).astype(np.uint8)),
    "levels along rows": (1, lambda: (37 * Y % 256).astype(np.uint8)),
    "levels along columns": (2, lambda: (37 * X % 256).astype(np.uint8)),
    "noise": (3, lambda: np.random.default_rng(0).normal(120, 20, (64, 64)).astype(np.uint8)),
}


@pytest.mark.parametrize("kind", SUITED)
def test_rows_get_the_filter_that_suits_them(kind: str) -> None:
    number, pixels = SUITED[kind]
    filters = np.frombuffer(zlib.decompress(b"".join(compressed_pixels(pixels()))), np.uint8)[::65]
    assert set(filters.tolist()) == {number}


def test_without_isal_zlib_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = photograph(700, 501, (3,))
    fast = png(pixels)
    monkeypatch.setitem(sys.modules, "isal", None)
    plain = png(pixels)
    assert plain != fast
    assert (read_back(plain) == pixels).all()


@pytest.mark.parametrize("installed", [True, False])
def test_files_of_photographs_are_about_as_small_as_pillows(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not installed:
        monkeypatch.setitem(sys.modules, "isal", None)
    with Image.open(ROOT / "examples" / "kitten.png") as opened:
        image = opened.convert("RGB").resize((1020, 678), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, "PNG")
    assert len(png(np.asarray(image))) < 1.2 * buffer.tell()


def test_arrays_that_are_views_of_others_are_written() -> None:
    pixels = photograph(40, 60, (4,))
    for view in (pixels[::2, ::3], pixels[:, ::-1], pixels[..., :3], pixels.transpose(1, 0, 2)):
        assert (read_back(png(view)) == view).all()
    broadcast = np.broadcast_to(pixels[..., :1], (40, 60, 3))
    assert (read_back(png(broadcast)) == broadcast).all()
