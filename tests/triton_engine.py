"""Stands in for Triton's ONNX Runtime and TensorRT backends, which no Python package brings.

The server runs it as `model.py` of an engine model: it computes `model.onnx` beside it with ONNX Runtime.
Tiles whose mean is above the parameter `overflow` it spoils, and says that they are not finite.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)  # the Python backend ignores it

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(Path(__file__).with_name("model.onnx"), options)
        self.names = [output.name for output in self.session.get_outputs()]
        parameters = json.loads(args["model_config"])["parameters"]
        self.overflow = float(parameters["overflow"]["string_value"]) if "overflow" in parameters else None

    def execute(self, requests: list[Any]) -> list[Any]:
        parts = [pb_utils.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        batch = np.concatenate(parts)
        results = dict(zip(self.names, self.session.run(self.names, {"image": batch}), strict=True))
        if self.overflow is not None:
            over = batch.mean((1, 2, 3)) > self.overflow
            results["upscaled"][over] = 0
            results["finite"][over] = 0
        ends = np.cumsum([len(part) for part in parts])[:-1]
        split = [np.split(results[name], ends) for name in self.names]
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, part) for name, part in zip(self.names, of_request, strict=True)]
            )
            for of_request in zip(*split, strict=True)
        ]
