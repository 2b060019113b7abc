"""ONNX Runtime: the backend that the base install has, on the CPU or on CUDA."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from sr.backends.base import Backend, BackendInfo, Batch, default_tile
from sr.errors import BackendError, ModelError
from sr.modelfile import FINITE_NAME, INPUT_NAME, OUTPUT_NAME, ModelMetadata

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
ERRORS_ONLY = 3  # onnxruntime's log severity; what matters comes as an exception


class OrtBackend(Backend):
    """An ONNX file on ONNX Runtime.

    Takes our files with uint8 IO. The provider that really runs is checked: ONNX Runtime itself
    falls back to the CPU in silence.
    """

    def __init__(self, model: Path, *, device: str) -> None:
        """Open `model` on `device`, "cpu" or "cuda".

        Raises:
            ModelError: the file is missing, damaged, not ours, or has float32 IO.
            BackendError: the device is not available to this ONNX Runtime.
        """
        self._session = _open_session(model, device)
        properties = self._session.get_modelmeta().custom_metadata_map
        metadata = ModelMetadata.from_properties(properties, source=str(model))
        if metadata.io != "uint8":
            raise ModelError(f"{model}: has {metadata.io} IO, need uint8; export it with --io uint8")
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.info = BackendInfo(
            name="onnx",
            device=_describe(device),
            model=metadata,
            default_tile=default_tile(metadata.scale),
            default_batch=1 if device == "cpu" else 4,
        )

    def run(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Upscale batches in order, one at a time."""
        for batch in batches:
            try:
                results = self._session.run(self._outputs, {INPUT_NAME: batch})
            except Exception as error:  # onnxruntime raises its own, unexported exception classes
                raise BackendError(
                    f"ONNX Runtime failed on a batch of shape {batch.shape}: {_one_line(error)}; "
                    "if memory ran out, use a smaller --tile"
                ) from error
            by_name = dict(zip(self._outputs, results, strict=True))
            if FINITE_NAME in by_name and not np.all(by_name[FINITE_NAME]):
                raise BackendError(
                    "the network's output is not finite in fp16; use the fp32 file of this model"
                )
            yield by_name[OUTPUT_NAME]

    def close(self) -> None:
        """Free the session."""
        self._session = None


def read_metadata(model: Path) -> ModelMetadata:
    """Return what an ONNX file says of itself.

    Raises:
        ModelError: the file is missing, damaged or not ours.
    """
    session = _open_session(model, "cpu")
    return ModelMetadata.from_properties(session.get_modelmeta().custom_metadata_map, source=str(model))


def _open_session(model: Path, device: str) -> onnxruntime.InferenceSession:
    if device not in PROVIDERS:
        raise BackendError(f"backend onnx has no device {device!r}; it has {', '.join(PROVIDERS)}")
    provider = PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise BackendError(
            f"the installed ONNX Runtime has no {provider}; swap it: "
            "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        )
    if not model.is_file():
        raise ModelError(f"{model}: no such model file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=[provider])
    except Exception as error:  # onnxruntime raises its own, unexported exception classes
        raise ModelError(f"{model}: ONNX Runtime cannot load it ({_one_line(error)})") from error
    if (used := session.get_providers()[0]) != provider:
        raise BackendError(f"ONNX Runtime could not start {provider} and would run on {used}; see srup info")
    return session


def _describe(device: str) -> str:
    if device != "cpu":
        return "CUDA"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"CPU, {cores} cores"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
