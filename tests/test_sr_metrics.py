"""PSNR and SSIM: known values, a direct computation of SSIM, and published figures."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sr.errors import ImageError
from sr.metrics import psnr, psnr_y, shave, ssim, ssim_y, y_channel
from sr.resize import bicubic_resize, modulo_crop

SET5_HR = Path(__file__).resolve().parents[2] / "shared/data/test/Set5/HR"

# Bicubic on Set5 as published again and again, e.g. arXiv 1909.11856, table 4: PSNR in dB, SSIM.
BICUBIC_SET5 = {2: (33.67, 0.9303), 3: (30.40, 0.8689), 4: (28.43, 0.8111)}


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# --- PSNR ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("difference", "peak", "expected"),
    [(255, 255.0, 0.0), (1, 255.0, 48.130803609), (0.1, 1.0, 20.0), (16, 255.0, 24.048403956)],
)
def test_psnr_of_known_differences(difference: float, peak: float, expected: float) -> None:
    black = np.zeros((4, 5, 3))
    assert psnr(black, black + difference, peak=peak) == pytest.approx(expected, abs=1e-8)


def test_psnr_averages_the_squares_over_all_values() -> None:
    first, second = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    second[0, 0, 0], second[1, 1, 1] = 3, 5
    assert psnr(first, second) == pytest.approx(10 * math.log10(255**2 / ((9 + 25) / 8)))


def test_psnr_of_uint8_does_not_wrap_around() -> None:
    low, high = np.full((3, 3), 10, np.uint8), np.full((3, 3), 250, np.uint8)
    assert psnr(low, high) == psnr(high, low) == pytest.approx(20 * math.log10(255 / 240))


def test_psnr_of_equal_pictures_is_infinite() -> None:
    image = pixels(8, 8, 3)
    assert psnr(image, image.copy()) == math.inf
    assert psnr_y(image, image.copy(), scale=2) == math.inf


# --- the Y channel ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rgb", "y"),
    [
        ((255, 255, 255), 235.0),
        ((0, 0, 0), 16.0),
        ((255, 0, 0), 81.481),
        ((0, 255, 0), 144.553),
        ((0, 0, 255), 40.966),
        ((51, 102, 204), 16 + 0.2 * 65.481 + 0.4 * 128.553 + 0.8 * 24.966),
    ],
)
def test_y_of_known_colours(rgb: tuple[int, int, int], y: float) -> None:
    image = np.full((2, 3, 3), rgb, np.uint8)
    got = y_channel(image)
    assert got.shape == (2, 3)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, y, rtol=0, atol=1e-10)


def test_y_of_grey_equals_y_of_equal_channels() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_allclose(y_channel(grey), y_channel(np.stack([grey] * 3, axis=2)), rtol=0, atol=1e-10)


# --- SSIM ---------------------------------------------------------------------------------------


def direct_ssim(x: NDArray[np.float64], y: NDArray[np.float64], peak: float) -> float:
    """Apply the definition of 2004 to each 11x11 window by itself, with a 2-D Gaussian."""
    window = np.array(
        [[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)]
    )
    window /= window.sum()
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = (image[top : top + 11, left : left + 11] for image in (x, y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
            values.append(luminance * (2 * covariance + c2) / (var_a + var_b + c2))
    return float(np.mean(values))


@pytest.mark.parametrize("peak", [255.0, 1.0])
@pytest.mark.parametrize(("height", "width"), [(11, 11), (17, 23), (24, 13)])
def test_ssim_equals_its_definition(height: int, width: int, peak: float) -> None:
    rng = np.random.default_rng(height)
    x = rng.uniform(0, peak, (height, width))
    y = np.clip(x + rng.normal(0, 0.1 * peak, x.shape), 0, peak)
    expected = direct_ssim(x, y, peak)
    assert 0.1 < expected < 0.99
    assert ssim(x, y, peak=peak) == pytest.approx(expected, abs=1e-10)
    assert ssim(y, x, peak=peak) == pytest.approx(expected, abs=1e-10)


def test_ssim_of_equal_pictures_is_1() -> None:
    image = pixels(20, 15)
    assert ssim(image, image.copy()) == pytest.approx(1, abs=1e-12)
    colour = pixels(20, 15, 3)
    assert ssim_y(colour, colour.copy(), scale=2) == pytest.approx(1, abs=1e-12)


def test_ssim_sees_structure_that_psnr_does_not() -> None:
    texture = np.tile(np.array([[100.0, 140.0]]), (24, 12))
    shifted, washed_out = texture + 20, np.full_like(texture, 120)
    assert psnr(texture, shifted) == pytest.approx(psnr(texture, washed_out))
    assert ssim(texture, shifted) > 0.9 > 0.2 > ssim(texture, washed_out)


# --- the protocol of record ---------------------------------------------------------------------


def test_shave_cuts_every_side() -> None:
    image = pixels(9, 8, 3)
    np.testing.assert_array_equal(shave(image, pixels=2), image[2:7, 2:6])
    np.testing.assert_array_equal(shave(image, pixels=0), image)


@pytest.mark.parametrize("scale", [2, 3])
def test_the_border_of_scale_pixels_does_not_count(scale: int) -> None:
    hr = pixels(24, 24, 3)
    border = hr.copy()
    border[:scale], border[-scale:], border[:, :scale], border[:, -scale:] = 0, 255, 255, 0
    assert psnr_y(border, hr, scale=scale) == math.inf
    assert ssim_y(border, hr, scale=scale) == pytest.approx(1, abs=1e-12)
    inside = hr.copy()
    inside[scale, scale] ^= 255
    assert psnr_y(inside, hr, scale=scale) < math.inf
    assert ssim_y(inside, hr, scale=scale) < 1


def test_y_protocol_is_psnr_and_ssim_of_unrounded_y() -> None:
    sr, hr = pixels(20, 22, 3), pixels(20, 22, 3, seed=1)
    y_sr, y_hr = (
        16 + (image[3:-3, 3:-3] * np.array([65.481, 128.553, 24.966])).sum(2) / 255 for image in (sr, hr)
    )
    assert psnr_y(sr, hr, scale=3) == pytest.approx(10 * math.log10(255**2 / np.mean((y_sr - y_hr) ** 2)))
    assert ssim_y(sr, hr, scale=3) == pytest.approx(direct_ssim(y_sr, y_hr, 255.0), abs=1e-10)


@pytest.mark.skipif(not SET5_HR.is_dir(), reason="no Set5 beside the repository")
@pytest.mark.parametrize("scale", BICUBIC_SET5)
def test_bicubic_on_set5_has_its_published_quality(scale: int) -> None:
    scores = []
    for path in sorted(SET5_HR.glob("*.png")):
        with Image.open(path) as picture:
            hr = modulo_crop(np.asarray(picture.convert("RGB")), scale=scale)
        sr = bicubic_resize(bicubic_resize(hr, scale=Fraction(1, scale)), scale=scale)
        scores.append((psnr_y(sr, hr, scale=scale), ssim_y(sr, hr, scale=scale)))
    assert len(scores) == 5
    mean_psnr, mean_ssim = np.mean(scores, axis=0)
    assert mean_psnr == pytest.approx(BICUBIC_SET5[scale][0], abs=0.02)
    assert mean_ssim == pytest.approx(BICUBIC_SET5[scale][1], abs=0.0005)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_shapes_that_differ_are_named(measure: Callable[[NDArray, NDArray], float]) -> None:
    with pytest.raises(ImageError, match=r"\(12, 12\) and \(12, 13\)"):
        measure(pixels(12, 12), pixels(12, 13))


def test_broadcastable_shapes_are_refused_too() -> None:
    with pytest.raises(ImageError):
        psnr(pixels(12, 12, 1), pixels(12, 12, 3))


@pytest.mark.parametrize("shape", [(10, 20), (20, 10), (20, 20, 3)])
def test_ssim_needs_one_channel_and_a_whole_window(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="11x11"):
        ssim(pixels(*shape), pixels(*shape))


@pytest.mark.parametrize("shape", [(4, 9), (9, 4, 3)])
def test_shaving_everything_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=rf"2 px.*{shape[1]}x{shape[0]}"):
        shave(pixels(*shape), pixels=2)
