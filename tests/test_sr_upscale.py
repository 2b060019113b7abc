"""From pixels to pixels: tiles equal the whole picture, on the real networks and real photographs."""

from pathlib import Path

import numpy as np
import pytest

from deploy.verify import MAX_TILING_LEVELS, MAX_TILING_SHARE, difference
from sr.errors import BackendError, ModelError, TilingError
from sr.image import Picture, read_picture, write_picture
from sr.jobs.pipeline import FileJob, upscale_files
from sr.network.modelfile import shipped_onnx, shipped_scales
from sr.resize import bicubic_resize
from sr.tiling import MIN_HALOS_PER_TILE, TileSpec
from sr.upscale import Upscaler

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """Return a photograph, 339x510 uint8 RGB."""
    return read_picture(EXAMPLES / "kitten.png").pixels


@pytest.fixture(scope="module", params=[2, 3, 4])
def upscaler(request):
    """Open the shipped network of each scale on ONNX Runtime."""
    with Upscaler(scale=request.param, backend="onnx", device="cpu") as opened:
        yield opened


def whole(upscaler: Upscaler, image: np.ndarray) -> np.ndarray:
    """Upscale with one tile."""
    return retiled(upscaler, image, tile=max(image.shape), halo=0, batch=1)


def retiled(upscaler: Upscaler, image: np.ndarray, *, tile: int, halo: int, batch: int) -> np.ndarray:
    """Upscale with another tiling."""
    before = upscaler.spec, upscaler.batch
    upscaler.spec, upscaler.batch = TileSpec(tile=tile, halo=halo), batch
    try:
        return upscaler(image)
    finally:
        upscaler.spec, upscaler.batch = before


def assert_tiles_match(tiled: np.ndarray, expected: np.ndarray) -> None:
    found = difference(tiled, expected)
    assert found.max_levels <= MAX_TILING_LEVELS
    # In a picture of under 10,000 values a single one may still be off by a rounding.
    assert found.share <= max(MAX_TILING_SHARE, 1 / expected.size)


