"""The guard of counted work: the committed baseline holds, and growth is detected."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("onnx")

import onnx
from onnx import helper, numpy_helper

import sr.backends.tensorrt.device
from benchmarks import guard
from deploy.engines.build import plan_from_onnx
from sr.backends.tensorrt.modules import TensorRt, TensorRtRtx
from sr.backends.tensorrt.spec import EngineSpec
from sr.network.modelfile import shipped_onnx
from sr.stitching import Place, TileBatch

BASELINE = guard.read_baseline(guard.BASELINE)
HALF = shipped_onnx(scale=2, precision="fp16")


@pytest.fixture
def model() -> onnx.ModelProto:
    return onnx.load(HALF)


def differing(model: onnx.ModelProto, folder: Path) -> str:
    """Return the guard's lines for a model in place of the shipped one."""
    path = folder / HALF.name
    onnx.save(model, path)
    known = {"models": {HALF.stem: BASELINE["models"][HALF.stem]}}
    return "; ".join(guard.violations({"models": {HALF.stem: guard.model_figures(path)}}, known))


def test_counted_work_is_as_committed():
    """`python -m benchmarks.guard --update` stores an intended change."""
    assert guard.violations(guard.run(), BASELINE) == [], guard.REMEDY


def test_the_baseline_has_every_section():
    assert BASELINE.keys() == {"models", "engines", "tiles", "runtime"}
    assert BASELINE["engines"].keys() <= BASELINE["models"].keys()


def test_an_added_node_is_detected(tmp_path, model):
    """A copy of one activation: another node, another kernel, more bytes, the same arithmetic."""
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.output[0], kept = "before the copy", relu.output[0]
    at = list(model.graph.node).index(relu)
    model.graph.node.insert(at + 1, helper.make_node("Identity", ["before the copy"], [kept]))
    said = differing(model, tmp_path)
    nodes = BASELINE["models"][HALF.stem]["nodes"]
    assert f"nodes {nodes + 1}, baseline {nodes} " in said
    assert "kernels" in said
    assert "bytes_moved" in said
    assert "macs" not in said


def test_a_wider_convolution_is_detected(tmp_path, model):
    """One more channel between two convolutions."""
    first, second = [node for node in model.graph.node if node.op_type == "Conv"][1:3]
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    assert first.output[0] == second.input[0]
    for name, axis in ((first.input[1], 0), (second.input[1], 1)):
        array = numpy_helper.to_array(weights[name])
        wider = np.concatenate([array, array.take([0], axis)], axis)
        weights[name].CopyFrom(numpy_helper.from_array(wider, name))
    for name in first.input[2:]:
        array = numpy_helper.to_array(weights[name])
        weights[name].CopyFrom(numpy_helper.from_array(np.append(array, array[:1]), name))
    said = differing(model, tmp_path)
    assert all(name in said for name in ("macs", "params", "bytes_moved"))
    assert "nodes" not in said


def test_other_weights_and_longer_metadata_change_nothing(tmp_path, model):
    random = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float16 and array.ndim > 1:
            other = random.standard_normal(array.shape).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(other, tensor.name))
    entry = model.metadata_props.add()
    entry.key, entry.value = "srup.note", "trained on " + "more " * 200
    assert differing(model, tmp_path) == ""


def test_a_second_copy_of_a_tile_is_detected(monkeypatch):
    pixels = TileBatch.pixels
    monkeypatch.setattr(TileBatch, "pixels", property(lambda self: pixels.fget(self).copy()))
    said = guard.violations({"tiles": dict(guard.tile_figures())}, BASELINE)
    assert len(said) == 2
    assert all(line.startswith("tiles, cut ") and "allocated_bytes" in line for line in said)


def test_a_copy_of_a_result_is_detected(monkeypatch):
    write = Place.write

    def copying(self, upscaled):
        write(self, np.ascontiguousarray(upscaled[::-1])[::-1])

    monkeypatch.setattr(Place, "write", copying)
    said = guard.violations({"tiles": dict(guard.tile_figures())}, BASELINE)
    assert any(line.startswith("tiles, keep rgb: allocated_bytes") for line in said)


def test_a_further_call_for_each_batch_is_detected(monkeypatch):
    submit = sr.backends.tensorrt.device.TrtDevice.submit

    def slow(self, batch):
        self._cuda.call("cudaGetDevice")
        return submit(self, batch)

    monkeypatch.setattr(sr.backends.tensorrt.device.TrtDevice, "submit", slow)
    said = guard.violations({"runtime": {"trt": guard.runtime_figures(TensorRt)}}, BASELINE)
    assert any("cudaGetDevice" in line for line in said)


def test_an_engine_that_computes_in_float32_is_detected():
    pytest.importorskip("tensorrt_rtx")
    spec = EngineSpec(2, precision="fp32", targets=(guard.TARGET,))
    plan = plan_from_onnx(shipped_onnx(scale=2).read_bytes(), spec, TensorRtRtx.load())
    said = guard.violations({"engines": {HALF.stem: {"plan_bytes": len(plan)}}}, BASELINE)
    assert any(line.startswith(f"engines, {HALF.stem}: plan_bytes") for line in said)


def test_tolerances_are_two_sided_and_new_and_missing_models_are_named():
    baseline = {"models": {"a": {"file_bytes": 1000, "nodes": 5}, "b": {"nodes": 1}}}
    near = {"models": {"a": {"file_bytes": 1019, "nodes": 5}, "b": {"nodes": 1}}}
    assert guard.violations(near, baseline) == []
    far = {"models": {"a": {"file_bytes": 979, "nodes": 4}, "c": {"nodes": 1}}}
    size, nodes, missing, new = guard.violations(far, baseline)
    assert all(fact in size for fact in ("models, a", "file_bytes", "979", "1,000", "-2.1 %"))
    assert all(fact in nodes for fact in ("models, a", "nodes", "4", "5", "-20.0 %"))
    assert missing.startswith("models, b")
    assert new.startswith("models, c")


def test_the_command_stores_a_baseline_and_compares_with_it(tmp_path, monkeypatch):
    figures = {"models": {"a": {"nodes": 5}}, "engines": {}}
    monkeypatch.setattr(guard, "run", lambda: figures)
    path = tmp_path / "guard.json"

    def said(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(guard.main, ["--baseline", str(path), *arguments])
        return result.exit_code, result.output

    status, text = said()
    assert status == 1
    assert text.startswith(f"Error: {path}: ")
    assert "--update" in text
    assert said("--update")[0] == 0
    assert json.loads(path.read_text()) == figures
    assert said()[0] == 0
    figures["models"]["a"]["nodes"] = 6
    status, text = said()
    assert status == 1
    assert "models, a: nodes 6" in text
    assert "python -m benchmarks.guard --update" in text
