"""Upscaling to any size: chains of the shipped networks and one resampling."""

import math
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from sr.cli import main
from sr.errors import BackendError, ImageError
from sr.image import Picture, read_picture
from sr.jobs.setup import open_setup
from sr.metrics import psnr_y
from sr.resample import resample
from sr.sized import SizedUpscaler, Upscaling
from sr.sizing import SizeRequest, chain
from sr.upscale import Upscaler

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="module")
def photo() -> Picture:
    with Image.open(EXAMPLES / "colosseum.png") as picture:
        return Picture(np.asarray(picture.convert("RGB").crop((40, 30, 130, 90))))


@pytest.mark.parametrize(
    ("request_", "size"),
    [
        (SizeRequest(factor=1.5), (90, 135)),
        (SizeRequest(factor=5), (300, 450)),
        (SizeRequest(long_side=200), (133, 200)),
        (SizeRequest(width=180), (120, 180)),
        (SizeRequest(factor=0.5), (30, 45)),
    ],
    ids=str,
)
def test_the_size_is_exact(photo: Picture, request_: SizeRequest, size: tuple[int, int]) -> None:
    seen: list[tuple[int, int]] = []
    with SizedUpscaler(request_) as upscaler:
        assert upscaler.output_size(photo.height, photo.width) == size
        result = upscaler.picture(photo, progress=lambda done, total: seen.append((done, total)))
        tiles = upscaler.tile_count(photo.height, photo.width)
    assert result.pixels.shape == (*size, 3)
    assert result.pixels.dtype == np.uint8
    assert [done for done, _ in seen] == list(range(1, tiles + 1))
    assert {total for _, total in seen} <= {tiles}


def test_a_chain_runs_its_networks_in_turn(photo: Picture) -> None:
    with SizedUpscaler(SizeRequest(factor=6)) as sized, Upscaler(scale=2) as two, Upscaler(scale=3) as three:
        expected = three(two(photo.pixels))
        np.testing.assert_array_equal(sized.picture(photo).pixels, expected)
        assert [backend.info.model.scale for backend in sized.backends] == [2, 3]


def test_between_scales_it_is_better_than_bicubic() -> None:
    """hr is a photograph; lr is hr shrunk to two fifths."""
    hr = read_picture(EXAMPLES / "colosseum.png").pixels[:250, :400]
    lr = np.asarray(Image.fromarray(hr).resize((160, 100), Image.Resampling.BICUBIC))
    with SizedUpscaler(SizeRequest(factor=2.5)) as upscaler:
        ours = upscaler.picture(Picture(lr)).pixels
    bicubic = np.asarray(Image.fromarray(lr).resize((400, 250), Image.Resampling.BICUBIC))
    assert psnr_y(ours, hr, scale=3) > psnr_y(bicubic, hr, scale=3) + 0.5


def test_alpha_grey_and_16_bits_go_along(photo: Picture) -> None:
    grey = photo.pixels[:, :, 1].astype(np.uint16) * 257
    alpha = np.zeros(grey.shape, np.uint16)
    alpha[:, 40:] = 65535
    with SizedUpscaler(SizeRequest(factor=1.5)) as upscaler:
        result = upscaler.picture(Picture(grey, alpha))
    assert result.pixels.shape == (90, 135)
    assert result.pixels.dtype == np.uint16
    assert result.alpha is not None
    assert result.alpha.shape == (90, 135)
    assert (result.alpha[:, :50].max(), result.alpha[:, 70:].min()) == (0, 65535)


