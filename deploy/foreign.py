"""Networks of other programs as ONNX files of ours: image input and output in the graph, and metadata.

Owns the ends that are put around a network whose conventions small runs have found.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sr.errors import ModelError, one_line
from sr.fitting import fitted_size
from sr.metrics import psnr
from sr.network.content import contents
from sr.network.descriptor import ENDS, IO, ModelDescriptor, Precision
from sr.network.ends import FINITE_NAME, INPUT_NAME, OUTPUT_NAME, Conventions
from sr.network.foreign.convert import converted
from sr.network.foreign.describe import foreign_descriptor
from sr.network.foreign.statedict import is_foreign_weights

# An fp16 file must reach this against the fp32 network, in dB, in pictures of each of these sizes (lr px):
# below about 50 dB single levels differ everywhere. ONNX Runtime on a CPU rounds the weights, but computes
# most layers in float32: how a GPU rounds is proven when an engine is built there (`deploy.engines.parity`).
MIN_HALF_DB = 50.0
_SIZES = ((48, 64), (64, 80), (96, 48))

_LEAST_OPSET = 11  # Clip takes its limits as inputs
_AXES_OPSET = 18  # ReduceMean takes its axes as an input
_FLOAT32_MAX = 3.4028234663852886e38

Progress = Callable[[str, float], None]


def onnx_from_others(
    path: Path,
    *,
    precision: Precision = "fp32",
    io: IO = "uint8",
    licence: str | None = None,
    stated: Conventions | None = None,
    progress: Progress | None = None,
) -> tuple[onnx.ModelProto, ModelDescriptor]:
    """Return the checked ONNX model of a network of another program, and its description.

    Args:
        path: of an ONNX file, or of weights.
        precision: "fp32", or "fp16" where it is close enough.
        io: as in `deploy.export.ExportSpec`.
        licence: of the weights; None keeps what the file states.
        stated: conventions of the network that are not to be found out.
        progress: called with phase and share done while the file is converted and probed.

    Raises:
        ModelError: it is refused, has other ends than such a file can have, or is not close enough in fp16.
    """
    source = converted(path, progress=progress) if is_foreign_weights(path) else path
    found = foreign_descriptor(source, stated=stated, progress=progress)
    _check(found, path, precision)
    model = onnx.load(source)
    if _opset(model) < _LEAST_OPSET:
        raise ModelError(f"{path}: opset {_opset(model)}, need {_LEAST_OPSET} or later; export it again")
    half = precision == "fp16" and found.precision == "fp32"
    if half and _no_half(model):
        raise ModelError(f"{path}: its architecture is not known to work in fp16; use --precision fp32")
    core = _halved(model) if half else model
    wrapped = _with_ends(core, found, io, finite=precision == "fp16" or found.precision == "fp16")
    described = replace(
        found,
        name=path.stem,
        ends=replace(ENDS[io], size=found.ends.size, batch=found.ends.batch),
        precision="fp16" if precision == "fp16" else found.precision,
        attention="none" if found.tiles_exact else "dynamic",
        params=_params(model),
        licence=found.licence if licence is None else licence,
        ours=True,
        training={"data": f"those of another program's network, {path.name}"},
    )
    helper.set_model_props(wrapped, described.to_properties())
    try:
        onnx.checker.check_model(wrapped, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{path}: cannot be written as ONNX file of srup ({one_line(error)})") from error
    if half:
        _check_half(_with_ends(model, found, io, finite=False), wrapped, path, described)
    return wrapped, described


def _check(found: ModelDescriptor, path: Path, precision: Precision) -> None:
    """Refuse what a file of ours cannot say."""
    ends, remedy = found.ends, "use the file itself: srup upscale --model"
    if precision not in ("fp32", "fp16"):
        raise ModelError(f"{path}: networks of other programs are exported in fp32 or fp16, not {precision}")
    if ends.channels != 3 or not ends.floats or ends.border or ends.crop:
        raise ModelError(f"{path}: takes one channel or integers, or crops its border; {remedy}")


def _no_half(model: onnx.ModelProto) -> bool:
    return any(entry.key == "half" and entry.value == "no" for entry in model.metadata_props)


def _params(model: onnx.ModelProto) -> int:
    return sum(math.prod(each.dims) for each in model.graph.initializer)


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network in float16, with float32 input and output."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values out of range, which the comparison shows
        halved: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True, op_block_list=["Resize"])
    OnnxModel.graph_topological_sort(halved.graph)  # the conversion appends its casts
    return halved


def _with_ends(model: onnx.ModelProto, found: ModelDescriptor, io: IO, *, finite: bool) -> onnx.ModelProto:
    """Return the network between images as our files have them; `finite` is an output of those in fp16."""
    ends, graph = found.ends, onnx.GraphProto()
    graph.CopyFrom(model.graph)
    _rename(graph, {ends.input_name: "body.input", ends.output_name: "body.output"})
    for index, node in enumerate(graph.node):
        node.name = f"body.{index}"
    before, after = _Nodes("before"), _Nodes("after")
    element = TensorProto.FLOAT16 if ends.dtype == "float16" else TensorProto.FLOAT
    x, uint8 = INPUT_NAME, io == "uint8"
    batch: Any = "N" if ends.batch is None else ends.batch
    height, width = ends.size or ("H", "W")
    up_height, up_width = ("sH", "sW") if ends.size is None else (found.scale * side for side in ends.size)
    if uint8:
        x = before.node("Cast", x, to=TensorProto.FLOAT)
        x = before.node("Transpose", x, perm=[0, 3, 1, 2])
        x = before.node("Div", x, before.constant(255.0))
    x = _scaled(before, x, ends.white - ends.black, ends.black)
    x = _turned(before, x, ends, to_network=True)
    before.node("Cast", x, out="body.input", to=element)
    y = after.node("Cast", "body.output", to=TensorProto.FLOAT)
    y = _turned(after, y, ends, to_network=False)
    span = ends.white - ends.black
    y = _scaled(after, y, 1 / span, -ends.black / span)
    outputs = []
    if finite:
        size = _mean(after, after.node("Abs", y), opset=_opset(model))
        whole = after.node("LessOrEqual", size, after.constant(_FLOAT32_MAX))
        after.node("Cast", whole, out=FINITE_NAME, to=TensorProto.FLOAT)
        outputs.append(helper.make_tensor_value_info(FINITE_NAME, TensorProto.FLOAT, [batch]))
    if uint8:
        y = after.node("Transpose", after.node("Mul", y, after.constant(255.0)), perm=[0, 2, 3, 1])
        y = after.node("Clip", after.node("Round", y), after.constant(0.0), after.constant(255.0))
    after.node("Cast", y, out=OUTPUT_NAME, to=TensorProto.UINT8 if uint8 else TensorProto.FLOAT)
    kind = TensorProto.UINT8 if uint8 else TensorProto.FLOAT
    made = helper.make_graph(
        [*before.nodes, *graph.node, *after.nodes],
        "srup",
        [helper.make_tensor_value_info(INPUT_NAME, kind, _axes(batch, height, width, nhwc=uint8))],
        [
            helper.make_tensor_value_info(OUTPUT_NAME, kind, _axes(batch, up_height, up_width, nhwc=uint8)),
            *outputs,
        ],
        [*graph.initializer, *before.constants, *after.constants],
    )
    return helper.make_model(made, opset_imports=model.opset_import, ir_version=max(model.ir_version, 8))


def _opset(model: onnx.ModelProto) -> int:
    return max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _mean(nodes: _Nodes, x: str, *, opset: int) -> str:
    """Return the mean of each image, (N,)."""
    if opset < _AXES_OPSET:
        return nodes.node("ReduceMean", x, axes=[1, 2, 3], keepdims=0)
    return nodes.node("ReduceMean", x, nodes.constant([1, 2, 3], np.int64), keepdims=0)


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(each, each) for each in node.input]
        node.output[:] = [names.get(each, each) for each in node.output]


def _axes(batch: Any, height: Any, width: Any, *, nhwc: bool) -> list[Any]:
    return [batch, height, width, 3] if nhwc else [batch, 3, height, width]


class _Nodes:
    """Collects nodes and constants with names of their own."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"{self._prefix}.c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, operator: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        name = out or f"{self._prefix}.t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name


