"""The proof that an engine computes in the precision that was asked for.

Strongly typed networks take their types from the ONNX graph. They are read back twice: from the
network that the parser made of the file, and, where a GPU can load it, from the finished engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from deploy.engine_callbacks import logger, message_log
from sr.errors import EngineError
from sr.network.modelfile import FINITE_NAME, INPUT_NAME, OUTPUT_NAME, Precision

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
            f"asked for {precision}, but {len(others)} of {convolutions} convolutions are not {body} "
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


def check_plan(plan: bytes, precision: Precision, module: ModuleType, *, compatible: bool = False) -> bool:
    """Ask the engine itself, on the GPU that is here, which types its convolutions have.

    Returns whether it could be asked: not where this GPU cannot load it.

    Raises:
        EngineError: asked for as fp16, and a convolution has float32 at both ends.
    """
    messages = message_log(module)
    runtime = module.Runtime(messages)
    if compatible:
        runtime.engine_host_code_allowed = True  # the runtime of its own version is in the plan
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        logger.info("engine not inspected: %s", messages.summary())
        return False
    inspector = engine.create_engine_inspector()
    information = inspector.get_engine_information(module.LayerInformationFormat.JSON)
    wrong = float_convolutions(information) if precision == "fp16" else []
    if wrong:
        raise EngineError(
            f"the engine was asked for fp16 and computes {len(wrong)} convolutions in float32 "
            f"({', '.join(wrong[:3])})"
        )
    return True


def float_convolutions(information: str) -> list[str]:
    """Return the names of convolutions that touch float32 and no half tensor.

    Args:
        information: JSON of the engine inspector. A tensor's type is in "Format/Datatype" up to
            TensorRT 10, in fields of its own since 11.
    """
    wrong = []
    for part in json.loads(information).get("Layers", []):
        if not isinstance(part, dict) or "conv" not in f"{part.get('LayerType')}".lower():
            continue
        ends = [*part.get("Inputs", ()), *part.get("Outputs", ())]
        types = " ".join(str(v) for end in ends for key, v in end.items() if _names_a_type(key)).lower()
        half = any(word in types for word in ("half", "fp16", "float16"))
        if not half and any(word in types for word in ("float", "fp32")):
            wrong.append(str(part.get("Name")))
    return wrong


def _names_a_type(key: str) -> bool:
    return "datatype" in key.lower() or key.lower() in ("format", "type")
