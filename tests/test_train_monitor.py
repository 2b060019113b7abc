"""The reports of a run: rates, records that survive a crash, TensorBoard, curves."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from train.monitor import Metrics, Speed, plot_curves


def record(epoch: int, **more: Any) -> dict[str, Any]:
    common = {"epoch": epoch, "step": 4 * epoch, "stage": "l1:9", "loss": 1 / epoch, "learning_rate": 1e-3}
    return common | more


def measured(epoch: int) -> dict[str, Any]:
    return record(epoch, quality={"pairs/val/a/x2.json": {"psnr_y": 30.0 + epoch, "ssim_y": 0.9}})


# --- rates --------------------------------------------------------------------------------------


def test_rates_are_work_by_time() -> None:
    speed = Speed(1000, images=160, lr_pixels=160 * 576, seconds=8.0, wait_seconds=2.0)
    assert speed.figures() == {
        "images_per_s": 20.0,
        "lr_pixels_per_s": 11520,
        "gflop_per_s": 0.07,  # 11520 * 1000 * 6 / 1e9 = 0.06912
        "data_wait_share": 0.25,
    }
    assert str(speed) == ("20 images/s, 0.012 M lr pixels/s, 0.1 GFLOP/s, waited for data 25.0% of the time")


def test_rates_of_several_epochs_are_those_of_the_whole() -> None:
    total = Speed(1000)
    total.add(Speed(1000, images=10, lr_pixels=1000, seconds=1.0, wait_seconds=0.5))
    total.add(Speed(1000, images=90, lr_pixels=9000, seconds=4.0, wait_seconds=0.0))
    assert total == Speed(1000, images=100, lr_pixels=10000, seconds=5.0, wait_seconds=0.5)
    assert total.figures()["images_per_s"] == 20.0
    assert total.figures()["data_wait_share"] == 0.1


def test_nothing_done_has_no_rate() -> None:
    assert set(Speed(1000).figures().values()) == {0.0}


# --- records ------------------------------------------------------------------------------------


def test_records_are_appended_and_read(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "m.jsonl")
    assert metrics.read() == []
    metrics.start(epoch=0)
    for epoch in (1, 2):
        metrics.write(measured(epoch))
    metrics.close()
    assert metrics.read() == [measured(1), measured(2)]
    assert [json.loads(line) for line in metrics.path.read_text().splitlines()] == metrics.read()


def test_resuming_drops_later_records(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(record(epoch)) + "\n" for epoch in (1, 2, 3)))
    metrics = Metrics(path)
    metrics.start(epoch=2)
    metrics.write(record(3, loss=7.0))
    metrics.close()
    assert metrics.read() == [record(1), record(2), record(3, loss=7.0)]


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_truncated_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(record(1)) + "\n" + json.dumps(record(2))[:-cut])
    metrics = Metrics(path)
    assert metrics.read() == [record(1)]
    metrics.start(epoch=2)
    metrics.write(record(2))
    metrics.close()
    assert path.read_text().count("\n") == 2
    assert metrics.read() == [record(1), record(2)]


def test_tensorboard_shows_loss_rate_and_quality(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = Metrics(tmp_path / "run_metrics.jsonl")
    metrics.start(epoch=0)
    for epoch in (1, 2, 3):
        metrics.write(measured(epoch))
    metrics.close()
    time.sleep(1)  # files of one second may be read in any order
    metrics.start(epoch=2)  # resumed: the third epoch is done again
    metrics.write(measured(3) | {"loss": 7.0})
    metrics.close()
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert folder.name == "run_metrics_tensorboard"
    events = EventAccumulator(str(folder))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        "loss",
        "learning_rate",
        "psnr_y/pairs/val/a/x2.json",
        "ssim_y/pairs/val/a/x2.json",
    }
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 0.5), (3, 7.0)]
    assert [e.value for e in events.Scalars("psnr_y/pairs/val/a/x2.json")] == [31.0, 32.0, 33.0]


# --- curves -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "records",
    [
        [measured(1), record(2), measured(3) | {"stage": "l2:1:frozen"}],
        [record(1)],
        [record(1), record(2) | {"quality": {}}],
        [],
    ],
    ids=["stages", "one epoch", "not measured", "none"],
)
def test_curves_are_a_picture(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "curves.png"
    assert plot_curves(records, path)
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 400
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 20)
    assert colours is not None
    blue = sum(count for count, (r, _, b) in colours if b > 150 and r < 80)  # the first curve
    assert (blue > 0) == bool(records)
    if len(records) == 1:
        assert blue > 80  # the line in the legend has 64: a single epoch is a dot, not nothing
