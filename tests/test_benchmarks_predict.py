"""Predictions: sane units, monotonic in the peaks, and compared with measurements."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import predict
from benchmarks.lib.devices import GPUS, Device
from benchmarks.lib.provenance import machine_kind
from benchmarks.predict import Job, measured_rates, with_measured
from sr.backends.ort import read_metadata
from sr.network.modelfile import shipped_onnx

T4 = next(gpu for gpu in GPUS if gpu.name == "T4")


def job(scale: int = 3, **changes: object) -> Job:
    return replace(Job.shipped(scale, (512, 512), precision="fp16", batch=1), **{"tile": 512, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_bound_by_hand(precision: str) -> None:
    """One tile of 512x512 on a T4 is bound by arithmetic: multiply-adds of the file over the peak."""
    found = predict.predict(T4, job(precision=precision))
    macs = 512 * 512 * read_metadata(shipped_onnx(scale=3)).macs_per_lr_px
    seconds = 2 * macs / ({"fp16": 65e12, "fp32": 8.1e12}[precision])
    assert found.bound_by == "compute"
    assert found.bound == pytest.approx(512 * 512 * 9 / 1e6 / seconds, rel=1e-3)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_predictions_are_sane(gpu: Device, scale: int) -> None:
    half, full = (predict.predict(gpu, job(scale, precision=precision)) for precision in ("fp16", "fp32"))
    for found in (half, full):
        assert 0 < found.roofline <= found.bound
        assert found.measured is None
    assert half.bound > full.bound
    faster = replace(gpu, fp32_tflops=9e9, fp16_tflops=9e9, memory_gb_per_s=9e9)
    most = predict.predict(faster, job(scale))
    assert most.bound_by == "bus"
    assert most.bound == pytest.approx(gpu.bus_gb_per_s * 1e3 / 3, rel=1e-3), "three bytes a pixel go out"
    slow = predict.predict(replace(gpu, memory_gb_per_s=1.0), job(scale))
    assert (slow.bound_by, slow.roofline_by) == ("memory", "memory")


def test_small_tiles_cost_their_halos() -> None:
    whole = predict.predict(T4, job())
    small = predict.predict(T4, job(tile=64))
    assert small.bound < 0.6 * whole.bound, "of 64 px, 14 px are halo at each side"


def test_measured_stands_beside_its_own_device_only() -> None:
    rtx = next(gpu for gpu in GPUS if gpu.name == "RTX 3060")
    predictions = [predict.predict(gpu, job()) for gpu in (T4, rtx)]
    rates = {
        ("NVIDIA GeForce RTX 3060", 3, "fp16"): predictions[1].bound / 4,
        ("NVIDIA GeForce RTX 3060 Ti", 3, "fp16"): 1e6,
        ("NVIDIA GeForce RTX 3060", 2, "fp16"): 2e6,
        ("Tesla T40", 3, "fp16"): 3e6,
    }
    t4, found = with_measured(predictions, rates)
    assert (t4.measured, t4.share_of_bound) == (None, None)
    assert found.share_of_bound == pytest.approx(0.25, abs=1e-3)


def stored_throughput(folder: Path, *, best: float = 4.0, date: str = "2026-01-01") -> Path:
    case = {"scale": 3, "size": "320x180", "batch": 1, "precision": "fp32", "device": "cpu"}
    rows = [
        {"backend": "srup-onnx", "megapixels_per_s": best},
        {"backend": "srup-torch", "megapixels_per_s": 3.0},
        {"backend": "openvino", "megapixels_per_s": 99.0},
    ]
    content = {
        "machine": {"processor": "Some CPU"},
        "gpus": [],
        "peaks": {"gflops": 200.0, "gflops_by": "x", "copy_gb_per_s": 30.0, "copy_by": "y"},
        "cases": [{**case, "rows": rows}],
    }
    path = folder / f"throughput-{machine_kind()}-{date}.json"
    path.write_text(json.dumps(content))
    return path


def test_a_slower_machine_of_the_same_name_is_not_credited_with_the_rates_of_a_faster_one(
    tmp_path: Path,
) -> None:
    paths = [
        stored_throughput(tmp_path, best=8.0),
        stored_throughput(tmp_path, best=3.5, date="2026-01-02"),
    ]
    assert measured_rates(paths) == {("Some CPU", 3, "fp32"): 3.5}


def test_this_processor_is_predicted_from_its_own_peaks(tmp_path: Path) -> None:
    path = stored_throughput(tmp_path)
    assert measured_rates([path]) == {("Some CPU", 3, "fp32"): 4.0}
    rows = {
        (row["device"], row["scale"], row["precision"]): row for row in predict.run(folder=tmp_path)["rows"]
    }
    own = rows["Some CPU", 3, "fp32"]
    macs_per_output_px = read_metadata(shipped_onnx(scale=3)).macs_per_lr_px / 9
    assert own["bound"] == pytest.approx(200e9 / 2 / macs_per_output_px / 1e6, rel=1e-3)
    assert own["measured"] == 4.0
    assert own["share_of_bound"] == pytest.approx(4.0 / own["bound"], abs=1e-3)
    assert rows["H100", 3, "fp16"]["state"] == "not measured"


def test_from_the_command_line() -> None:
    answer = CliRunner().invoke(predict.main, ["--scale", "3", "--size", "640x360"])
    assert answer.exit_code == 0, answer.output
    for gpu in GPUS:
        assert f"{gpu.name} " in answer.output
    assert "not measured" in answer.output