@pytest.mark.parametrize(
    ("height", "width", "batch"),
    [
        (1, 1, 1),
        (7, 5, 8),
        (5, 7, 1),
        (33, 257, 3),
        (257, 33, 8),
        pytest.param(339, 510, 5, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("tile", ["four halos", 100, 256])
def test_tiles_equal_the_whole_picture(upscaler, photograph, height, width, batch, tile):
    image = photograph[:height, :width]
    halo = upscaler.backend.info.model.halo
    size = MIN_HALOS_PER_TILE * halo if tile == "four halos" else max(tile, MIN_HALOS_PER_TILE * halo)
    tiled = retiled(upscaler, image, tile=size, halo=halo, batch=batch)
    assert tiled.shape == (height * upscaler.scale, width * upscaler.scale, 3)
    assert_tiles_match(tiled, whole(upscaler, image))


@pytest.mark.slow
def test_tiles_equal_the_whole_picture_of_2040_by_1356(photograph):
    image = bicubic_resize(photograph, scale=4)
    assert image.shape == (1356, 2040, 3)
    with Upscaler(scale=2, backend="onnx", device="cpu") as upscaler:
        expected = whole(upscaler, image)
        halo = upscaler.backend.info.model.halo
        for tile, batch in ((MIN_HALOS_PER_TILE * halo, 8), (512, 1)):
            assert_tiles_match(retiled(upscaler, image, tile=tile, halo=halo, batch=batch), expected)


def test_without_a_halo_seams_would_show(photograph):
    """Shows that the comparison above can fail."""
    photograph = photograph[:140, :200]
    with Upscaler(scale=3, backend="onnx", device="cpu") as upscaler:
        seamed = retiled(upscaler, photograph, tile=64, halo=0, batch=1)
        found = difference(seamed, whole(upscaler, photograph))
    assert found.max_levels > MAX_TILING_LEVELS
    assert found.share > MAX_TILING_SHARE


def test_the_network_is_better_than_bicubic(photograph):
    """The shipped weights are trained ones: they restore a shrunk photograph better."""
    from fractions import Fraction

    from sr.metrics import psnr_y
    from sr.resize import modulo_crop

    for scale in shipped_scales():
        hr = modulo_crop(photograph[:180, :240], scale=scale)
        lr = bicubic_resize(hr, scale=Fraction(1, scale))
        with Upscaler(scale=scale, backend="onnx", device="cpu") as upscaler:
            ours = psnr_y(upscaler(lr), hr, scale=scale)
        bicubic = psnr_y(bicubic_resize(lr, scale=scale), hr, scale=scale)
        assert ours > bicubic + 0.5


def test_grey_stays_grey_and_equals_the_colour_path(upscaler, photograph):
    grey = photograph[:50, :60, 1]
    upscaled = upscaler(grey)
    assert upscaled.shape == (50 * upscaler.scale, 60 * upscaler.scale)
    coloured = upscaler(np.repeat(grey[:, :, None], 3, axis=2))
    mean = np.round(coloured.astype(float).mean(axis=2)).astype(int)
    assert np.abs(upscaled.astype(int) - mean).max() == 0


def test_alpha_is_upscaled_with_the_picture(upscaler, photograph):
    alpha = np.zeros((40, 48), np.uint8)
    alpha[10:30, 12:36] = 255
    upscaled = upscaler.picture(Picture(photograph[:40, :48], alpha))
    scale = upscaler.scale
    assert upscaled.pixels.shape == (40 * scale, 48 * scale, 3)
    assert upscaled.alpha is not None
    assert upscaled.alpha.shape == (40 * scale, 48 * scale)
    # One lr pixel away from the edge nothing rings, and the middle of the edge is where it was.
    assert (upscaled.alpha[11 * scale : 29 * scale, 13 * scale : 35 * scale] == 255).all()
    outside = upscaled.alpha.copy()
    outside[9 * scale : 31 * scale, 11 * scale : 37 * scale] = 0
    assert not outside.any()
    covered = upscaled.alpha.astype(float).sum() / 255 / scale**2
    assert abs(covered - 20 * 24) < 20 * 24 * 0.02


def test_flat_colours_stay_nearly_the_same(upscaler):
    for level in (0, 128, 255):
        flat = np.full((64, 64, 3), level, np.uint8)
        inside = upscaler(flat)[20:-20, 20:-20].astype(int)
        assert np.abs(inside - level).max() <= 4


def test_the_input_is_not_changed(upscaler, photograph):
    image = photograph[:40, :40].copy()
    before = image.copy()
    upscaler(image)
    assert (image == before).all()


def test_progress_counts_every_tile(photograph):
    seen = []
    photograph = photograph[:130, :170]
    with Upscaler(scale=2, backend="onnx", device="cpu", tile=64, batch=2) as upscaler:
        upscaler.picture(Picture(photograph), progress=lambda done, total: seen.append((done, total)))
        tiles = len(upscaler.grid(*photograph.shape[:2]))
    assert tiles > 4
    assert seen[-1] == (tiles, tiles)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_bad_settings_are_refused():
    with pytest.raises(TilingError, match="halo"):
        Upscaler(scale=2, tile=8, halo=16)
    with pytest.raises(TilingError, match=r"batch.* 0"):
        Upscaler(scale=2, batch=0)
    with pytest.raises(ModelError, match=r"scale 7 .*2, 3, 4"):
        Upscaler(scale=7)
    with pytest.raises(TilingError, match=r"2.* 3"):
        Upscaler(scale=3, model=shipped_onnx(scale=2))
    with pytest.raises(BackendError, match="'tpu'"):
        Upscaler(scale=2, backend="tpu")


def test_files_are_upscaled_in_order_and_a_bad_one_does_not_stop_the_rest(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    for name in ("colosseum.png", "osprey.png"):
        write_picture(tmp_path / name, Picture(read_picture(EXAMPLES / name).pixels[:40, :50].copy()))
    names = ["colosseum.png", "broken.png", "osprey.png"]
    jobs = [FileJob(tmp_path / name, tmp_path / "out" / name) for name in names]
    with Upscaler(scale=2, backend="onnx", device="cpu") as upscaler:
        results = list(upscale_files(jobs, upscaler))
    assert [result.job for result in results] == jobs
    assert [result.error is None for result in results] == [True, False, True]
    assert "broken.png" in str(results[1].error)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["colosseum.png", "osprey.png"]
    upscaled = read_picture(tmp_path / "out" / "osprey.png")
    assert results[2].size == (upscaled.width // 2, upscaled.height // 2)


def test_a_model_is_named_by_a_string_or_a_path(photograph):
    lr = photograph[:20, :24]
    with (
        Upscaler(model=str(shipped_onnx(scale=3)), backend="onnx", device="cpu") as by_string,
        Upscaler(model=shipped_onnx(scale=3), backend="onnx", device="cpu") as by_path,
    ):
        assert by_string(lr).shape == (60, 72, 3)
        assert np.array_equal(by_string(lr), by_path(lr))
