"""Counted work of graphs, against numbers computed by hand."""

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from benchmarks.lib.work import counted_work, main
from sr.errors import ModelError
from sr.network.modelfile import shipped_onnx


def graph_of(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    *,
    channels: int = 3,
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    image = helper.make_tensor_value_info("x", kind, ["N", channels, "H", "W"])
    result = helper.make_tensor_value_info("y", kind, None)
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", [image], [result], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def weight(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_a_residual_block_by_hand() -> None:
    """3 -> 8 channels, then conv + ReLU, conv + add with the skip; 10x20 px, batch 2."""
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    model = graph_of(
        [
            helper.make_node("Conv", ["x", "w0", "b0"], ["skip"], **same),
            helper.make_node("Conv", ["skip", "w1"], ["c1"], **same),
            helper.make_node("Relu", ["c1"], ["r1"]),
            helper.make_node("Conv", ["r1", "w2"], ["c2"], **same),
            helper.make_node("Add", ["skip", "c2"], ["y"]),
        ],
        {"w0": weight(8, 3, 3, 3), "b0": weight(8), "w1": weight(16, 8, 3, 3), "w2": weight(8, 16, 3, 3)},
    )
    work = counted_work(model, height=10, width=20, batch=2)
    px = 2 * 10 * 20
    assert [kernel.ops for kernel in work.kernels] == [("Conv",), ("Conv", "Relu"), ("Conv", "Add")]
    assert [kernel.macs for kernel in work.kernels] == [px * 216, px * 1152, px * 1152]
    assert [kernel.bytes_written for kernel in work.kernels] == [px * 32, px * 64, px * 32]
    assert [kernel.bytes_read for kernel in work.kernels] == [
        px * 12 + (216 + 8) * 4,
        px * 32 + 1152 * 4,
        px * (64 + 32) + 1152 * 4,
    ]
    assert work.params == 216 + 8 + 1152 + 1152
    assert work.least_bytes == px * 12 + px * 32 + work.params * 4
    assert (work.nodes, work.ops) == (5, {"Add": 1, "Conv": 3, "Relu": 1})
    assert work.macs == px * 2520


def test_a_result_with_two_readers_is_not_fused() -> None:
    model = graph_of(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Add", ["c", "r"], ["y"]),
        ],
        {"w": weight(3, 3, 1, 1)},
    )
    assert [kernel.ops for kernel in counted_work(model, height=4, width=4).kernels] == [
        ("Conv",),
        ("Relu",),
        ("Add",),
    ]


def test_elementwise_operators_are_one_step_where_that_is_asked_for() -> None:
    """A convolution, a run of three whose middle result a reduction also reads, and what follows it."""
    model = graph_of(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[1, 1]),
            helper.make_node("Abs", ["c"], ["a"]),
            helper.make_node("Round", ["a"], ["r"]),
            helper.make_node("ReduceMax", ["a"], ["m"], keepdims=1),
            helper.make_node("Sub", ["r", "m"], ["y"]),
        ],
        {"w": weight(3, 3, 1, 1)},
    )
    tensor = 3 * 10 * 20 * 4
    apart = counted_work(model, height=10, width=20)
    assert [len(kernel.ops) for kernel in apart.kernels] == [1] * 5
    fused = counted_work(model, height=10, width=20, fuse_pointwise=True)
    assert [kernel.ops for kernel in fused.kernels] == [
        ("Conv",),
        ("Abs", "Round"),
        ("ReduceMax",),
        ("Sub",),  # it waits for the reduction
    ]
    assert [kernel.bytes_written for kernel in fused.kernels] == [tensor, 2 * tensor, 4, tensor]
    assert [kernel.bytes_read for kernel in fused.kernels] == [tensor + 36, tensor, tensor, tensor + 4]
    assert (fused.macs, fused.least_bytes) == (apart.macs, apart.least_bytes)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_end_of_a_shipped_network_is_fused(scale: int) -> None:
    model = onnx.load(shipped_onnx(scale=scale, precision="fp16"))
    apart, fused = (counted_work(model, height=64, width=64, fuse_pointwise=fuse) for fuse in (False, True))
    assert fused.bytes_moved < 0.88 * apart.bytes_moved
    assert fused.ops == apart.ops
    assert fused.kernels[-1].macs == apart.kernels[-1].macs == 0


def test_groups_strides_and_transposed_convolutions() -> None:
    model = graph_of(
        [
            helper.make_node("Conv", ["x", "w0"], ["c"], kernel_shape=[3, 3], group=4, strides=[2, 2]),
            helper.make_node("ConvTranspose", ["c", "w1"], ["y"], kernel_shape=[9, 9], strides=[3, 3]),
        ],
        {"w0": weight(8, 1, 3, 3), "w1": weight(8, 1, 9, 9)},
        channels=4,
    )
    work = counted_work(model, height=11, width=9)
    assert [kernel.macs for kernel in work.kernels] == [(5 * 4) * 8 * 9, (5 * 4) * 8 * 81]
    assert work.output_px == (5 * 3 + 6) * (4 * 3 + 6)


def test_half_precision_moves_half_the_bytes() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])
    full = counted_work(graph_of([node], {"w": weight(3, 3, 1, 1)}), height=8, width=8)
    halved = graph_of([node], {"w": weight(3, 3, 1, 1).astype(np.float16)}, kind=TensorProto.FLOAT16)
    assert counted_work(halved, height=8, width=8).bytes_moved * 2 == full.bytes_moved


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shipped_files_do_the_work_of_their_metadata(scale: int) -> None:
    model = onnx.load(shipped_onnx(scale=scale))
    said = {entry.key: entry.value for entry in model.metadata_props}
    work = counted_work(model, height=30, width=50, batch=2)
    assert work.macs == 2 * 30 * 50 * int(said["srup.macs_per_lr_px"])
    assert work.output_px == 2 * 30 * 50 * scale**2
    assert work.least_bytes == pytest.approx(work.params * 4 + 2 * 30 * 50 * 3 * (1 + scale**2), rel=0.01)
    assert work.least_bytes < work.bytes_moved


def test_a_graph_that_does_not_fit_the_size_is_refused() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    assert counted_work(graph_of([node], {"w": weight(8, 5)}), height=2, width=8).macs == 3 * 2 * 5 * 8
    with pytest.raises(ModelError, match="inferred"):
        counted_work(graph_of([node], {"w": weight(9, 5)}), height=2, width=8)


def test_from_the_command_line() -> None:
    path = str(shipped_onnx(scale=3))
    work = counted_work(onnx.load(path), height=36, width=64)
    answer = CliRunner().invoke(main, [path, "--size", "64x36"])
    assert answer.exit_code == 0, answer.output
    for figure in (work.params, work.nodes, len(work.kernels)):
        assert f" {figure:,} " in answer.output
    assert CliRunner().invoke(main, [path, "--size", "64"]).exit_code == 2
