"""Degradations: what each key does, that all is drawn from the seed, and what is refused."""

import io
import json
from collections import Counter
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sr.errors import TrainingError
from sr.resize import bicubic_resize
from tests.training import CPU, ROOT, silent, small_config, trained, write_pairs
from train.data.degrade import PRESETS, Degradation, degradation_from
from train.data.patches import Epoch, PatchSource, Sampling
from train.data.samples import degradation_sheet
from train.data.shrink import FILTERS, shrink, taps
from train.loop import Trainer
from train.settings import config_from_settings, settings_from_toml

pytestmark = pytest.mark.usefixtures("one_thread")

Pixels = NDArray[np.uint8]
RESTORE = PRESETS["restore"]


def noise_picture(height: int, width: int, *, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth_picture(height: int, width: int, *, seed: int = 0) -> Pixels:
    """Return a picture without detail, sides multiples of 12."""
    return bicubic_resize(noise_picture(height // 12, width // 12, seed=seed), scale=12)


def grey(level: int, side: int = 64) -> Pixels:
    return np.full((side, side, 3), level, np.uint8)


def shrunk(hr: Pixels, scale: int) -> Pixels:
    return bicubic_resize(hr, scale=Fraction(1, scale))


def degraded(how: Degradation, hr: Pixels, *, seed: int = 0, scale: int = 2) -> Pixels:
    return how.degraded(hr, shrunk(hr, scale), scale=scale, rng=np.random.default_rng(seed))


def plan_of(how: Degradation | None, *, hr: Pixels, scale: int = 2, epoch: int = 0, **changes: Any) -> Epoch:
    source = PatchSource([(hr, shrunk(hr, scale))], ["0.png"], scale=scale)
    settings: dict[str, Any] = {"seed": 0, "batch_size": 4, "patch_size": 16, "patches_per_picture": 64}
    return source.epoch(epoch, Sampling(**(settings | changes), degradation=how))


def lr_patches(plan: Epoch) -> Pixels:
    return np.concatenate([plan.batch(step).lr for step in range(len(plan))])


# --- filters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("name", FILTERS)
def test_weights_are_symmetric_and_sum_to_one(name: str, scale: int) -> None:
    for sigma in (0.0, 0.3, 0.7):
        weights = np.array(taps(name, scale=scale, sigma=sigma))
        assert weights.sum() == pytest.approx(1)
        np.testing.assert_allclose(weights, weights[::-1], atol=1e-12)
        assert len(weights) % 2 == scale % 2


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_that_of_matlab(scale: int) -> None:
    hr = noise_picture(5 * scale, 7 * scale)
    expected = bicubic_resize(hr.astype(np.float64), scale=Fraction(1, scale))
    np.testing.assert_allclose(shrink(hr, "bicubic", scale=scale), expected, atol=1e-3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_area_is_the_mean_of_the_pixels_that_it_covers(scale: int) -> None:
    hr = noise_picture(5 * scale, 7 * scale)
    expected = hr.reshape(5, scale, 7, scale, 3).mean((1, 3))
    np.testing.assert_allclose(shrink(hr, "area", scale=scale), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "filter"), [("lanczos", "LANCZOS"), ("bilinear", "BILINEAR"), ("area", "BOX")]
)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_filters_are_those_of_pillow(name: str, filter: str, scale: int) -> None:
    hr = smooth_picture(12 * scale, 12 * scale)
    size = (hr.shape[1] // scale, hr.shape[0] // scale)
    expected = np.asarray(Image.fromarray(hr).resize(size, Image.Resampling[filter])).astype(np.float64)
    inside = (slice(6, -6), slice(6, -6))  # Pillow does not mirror borders
    np.testing.assert_allclose(shrink(hr, name, scale=scale)[inside], expected[inside], atol=1.01)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("name", FILTERS)
def test_nothing_is_shifted(name: str, scale: int) -> None:
    hr = noise_picture(12 * scale, 10 * scale)
    for flip in (np.s_[::-1], np.s_[:, ::-1]):
        there = shrink(hr[flip], name, scale=scale, sigma=0.5)
        np.testing.assert_allclose(there, shrink(hr, name, scale=scale, sigma=0.5)[flip], atol=1e-2)
    ramp = np.broadcast_to(np.arange(0, 12 * scale)[:, None, None], (12 * scale, 5 * scale, 3)).astype(
        np.uint8
    )
    if name != "linear-light":
        expected = (np.arange(12) + 0.5) * scale - 0.5
        got = shrink(ramp, name, scale=scale)[4:-4, 2, 0]
        np.testing.assert_allclose(got, expected[4:-4], atol=0.15 if name == "lanczos" else 1e-2)


def test_linear_light_keeps_the_light_of_fine_stripes() -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 255
    level = shrink(stripes, "linear-light", scale=2)[8, 8, 0]
    assert level == pytest.approx(187.5, abs=0.5)  # half of the light, encoded as sRGB
    assert shrink(stripes, "bicubic", scale=2)[8, 8, 0] == pytest.approx(127.5, abs=0.5)
    for value in (0, 7, 128, 255):
        np.testing.assert_allclose(shrink(grey(value), "linear-light", scale=2), value, atol=0.01)


def test_blur_is_gaussian() -> None:
    hr = grey(0, 96)
    hr[47:49, 47:49] = 240  # the four pixels around the centre of an odd number of lr pixels
    spread = shrink(hr, "area", scale=2, sigma=0.7).sum(2)
    spread /= spread.sum()
    rows = np.arange(48) - (spread.sum(1) * np.arange(48)).sum()
    deviation = np.sqrt((spread.sum(1) * rows**2).sum())
    # Variances add up: the blur, the box of one lr pixel that shrinks, and the spot.
    assert deviation**2 == pytest.approx(0.7**2 + 1 / 12 + 1 / 12, abs=0.15)


# --- keys ---------------------------------------------------------------------------------------


def test_nothing_given_changes_nothing() -> None:
    hr = noise_picture(40, 40)
    np.testing.assert_array_equal(degraded(Degradation(), hr), shrunk(hr, 2))
    assert degradation_from(()) is None


def test_clean_is_the_share_that_stays() -> None:
    hr = noise_picture(40, 40)
    how = Degradation(clean=0.3, noise=1.0, noise_sigma=(5.0, 8.0))
    same = sum(np.array_equal(degraded(how, hr, seed=seed), shrunk(hr, 2)) for seed in range(400))
    assert same == pytest.approx(120, abs=5 * np.sqrt(400 * 0.3 * 0.7))


@pytest.mark.parametrize("name", FILTERS)
def test_shrink_draws_its_filters(name: str) -> None:
    hr = noise_picture(40, 40)
    expected = shrunk(hr, 2) if name == "bicubic" else np.clip(np.round(shrink(hr, name, scale=2)), 0, 255)
    got = degraded(Degradation(shrink={name: 1.0}), hr)
    assert np.abs(got.astype(int) - expected).max() <= 1
    both = Degradation(shrink={"area": 1.0, "lanczos": 3.0})
    kinds = Counter(degraded(both, hr, seed=seed).tobytes() for seed in range(200))
    assert sorted(kinds.values()) == pytest.approx([50, 150], abs=31)


@pytest.mark.parametrize("signal", [0.0, 1.0])
@pytest.mark.parametrize("same", [0.0, 1.0])
def test_noise_has_its_deviation_and_its_kind(same: float, signal: float) -> None:
    how = Degradation(noise=1.0, noise_sigma=(6.0, 6.0), noise_grey=same, noise_signal=signal)
    for level in (64, 128, 200):
        noise = degraded(how, grey(level, 400)).astype(float) - level
        expected = 6 * np.sqrt(level / 127.5) if signal else 6
        assert noise.std() == pytest.approx(expected, rel=0.03)
        assert noise.mean() == pytest.approx(0, abs=0.1)
        correlation = np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]
        assert correlation == pytest.approx(same, abs=0.03)


def test_deviation_of_noise_is_drawn_between_its_limits() -> None:
    how = Degradation(noise=1.0, noise_sigma=(2.0, 8.0), noise_mean=2.0, noise_signal=0.0, noise_grey=0.0)
    found = [degraded(how, grey(128, 80), seed=seed).astype(float).std() for seed in range(300)]
    assert 1.8 < min(found) < 2.3
    assert 6.5 < max(found) < 8.5
    assert np.median(found) < 4.5  # small ones are more frequent


def test_jpeg_is_that_of_pillow() -> None:
    hr = smooth_picture(96, 96)
    how = Degradation(jpeg=1.0, jpeg_quality=((40.0, 40.0, 1.0),), jpeg_subsampling={"4:2:0": 1.0})
    buffer = io.BytesIO()
    Image.fromarray(shrunk(hr, 2)).save(buffer, "JPEG", quality=40, subsampling="4:2:0")
    np.testing.assert_array_equal(degraded(how, hr), np.asarray(Image.open(buffer)))
    other = degraded(replace(how, jpeg_subsampling={"4:4:4": 1.0}), hr)
    assert not np.array_equal(other, degraded(how, hr))


def test_webp_is_that_of_pillow() -> None:
    hr = smooth_picture(96, 96)
    how = Degradation(webp=1.0, webp_quality=((60.0, 60.0, 1.0),))
    buffer = io.BytesIO()
    Image.fromarray(shrunk(hr, 2)).save(buffer, "WEBP", quality=60, method=0)
    np.testing.assert_array_equal(degraded(how, hr), np.asarray(Image.open(buffer).convert("RGB")))


def block_edges(patch: Pixels) -> int:
    """Return where a grid of 8 px lies along the columns: the phase with the largest jumps."""
    jumps = np.abs(np.diff(patch.astype(float), axis=1)).mean((0, 2))
    return int(np.argmax([jumps[phase::8].mean() for phase in range(8)]))


COARSE = Degradation(jpeg=1.0, jpeg_quality=((3.0, 3.0, 1.0),), jpeg_subsampling={"4:4:4": 1.0})


def test_grid_of_blocks_lies_anywhere_on_a_patch() -> None:
    hr = smooth_picture(480, 480)
    patches = lr_patches(plan_of(COARSE, hr=hr, patch_size=48, patches_per_picture=160))
    phases = Counter(map(block_edges, patches))
    assert phases.keys() == set(range(8))
    assert max(phases.values()) < 160 / 8 + 5 * np.sqrt(160 / 8)


def test_second_compression_shifts_the_grid() -> None:
    hr = smooth_picture(192, 192)
    once = {block_edges(degraded(COARSE, hr, seed=seed)) for seed in range(20)}
    twice = {block_edges(degraded(replace(COARSE, again=1.0), hr, seed=seed)) for seed in range(20)}
    assert len(once) == 1
    assert len(twice) > 3


def test_patch_is_cut_from_its_degraded_surroundings() -> None:
    """At the borders of a patch nothing is different: no block ends there, no filter mirrors there."""
    hr = smooth_picture(480, 480)
    how = Degradation(shrink={"lanczos": 1.0}, blur=1.0, blur_sigma=(0.5, 0.5))
    whole = np.clip(np.floor(shrink(hr, "lanczos", scale=2, sigma=0.5) + 0.5), 0, 255)
    plan = plan_of(how, hr=hr)
    for i in range(20):
        top, left = plan.source.place(0, plan.places[i], side=16)
        patch = plan.source.degraded(0, top, left, side=16, how=how, rng=np.random.default_rng(i))
        np.testing.assert_allclose(patch, whole[top : top + 16, left : left + 16], atol=1)


@pytest.mark.parametrize("side", [16, 20])
def test_pictures_no_larger_than_a_patch_are_degraded_too(side: int) -> None:
    patches = lr_patches(plan_of(replace(RESTORE, clean=0.0), hr=noise_picture(2 * side, 2 * side)))
    assert patches.shape == (64, 16, 16, 3)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_every_scale(scale: int) -> None:
    hr = smooth_picture(120, 144)
    hr = bicubic_resize(hr, scale=scale)
    plan = plan_of(RESTORE, hr=hr, scale=scale)
    clean = plan_of(None, hr=hr, scale=scale)
    for step in range(len(plan)):
        got, expected = plan.batch(step), clean.batch(step)
        np.testing.assert_array_equal(got.hr, expected.hr)
        assert np.abs(got.lr.astype(float) - expected.lr).mean() < 12  # the same place, turned alike


# --- what is drawn when -------------------------------------------------------------------------


def test_what_is_drawn_depends_on_seed_epoch_and_place_only() -> None:
    hr = noise_picture(100, 100)
    first = lr_patches(plan_of(RESTORE, hr=hr))
    np.testing.assert_array_equal(first, lr_patches(plan_of(RESTORE, hr=hr, batch_size=7)))
    for other in ({"epoch": 1}, {"seed": 1}):
        assert not np.array_equal(first, lr_patches(plan_of(RESTORE, hr=hr, **other)))
    plan = plan_of(RESTORE, hr=hr)
    for rank in range(3):
        share = plan.batch(2, rank=rank, world=3).lr
        np.testing.assert_array_equal(share, plan.batch(2).lr[rank::3])


def test_milder_damage_has_a_share_of_each_kind_but_blur() -> None:
    how = Degradation(
        clean=0.2,
        noise=1.0,
        noise_sigma=(8.0, 8.0),
        jpeg=1.0,
        jpeg_quality=((40.0, 40.0, 1.0),),
        blur_sigma=(0.0, 1.0),
    ).milder(0.25)
    assert how.clean == pytest.approx(0.5)
    assert how.blur_sigma == (0.0, 1.0), "blur can be told, so that all strengths may undo it"
    assert how.noise_sigma == (4.0, 8.0), "from a quarter of the variance on, and no noise is left out"
    assert how.jpeg_quality == ((85.0, 85.0, 0.75), (40.0, 40.0, 0.25)), "a quarter is compressed as much"
    assert RESTORE.milder(1.0) == RESTORE
    assert RESTORE.milder(0.5).webp_quality == ((70.0, 97.5, 0.75), (40.0, 95.0, 0.25))


def test_preset_leaves_a_part_and_changes_the_rest() -> None:
    hr = smooth_picture(240, 240)
    got = lr_patches(plan_of(RESTORE, hr=hr, patches_per_picture=400))
    clean = lr_patches(plan_of(None, hr=hr, patches_per_picture=400))
    same = np.mean([np.array_equal(a, b) for a, b in zip(got, clean, strict=True)])
    assert 0.1 < same < 0.25


# --- descriptions -------------------------------------------------------------------------------


def test_description_survives_being_written() -> None:
    for how in (RESTORE, Degradation(), replace(RESTORE, shrink={"area": 2.0}, noise_sigma=(1.0, 2.0))):
        assert degradation_from((how.to_json(),)) == how


def test_keys_change_what_came_before(tmp_path: Path) -> None:
    changed = degradation_from(
        ("restore", "noise=0", "jpeg-quality=[[10, 20, 1]]", "jpeg_subsampling={'4:2:0'=1}")
    )
    expected = replace(RESTORE, noise=0.0, jpeg_quality=((10.0, 20.0, 1.0),), jpeg_subsampling={"4:2:0": 1.0})
    assert changed == expected
    path = tmp_path / "d.toml"
    path.write_text(
        'preset = "restore"\nnoise = 0\njpeg-quality = [[10, 20, 1]]\njpeg-subsampling = {"4:2:0" = 1}\n'
    )
    assert degradation_from((str(path),)) == expected
    path.write_text("jpeg = 0.5\n")
    assert degradation_from((str(path), "clean=0.1")) == Degradation(jpeg=0.5, clean=0.1)


def test_documentation_shows_the_preset(tmp_path: Path) -> None:
    page = (ROOT / "docs/train.md").read_text(encoding="utf-8")
    (block,) = (text for text in page.split("```") if text.startswith("text\nclean"))
    path = tmp_path / "d.toml"
    path.write_text(block.removeprefix("text\n"), encoding="utf-8")
    assert degradation_from((str(path),)) == RESTORE


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("clean = 1.5", "clean"),
        ("clean = true", "clean"),
        ("clean = nan", "clean"),
        ("blur = -0.1", "blur"),
        ("blur-sigma = 0.5", "blur-sigma"),
        ("blur-sigma = [0.7, 0.1]", "blur-sigma"),
        ("blur-sigma = [0, 50]", "blur-sigma"),
        ("noise-sigma = [0, 300]", "noise-sigma"),
        ("noise-sigma = [0, 'much']", "noise-sigma"),
        ("noise-mean = 0", "noise-mean"),
        ("noise-grey = 'yes'", "noise-grey"),
        ("noise_signal = 2", "noise-signal"),
        ("jpeg = '0.5'", "jpeg"),
        ("jpeg-quality = 50", "jpeg-quality"),
        ("jpeg-quality = [[0, 50, 1]]", "jpeg-quality"),
        ("jpeg-quality = [[60, 50, 1]]", "jpeg-quality"),
        ("jpeg-quality = [[30, 50, 0]]", "jpeg-quality"),
        ("jpeg-quality = [[30, 50]]", "jpeg-quality"),
        ("webp-quality = [[40, 101, 1]]", "webp-quality"),
        ("webp-quality = []", "webp-quality"),
        ("jpeg-subsampling = {'4:1:1' = 1}", "jpeg-subsampling"),
        ("jpeg-subsampling = {'4:2:0' = 0}", "jpeg-subsampling"),
        ("jpeg-subsampling = {'4:2:0' = -1, '4:4:4' = 3}", "jpeg-subsampling"),
        ("shrink = {cubic = 1}", "shrink"),
        ("shrink = {}", "shrink"),
        ("shrink = 'area'", "shrink"),
        ("again = inf", "again"),
        ("jpg = 0.5", "jpg"),
        ("jpeg = 0.7\nwebp = 0.4", "webp"),
        ("preset = 'worst'", "preset"),
        ("clean = ", "not TOML"),
    ],
)
def test_impossible_values_are_refused_with_their_key(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "d.toml"
    path.write_text(line)
    with pytest.raises(TrainingError) as caught:
        degradation_from((str(path),))
    message = str(caught.value)
    assert "\n" not in message
    assert named in message.replace(str(path), "")


def test_unknown_key_and_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="did you mean 'jpeg-quality'"):
        degradation_from(("restore", "jpg-quality=[[10, 20, 1]]"))
    with pytest.raises(TrainingError, match=r"absent\.toml"):
        degradation_from((str(tmp_path / "absent.toml"),))
    with pytest.raises(TrainingError, match="restore"):  # names the presets
        degradation_from(("restores",))


# --- in a run -----------------------------------------------------------------------------------


def test_run_toml_may_hold_the_table_or_name_a_file(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text("jpeg = 0.5\n")
    path = tmp_path / "run.toml"
    for text in ('degrade = "d.toml"', "[degrade]\njpeg = 0.5", 'degrade = ["d.toml", "jpeg=0.5"]'):
        path.write_text(text)
        config = config_from_settings(settings_from_toml(path))
        assert degradation_from(config.degrade) == Degradation(jpeg=0.5)


def test_what_a_run_does_is_stored_not_the_name_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    path.write_text("jpeg = 0.5\n")
    (text,) = config_from_settings({"degrade": (str(path),)}).degrade
    assert json.loads(text)["jpeg"] == 0.5
    assert config_from_settings({"degrade": ("restore",)}).degrade == (RESTORE.to_json(),)


@pytest.mark.usefixtures("no_curves")
def test_run_shows_samples_and_records_what_it_did(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "x2.json", scale=2, side=24)
    config = small_config(pairs, tmp_path / "run", degrade=("restore",), total_epochs=1)
    trainer = trained(config)
    assert trainer.weights().training["degradation"] == asdict(RESTORE)
    with Image.open(config.file("degradation.png")) as picture:
        shown = np.asarray(picture)
    plan = trainer._epoch_plan(0)
    np.testing.assert_array_equal(shown, degradation_sheet(plan))
    for i in range(2):  # the first row: hr and lr of two patches
        lr, hr = plan.patch(i)
        for part in (hr, lr.repeat(2, 0).repeat(2, 1)):
            found = [x for x in range(shown.shape[1] - 16) if np.array_equal(shown[4:20, x : x + 16], part)]
            assert found, i


def test_degradation_that_cannot_work_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    config = small_config(tmp_path / "absent.json", tmp_path, degrade=("restore", "clean=2"))
    with pytest.raises(TrainingError, match="clean"):
        Trainer(config, group=CPU, log=silent)
