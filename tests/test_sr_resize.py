"""Bicubic resizing: MATLAB's pictures bit for bit, and Keys' formula computed another way."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from sr.errors import ImageError
from sr.resize import bicubic_resize, modulo_crop

SET5 = Path(__file__).resolve().parents[2] / "shared/data/test/Set5"

SCALES = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), Fraction(2), Fraction(3), Fraction(4), 0.7, 1.5]

scales = st.sampled_from(SCALES)
sides = st.integers(1, 12)
seeds = st.integers(0, 2**32 - 1)


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def as_float(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    return image.astype(np.float64)


# --- the formula, one pixel at a time -----------------------------------------------------------


def keys(x: float) -> float:
    """Return the cubic convolution kernel of 1981 with a = -1/2, in its general form."""
    a, x = -0.5, abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def reflected(index: int, length: int) -> int:
    """Return the pixel that a picture reflected at its edges, edge pixels doubled, has at `index`."""
    while not 0 <= index < length:
        index = -1 - index if index < 0 else 2 * length - 1 - index
    return index


def taps(position: int, length: int, scale: float) -> list[tuple[int, float]]:
    """Return source pixels and normalised weights of one output pixel on one axis."""
    centre = (position + 0.5) / scale - 0.5
    shrink = min(scale, 1.0)
    reach = math.ceil(2 / shrink) + 1
    near = range(math.floor(centre) - reach, math.floor(centre) + reach + 2)
    weights = [(index, keys((centre - index) * shrink)) for index in near]
    total = sum(weight for _, weight in weights)
    return [(reflected(index, length), weight / total) for index, weight in weights if weight]


def direct(image: NDArray, scale: float | Fraction) -> NDArray[np.float64]:
    """Sum over all source pixels for each output pixel of (H, W)."""
    height, width = image.shape
    out = np.zeros((math.ceil(scale * height), math.ceil(scale * width)))
    rows = [taps(i, height, float(scale)) for i in range(out.shape[0])]
    columns = [taps(j, width, float(scale)) for j in range(out.shape[1])]
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            out[i, j] = sum(v * h * float(image[y, x]) for y, v in row for x, h in column)
    return out


def direct_rows(image: NDArray, scale: float | Fraction) -> NDArray[np.float64]:
    """Resize the height of (H, W) only."""
    height = image.shape[0]
    return np.stack(
        [
            sum(weight * as_float(image[y]) for y, weight in taps(i, height, float(scale)))
            for i in range(math.ceil(scale * height))
        ]
    )


def rounded(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Round half up; refuse values so near a half that the order of a sum could decide."""
    assert np.all(np.abs(values - np.floor(values) - 0.5) > 1e-9), "choose another seed or scale"
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("scale", SCALES, ids=str)
@pytest.mark.parametrize(("height", "width"), [(9, 12), (3, 2), (1, 5)])
def test_float_resize_equals_the_formula(scale: float | Fraction, height: int, width: int) -> None:
    image = np.random.default_rng(0).normal(size=(height, width))
    np.testing.assert_allclose(bicubic_resize(image, scale=scale), direct(image, scale), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [Fraction(1, 3), Fraction(3), 0.61, 1.37], ids=str)  # no halves
def test_uint8_is_rounded_after_each_pass(scale: float | Fraction) -> None:
    image = pixels(12, 9, seed=4)
    image[:, :4] = np.where(image[:, :4] > 127, 255, 0)  # overshoots: clipping shows
    after_rows = rounded(direct_rows(image, scale))
    expected = rounded(direct_rows(after_rows.T, scale).T)
    got = bicubic_resize(image, scale=scale)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, expected)
    once = np.clip(np.round(direct(image, scale)), 0, 255)
    assert (once != expected).any(), "rounding once would pass here"


@pytest.mark.parametrize(("image", "middle"), [([[3, 4]], 4), ([[2, 3]], 3), ([[3], [4]], 4)])
def test_halves_are_rounded_up(image: list[list[int]], middle: int) -> None:
    # Symmetric weights about the middle of two pixels: their mean, a half.
    got = bicubic_resize(np.array(image, np.uint8), scale=Fraction(1, 2))
    assert got.tolist() == [[middle]]


# --- MATLAB's own pictures ----------------------------------------------------------------------


@pytest.mark.skipif(not (SET5 / "LR_matlab").is_dir(), reason="no Set5 beside the repository")
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["baby", "bird", "butterfly", "head", "woman"])
def test_equals_matlab_bit_for_bit(name: str, scale: int) -> None:
    with Image.open(SET5 / f"HR/{name}.png") as hr, Image.open(SET5 / f"LR_matlab/x{scale}/{name}.png") as lr:
        ours = bicubic_resize(modulo_crop(np.asarray(hr), scale=scale), scale=Fraction(1, scale))
        np.testing.assert_array_equal(ours, np.asarray(lr))