# --- resampling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("linear_light", [False, True])
def test_resampling_keeps_constants_and_range(dtype: type, linear_light: bool) -> None:
    peak = np.iinfo(dtype).max
    for level in (0, 1, peak // 3, peak - 1, peak):
        flat = np.full((9, 12, 3), level, dtype)
        result = resample(flat, height=6, width=7, linear_light=linear_light)
        assert result.dtype == dtype
        assert result.shape == (6, 7, 3)
        assert np.abs(result.astype(int) - level).max() <= (0 if dtype is np.uint8 else 1)
    step = np.where(np.arange(40) < 20, 0, peak).astype(dtype)[None].repeat(40, axis=0)
    assert (
        np.unique(resample(step, height=31, width=31, linear_light=linear_light)).size > 2
    )  # clipped, no wrap


def test_linear_light_averages_light(photo: Picture) -> None:
    """A fine black and white grid reflects half of the light, which sRGB writes as 188, not 128."""
    grid = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    grid = grid.astype(np.uint8)
    middle = np.s_[3:-3, 3:-3]
    assert abs(int(np.median(resample(grid, height=16, width=16)[middle])) - 128) <= 1
    assert abs(int(np.median(resample(grid, height=16, width=16, linear_light=True)[middle])) - 188) <= 1


def test_the_same_size_is_the_same_array(photo: Picture) -> None:
    assert resample(photo.pixels, height=60, width=90) is photo.pixels


# --- what is opened, and the command ----------------------------------------------------------------


def test_one_network_where_one_suffices() -> None:
    for upscaling, kind, label in (
        (Upscaling(scale=3), Upscaler, "x3"),
        (Upscaling(scale=2.5), SizedUpscaler, "x2.5"),
        (Upscaling(), Upscaler, "x2"),
    ):
        with open_setup(upscaling) as setup:
            assert isinstance(setup.upscaler, kind)
            assert setup.description.label == label
            assert (setup.capabilities.bands is setup.upscaler) == (kind is Upscaler)


def test_a_size_that_does_not_fit_a_picture_is_an_error_of_that_picture(photo: Picture) -> None:
    with SizedUpscaler(SizeRequest(width=100, height=100)) as upscaler, pytest.raises(ImageError):
        upscaler.picture(photo)


def test_closing_waits_for_the_picture_in_hand_and_refuses_the_next(photo: Picture) -> None:
    """The second network is opened after another thread has begun to close."""
    upscaler, begun, closing = SizedUpscaler(SizeRequest(factor=6)), threading.Event(), threading.Event()
    done: list[Picture] = []

    def progress(tile: int, total: int) -> None:
        begun.set()
        closing.wait(timeout=60)

    def upscale() -> None:
        done.append(upscaler.picture(photo, progress=progress))

    def close() -> None:
        upscaler.close()
        closed.append(len(done))

    closed: list[int] = []
    worker, closer = threading.Thread(target=upscale), threading.Thread(target=close)
    worker.start()
    begun.wait(timeout=60)
    closer.start()
    while not upscaler._closed:
        time.sleep(0.01)
    with pytest.raises(BackendError, match="closed"):
        upscaler.picture(photo)
    closing.set()
    worker.join(timeout=60)
    closer.join(timeout=60)
    assert closed == [1], "closed after the picture was done"
    assert done[0].pixels.shape == (360, 540, 3)
    upscaler.close()


@pytest.mark.parametrize("factor", [0.5, 1, 2.5, 4, 4.1])
def test_memory_is_counted_for_each_stage(factor: float) -> None:
    height, width, pixel_bytes = 100, 200, 3
    with SizedUpscaler(SizeRequest(factor=factor)) as upscaler:
        counted = upscaler.working_bytes(height, width, pixel_bytes)
    product = math.prod(chain(factor, (2, 3, 4)))
    stage = height * width * product**2 * pixel_bytes
    assert counted >= stage
    assert counted < 12 * max(stage, height * width * pixel_bytes)


def test_the_command(photo: Picture, tmp_path: Path) -> None:
    Image.fromarray(photo.pixels).save(tmp_path / "a.png")
    run = CliRunner().invoke
    for words, name, size in (
        (["--scale", "1.5"], "a_x1.5.png", (135, 90)),
        (["--size", "180x"], "a_180x.png", (180, 120)),
        (["--size", "180x120", "--linear"], "a_180x120.png", (180, 120)),
        (["--long-side", "100"], "a_long100.png", (100, 67)),
        (["--scale", "3.0"], "a_x3.png", (270, 180)),
    ):
        result = run(main, ["upscale", str(tmp_path / "a.png"), *words])
        assert result.exit_code == 0, result.output
        with Image.open(tmp_path / name) as picture:
            assert picture.size == size
    refused = run(main, ["upscale", str(tmp_path / "a.png"), "--size", "100x100"])
    assert refused.exit_code == 1
    assert "would distort" in refused.output
    for words in (["--scale", "17"], ["--scale", "0"], ["--size", "7"], ["--scale", "2", "--long-side", "9"]):
        assert run(main, ["upscale", str(tmp_path / "a.png"), *words]).exit_code == 2


def test_the_upscaler_is_at_the_top() -> None:
    import sr

    assert sr.Upscaler is Upscaler
    with pytest.raises(AttributeError):
        sr.absent  # noqa: B018
    assert sys.modules["sr"].__all__ == ["Upscaler", "__version__"]
