"""What a run tells about itself: metrics, weights with a summary, crops, a page, progress within an epoch."""

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr.network.checkpoint import load_weights
from sr.network.model import model_cost
from sr.resize import bicubic_resize
from tests.training import CPU, assert_same, metrics, silent, small_config, trained, write_pairs
from train.config import TrainConfig
from train.evaluate import evaluate, upscale_with
from train.loop import Trainer
from train.report import StepReport, now_and_then

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a list of pairs for x2."""
    return write_pairs(tmp_path_factory.mktemp("pairs") / "x2.json", scale=2)


@pytest.fixture
def config(pairs: Path, tmp_path: Path) -> TrainConfig:
    return small_config(pairs, tmp_path / "run")


def test_run_writes_metrics_and_weights_and_returns_the_measurement(config: TrainConfig, pairs: Path) -> None:
    config = replace(
        config,
        total_epochs=5,
        val_every=2,
        val_lists=(pairs,),
        data_note="two gradients",
        licence="CC0-1.0",
    )
    lines: list[str] = []
    trainer = Trainer(config, group=CPU, log=lines.append)
    quality = trainer.run()

    records = metrics(config)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5]
    assert [record["step"] for record in records] == [4, 8, 12, 16, 20]
    assert {record["stage"] for record in records} == {"l1:5"}
    assert ["quality" in record for record in records] == [False, True, False, True, True]
    for record in records:
        assert all(math.isfinite(record[name]) for name in ("loss", "learning_rate", "seconds"))
        assert record["images_per_s"] > 0
        assert 0 <= record["data_wait_share"] <= 1
        # All rates are of the same seconds, rounded.
        patch = config.patch_size**2
        assert record["lr_pixels_per_s"] == pytest.approx(record["images_per_s"] * patch, abs=0.06 * patch)
        flop = 6 * model_cost(config.model).macs_per_lr_px * record["lr_pixels_per_s"] / 1e9
        assert record["gflop_per_s"] == pytest.approx(flop, rel=0.05, abs=0.01)
    assert trainer.schedule.total_steps == 20

    weights = load_weights(config.file("last.safetensors"))
    assert weights.config == config.model
    assert weights.training["data"] == "two gradients"
    assert weights.licence == "CC0-1.0"
    assert weights.training["steps"] == 20
    assert weights.training["pictures"] == 2
    assert weights.training["stages"] == "l1:5"
    assert_same(weights.state, trainer.model.state_dict())

    assert quality is not None
    measured = evaluate(upscale_with(trainer.model), pairs, scale=2)
    assert quality == measured
    assert records[-1]["quality"][pairs.as_posix()]["psnr_y"] == measured.psnr_y
    assert records[-1]["quality"][pairs.as_posix()]["ssim_rgb"] == measured.ssim_rgb
    assert any(line.startswith("epoch 5/5") and f"{measured.psnr_y:.3f} dB" in line for line in lines)
    best = max(r["quality"][pairs.as_posix()]["psnr_y"] for r in records if "quality" in r)
    assert trainer.at.best == best
    names = {path.name.removeprefix("srup_x2_") for path in config.run_dir.iterdir()}
    assert ("curves.png" in names) == (importlib.util.find_spec("matplotlib") is not None)
    assert names - {"metrics_tensorboard", "curves.png"} == {
        "crops",
        "report.html",
        "last.pt",
        "last.safetensors",
        "best.safetensors",
        "metrics.jsonl",
        "e0005.pt",
    }


def test_run_shows_bicubic_crops_and_a_page(config: TrainConfig, pairs: Path) -> None:
    config = replace(config, total_epochs=4, val_every=2, val_lists=(pairs,))
    lines: list[str] = []
    trainer = Trainer(config, group=CPU, log=lines.append)
    quality = trainer.run()
    assert quality is not None
    bicubic = evaluate(lambda lr: bicubic_resize(lr, scale=2), pairs, scale=2)
    assert any(line.startswith("bicubic") and f"{bicubic.psnr_y:.3f} dB" in line for line in lines)
    assert f"({quality.psnr_y - bicubic.psnr_y:+.2f})" in next(n for n in lines if n.startswith("epoch 4/4"))

    assert {path.name for path in config.file("crops").iterdir()} == {"e0002.png", "e0004.png"}
    with Image.open(config.file("crops/e0004.png")) as picture:
        sheet = np.asarray(picture.convert("RGB"))
    entry = json.loads(pairs.read_text())[0]
    hr, lr = (np.asarray(Image.open(pairs.parent / entry[key])) for key in ("HR", "LR"))
    parts = [lr.repeat(2, 0).repeat(2, 1), bicubic_resize(lr, scale=2), upscale_with(trainer.model)(lr), hr]
    for part in parts:  # the pictures are smaller than a crop, so they are shown whole
        height, width = part.shape[:2]
        places = [
            x
            for x in range(sheet.shape[1] - width)
            if np.array_equal(sheet[4 : 4 + height, x : x + width], part)
        ]
        assert len(places) == 1

    page = config.file("report.html").read_text()
    assert f"{bicubic.psnr_y:.3f}" in page
    assert f"{quality.psnr_y:.3f}" in page
    assert page.count("data:image/png;base64,") >= 2
    assert "http" not in page


def test_page_needs_no_validation_list(config: TrainConfig) -> None:
    trained(config)
    assert "3 epochs" in config.file("report.html").read_text()
    assert not config.file("crops").exists()


def test_progress_within_an_epoch_is_reported(config: TrainConfig) -> None:
    reports: list[StepReport] = []
    config = replace(config, stages=("l1:1:batch=4", "l1:1:batch=8:patch=6"))
    trainer = Trainer(config, group=CPU, log=silent, progress=reports.append)
    trainer.run()
    expected = [(1, i, 4) for i in range(1, 5)] + [(2, 1, 2), (2, 2, 2)]
    assert [(r.epoch, r.step, r.steps) for r in reports] == expected
    assert {r.total_epochs for r in reports} == {2}
    assert reports[-1].seconds_left == 0
    assert all(r.images_per_s > 0 and r.seconds_left > 0 for r in reports[:-1])
    for record, last in zip(metrics(config), (reports[3], reports[5]), strict=True):
        assert last.loss == pytest.approx(record["loss"])
    # 16 patches of 8 px were done in the first epoch; 16 of 6 px are left.
    assert reports[3].seconds_left == pytest.approx(16 * 36 / (64 * reports[3].images_per_s))


def test_reports_are_shown_now_and_then() -> None:
    shown: list[StepReport] = []
    report = StepReport(1, 9, 5, 100, 0.0123, 160.0, 3725.0)
    often, rarely = now_and_then(shown.append, seconds=0), now_and_then(shown.append, seconds=3600)
    for _ in range(3):
        often(report)
        rarely(report)
    assert shown == [report] * 3
    assert "1 h 02 min" in str(report)
