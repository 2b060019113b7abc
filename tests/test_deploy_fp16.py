"""The shipped fp16 ONNX files: their graphs, and what half precision costs by honest references.

ONNX Runtime on a CPU computes them in float32 and is no reference; see benchmarks/fp16.py.
"""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import onnx
from onnx import TensorProto

from benchmarks.fp16 import MIN_PSNR_DB, levels, psnr_of_floats, reference_output, shipped_nets
from sr.image import read_picture
from sr.network.modelfile import shipped_onnx, shipped_scales

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PICTURES = ("colosseum", "kitten", "osprey")
# Crops with detail in them, upper left corner; half precision on a CPU is slow.
CORNER = (100, 100)

# Operations on values, as opposed to those on shapes.
ARITHMETIC = {"Add", "Mul", "Div", "Relu", "Conv", "DepthToSpace"}
BEFORE_AND_AFTER = {"Round", "Clip", "Abs", "ReduceMean", "LessOrEqual", "IsNaN", "IsInf", "And"}


@pytest.fixture(scope="module", params=shipped_scales())
def graph(request) -> onnx.GraphProto:
    """Return the graph of a shipped fp16 file with the types of all its tensors."""
    path = shipped_onnx(scale=request.param, precision="fp16")
    return onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph


def types_of(graph: onnx.GraphProto) -> dict[str, int]:
    typed = [*graph.value_info, *graph.input, *graph.output]
    types = {info.name: info.type.tensor_type.elem_type for info in typed}
    return types | {constant.name: constant.data_type for constant in graph.initializer}


def nodes_after(graph: onnx.GraphProto, start: str) -> list[onnx.NodeProto]:
    """Return all nodes that depend on a tensor, in order."""
    reached, found = {start}, []
    for node in graph.node:
        if reached & set(node.input):
            reached |= set(node.output)
            found.append(node)
    return found


def nodes_before(graph: onnx.GraphProto, end: str) -> list[onnx.NodeProto]:
    """Return all nodes that a tensor depends on, in order."""
    needed, found = {end}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            found.append(node)
    return found[::-1]


def test_convolutions_compute_in_half_precision(graph):
    types = types_of(graph)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 10
    for node in convolutions:
        assert {types[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}, node.name


def test_the_body_is_half_between_one_cast_to_half_and_one_back(graph):
    types = types_of(graph)
    casts = [node for node in graph.node if node.op_type == "Cast"]
    to_half = [node for node in casts if types[node.output[0]] == TensorProto.FLOAT16]
    from_half = [node for node in casts if types[node.input[0]] == TensorProto.FLOAT16]
    assert len(to_half) == len(from_half) == 1
    inside = nodes_after(graph, to_half[0].output[0])
    behind = nodes_after(graph, from_half[0].output[0])
    outputs_behind = {node.output[0] for node in behind} | set(from_half[0].output)
    for node in inside:
        if node.output[0] not in outputs_behind and node.op_type in ARITHMETIC:
            assert types[node.output[0]] == TensorProto.FLOAT16, node.name


def test_reductions_and_all_before_and_after_the_body_are_float32(graph):
    types = types_of(graph)
    reductions = [node for node in graph.node if node.op_type.startswith("Reduce")]
    assert len(reductions) == 1  # the one behind `finite`; the attention is folded away
    for node in graph.node:
        if node.op_type in BEFORE_AND_AFTER and "And" not in node.op_type:
            assert types[node.input[0]] == TensorProto.FLOAT, node.name
    (to_half,) = [n for n in graph.node if n.op_type == "Cast" and types[n.output[0]] == TensorProto.FLOAT16]
    for node in nodes_before(graph, to_half.input[0]):
        assert types[node.output[0]] == TensorProto.FLOAT, node.name
    (from_half,) = [n for n in graph.node if n.op_type == "Cast" and types[n.input[0]] == TensorProto.FLOAT16]
    for node in nodes_after(graph, from_half.output[0]):
        assert types[node.output[0]] != TensorProto.FLOAT16, node.name


def test_uint8_input_and_output_have_a_cast(graph):
    types = types_of(graph)
    assert [(i.name, types[i.name]) for i in graph.input] == [("image", TensorProto.UINT8)]
    outputs = [(output.name, types[output.name]) for output in graph.output]
    assert outputs == [("upscaled", TensorProto.UINT8), ("finite", TensorProto.FLOAT)]
    (first,) = [node for node in graph.node if "image" in node.input]
    (last,) = [node for node in graph.node if "upscaled" in node.output]
    assert first.op_type == last.op_type == "Cast"
    others = [name for name, kind in types.items() if kind == TensorProto.UINT8]
    assert sorted(others) == ["image", "upscaled"]


def test_finite_is_taken_before_rounding_and_clipping(graph):
    kinds = [node.op_type for node in nodes_before(graph, "finite")]
    assert "Conv" in kinds
    assert not {"Clip", "Round", "Min", "Max"} & set(kinds)


@pytest.mark.slow
@pytest.mark.parametrize("scale", shipped_scales())
@pytest.mark.parametrize("picture", PICTURES)
def test_half_precision_in_pytorch_is_near_float32(picture, scale):
    lr = crop(picture, 64)
    nets = shipped_nets(scale)
    assert psnr_of_floats(nets.upscale("fp16", lr), nets.upscale("fp32", lr)) >= MIN_PSNR_DB


@pytest.mark.slow
@pytest.mark.parametrize("scale", shipped_scales())
@pytest.mark.parametrize("picture", PICTURES)
def test_the_shipped_file_in_half_precision_is_near_float32(picture, scale):
    """By onnx.reference, which rounds every sum to half: worse than any GPU."""
    lr = crop(picture, 32)
    found = reference_output(shipped_onnx(scale=scale, precision="fp16"), lr)
    expected = shipped_nets(scale).upscale("fp32", lr)
    assert psnr_of_floats(found, expected) >= MIN_PSNR_DB
    apart = np.abs(levels(found).astype(int) - levels(expected))
    assert apart.max() <= 1


@pytest.mark.slow
def test_the_references_do_compute_in_half_precision():
    """Otherwise the tests above would show nothing: float32 arithmetic on half weights comes far nearer."""
    lr = crop("colosseum", 32)
    nets = shipped_nets(2)
    expected = nets.upscale("fp32", lr)
    in_half = nets.upscale("fp16", lr)
    nets.fp16.float()
    weights_only = psnr_of_floats(nets.upscale("fp16", lr), expected)
    assert psnr_of_floats(in_half, expected) < weights_only - 1
    reference = reference_output(shipped_onnx(scale=2, precision="fp16"), lr)
    assert psnr_of_floats(reference, expected) < weights_only - 1


def crop(picture: str, side: int) -> np.ndarray:
    top, left = CORNER
    return read_picture(EXAMPLES / f"{picture}.png").pixels[top : top + side, left : left + side]
