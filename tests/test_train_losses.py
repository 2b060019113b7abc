"""Losses: their values by plain formulas, their gradients, and the expressions that combine them."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr.errors import TrainingError
from sr.metrics import y_channel
from train.losses import LOSSES, LUMA, charbonnier, fft_loss, loss_from_expression


def images(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


def full_plane(sr: Tensor, hr: Tensor, cutoff: float) -> float:
    """Return the FFT loss by its definition: filtered spectra of both, over the whole plane."""
    first, second = (np.fft.fft2(x.double().numpy(), norm="ortho") for x in (sr, hr))
    fy, fx = np.fft.fftfreq(sr.shape[2])[:, None], np.fft.fftfreq(sr.shape[3])[None]
    passing = np.sqrt(fy**2 + fx**2) >= cutoff
    return float(np.mean(np.abs(first * passing - second * passing)[..., passing]))


def smooth_l1(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    beta, size = 5 / 255, np.abs(difference)
    return np.where(size < beta, size**2 / (2 * beta), size - beta / 2)


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("l1", np.abs),
        ("luma", lambda d: np.abs(np.tensordot(d, [0.299, 0.587, 0.114], axes=(1, 0)))),
        ("l2", np.square),
        ("smooth_l1", smooth_l1),
        ("charbonnier", lambda d: np.sqrt(d**2 + 1e-6)),
    ],
)
@pytest.mark.parametrize("size", [0.01, 1.0], ids=["small errors", "large errors"])
def test_value_is_the_mean_of_the_formula(name, formula, size):
    sr, hr = images(2, 3, 7, 6)
    sr = hr + size * (sr - 0.5)
    expected = np.mean(formula((sr - hr).double().numpy()))
    assert float(LOSSES[name](sr, hr)) == pytest.approx(expected, rel=1e-4)


# The cut-offs lie between the lengths of frequencies that occur, where rounding decides nothing.
@pytest.mark.parametrize("cutoff", [0.0, 0.01, 0.133, 0.26, 0.45, 0.5, 0.61])
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (8, 7), (7, 8), (16, 9), (1, 6), (6, 1), (2, 48)], ids=str)
def test_fft_loss_is_the_mean_over_the_full_plane(size, cutoff):
    sr, hr = images(2, 3, *size)
    if np.hypot(*(np.abs(np.fft.fftfreq(n)).max() for n in size)) < cutoff:
        with pytest.raises(TrainingError, match="patch"):
            fft_loss(sr, hr, cutoff=cutoff)
        return
    assert float(fft_loss(sr, hr, cutoff=cutoff)) == pytest.approx(full_plane(sr, hr, cutoff), rel=1e-5)


def test_no_cut_off_lets_all_frequencies_pass():
    sr, hr = images(1, 1, 6, 6)
    constant = hr + 0.25  # nothing but the mean differs: one coefficient of 36, 0.25 * sqrt(36)
    assert float(fft_loss(constant, hr)) == pytest.approx(0.25 * 6 / 36, rel=1e-5)
    assert float(fft_loss(constant, hr, cutoff=0.1)) == pytest.approx(0, abs=1e-7)
    assert float(fft_loss(sr, hr)) > 0


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (96, 64)], ids=str)
@pytest.mark.parametrize("cutoff", [0.0, 0.3])
def test_white_noise_gives_its_deviation_at_every_size(size, cutoff):
    noise = 0.1 * torch.randn(64, 1, *size, generator=torch.Generator().manual_seed(3))
    loss = float(fft_loss(noise, torch.zeros_like(noise), cutoff=cutoff))
    # The modulus of a complex Gaussian of root mean square d has the mean d * sqrt(pi) / 2.
    assert loss == pytest.approx(0.1 * np.sqrt(np.pi) / 2, rel=0.01)
    assert 1.0 < loss / float(noise.abs().mean()) < 1.2  # L1 has d * sqrt(2 / pi)


def test_parseval_holds_for_the_transform():
    sr, hr = images(1, 1, 9, 12)
    difference = (sr - hr).double().numpy()
    spectrum = np.fft.fft2(difference, norm="ortho")
    assert np.sum(np.abs(spectrum) ** 2) == pytest.approx(np.sum(difference**2))
    assert float(fft_loss(sr, hr)) == pytest.approx(np.mean(np.abs(spectrum)), rel=1e-5)
    assert float(fft_loss(sr, hr)) <= np.sqrt(np.mean(difference**2))  # mean <= root mean square


def test_pictures_that_are_equal_cost_nothing():
    sr, _ = images(1, 3, 8, 8)
    for name, loss in LOSSES.items():
        assert float(loss(sr, sr)) == pytest.approx(1e-3 if name == "charbonnier" else 0), name


# --- properties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("expression", [*LOSSES, "l1+0.5*fftloss"])
def test_loss_of_a_batch_is_the_mean_of_its_pictures(expression):
    loss = loss_from_expression(expression, fft_cutoff=0.2)
    sr, hr = images(5, 3, 8, 6)
    single = [float(loss(sr[i : i + 1], hr[i : i + 1])) for i in range(5)]
    assert len({round(value, 6) for value in single}) == 5
    assert float(loss(sr, hr)) == pytest.approx(np.mean(single), rel=1e-5)


@pytest.mark.parametrize("expression", [*LOSSES, "0.25*charbonnier+fftloss"])
def test_gradient_is_that_of_finite_differences(expression):
    loss = loss_from_expression(expression, fft_cutoff=0.2)
    sr, hr = images(2, 1, 5, 6, seed=4)
    sr.requires_grad_(True)
    loss(sr, hr).backward()
    assert sr.grad is not None
    generator = torch.Generator().manual_seed(5)
    step = 1e-2
    for _ in range(4):
        direction = torch.randn(sr.shape, generator=generator)
        # Only where no error changes its sign may the difference cross: kinks of l1 are left out.
        direction[((sr - hr).abs() < 5 * step).detach()] = 0
        with torch.no_grad():
            ahead, behind = (float(loss(sr + s * direction, hr)) for s in (step, -step))
        expected = (ahead - behind) / (2 * step)
        assert float((sr.grad * direction).sum()) == pytest.approx(expected, rel=0.02, abs=1e-4)


def test_gradient_is_finite_where_pictures_are_equal():
    for name, loss in LOSSES.items():
        sr = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
        loss(sr, torch.full((1, 3, 8, 8), 0.5)).backward()
        assert sr.grad is not None
        assert torch.isfinite(sr.grad).all(), name


def test_half_precision_pictures_are_transformed_in_float32():
    sr, hr = (x.bfloat16() for x in images(1, 3, 8, 8))
    assert fft_loss(sr, hr).dtype == torch.float32
    assert float(fft_loss(sr, hr)) == pytest.approx(full_plane(sr.float(), hr.float(), 0), rel=1e-5)


def test_fft_loss_trains_after_use_in_inference_mode():
    sr, hr = images(1, 1, 10, 14)  # a size whose filter is not kept yet
    with torch.inference_mode():
        fft_loss(sr, hr, cutoff=0.123)
    sr.requires_grad_(True)
    fft_loss(sr, hr, cutoff=0.123).backward()
    assert sr.grad is not None


# --- expressions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "terms"),
    [
        ("l1", {"l1": 1}),
        ("L1", {"l1": 1}),
        (" l2 ", {"l2": 1}),
        ("2*l1", {"l1": 2}),
        ("l1+0.05*fftloss", {"l1": 1, "fftloss": 0.05}),
        (" 0.5 * l1 + 1e-2*charbonnier+ .25*smooth_l1 ", {"l1": 0.5, "charbonnier": 0.01, "smooth_l1": 0.25}),
        ("l1+l1", {"l1": 2}),
    ],
)
def test_expression_is_the_weighted_sum(expression, terms):
    sr, hr = images(2, 3, 8, 8)
    cutoff = 0.25
    values = {name: float(loss(sr, hr)) for name, loss in LOSSES.items()}
    values["fftloss"] = full_plane(sr, hr, cutoff)
    expected = sum(weight * values[name] for name, weight in terms.items())
    assert float(loss_from_expression(expression, fft_cutoff=cutoff)(sr, hr)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("", "''"),
        ("l3", "'l3'"),
        ("l1+", "''"),
        ("l1 l2", "'l1 l2'"),
        ("l1-l2", "'l1-l2'"),
        ("l1*2", "'l1*2'"),
        ("-1*l1", "'-1*l1'"),
        ("0*l1", "factor 0"),
        ("1.2.3*l1", "'1.2.3'"),
        ("1e999*l1", "factor 1e999"),
        ("fft_loss", "'fft_loss'"),
        ("__import__('os')", "__import__"),
    ],
)
def test_expression_that_does_not_parse_is_refused_in_one_line(expression, named):
    with pytest.raises(TrainingError) as caught:
        loss_from_expression(expression)
    message = str(caught.value)
    assert named in message
    assert repr(expression) in message
    assert "\n" not in message


def test_refusal_names_every_loss():
    with pytest.raises(TrainingError) as caught:
        loss_from_expression("ssim")
    assert all(name in str(caught.value) for name in LOSSES)


# --- luma ---------------------------------------------------------------------------------------


def test_luma_sees_nothing_of_an_error_in_chroma_alone():
    hr = torch.full((2, 3, 5, 4), 0.5, dtype=torch.float64)
    luma = torch.tensor(LUMA, dtype=torch.float64).view(1, 3, 1, 1)
    chroma = torch.tensor([1.0, 0.0, -LUMA[0] / LUMA[2]], dtype=torch.float64).view(1, 3, 1, 1)
    assert float((luma * chroma).sum()) == pytest.approx(0, abs=1e-15)
    assert float(LOSSES["luma"](hr + 0.1 * chroma, hr)) == pytest.approx(0, abs=1e-15)
    assert float(LOSSES["luma"](hr + 0.1, hr)) == pytest.approx(0.1)  # grey has its full weight


def test_luma_weighs_channels_as_the_measured_luma_does():
    rng = np.random.default_rng(0)
    sr, hr = rng.integers(0, 256, (2, 6, 7, 3), dtype=np.uint8)
    tensors = (torch.from_numpy(x).permute(2, 0, 1)[None].double() / 255 for x in (sr, hr))
    measured = np.abs(y_channel(sr) - y_channel(hr)).mean() / 219  # from 16 to 235
    assert float(LOSSES["luma"](*tensors)) == pytest.approx(measured, rel=1e-3)


@pytest.mark.parametrize(("luma", "plain"), [("luma", "l1"), ("psnr_luma", "psnr")])
def test_luma_of_one_channel_is_the_plain_loss(luma, plain):
    sr, hr = images(2, 1, 6, 5)
    assert float(LOSSES[luma](sr, hr)) == float(LOSSES[plain](sr, hr))


def test_psnr_loss_falls_with_the_mean_psnr_of_the_pictures():
    """3 dB more of a good picture count as much as 3 dB more of a poor one."""
    hr = images(2, 3, 16, 16)[0]
    errors = torch.randn(hr.shape, generator=torch.Generator().manual_seed(1))
    deviations = [(0.02, 0.08), (0.02 / 2**0.5, 0.08), (0.02, 0.08 / 2**0.5)]
    pictures = [hr + errors * torch.tensor(pair).view(2, 1, 1, 1) for pair in deviations]
    for name in ("psnr", "psnr_luma"):
        start, better_first, better_second = (float(LOSSES[name](sr, hr)) for sr in pictures)
        assert start - better_first == pytest.approx(np.log(2) / 2, rel=0.03)
        assert start - better_second == pytest.approx(np.log(2) / 2, rel=0.03)
    mse = (pictures[0] - hr).square().mean((1, 2, 3)).numpy()
    psnr = -10 * np.log10(mse + 1 / 255**2 / 12).mean()
    ceiling = -10 * np.log10(1 / 255**2 / 12)
    expected = (ceiling - psnr) * np.log(10) / 10
    assert float(LOSSES["psnr"](pictures[0], hr)) == pytest.approx(expected, rel=1e-4)


def test_cut_off_beyond_every_frequency_is_refused():
    sr, hr = images(1, 3, 8, 8)
    loss = loss_from_expression("l1+fftloss", fft_cutoff=0.71)
    with pytest.raises(TrainingError, match=r"0\.71 cycles per pixel.*8x8"):
        loss(sr, hr)


def test_charbonnier_epsilon_is_that_of_lapsrn():
    zero = torch.zeros(1, 1, 2, 2)
    assert float(charbonnier(zero, zero)) == pytest.approx(1e-3)
