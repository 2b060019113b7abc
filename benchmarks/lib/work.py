"""Counted work of an ONNX graph: multiply-adds, bytes moved, nodes and parameters, without running it.

The counts do not depend on the machine, so they serve to detect growth (`benchmarks.guard`), to compute
shares of the machine's limit, and to predict (`benchmarks.predict`).

Which bytes move depends on what a runtime fuses. Assumed here: a convolution absorbs the activation and
the addition that follow it (conv + ReLU + add), as in ONNX Runtime, OpenVINO and TensorRT; every other
node reads its inputs from memory and writes its outputs there; no tensor stays in a cache. `least_bytes`
is what no fusion can avoid: input, output and weights, each once. Compilers for GPUs fuse more: with
`fuse_pointwise`, a run of elementwise and layout operators is one step as well, as in TensorRT.

    python -m benchmarks.lib.work sr/weights/small_x3_fp32_uint8.onnx --size 1280x720
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import click
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from benchmarks.lib.options import click_size
from sr.errors import ModelError

_CONVOLUTIONS = {"Conv", "ConvTranspose"}
_ABSORBED = {"Relu", "LeakyRelu", "PRelu", "Add"}  # by the preceding convolution
# What TensorRT makes one kernel of; a reduction or a pixel shuffle is a kernel of its own.
_POINTWISE = {"Abs", "Add", "Cast", "Clip", "Div", "LessOrEqual", "Mul", "Relu", "Round", "Sub", "Transpose"}
# What the free axes of an input are, by how many there are.
_FREE_AXES = {0: (), 1: ("N",), 2: ("H", "W"), 3: ("N", "H", "W")}


@dataclass(frozen=True)
class Kernel:
    """One step of a runtime that fuses as the module says: a node and the nodes that it absorbs.

    Attributes:
        ops: operators, in order.
        name: of the last node's output.
        macs: multiply-adds.
        bytes_read: of activations and weights.
        bytes_written: of the output.
    """

    ops: tuple[str, ...]
    name: str
    macs: int
    bytes_read: int
    bytes_written: int


@dataclass(frozen=True)
class Work:
    """The work of a graph for one input.

    Attributes:
        kernels: the steps, in order.
        nodes: operators in the graph, without constants.
        params: elements of its floating-point weights, without single numbers (a divisor, a limit).
        least_bytes: input, output and weights, each once.
        output_px: output pixels of all pictures of the batch.
    """

    kernels: tuple[Kernel, ...]
    nodes: int
    params: int
    least_bytes: int
    output_px: int

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions and matrix products; one counts as two floating-point operations."""
        return sum(kernel.macs for kernel in self.kernels)

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written, fused as the module says."""
        return sum(kernel.bytes_read + kernel.bytes_written for kernel in self.kernels)

    @property
    def ops(self) -> dict[str, int]:
        """How often each operator occurs."""
        return dict(sorted(Counter(op for kernel in self.kernels for op in kernel.ops).items()))


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    itemsize: int

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.itemsize


def counted_work(
    model: ModelProto, *, height: int, width: int, batch: int = 1, fuse_pointwise: bool = False
) -> Work:
    """Count the work of `model` for `batch` pictures of `height` x `width` lr pixels.

    Three free axes of the only input are N, H and W, two are H and W, one is N; fixed axes stay.

    Raises:
        ModelError: the shapes of the graph cannot be inferred from the size.
    """
    sized = _sized(model, {"N": batch, "H": height, "W": width})
    tensors = _tensors(sized)
    weights = {tensor.name for tensor in sized.graph.initializer}
    nodes = [node for node in sized.graph.node if node.op_type != "Constant"]
    groups = list(_fused(nodes, sized))
    if fuse_pointwise:
        groups = _pointwise_fused(groups)
    outputs = {output.name for output in sized.graph.output}
    kernels = tuple(_kernel(group, tensors, _needed_after(group, nodes) | outputs) for group in groups)
    ends = (*sized.graph.input, *sized.graph.output)
    upscaled = tensors[sized.graph.output[0].name].shape
    return Work(
        kernels=kernels,
        nodes=len(nodes),
        params=sum(prod(t.dims) for t in sized.graph.initializer if t.dims and _is_float(t.data_type)),
        least_bytes=sum(tensors[name].bytes for name in weights | {end.name for end in ends}),
        output_px=prod(upscaled) // min(upscaled[1:]),  # of NCHW and NHWC, channels are the fewest
    )


def _sized(model: ModelProto, sizes: Mapping[str, int]) -> ModelProto:
    """Return a copy of `model` for one input size, with all shapes inferred."""
    sized = ModelProto()
    sized.CopyFrom(model)
    if len(sized.graph.input) != 1:
        raise ModelError(f"the graph has {len(sized.graph.input)} inputs, need one picture")
    axes = sized.graph.input[0].type.tensor_type.shape.dim
    free = [axis for axis in axes if not axis.HasField("dim_value")]
    if len(free) not in _FREE_AXES:
        raise ModelError(f"{len(free)} axes of the input are free, need at most {max(_FREE_AXES)}")
    for dim, axis in zip(free, _FREE_AXES[len(free)], strict=True):
        dim.dim_value = sizes[axis]
    for output in sized.graph.output:
        output.type.tensor_type.ClearField("shape")
    del sized.graph.value_info[:]
    try:
        return onnx.shape_inference.infer_shapes(sized, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(f"the graph's shapes cannot be inferred: {str(error).splitlines()[0]}") from error


def _tensors(model: ModelProto) -> dict[str, _Tensor]:
    """Return shape and element size of every tensor."""
    found = {}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        kind = value.type.tensor_type
        if not all(dim.HasField("dim_value") for dim in kind.shape.dim) or not kind.HasField("shape"):
            raise ModelError(f"the shape of tensor {value.name!r} cannot be inferred from the input's")
        shape = tuple(dim.dim_value for dim in kind.shape.dim)
        found[value.name] = _Tensor(shape, _itemsize(kind.elem_type))
    for weight in model.graph.initializer:
        found[weight.name] = _Tensor(tuple(weight.dims), _itemsize(weight.data_type))
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            value = numpy_helper.to_array(node.attribute[0].t)
            found[node.output[0]] = _Tensor(value.shape, value.itemsize)
    return found


def _fused(nodes: list[NodeProto], model: ModelProto) -> Iterator[list[NodeProto]]:
    """Group nodes: a convolution with the activation and additions that alone read its result."""
    readers: dict[str, list[int]] = defaultdict(list)
    for index, node in enumerate(nodes):
        for name in set(node.input):
            readers[name].append(index)
    kept = {output.name for output in model.graph.output}
    taken: set[int] = set()
    for index, node in enumerate(nodes):
        if index in taken:
            continue
        group = [node]
        while group[0].op_type in _CONVOLUTIONS:
            result = group[-1].output[0]
            if result in kept or len(readers[result]) != 1:
                break
            following = readers[result][0]
            if following in taken or nodes[following].op_type not in _ABSORBED:
                break
            taken.add(following)
            group.append(nodes[following])
        yield group


def _pointwise_fused(groups: list[list[NodeProto]]) -> list[list[NodeProto]]:
    """Join each group of elementwise operators to the one that makes its latest input, where that is one."""
    joined: list[list[NodeProto]] = []
    made_in: dict[str, int] = {}
    for group in groups:
        producers = sorted({made_in[name] for node in group for name in node.input if name in made_in})
        at = producers[-1] if producers else -1
        if at >= 0 and _is_pointwise(group) and _is_pointwise(joined[at]):
            joined[at].extend(group)
        else:
            at = len(joined)
            joined.append([*group])
        made_in |= {name: at for node in group for name in node.output}
    return joined


def _is_pointwise(group: list[NodeProto]) -> bool:
    return all(node.op_type in _POINTWISE for node in group)


def _needed_after(group: list[NodeProto], nodes: list[NodeProto]) -> set[str]:
    """Return the tensors that other nodes read."""
    own = {node.output[0] for node in group}
    return {name for node in nodes if node.output[0] not in own for name in node.input}


def _kernel(group: list[NodeProto], tensors: Mapping[str, _Tensor], needed: set[str]) -> Kernel:
    made = {name for node in group for name in node.output}
    read = {name for node in group for name in node.input if name} - made
    written = [name for node in group for name in node.output if name in needed]
    return Kernel(
        ops=tuple(node.op_type for node in group),
        name=group[-1].output[0],
        macs=sum(_macs(node, tensors) for node in group),
        bytes_read=sum(tensors[name].bytes for name in read),
        bytes_written=sum(tensors[name].bytes for name in written),
    )


def _macs(node: NodeProto, tensors: Mapping[str, _Tensor]) -> int:
    """Count multiply-adds, including those with the zeros of the padding."""
    if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return 0
    first, second, result = (tensors[name].shape for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":  # each output value sums over (in / groups, kh, kw)
        return prod(result) * prod(second[1:])
    if node.op_type == "ConvTranspose":  # each input value goes into (out / groups, kh, kw)
        return prod(first) * prod(second[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return prod(result) * first[-2 if transposed else -1]


def _itemsize(elem_type: int) -> int:
    return helper.tensor_dtype_to_np_dtype(elem_type).itemsize


def _is_float(elem_type: int) -> bool:
    return elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@click.command(help=__doc__)
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--size", default="1280x720", callback=click_size, help="WIDTHxHEIGHT of the input.")
@click.option("--batch", default=1, show_default=True)
def main(models: tuple[Path, ...], size: tuple[int, int], batch: int) -> None:
    height, width = size
    for path in models:
        work = counted_work(onnx.load(path), height=height, width=width, batch=batch)
        print(
            f"{path.name}: {work.params:,} parameters, {work.nodes} nodes in {len(work.kernels)} kernels, "
            f"{work.macs / 1e9:.2f} G multiply-adds ({work.macs / work.output_px:,.0f} per output pixel), "
            f"{work.bytes_moved / 1e6:.0f} MB moved, at least {work.least_bytes / 1e6:.1f} MB"
        )


if __name__ == "__main__":
    main()
