"""What an ONNX file holds, read without running it; `checks` says which files must not run.

The file is a protocol buffer (onnx.proto3). Only a few of its fields are read, so that the base install
needs no `onnx` package; tensors are skipped, not copied.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sr.errors import ModelError

# Operators whose output size is a constant of the file.
_SIZED = ("ConstantOfShape", "Expand", "Tile", "Resize", "Upsample", "Pad", "RandomNormal", "RandomUniform")

_LARGEST_FILE = 2**31 - 1  # bytes; protocol buffers cannot be larger
_DEEPEST = 16  # graphs inside graphs
# DAT, among the largest, has about 10,000 nodes. Parts are those of one message.
MOST_NODES, _MOST_PARTS = 100_000, 2**19

# Operators that mix all pixels of an image, so that no halo makes tiles exact.
GLOBAL_OPERATORS = (
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GlobalLpPool",
    "InstanceNormalization",
    "GroupNormalization",
)
# Operators that mix all pixels if their axes are those of the image.
_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2", "Softmax", "LayerNormalization")

Call = tuple[str, str]  # domain and name of an operator
Message = list[tuple[int, int, "int | memoryview"]]  # field, wire type, value


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: name, element type as in onnx.proto3, and axes, None where they are free."""

    name: str
    element: int
    axes: tuple[int | None, ...]


@dataclass
class Graph:
    """What a file holds.

    Attributes:
        operators: how many nodes there are of each operator, those in graphs inside graphs included.
        inputs: what must be fed: inputs that are not constants.
        outputs: in their order.
        metadata: properties that the file states.
        external: files with tensors, as the file names them.
        domains: of operators, without those that the file defines itself.
        calls: domain and name of the operator of each node, in their order.
        functions: likewise of the nodes of each function that the file defines, by domain and name.
        sparse: it has sparse tensors, whose size is not that of their values.
        sizes: for operators whose output size is a constant, its number of values.
    """

    operators: Counter[str] = field(default_factory=Counter)
    inputs: list[TensorInfo] = field(default_factory=list)
    outputs: list[TensorInfo] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    external: list[str] = field(default_factory=list)
    domains: set[str] = field(default_factory=set)
    calls: list[Call] = field(default_factory=list)
    functions: dict[Call, list[Call]] = field(default_factory=dict)
    sparse: bool = False
    sizes: dict[str, float] = field(default_factory=dict)

    @property
    def global_operators(self) -> tuple[str, ...]:
        """Operators that may mix all pixels of an image."""
        return tuple(name for name in (*GLOBAL_OPERATORS, *_REDUCTIONS) if self.operators[name])


class RefusedError(ValueError):
    """A file asks for more than any network needs; says what, to follow the name of the file."""