# --- properties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [np.asarray, as_float], ids=["uint8", "float64"])
def test_scale_1_is_a_copy(convert: Callable[[NDArray[np.uint8]], NDArray]) -> None:
    image = convert(pixels(5, 7, 3))
    got = bicubic_resize(image, scale=1)
    np.testing.assert_array_equal(got, image)
    assert got.dtype == image.dtype
    assert not np.shares_memory(got, image)


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_constant_pictures_stay_constant(scale: float | Fraction) -> None:
    every_level = np.broadcast_to(np.arange(256, dtype=np.uint8), (5, 7, 256))
    shape = (math.ceil(scale * 5), math.ceil(scale * 7), 256)
    expected = np.broadcast_to(np.arange(256), shape)
    np.testing.assert_array_equal(bicubic_resize(every_level, scale=scale), expected)
    np.testing.assert_allclose(bicubic_resize(as_float(every_level), scale=scale), expected, rtol=1e-13)


@settings(max_examples=60, deadline=None, database=None)
@given(scale=scales, height=sides, width=sides, seed=seeds)
def test_sizes_are_rounded_up(scale: float | Fraction, height: int, width: int, seed: int) -> None:
    for shape in ((height, width), (height, width, 3)):
        got = bicubic_resize(pixels(*shape, seed=seed), scale=scale)
        assert got.shape == (math.ceil(scale * height), math.ceil(scale * width), *shape[2:])


@settings(max_examples=60, deadline=None, database=None)
@given(scale=scales, height=sides, width=sides, seed=seeds)
def test_commutes_with_transposition(scale: float | Fraction, height: int, width: int, seed: int) -> None:
    image = as_float(pixels(height, width, 3, seed=seed))
    turned = bicubic_resize(image.transpose(1, 0, 2), scale=scale)
    np.testing.assert_allclose(turned, bicubic_resize(image, scale=scale).transpose(1, 0, 2), atol=1e-10)


@settings(max_examples=60, deadline=None, database=None)
@given(factor=st.sampled_from([2, 3, 4]), shrink=st.booleans(), height=sides, width=sides, seed=seeds)
def test_commutes_with_flips(factor: int, shrink: bool, height: int, width: int, seed: int) -> None:
    # Where scale * side is whole: else the grid starts at the top left and is not symmetric.
    scale = Fraction(1, factor) if shrink else Fraction(factor)
    unit = factor if shrink else 1
    image = as_float(pixels(height * unit, width * unit, seed=seed))
    got = bicubic_resize(image, scale=scale)
    np.testing.assert_allclose(bicubic_resize(image[::-1], scale=scale), got[::-1], atol=1e-10)
    np.testing.assert_allclose(bicubic_resize(image[:, ::-1], scale=scale), got[:, ::-1], atol=1e-10)


def test_channels_are_resized_each_by_itself() -> None:
    image = pixels(9, 8, 4)
    together = bicubic_resize(image, scale=Fraction(1, 3))
    apart = [bicubic_resize(image[:, :, channel], scale=Fraction(1, 3)) for channel in range(4)]
    np.testing.assert_array_equal(together, np.stack(apart, axis=2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_is_neither_clipped_nor_converted(dtype: type) -> None:
    step = np.repeat(np.array([[0, 0, 0, 255, 255, 255]], dtype), 4, axis=0)
    got = bicubic_resize(step, scale=2)
    assert got.dtype == dtype
    assert got.min() < -1
    assert got.max() > 256


def test_input_is_not_changed() -> None:
    image = pixels(8, 8, 3)
    before = image.copy()
    bicubic_resize(image, scale=Fraction(1, 2))
    np.testing.assert_array_equal(image, before)


# --- errors and cropping ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "scale", "names"),
    [
        (np.zeros((0, 4), np.uint8), 2, "shape (0, 4)"),
        (np.zeros((4, 4, 0), np.uint8), 2, "shape (4, 4, 0)"),
        (np.zeros(4, np.uint8), 2, "shape (4,)"),
        (np.zeros((1, 4, 4, 3), np.uint8), 2, "shape (1, 4, 4, 3)"),
        (np.zeros((4, 4), np.uint16), 2, "dtype uint16"),
        (np.zeros((4, 4), bool), 2, "dtype bool"),
        (np.zeros((4, 4), np.uint8), 0, "by 0"),
        (np.zeros((4, 4), np.uint8), -0.5, "by -0.5"),
        (np.zeros((4, 4), np.uint8), math.nan, "by nan"),
    ],
)
def test_impossible_resizes_are_refused(image: NDArray, scale: float, names: str) -> None:
    with pytest.raises(ImageError) as caught:
        bicubic_resize(image, scale=scale)
    assert names in str(caught.value)


@given(scale=st.integers(1, 4), height=st.integers(4, 13), width=st.integers(4, 13))
@settings(max_examples=40, deadline=None, database=None)
def test_modulo_crop_cuts_bottom_and_right(scale: int, height: int, width: int) -> None:
    image = pixels(height, width, 3)
    cut = modulo_crop(image, scale=scale)
    assert cut.shape[0] % scale == cut.shape[1] % scale == 0
    assert 0 <= height - cut.shape[0] < scale
    assert 0 <= width - cut.shape[1] < scale
    np.testing.assert_array_equal(cut, image[: cut.shape[0], : cut.shape[1]])
    assert np.shares_memory(cut, image)


@pytest.mark.parametrize("shape", [(3, 9), (9, 3, 3)])
def test_modulo_crop_refuses_pictures_smaller_than_the_scale(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=rf"{shape[1]}x{shape[0]}.* 4"):
        modulo_crop(np.zeros(shape, np.uint8), scale=4)
