"""The proof that an engine computes in the requested precision.

Strongly typed networks take their types from the ONNX graph. The types are read back twice: from the
network that the parser made, and from the finished engine where a GPU of this machine can load it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from sr.backends.tensorrt.log import logger
from sr.backends.tensorrt.modules import TensorRt
from sr.errors import EngineError
from sr.network.descriptor import Precision
from sr.network.ends import FINITE_NAME, INPUT_NAME, OUTPUT_NAME

_BODY_TYPES = {"fp16": "HALF", "fp32": "FLOAT"}
_TYPE_OF_NUMPY = {"float16": "HALF", "float32": "FLOAT"}


def check_network(network: Any, precision: Precision, module: ModuleType) -> None:
    """Check the types that the builder read from the graph; it keeps them.

    Raises:
        EngineError: image input or output is not uint8, a convolution does not compute in
            `precision`, a reduction does not compute in float32.
    """
    inputs = _named_types(map(network.get_input, range(network.num_inputs)))
    outputs = _named_types(map(network.get_output, range(network.num_outputs)))
    expected = {OUTPUT_NAME: "UINT8"} | ({FINITE_NAME: "FLOAT"} if precision == "fp16" else {})
    if inputs != {INPUT_NAME: "UINT8"} or outputs != expected:
        raise EngineError(
            f"the ONNX file has inputs {_types(inputs)} and outputs {_types(outputs)}, need inputs "
            f"{_types({INPUT_NAME: 'UINT8'})} and outputs {_types(expected)}; export it with: "
            f"srup export --onnx --precision {precision} --io uint8"
        )
    body, convolutions, others = _BODY_TYPES[precision], 0, []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == module.LayerType.CONVOLUTION:
            convolutions += 1
            others += [layer.name] * (_convolution_types(layer, module) != {body})
        elif layer.type == module.LayerType.REDUCE and "HALF" in _tensor_types(layer):
            raise EngineError(f"reduction {layer.name} computes in half precision, need float32")
    if others or not convolutions:
        raise EngineError(
            f"{precision} was requested, but {len(others)} of {convolutions} convolutions are not {body} "
            f"({', '.join(others[:3])}); export it with: srup export --onnx --precision {precision}"
        )


def _named_types(tensors: Iterable[Any]) -> dict[str, str]:
    return {tensor.name: tensor.dtype.name for tensor in tensors}


def _types(tensors: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in tensors.items()) or "none"


def _tensor_types(layer: Any) -> set[str]:
    """Return the types of what goes in and of what comes out."""
    tensors = [layer.get_input(index) for index in range(layer.num_inputs)] + [layer.get_output(0)]
    return {tensor.dtype.name for tensor in tensors if tensor is not None}


def _convolution_types(layer: Any, module: ModuleType) -> set[str]:
    """Return the types of what goes in, of the weights, and of what comes out."""
    types = _tensor_types(layer)
    layer.__class__ = module.IConvolutionLayer  # the bindings hand out the base class
    kernel = layer.kernel
    if kernel is not None and kernel.size:  # else the weights are an input tensor
        types.add(_TYPE_OF_NUMPY.get(str(kernel.dtype), str(kernel.dtype)))
    return types


def check_plan(plan: bytes, precision: Precision, trt: TensorRt, *, compatible: bool = False) -> bool:
    """Ask the engine, on the current GPU, which types its convolutions have.

    Returns whether it answered: not where this GPU cannot load it, or the answer is not readable.

    Raises:
        EngineError: fp16 was requested, and a convolution has float32 at both ends.
    """
    module, log = trt.module, trt.log
    mark = log.mark()
    runtime = module.Runtime(log)
    if compatible:
        runtime.engine_host_code_allowed = True  # the plan holds the runtime of its own version
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        logger.info("engine not inspected: %s", log.summary(mark))
        return False
    inspector = engine.create_engine_inspector()
    information = inspector.get_engine_information(module.LayerInformationFormat.JSON)
    wrong = float_convolutions(information)
    if wrong is None:
        logger.info("engine not inspected: the inspector's answer is not readable")
        return False
    if wrong and precision == "fp16":
        raise EngineError(
            f"fp16 was requested, and the engine computes {len(wrong)} convolutions in float32 "
            f"({', '.join(wrong[:3])})"
        )
    return True


def float_convolutions(information: str | None) -> list[str] | None:
    """Return the names of convolutions that have float32 tensors and no half tensor.

    Args:
        information: JSON of the engine inspector. A tensor's type is in "Format/Datatype" up to
            TensorRT 10, in fields of its own since 11. None comes back where it lists no layers.
    """
    try:
        described = json.loads(information or "null")
    except (TypeError, ValueError):
        return None
    layers = described.get("Layers") if isinstance(described, dict) else None
    if not isinstance(layers, list):
        return None
    return [str(entry.get("Name")) for entry in layers if isinstance(entry, dict) and _is_float(entry)]


def _is_float(entry: dict[str, Any]) -> bool:
    """Say whether a layer is a convolution with float32 tensors and no half tensor."""
    if "conv" not in f"{entry.get('LayerType')}".lower():
        return False
    types = " ".join(_tensor_types_of(entry)).lower()
    half = any(word in types for word in ("half", "fp16", "float16"))
    return not half and any(word in types for word in ("float", "fp32"))


def _tensor_types_of(entry: dict[str, Any]) -> Iterator[str]:
    """Yield what the inspector says of the types of a layer's tensors; a tensor may be a bare name."""
    for key in ("Inputs", "Outputs"):
        ends = entry.get(key)
        for end in ends if isinstance(ends, list) else ():
            if isinstance(end, dict):
                yield from (str(value) for name, value in end.items() if _names_a_type(name))


def _names_a_type(key: str) -> bool:
    return "datatype" in key.lower() or key.lower() in ("format", "type")
