"""The text of Triton model configurations (config.pbtxt). Pure: no file is read or written.

The fields are those of `model_config.proto` in github.com/triton-inference-server/common.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from sr.network.ends import FINITE_NAME, INPUT_NAME, OUTPUT_NAME

# How long a tile waits for others to share a batch with. A tile of 512 px takes a GPU some milliseconds.
QUEUE_DELAY_US = 2000

# Contexts of a TensorRT engine: one copies while the other computes.
ENGINE_INSTANCES = 2

# Processes of the tiled model, each with one picture: while one decodes, others keep the engine busy.
TILED_INSTANCES = 4


def onnx_config(name: str, *, batch: int, finite: bool) -> str:
    """Return the configuration of an ONNX file of ours with uint8 IO, on ONNX Runtime.

    Args:
        name: of the model.
        batch: largest number of tiles at once.
        finite: the file has the output `finite`, as those in half precision have.
    """
    return _engine(name, 'backend: "onnxruntime"', batch, finite=finite)


def plan_config(
    name: str, *, batch: int, tile: int, finite: bool, files: Mapping[str, str], parameters: Mapping[str, str]
) -> str:
    """Return the configuration of TensorRT plans.

    Args:
        name: of the model.
        batch: largest number of tiles at once that the plans take.
        tile: side of the tiles for which CUDA graphs are made.
        finite: the plans have the output `finite`.
        files: name of the plan for each compute capability, e.g. "8.9"; "" is for all others.
        parameters: for people and for the log; Triton ignores them.
    """
    by_capability = {key: file for key, file in files.items() if key}
    lines = [_engine(name, 'platform: "tensorrt_plan"', batch, finite=finite)]
    if "" in files:
        lines.append(f"default_model_filename: {_text(files[''])}\n")
    if by_capability:
        entries = (f"  {{ key: {_text(key)} value: {_text(file)} }}" for key, file in by_capability.items())
        lines.append(f"cc_model_filenames [\n{_joined(entries)}\n]\n")
    lines.append(f"instance_group [ {{ kind: KIND_GPU count: {ENGINE_INSTANCES} }} ]\n")
    shape = f'input {{ key: "{INPUT_NAME}" value {{ dim: [ {tile}, {tile}, 3 ] }} }}'
    graphs = (f"    {{ batch_size: {size} {shape} }}" for size in range(1, batch + 1))
    lines.append(f"optimization {{ cuda {{\n  graphs: true\n  graph_spec [\n{_joined(graphs)}\n  ]\n}} }}\n")
    return "".join(lines) + _parameters(parameters)


def tiled_config(name: str, *, parameters: Mapping[str, str]) -> str:
    """Return the configuration of the Python model that cuts tiles.

    Args:
        name: of the model.
        parameters: `Settings` of `deploy.triton.tiled_model`, by their names.
    """
    return f"""\
name: {_text(name)}
backend: "python"
max_batch_size: 0
input [
  {{ name: "file" data_type: TYPE_UINT8 dims: [ -1 ] optional: true }},
  {{ name: "{INPUT_NAME}" data_type: TYPE_UINT8 dims: [ -1, -1, -1 ] optional: true }}
]
output [
  {{ name: "upscaled_file" data_type: TYPE_UINT8 dims: [ -1 ] }},
  {{ name: "{OUTPUT_NAME}" data_type: TYPE_UINT8 dims: [ -1, -1, -1 ] }}
]
instance_group [ {{ kind: KIND_CPU count: {TILED_INSTANCES} }} ]
{_parameters(parameters)}"""


def _engine(name: str, runs_on: str, batch: int, *, finite: bool) -> str:
    # Without its batch axis `finite` has no axis left, which dims cannot say.
    extra = f'{{ name: "{FINITE_NAME}" data_type: TYPE_FP32 dims: [ 1 ] reshape {{ shape: [ ] }} }}'
    outputs = [f'{{ name: "{OUTPUT_NAME}" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }}', *([extra] * finite)]
    return f"""\
name: {_text(name)}
{runs_on}
max_batch_size: {batch}
input [ {{ name: "{INPUT_NAME}" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }} ]
output [
{_joined(f"  {output}" for output in outputs)}
]
dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY_US} }}
"""


def _parameters(parameters: Mapping[str, str]) -> str:
    entries = (
        f"  {{ key: {_text(key)} value {{ string_value: {_text(value)} }} }}"
        for key, value in parameters.items()
    )
    return f"parameters [\n{_joined(entries)}\n]\n"


def _joined(entries: Iterable[str]) -> str:
    return ",\n".join(entries)


def _text(value: str) -> str:
    """Quote a string: the escapes of JSON are a part of those of the text format."""
    return json.dumps(value)
