"""OpenVINO on the CPU: float32, int8, and bfloat16 on processors that have it.

Owns the configuration of OpenVINO, and the order in which tiles pass through it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from sr.backends.base import Backend, BackendInfo, BackendRequest, Batch, tile_within
from sr.backends.specs import BackendSpec
from sr.errors import BackendError, ModelError, one_line
from sr.memory import available_memory
from sr.network.descriptor import ModelDescriptor, Precision
from sr.network.modelfile import shipped_onnx
from sr.network.pair import restored_descriptor, restored_onnx

# While all threads compute one tile, the next one waits with its memory ready, so that cutting and
# stitching do not stop the cores. More tiles in flight gain nothing (benchmarks/levers.py).
IN_FLIGHT = 2

# OpenVINO keeps kernels by shape, 5,000 of them by default. With pictures of many sizes that took 0.7 MiB
# more memory for each picture and was no faster.
KERNELS_KEPT = 32

# The newest instructions that OpenVINO's kernels may use. With AMX, OpenVINO 2026.4 computed the shipped int8
# networks up to 110 levels off for a picture of 200x160 px on a Xeon; without it 3, as int8 may be.
_NEWEST_INSTRUCTIONS = ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")


def load_openvino() -> ModuleType:
    """Return the package, told which instructions to use unless the user's environment says so."""
    os.environ.setdefault(*_NEWEST_INSTRUCTIONS)  # read when the first kernel is made
    import openvino

    return openvino


def open_openvino(spec: BackendSpec, request: BackendRequest) -> Backend:
    """Open the requested model, or the shipped one from which the requested precision is computed."""
    file: Precision = "int8" if request.precision == "int8" else "fp32"
    model = request.model or shipped_onnx(scale=request.scale, precision=file)
    return OpenVinoBackend(model, precision=request.precision, restore=request.restore)


class OpenVinoBackend(Backend):
    """An ONNX file on OpenVINO.

    In bf16 and int8 a difference in the last bit can grow to a whole step of 8 bits, and many such steps
    to a level of the output. So tiles overlap by the whole receptive field; then they equal the whole
    picture bit by bit, because OpenVINO's kernels compute a pixel the same way in any tile.
    """

    def __init__(self, model: Path, *, precision: Precision | None = None, restore: float = 0.0) -> None:
        """Open `model` to compute in `precision`; None takes the file's own.

        A file in fp32 can be computed in bf16. The float parts of an int8 file are computed in bf16 if the
        processor has it, otherwise in float32. With `restore` above 0 the file has a partner.

        Raises:
            ModelError: the file is missing, damaged or not ours.
            BackendError: the file or the processor does not allow `precision`.
        """
        openvino = load_openvino()
        core = openvino.Core()
        network, metadata = _read(core, model, restore)
        precision = precision or metadata.precision
        has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        _check_precision(precision, model, metadata, has_bf16=has_bf16)
        low = precision != "fp32"
        self._model = core.compile_model(
            network,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",  # all threads share a tile; a picture may have only one
                "INFERENCE_PRECISION_HINT": "bf16" if low and has_bf16 else "f32",
                "ENABLE_CPU_PINNING": False,  # other threads decode and encode meanwhile
                "CPU_RUNTIME_CACHE_CAPACITY": KERNELS_KEPT,
            },
        )
        self._tensor_of = openvino.Tensor
        self._ends = metadata.ends
        if low:
            metadata = replace(metadata, precision=precision, halo=metadata.receptive_field_radius)
        self.info = BackendInfo(
            name="openvino",
            device=f"CPU, {self._model.get_property('INFERENCE_NUM_THREADS')} threads",
            model=metadata,
            default_tile=tile_within(available_memory(), metadata),
            default_batch=1,
            sixteen_bit=self._ends.floats and not low,
        )

    def run(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Upscale batches in order; OpenVINO gets the next one before we wait for a result.

        Raises:
            OutOfDeviceMemoryError, BackendError: as `Backend.run`.
        """
        requests = [self._model.create_infer_request() for _ in range(IN_FLIGHT)]
        in_flight: deque[_Started] = deque()
        try:
            for turn, batch in enumerate(batches):
                if len(in_flight) == IN_FLIGHT:
                    yield in_flight.popleft().result()
                in_flight.append(_Started(self, requests[turn % IN_FLIGHT], batch))
            while in_flight:
                yield in_flight.popleft().result()
        finally:  # otherwise OpenVINO would continue in freed memory
            for started in in_flight:
                with suppress(BackendError):
                    started.result()

    def close(self) -> None:
        """Free the network."""
        del self._model


class _Started:
    """A batch that OpenVINO computes, from and into memory that this holds."""

    def __init__(self, backend: OpenVinoBackend, request: Any, batch: Batch) -> None:
        scale, (count, height, width, _) = backend.info.model.scale, batch.shape
        self._request, self._batch, self._ends = request, batch, backend._ends
        self._fed = self._ends.tensor_from_batch(batch)
        size = (scale * height, scale * width)
        self._failure = partial(backend.failure, "OpenVINO", shape=batch.shape)
        try:
            self._output = (
                np.empty((count, 3, *size), np.float32)
                if self._ends.floats
                else np.empty((count, *size, 3), np.uint8)
            )
            request.set_output_tensor(backend._tensor_of(self._output, shared_memory=True))
            request.start_async({self._ends.input_name: self._fed}, share_inputs=True)
        except (RuntimeError, MemoryError) as error:
            raise self._failure(error) from error

    def result(self) -> Batch:
        """Wait for the batch, upscaled."""
        try:
            self._request.wait()
        except (RuntimeError, MemoryError) as error:
            raise self._failure(error) from error
        return self._ends.batch_from_tensor(self._output, self._batch.dtype)


def _read(core: Any, model: Path, restore: float) -> tuple[Any, ModelDescriptor]:
    if not model.is_file():
        raise ModelError(f"{model}: no such model file")
    if model.suffix != ".onnx":  # OpenVINO's readers of other formats print messages
        raise ModelError(f"{model}: backend openvino runs ONNX files; export it, or use --backend torch")
    try:
        network = core.read_model(restored_onnx(model, restore))
    except RuntimeError as error:
        raise ModelError(f"{model}: OpenVINO cannot load it ({one_line(error)})") from error
    notes = network.rt_info
    said = notes["framework"] if "framework" in notes else {}  # noqa: SIM401  not a dict; ONNX metadata
    properties = {name: value.astype(str) for name, value in said.items()}
    described = ModelDescriptor.from_properties(properties, source=str(model))
    return network, restored_descriptor(described, model, restore)


def _check_precision(precision: Precision, model: Path, metadata: ModelDescriptor, *, has_bf16: bool) -> None:
    if precision != metadata.precision and (precision, metadata.precision) != ("bf16", "fp32"):
        raise BackendError(
            f"{model}: is {metadata.precision}, not {precision}; "
            f"make one with: srup export --onnx --precision {precision}"
        )
    if precision == "fp16":
        raise BackendError(f"{model}: is fp16, and backend openvino computes fp32, bf16 or int8")
    if precision == "bf16" and not has_bf16:
        raise BackendError("this processor has no bf16 arithmetic; use --precision fp32 or int8")