def read_graph(path: Path) -> Graph:
    """Read an ONNX file.

    Raises:
        ModelError: the file is missing, too large, not ONNX, or absurd.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    size = path.stat().st_size
    if not 0 < size <= _LARGEST_FILE:
        raise ModelError(f"{path}: not an ONNX file ({size:,} bytes; need 1 to {_LARGEST_FILE:,})")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            view, graph, refusal = memoryview(content), Graph(), ""
            try:
                graph = _model(view)
            except RefusedError as error:
                refusal = str(error)  # the error itself holds views, which keep the file open
            finally:
                view.release()
    except (ValueError, IndexError, struct.error, BufferError) as error:  # BufferError: a view is still open
        raise ModelError(f"{path}: not an ONNX file, or a damaged one") from error
    if refusal:
        raise ModelError(f"{path}: refused, {refusal}")
    if not graph.operators or not graph.outputs:
        raise ModelError(f"{path}: not an ONNX file, or one without operators")
    return graph


class Constant(NamedTuple):
    """A constant of the main graph: name, element type as in onnx.proto3, and its bytes within the file."""

    name: str
    element: int
    raw: memoryview


@dataclass
class Constants:
    """The constants of a file, apart from all else.

    Attributes:
        constants: those with raw bytes, in their order.
        structure: digest of the rest of the main graph.
    """

    constants: list[Constant] = field(default_factory=list)
    structure: bytes = b""

    @property
    def layout(self) -> list[tuple[str, int, int]]:
        """Name, element type and number of bytes of each."""
        return [(each.name, each.element, len(each.raw)) for each in self.constants]


def constants_of(content: memoryview, path: Path) -> Constants:
    """Return the constants in the content of an ONNX file, as views into it; `path` is what messages name.

    Raises:
        ModelError: it is no ONNX file.
    """
    found, structure = Constants(), hashlib.sha256()
    try:
        graphs = [_view(value) for number, _, value in _fields(content) if number == 7]
        for number, _, value in (part for graph in graphs for part in _fields(graph)):
            if number != 5:
                structure.update(f"{number} {value}".encode() if isinstance(value, int) else value)
                continue
            parts = list(_fields(_view(value)))
            said = {key: part for key, _, part in parts if key in (2, 8, 9)}
            structure.update(
                repr([(k, bytes(p) if not isinstance(p, int) else p) for k, _, p in parts if k != 9]).encode()
            )
            if 9 in said:
                found.constants.append(Constant(_text(said[8]), _number(said[2]), _view(said[9])))
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise ModelError(f"{path}: not an ONNX file, or a damaged one") from error
    found.structure = structure.digest()
    return found


def _fields(view: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield number, wire type and value of each field of a message."""
    at, end, parts = 0, len(view), 0
    while at < end:
        parts += 1
        if parts > _MOST_PARTS:
            raise RefusedError(f"a message of it has more than {_MOST_PARTS:,} parts")
        key, at = _varint(view, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(view, at)
            yield number, wire, value
            continue
        if wire == 2:
            length, at = _varint(view, at)
        else:
            length = {1: 8, 5: 4}[wire] if wire in (1, 5) else -1
        if length < 0 or at + length > end:
            raise ValueError("a field reaches beyond its message")
        yield number, wire, view[at : at + length]
        at += length


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message is expected")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_view(value)).decode()


def _number(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise ValueError("a message where a number is expected")
    return value - 2**64 if value >= 2**63 else value


def _model(view: memoryview) -> Graph:
    found, own = Graph(), set()
    for number, _, value in _fields(view):
        if number == 7:
            _graph(_view(value), found, depth=0)
        elif number == 14:
            entry = {key: _text(text) for key, _, text in _fields(_view(value))}
            found.metadata[entry.get(1, "")] = entry.get(2, "")
        elif number == 25:  # a function that the file defines
            name, domain, before = "", "", len(found.calls)
            for key, _, part in _fields(_view(value)):
                if key == 1:
                    name = _text(part)
                elif key == 10:
                    domain = _text(part)
                elif key == 7:
                    _node(_view(part), found, {}, depth=1)
            found.functions[domain, name] = found.calls[before:]
            own.add(domain)
    found.domains -= own
    return found


def _graph(view: memoryview, found: Graph, *, depth: int) -> None:
    if depth > _DEEPEST:
        raise RefusedError(f"its graphs are nested more than {_DEEPEST} deep")
    parts = list(_fields(view))
    found.sparse |= any(number == 15 for number, _, _ in parts)
    constants = dict(_tensor(_view(value), found) for number, _, value in parts if number == 5)
    for number, _, value in parts:
        if number == 1:
            _node(_view(value), found, constants, depth=depth)
        elif number in (11, 12) and depth == 0:
            info = _tensor_info(_view(value))
            if number == 12:
                found.outputs.append(info)
            elif info.name not in constants:
                found.inputs.append(info)


def _node(view: memoryview, found: Graph, constants: dict[str, tuple[float, ...]], *, depth: int) -> None:
    inputs, outputs, operator, domain = [], [], "", ""
    own: tuple[float, ...] = ()
    for number, _, value in _fields(view):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            operator = _text(value)
        elif number == 7:
            domain = _text(value)
        elif number == 5:
            for key, _, part in _fields(_view(value)):
                if key in (6, 11):
                    _graph(_view(part), found, depth=depth + 1)
                elif key in (5, 10):
                    own = _tensor(_view(part), found)[1]
                elif key in (22, 23):
                    found.sparse = True
    found.calls.append((domain, operator))
    if len(found.calls) > MOST_NODES:
        raise RefusedError(f"it has more than {MOST_NODES:,} nodes")
    found.operators[operator] += 1
    found.domains.add(domain)
    if operator == "Constant" and outputs:
        constants[outputs[0]] = own
    if operator in _SIZED:
        known = [
            math.prod(abs(each) or 1 for each in constants[name]) for name in inputs if constants.get(name)
        ]
        found.sizes[operator] = max([found.sizes.get(operator, 0.0), *known])


_KINDS = {1: "f", 6: "i", 7: "q", 11: "d"}  # element type: format of a value
_MOST_VALUES = 8  # of a constant that says a size: an axis or two for each


def _tensor(view: memoryview, found: Graph) -> tuple[str, tuple[float, ...]]:
    """Return the name of a tensor, and its values if there are few; note the file that they are in."""
    name, element, raw = "", 0, None
    values: list[float] = []
    external = False
    locations = []
    for number, wire, value in _fields(view):
        if number == 2:
            element = _number(value)
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _view(value)
        elif number == 13:
            entry = {key: _text(text) for key, _, text in _fields(_view(value))}
            if entry.get(1) == "location":
                locations.append(entry.get(2, ""))
        elif number == 14:
            external = _number(value) == 1
        elif number == 4 and len(_view(value)) <= 4 * _MOST_VALUES:  # float values, packed or one by one
            values += struct.unpack(f"<{len(_view(value)) // 4}f", _view(value))
        elif number == 7:  # int64 values, likewise
            values += _packed(_view(value)) if wire == 2 else [_number(value)]
    if external or locations:
        named = locations or [""]  # without a name there is no file to find
        found.external += [each for each in named if each not in found.external]
    if raw is not None and element in _KINDS:
        size = struct.calcsize(_KINDS[element])
        if len(raw) <= _MOST_VALUES * size and len(raw) % size == 0:
            values = list(struct.unpack(f"<{len(raw) // size}{_KINDS[element]}", raw))
    return name, tuple(values) if len(values) <= _MOST_VALUES else ()


def _packed(view: memoryview) -> list[float]:
    values: list[float] = []
    at = 0
    while at < len(view) and len(values) <= _MOST_VALUES:
        value, at = _varint(view, at)
        values.append(_number(value))
    return values


def _tensor_info(view: memoryview) -> TensorInfo:
    name, element, axes = "", 0, []
    for number, _, value in _fields(view):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for kind, _, tensor in _fields(_view(value)):
                if kind != 1:  # a sequence, a map: no image
                    continue
                for key, _, part in _fields(_view(tensor)):
                    if key == 1:
                        element = _number(part)
                    elif key == 2:
                        axes = [_axis(_view(each)) for at, _, each in _fields(_view(part)) if at == 1]
    return TensorInfo(name, element, tuple(axes))


def _axis(view: memoryview) -> int | None:
    sizes = [_number(value) for number, _, value in _fields(view) if number == 1]
    return sizes[-1] if sizes and sizes[-1] > 0 else None
