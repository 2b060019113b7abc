"""The 1x5 and 5x1 convolutions merged into a 5x5: the same network; engines of both are built and timed."""

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("onnx")

import onnx
import onnxruntime
from PIL import Image

from benchmarks import merged
from benchmarks.levers import merged_5x5
from benchmarks.lib.paths import ROOT
from deploy.verify import difference
from sr.backends.gpus import visible_gpus
from sr.backends.tensorrt.modules import TensorRtRtx
from sr.backends.tensorrt.spec import EngineSpec
from sr.network.modelfile import shipped_onnx


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_merged_network_computes_the_same(precision):
    model = onnx.load(shipped_onnx(scale=2, precision=precision))
    image = np.asarray(Image.open(ROOT / "examples" / "kitten.png"))[None, 100:140, 100:148].copy()
    usual, made = (
        onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            ["upscaled"], {"image": image}
        )[0]
        for graph in (onnx.load(shipped_onnx(scale=2, precision=precision)), merged_5x5(model))
    )
    kernels = [
        list(each.ints) for node in model.graph.node for each in node.attribute if "kernel" in each.name
    ]
    assert [5, 5] in kernels
    assert [1, 5] not in kernels
    assert difference(made, usual).max_levels <= 1


def test_both_engines_are_built_and_timed_in_turn():
    pytest.importorskip("tensorrt_rtx")
    times = iter([3.0, 2.0, 1.0, 2.5, 4.0, 1.5])
    plans = []

    def compute_ms(plan: bytes) -> float:
        plans.append(plan)
        return next(times)

    row = merged.compare(TensorRtRtx.load(), EngineSpec(2, tile=64, batch=1, targets=(89,)), compute_ms)
    assert (row["usual_ms"], row["merged_ms"]) == (1.0, 1.5)
    assert plans[0::2] == [plans[0]] * merged.ROUNDS
    assert plans[1::2] == [plans[1]] * merged.ROUNDS
    assert plans[0] != plans[1]


@pytest.mark.skipif(bool(visible_gpus()), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    answer = CliRunner().invoke(merged.main, [])
    assert answer.exit_code == 1
    assert "no NVIDIA GPU" in answer.output


@pytest.mark.gpu
def test_it_measures_on_a_gpu():
    result = merged.run()
    assert all(row["usual_ms"] > 0 and row["merged_ms"] > 0 for row in result["rows"])