def _scaled(nodes: _Nodes, x: str, factor: float, offset: float) -> str:
    if factor != 1:
        x = nodes.node("Mul", x, nodes.constant(factor))
    return x if offset == 0 else nodes.node("Add", x, nodes.constant(offset))


def _turned(nodes: _Nodes, x: str, ends: Any, *, to_network: bool) -> str:
    """Reorder NCHW RGB to the network's layout and order, or back."""
    if ends.layout == "NHWC" and not to_network:
        x = nodes.node("Transpose", x, perm=[0, 3, 1, 2])
    if ends.order == "BGR":
        x = nodes.node("Gather", x, nodes.constant([2, 1, 0], np.int64), axis=1)
    if ends.layout == "NHWC" and to_network:
        x = nodes.node("Transpose", x, perm=[0, 2, 3, 1])
    return x


def _check_half(full: onnx.ModelProto, half: onnx.ModelProto, path: Path, described: ModelDescriptor) -> None:
    """Refuse a float16 file that differs too much from the float32 one."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    runs = [
        onnxruntime.InferenceSession(each.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for each in (full, half)
    ]
    worst, ends = math.inf, described.ends
    for size in {ends.size or fitted_size(*size, described) for size in _SIZES}:
        for picture in contents(height=size[0], width=size[1]).values():
            fed = ends.tensor_from_batch(picture[None].repeat(ends.batch or 1, axis=0))
            made = [run.run([OUTPUT_NAME], {INPUT_NAME: fed})[0] for run in runs]
            first, second = (_levels(each, described.io) for each in made)
            worst = min(worst, psnr(first, second))
    if not worst >= MIN_HALF_DB:
        raise ModelError(
            f"{path}: in fp16 it reaches {worst:.1f} dB of itself in fp32, need {MIN_HALF_DB:g}; "
            "use --precision fp32"
        )


def _levels(output: Any, io: IO) -> Any:
    return output if io == "uint8" else (np.nan_to_num(output).clip(0, 1) * 255).round().astype(np.uint8)
