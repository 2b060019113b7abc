"""Small ONNX networks in the conventions of other people's tools, without metadata of ours."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_NUMPY = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16, TensorProto.UINT8: np.uint8}


@dataclass(frozen=True)
class Convention:
    """A network: pixels repeated, plus some learned-looking detail, in a convention.

    Attributes:
        scale: upscaling factor.
        low: input value of black.
        high: input value of white.
        order: of the channels.
        layout: of the tensors.
        dtype: of the tensors, an element type of onnx.
        channels: 3 or 1.
        size: fixed (height, width), or None.
        batch: fixed, or None.
        padded: convolutions keep the size; else the output lacks a border.
        clipped: the output is clipped to the range.
        group: pixels are taken in squares of this side, so that sizes are multiples of it.
        mixed: the mean of the whole picture goes into each output pixel.
        convolutions: 3x3, one after the other.
    """

    scale: int = 2
    low: float = 0.0
    high: float = 1.0
    order: str = "RGB"
    layout: str = "NCHW"
    dtype: int = TensorProto.FLOAT
    channels: int = 3
    size: tuple[int, int] | None = None
    batch: int | None = None
    padded: bool = True
    clipped: bool = False
    group: int = 1
    mixed: bool = False
    convolutions: int = 3


class _Graph:
    """Collects nodes and constants."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name


def write_network(path: Path, convention: Convention, **stated: str) -> Path:
    """Write a network, which states something in its metadata; return its path."""
    model = foreign_network(convention)
    helper.set_model_props(model, stated)
    path.write_bytes(model.SerializeToString())
    return path


def foreign_network(convention: Convention) -> onnx.ModelProto:
    """Return a network with the names of tensors that exporters give."""
    graph, c = _Graph(), convention
    x = "input.1"
    if c.layout == "NHWC":
        x = graph.node("Transpose", x, perm=[0, 3, 1, 2])
    x = graph.node("Cast", x, to=TensorProto.FLOAT)
    x = graph.node("Div", graph.node("Sub", x, graph.constant(c.low)), graph.constant(c.high - c.low))
    x = _reordered(graph, x, c)
    x = _core(graph, x, c)
    x = _reordered(graph, x, c)
    if c.clipped:
        x = graph.node("Clip", x, graph.constant(0.0), graph.constant(1.0))
    x = graph.node("Add", graph.node("Mul", x, graph.constant(c.high - c.low)), graph.constant(c.low))
    if c.dtype == TensorProto.UINT8:
        x = graph.node("Clip", graph.node("Round", x), graph.constant(0.0), graph.constant(255.0))
    x = graph.node("Cast", x, to=c.dtype)
    if c.layout == "NHWC":
        x = graph.node("Transpose", x, perm=[0, 2, 3, 1])
    height, width = c.size or ("height", "width")
    sides: list[Any] = [c.channels, height, width] if c.layout == "NCHW" else [height, width, c.channels]
    free = [c.channels, None, None] if c.layout == "NCHW" else [None, None, c.channels]
    image = helper.make_tensor_value_info("input.1", c.dtype, [c.batch or "batch", *sides])
    output = helper.make_tensor_value_info(x, c.dtype, [c.batch, *free])
    made = helper.make_graph(graph.nodes, "main_graph", [image], [output], graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _reordered(graph: _Graph, x: str, c: Convention) -> str:
    return x if c.order == "RGB" else graph.node("Gather", x, graph.constant([2, 1, 0], np.int64), axis=1)


def _core(graph: _Graph, x: str, c: Convention) -> str:
    """Upscale RGB in [0, 1]: repeat pixels, add detail, and hold blue back, which tells the range."""
    rng, whole = np.random.default_rng(0), x
    if c.group > 1:
        x = graph.node("SpaceToDepth", x, blocksize=c.group)
    channels, factor = c.channels * c.group**2, c.scale * c.group
    features = x
    for index in range(c.convolutions):
        last = index == c.convolutions - 1
        count = c.channels * factor**2 if last else 8
        given = channels if index == 0 else 8
        weights = rng.normal(0, np.sqrt(2 / (9 * given)), (count, given, 3, 3))
        weights -= weights.mean((1, 2, 3), keepdims=True)  # flat areas stay flat
        bias = rng.normal(0, 0.1, count)
        pads = [1, 1, 1, 1] if c.padded else [0, 0, 0, 0]
        features = graph.node(
            "Conv", features, graph.constant(weights), graph.constant(bias), pads=pads, kernel_shape=[3, 3]
        )
        features = features if last else graph.node("Relu", features)
    detail = graph.node("Mul", features, graph.constant(0.04))
    base = graph.node("Conv", x, graph.constant(_repeating(c)), kernel_shape=[1, 1])
    if not c.padded:
        lost = c.convolutions
        starts, ends = graph.constant([lost] * 2, np.int64), graph.constant([-lost] * 2, np.int64)
        base = graph.node("Slice", base, starts, ends, graph.constant([2, 3], np.int64))
    y = graph.node("DepthToSpace", graph.node("Add", base, detail), blocksize=factor, mode="CRD")
    if c.mixed:
        mean = graph.node("GlobalAveragePool", whole)
        y = graph.node("Add", y, graph.node("Mul", mean, graph.constant(0.2)))
    if c.channels == 3:
        y = graph.node("Min", y, _ceiling(graph))
    return y


def _ceiling(graph: _Graph) -> str:
    return graph.constant(np.reshape([1e4, 1e4, 0.5], (1, 3, 1, 1)))


def _repeating(c: Convention) -> np.ndarray:
    """Return 1x1 weights that, before a pixel shuffle, repeat each pixel of a group scale x scale times."""
    factor, group = c.scale * c.group, c.group
    weights = np.zeros((c.channels * factor**2, c.channels * group**2, 1, 1))
    for channel in range(c.channels):
        for row in range(factor):
            for column in range(factor):
                source = (row // c.scale * group + column // c.scale) * c.channels + channel
                weights[channel * factor**2 + row * factor + column, source] = 1
    return weights
