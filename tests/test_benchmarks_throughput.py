"""Interleaved timing, peaks and throughput with tiny sizes, and the split of a simulated engine."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from benchmarks import throughput
from benchmarks.lib.limits import Peaks, cpu_peaks
from benchmarks.lib.options import click_size
from benchmarks.lib.runners import RUNNERS, Case, open_runner
from benchmarks.lib.timing import Timings, interleaved
from benchmarks.lib.trt_split import PARTS, measured_split, split_warnings
from benchmarks.throughput import Spec
from sr.backends import BACKENDS
from sr.backends.tensorrt.modules import TensorRt
from sr.errors import BackendError
from tests.simulated_device import SUCCESS, Event, SimulatedCuda, api, nothing_left
from tests.simulated_tensorrt import SimulatedPlan, SimulatedTensorRT, no_kernel

PEAKS = Peaks(200e9, "given", 30e9, "given")


def timings(**seconds: list[float]) -> Timings:
    rounds = len(next(iter(seconds.values())))
    return Timings(seconds, [0.01] * rounds, load_before=0.0)


def test_ratios_are_taken_within_rounds() -> None:
    """A machine that halves its speed in every second round changes no ratio."""
    base = np.array([1.0, 2.0] * 10)
    found = timings(a=list(base), b=list(3 * base))
    assert found.ratio("b", "a") == {"median": 3.0, "p10": 3.0, "p90": 3.0}
    assert found.latency_ms("a") == {"median": 1500.0, "p90": 2000.0, "p95": 2000.0, "p99": 2000.0}
    assert found.variation("a") == pytest.approx(1 / 3)
    assert any(text.startswith("a: ") and "33.3%" in text for text in found.warnings())


def test_a_quiet_machine_gives_no_warning_and_a_varying_one_does() -> None:
    quiet = timings(a=[1.0, 1.01, 0.99])
    assert quiet.warnings() == []
    quiet.calibration = [0.01, 0.01, 0.02]
    assert len(quiet.warnings()) == 1
    quiet.clock_mhz = (3000.0, 2000.0)
    assert any("3000" in text and "2000" in text for text in quiet.warnings())
    quiet.load_before = 99.0
    assert any("load 99.0" in text for text in quiet.warnings())


def test_actions_run_in_turn_and_none_is_always_first() -> None:
    order: list[str] = []
    found = interleaved({name: lambda name=name: order.append(name) for name in "ab"}, rounds=4)
    assert order[-8:] == list("abbaabba")
    assert all(len(values) == 4 for values in (*found.seconds.values(), found.calibration))


def test_measured_peaks_are_of_a_real_product_and_copy() -> None:
    peaks = cpu_peaks(sides=(64, 128), tries=2, copy_bytes=2**16)
    assert peaks.flops > 0
    assert peaks.bytes_per_s > 0
    assert peaks.flops_by.endswith(("64x64", "128x128"))
    assert PEAKS.share(macs=50_000_000_000, seconds=1.0) == 0.5


def test_engines_agree_on_the_same_weights_and_are_compared() -> None:
    spec = Spec(
        ("torch-eager", "torch-channels-last", "onnxruntime", "srup-onnx", "srup-trt"), rounds=2, peaks=PEAKS
    )
    result = throughput.run(scales=[3], size=(20, 28), batch=2, device="cpu", spec=spec)
    (case,) = result["cases"]
    rows = {row["backend"]: row for row in case["rows"]}
    assert rows.keys() == {"torch-eager", "torch-channels-last", "onnxruntime", "srup-onnx"}
    assert all(row["differs_by_levels"] <= 1 for row in rows.values())
    assert rows["srup-onnx"]["time_ratio"]["median"] == 1
    macs = 2 * 20 * 28 * 132_025
    for row in rows.values():
        ms = row["latency_ms"]["median"]
        assert row["megapixels_per_s"] == pytest.approx(2 * 20 * 28 * 9 / 1e3 / ms, rel=0.01, abs=1e-3)
        assert row["share_of_flops"] == pytest.approx(2 * macs / (ms / 1e3) / 200e9, rel=0.01, abs=1e-3)
    assert case["gmacs"] == pytest.approx(macs / 1e9, abs=1e-3)
    assert [entry["backend"] for entry in case["missing"]] == ["srup-trt"]
    again = json.loads(json.dumps(result, allow_nan=False))
    assert any("srup-trt: " in line for line in throughput.lines(again))


def test_every_backend_of_srup_can_be_measured() -> None:
    assert {f"srup-{name}" for name in BACKENDS if name != "auto"} <= set(RUNNERS)


def test_an_engine_that_cannot_run_is_refused() -> None:
    case = Case(3, 20, 28)
    with pytest.raises(BackendError, match=r"caffe.*onnxruntime"), open_runner("caffe", case):
        pass
    with (
        pytest.raises(BackendError, match="fp32"),
        open_runner("srup-torch", Case(3, 20, 28, precision="fp16")),
    ):
        pass


def test_a_missing_openvino_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install openvino"), open_runner("openvino", Case(3, 20, 28)):
        pass


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.throughput.cpu_peaks", lambda: PEAKS)
    monkeypatch.setattr("benchmarks.lib.results.result_path", lambda theme: tmp_path / f"{theme}.json")
    monkeypatch.setattr("benchmarks.lib.results.ROOT", tmp_path)
    words = "--backend onnxruntime --scale 2 --size 24x16 --rounds 1 --against onnxruntime --store"
    answer = CliRunner().invoke(throughput.main, words.split())
    assert answer.exit_code == 0, answer.output
    stored = (tmp_path / "throughput.json").read_text()
    assert json.loads(stored)["cases"][0]["size"] == "24x16"
    assert CliRunner().invoke(throughput.main, ["--size", "24"]).exit_code == 2
    assert click_size(None, None, "24x16") == (16, 24)


class TimedCuda(SimulatedCuda):
    """The simulated runtime with the one further function that the split calls."""

    @api(1)
    def cudaEventElapsedTime(self, start: Event, end: Event) -> tuple[int, float]:
        return SUCCESS, (end.time - start.time) * 1e3


def test_split_on_a_simulated_device_has_all_parts_and_frees_everything() -> None:
    cuda = TimedCuda()
    module: Any = SimulatedTensorRT(cuda)
    plan = module.plan(SimulatedPlan(no_kernel, 3, 2, 64))
    with nothing_left(cuda):
        split = measured_split(plan, (4, 32, 200, 3), TensorRt(module), cuda, rounds=3)
    assert tuple(split) == PARTS
    assert all(figures["median"] >= 0 for figures in split.values())


def test_split_warns_as_trtexec_does() -> None:
    split = {part: {"median": 1.0} for part in PARTS} | {"copy_out": {"median": 2.0}}
    warnings = split_warnings("srup-trt", split)
    assert len(warnings) == 2
    assert "enqueue" in warnings[0]
    assert "copy_out" in warnings[1]
    assert not split_warnings("srup-trt", {**split, "compute": {"median": 5.0}})
