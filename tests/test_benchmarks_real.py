"""The measurements of real pictures: damage, how near results are to the truth, the table of a pair."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks import traces
from benchmarks.lib.damage import CONDITIONS, bicubic_lr, jpeg
from benchmarks.lib.fidelity import fidelity, psnr_b
from benchmarks.lib.paths import EXAMPLES
from benchmarks.pair import derived, suited
from benchmarks.real import cut, main
from sr.metrics import psnr_y
from sr.network.pair import STRENGTHS
from tests.pairs import write_onnx_pair

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def hr() -> np.ndarray:
    with Image.open(EXAMPLES[0]) as opened:
        return cut(np.asarray(opened.convert("RGB"))[:129, :161], 2)


@pytest.mark.parametrize("name", CONDITIONS)
def test_damage_is_the_same_each_time_and_hurts(hr, name):
    once, again = CONDITIONS[name](hr, 2), CONDITIONS[name](hr, 2)
    np.testing.assert_array_equal(once.pixels, again.pixels)
    clean = bicubic_lr(hr, 2)
    assert once.pixels.shape == clean.shape
    assert (once.pixels == clean).all() == (name == "clean")


def test_files_say_how_they_were_compressed(hr):
    assert CONDITIONS["JPEG 60"](hr, 2).compression.quality == 60
    assert CONDITIONS["WebP 75"](hr, 2).compression.kind == "webp"
    assert CONDITIONS["AVIF 75"](hr, 2).compression.kind == "avif"
    assert CONDITIONS["JPEG 75 as PNG"](hr, 2).compression.kind == "lossless"
    assert CONDITIONS["noise 5"](hr, 2).compression.kind == "lossless"


def test_psnr_b_counts_block_edges(hr):
    """A step at the edges of blocks costs more than the same step elsewhere."""
    noise = np.zeros(hr.shape[:2])
    noise[:, 16::16] = 9  # where blocks of 8 lr px begin at x2
    shifted = np.roll(noise, 5, axis=1)
    at_edges, elsewhere = (
        np.clip(hr // 2 + 64 + each[..., None], 0, 255).astype(np.uint8) for each in (noise, shifted)
    )
    truth = (hr // 2 + 64).astype(np.uint8)
    assert psnr_y(at_edges, truth, scale=2) == pytest.approx(psnr_y(elsewhere, truth, scale=2), abs=0.1)
    assert psnr_b(at_edges, truth, scale=2) < psnr_b(elsewhere, truth, scale=2) - 0.1
    flat = np.full_like(hr, 90)
    assert psnr_b(flat, hr, scale=2) == pytest.approx(psnr_y(flat, hr, scale=2))


@pytest.mark.slow
def test_ssimulacra2_falls_with_quality(hr):
    pytest.importorskip("ssimulacra2")
    scores = [
        fidelity(jpeg(hr, quality).pixels, hr, scale=2, perceptual=True)["ssimulacra2"]
        for quality in (95, 50, 20)
    ]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.slow
def test_rows_are_measured_once_and_a_table_is_derived(hr, tmp_path):
    model = write_onnx_pair(tmp_path)
    folder = tmp_path / "set"
    folder.mkdir()
    Image.fromarray(hr).save(folder / "a.png")
    kept = tmp_path / "rows.jsonl"
    arguments = [f"Tiny={folder}", "--model", str(model), "--rows", str(kept), "--no-perceptual"]
    first = CliRunner().invoke(main, [*arguments, "--condition", "JPEG 50"], catch_exceptions=False)
    assert "JPEG 50" in first.output
    row = json.loads(kept.read_text("utf-8"))
    assert set(row["methods"]) == {"bicubic", "Lanczos", *(f"{each:g}" for each in STRENGTHS), "auto"}
    assert row["methods"]["auto"] == row["methods"]["1"] | {"strength": 1.0}
    second = CliRunner().invoke(main, [*arguments, "--condition", "JPEG 50"], catch_exceptions=False)
    assert "JPEG 50" not in second.output
    table = derived(
        [model] * 4 + [model.with_name("tiny-restore_x2_fp32_uint8.onnx")], [hr], scale=2, base="x"
    )
    better = row["methods"]["1"]["psnr_y"] > row["methods"]["0"]["psnr_y"] + 0.05
    assert dict(table.strengths["jpeg"])[50.0] == (1.0 if better else 0.0)
    for kind in ("jpeg", "webp", "avif"):
        assert table.strength(kind, None) == table.strength(kind, table.assumed[kind])
        assert len(table.strengths[kind]) > 5
    assert len(table.strengths["noise"]) > 1


def test_best_strength_is_taken_if_it_gains_enough_over_the_base():
    assert suited(np.array([30.0, 30.19, 30.195, 30.2, 30.1])) == 3
    assert suited(np.array([30.0, 30.04, 30.03, 30.0, 29.9])) == 0, "a gain of 0.04 dB is not worth a change"


def test_pictures_that_were_jpegs_or_are_noisy_are_counted(tmp_path):
    with Image.open(EXAMPLES[0]) as opened:
        opened.convert("RGB").save(tmp_path / "a.png")
    figures = traces.run([np.asarray(Image.open(tmp_path / "a.png"))], size=160)
    assert figures["clean"] == 4
    assert figures["mistaken"] == 0
    assert figures["qualities"]["30"]["found"] == 1
    assert figures["qualities"]["30"]["median"] < figures["qualities"]["85"]["median"]
    assert figures["noises"]["5"]["found"] == 1
    assert figures["noises"]["5"]["median"] < figures["noises"]["10"]["median"]
