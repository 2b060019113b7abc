"""Half precision in which no overflow hides: the same network, and `finite` only where nothing overflowed."""

import copy
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnx
import torch

from deploy.export import ExportedNet, ExportSpec, export_onnx
from deploy.fold import fold
from deploy.half import may_hide_overflow, without_hidden_overflow
from sr.network.checkpoint import load_weights, save_weights
from sr.network.config import ModelConfig
from sr.network.model import SRNet
from sr.network.modelfile import shipped_onnx, shipped_scales, shipped_weights

HALF_MAX = 65504.0
FP16 = ExportSpec(precision="fp16", io="float32")
KINDS = ({}, {"asymmetric": False}, {"attention": "local"}, {"fusion": True})


def folded(**changes: object) -> SRNet:
    torch.manual_seed(0)
    config = ModelConfig(num_feats=8, num_blocks=2, **{"attention": "none", "norm": "none"} | changes)
    return fold(SRNet(config))


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_the_network_stays_the_same_and_cannot_hide_an_overflow(changes):
    net = folded(**changes).double()
    made = without_hidden_overflow(net)
    lr = torch.rand(1, 3, 12, 12, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(made(lr), net(lr), rtol=0, atol=1e-12)
    assert may_hide_overflow(net)
    assert not may_hide_overflow(made)


def test_files_between_two_are_those_of_the_network_between():
    low, high = folded(), folded(scale=2)
    for weight in high.parameters():
        weight.data.mul_(3)
    state = {name: (value + high.state_dict()[name]) / 2 for name, value in low.state_dict().items()}
    between = copy.deepcopy(low)
    between.load_state_dict(state)
    of_files = [without_hidden_overflow(net).state_dict() for net in (low, high)]
    for name, value in without_hidden_overflow(between).state_dict().items():
        assert torch.allclose(value, (of_files[0][name] + of_files[1][name]) / 2, rtol=1e-6)


def treacherous(inflation: float) -> SRNet:
    """Return a network whose features grow with `inflation`, and whose overflows cancel before each ReLU.

    The channels of the 1x5 convolutions are pairs of opposite sign, and the weights of the 5x1 are positive.
    """
    net = folded()
    with torch.no_grad():
        net.base.weight.mul_(inflation)
        net.base.bias.mul_(inflation)
        net.upsampler.widen.weight.div_(inflation)
        for block in net.blocks:
            first, second = block.expand
            first.weight.mul_(6)
            half = len(first.weight) // 2
            first.weight[half:] = -first.weight[:half]
            second.weight.abs_()
    return net


def test_overflow_shows_on_a_gpu_whose_relu_makes_nan_zero(monkeypatch):
    monkeypatch.setattr(torch, "relu", lambda x: torch.fmax(x, torch.zeros((), dtype=x.dtype)))
    lr = torch.rand(1, 3, 8, 8)
    hidden, shown, right = 0, 0, 0
    for inflation in np.geomspace(1e3, 1e6, 8):
        net = treacherous(inflation)
        halved = ExportedNet(copy.deepcopy(net), FP16)
        plain = ExportedNet(copy.deepcopy(net), FP16)
        plain.net = copy.deepcopy(net).half()
        with torch.inference_mode():
            expected = net(lr)

            def is_right(found, expected=expected) -> bool:
                return bool((found - expected).abs().max() < 0.02 * expected.abs().max())

            (upscaled, finite), (wrong, claimed) = halved(lr), plain(lr)
        assert is_right(upscaled) or not finite
        hidden += bool(claimed) and not is_right(wrong)
        shown += not finite
        right += bool(finite)
    assert hidden, "otherwise this shows nothing"
    assert shown
    assert right


@pytest.mark.parametrize("scale", shipped_scales())
def test_shipped_files_cannot_overflow_before_a_relu_if_the_trunk_does_not(scale):
    graph = onnx.load(shipped_onnx(scale=scale, precision="fp16")).graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {each.name: onnx.numpy_helper.to_array(each).astype(np.float64) for each in graph.initializer}
    relus = [node for node in graph.node if node.op_type == "Relu"]
    assert len(relus) > 4
    for relu in relus:
        node = makers[relu.input[0]]
        for _ in ("5x1", "1x5"):
            assert node.op_type == "Conv"
            weight, *bias = (constants[name] for name in node.input[1:])
            largest = HALF_MAX * np.abs(weight).sum((1, 2, 3)) + sum(map(np.abs, bias))
            assert largest.max() < HALF_MAX
            node = makers[node.input[0]]


@pytest.mark.slow
def test_export_says_where_an_overflow_could_hide(tmp_path):
    weights, notes = load_weights(shipped_weights(scale=2)), []
    export_onnx(shipped_weights(scale=2), tmp_path, ExportSpec(precision="fp16"), note=notes.append)
    assert notes == []
    name = next(name for name in weights.state if "expand.0" in name and "weight" in name)
    state = weights.state | {name: weights.state[name] * 1000}
    save_weights(tmp_path / "large.safetensors", replace(weights, state=state))
    export_onnx(tmp_path / "large.safetensors", tmp_path, ExportSpec(precision="fp16"), note=notes.append)
    assert any("half precision" in note and "fp32" in note for note in notes)
