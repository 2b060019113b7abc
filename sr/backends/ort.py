"""ONNX Runtime: the backend of the base install, on the CPU or on CUDA."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sr.backends.base import (
    Backend,
    BackendInfo,
    BackendRequest,
    Batch,
    gpu_indices,
    suitable_tile,
    tile_within,
)
from sr.backends.gpus import visible_gpus
from sr.backends.specs import BackendSpec
from sr.errors import BackendError, ModelError, one_line
from sr.memory import available_memory
from sr.network.descriptor import ModelDescriptor
from sr.network.ends import FINITE_NAME, Conventions
from sr.network.foreign.describe import foreign_descriptor, is_foreign
from sr.network.modelfile import shipped_onnx, shipped_scales
from sr.network.pair import restored_descriptor, restored_onnx
from sr.processor import available_cores

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Log severities of onnxruntime. On the CPU failures come as exceptions; it logs why CUDA does not start.
ERRORS_ONLY, FATAL_ONLY = 3, 4
# float32 is promised, so no TF32. A search for the fastest convolution would start again at each new shape.
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}

_GPU_BUILD = 'pip uninstall onnxruntime onnxruntime-gpu, then pip install "onnxruntime-gpu[cuda,cudnn]"'


def open_ort(spec: BackendSpec, request: BackendRequest) -> Backend:
    """Open the requested model, or the shipped one in the requested precision."""
    precision = request.precision or spec.precisions[0]
    model = request.model or shipped_onnx(scale=request.scale, precision=precision)
    return OrtBackend(
        model,
        device=request.device,
        stated=request.conventions,
        progress=request.build_progress,
        restore=request.restore,
    )


def gpu_problem() -> str:
    """Return why ONNX Runtime cannot use a GPU; empty if it can. Its CUDA provider is started once to see."""
    if PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        return f"onnxruntime-gpu; {_GPU_BUILD}"
    return _start_problem()


@functools.cache
def _start_problem() -> str:
    try:
        _open_session(shipped_onnx(scale=shipped_scales()[0]), "cuda")
    except (BackendError, ModelError) as error:
        return f"CUDA libraries for its CUDA provider ({error})"
    return ""


@functools.cache
def _load_cuda_libraries() -> str:
    """Load the CUDA and cuDNN libraries that pip installed; return what ONNX Runtime prints about it."""
    printed = io.StringIO()
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21
        with contextlib.redirect_stdout(printed):
            onnxruntime.preload_dlls()
    return one_line(printed.getvalue())


class OrtBackend(Backend):
    """An ONNX file on ONNX Runtime.

    Runs our files, and those of others as `sr.network.foreign` describes them; files with float IO take
    8 and 16 bits per channel. The provider that runs is checked, because ONNX Runtime falls back to the
    CPU without an error.
    """

    def __init__(
        self,
        model: Path,
        *,
        device: str,
        stated: Conventions | None = None,
        progress: Callable[[str, float], None] | None = None,
        restore: float = 0.0,
    ) -> None:
        """Open `model` on `device`: "cpu", "cuda", or a GPU by its number.

        Args:
            model: ONNX file.
            device: as above.
            stated: conventions of a file that is not ours, where they are not to be found out.
            progress: called with phase and share done while a file that is not ours is probed.
            restore: strength of restoration, from 0 to 1; above 0 the file has a partner.

        Raises:
            ModelError: the file is missing or damaged, or does not upscale pictures.
            BackendError: the device is not available to this ONNX Runtime.
        """
        metadata = None
        if is_foreign(model):  # before it is loaded: what must not be run is refused
            metadata = foreign_descriptor(model, stated=stated, progress=progress)
        self._session = _open_session(model, device, restore=restore)
        self._gpu = next(iter(gpu_indices(device)), None)
        if metadata is None:
            metadata = restored_descriptor(_own_descriptor(self._session, model), model, restore)
        self._ends = metadata.ends
        outputs = [output.name for output in self._session.get_outputs()]
        self._outputs = outputs if metadata.ours else [self._ends.output_name]
        self.info = BackendInfo(
            name="onnx",
            device=_describe(device),
            model=metadata,
            default_tile=tile_within(available_memory(), metadata)
            if self._gpu is None
            else suitable_tile(metadata),
            default_batch=1 if self._gpu is None else 4,
            constant_tiles=self._gpu is not None and metadata.ours,
            max_batch=self._ends.batch,
            sixteen_bit=self._ends.floats and (metadata.precision == "fp32" or not metadata.ours),
        )

    def run(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Upscale batches in order, one at a time.

        Raises:
            OutOfDeviceMemoryError: memory ran out; `info` has a smaller largest batch or tile now.
            BackendError: the network failed, or memory ran out and no smaller tile may do.
        """
        for batch in batches:
            fed = self._ends.tensor_from_batch(batch)
            try:
                result = self._ends.in_batches(self._run, fed)
            except BackendError:
                raise
            except Exception as error:  # onnxruntime raises its own, unexported exception classes
                raise self.failure("ONNX Runtime", error, batch.shape) from error
            yield self._ends.batch_from_tensor(result, batch.dtype)

    def _run(self, fed: NDArray) -> NDArray:
        """Run a tensor; return the images, after a look at whether they are finite."""
        if self._gpu is None:
            results = self._session.run(self._outputs, {self._ends.input_name: fed})
        else:
            results = self._run_bound(fed, "cuda", self._gpu)
        by_name = dict(zip(self._outputs, results, strict=True))
        if FINITE_NAME in by_name and not np.all(by_name[FINITE_NAME]):
            raise BackendError("the network's output is not finite in fp16; use the fp32 file of this model")
        return by_name[self._ends.output_name]

    def _run_bound(self, fed: NDArray, device: str, index: int) -> list[NDArray]:
        """Run with input and outputs bound to a device: one copy there, one back, none in between."""
        binding = self._session.io_binding()
        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(fed), device, index)
        binding.bind_ortvalue_input(self._ends.input_name, value)
        for name in self._outputs:
            binding.bind_output(name, device, index)
        self._session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()

    def close(self) -> None:
        """Free the session."""
        self._session = None


def read_metadata(
    model: Path,
    *,
    progress: Callable[[str, float], None] | None = None,
    stated: Conventions | None = None,
    patience: float | None = None,
) -> ModelDescriptor:
    """Describe an ONNX file: by its metadata, or where it has none of ours by small runs.

    `stated`, `progress` and `patience` as in `sr.network.foreign.describe.foreign_descriptor`.

    Raises:
        ModelError: the file is missing or damaged, or does not upscale pictures.
    """
    if is_foreign(model):
        return foreign_descriptor(model, progress=progress, stated=stated, patience=patience)
    return _own_descriptor(_open_session(model, "cpu"), model)


def _own_descriptor(session: onnxruntime.InferenceSession, model: Path) -> ModelDescriptor:
    return ModelDescriptor.from_properties(session.get_modelmeta().custom_metadata_map, source=str(model))


def _open_session(model: Path, device: str, *, restore: float = 0.0) -> onnxruntime.InferenceSession:
    gpus = gpu_indices(device)
    provider = PROVIDERS["cuda" if gpus else "cpu"]
    if provider not in onnxruntime.get_available_providers():
        raise BackendError(
            f"the installed ONNX Runtime has no {provider}; install another build: {_GPU_BUILD}"
        )
    if not model.is_file():
        raise ModelError(f"{model}: no such model file")
    content = restored_onnx(model, restore)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY if gpus else FATAL_ONLY
    options.enable_mem_pattern = False  # one is kept for each shape ever run: 1 MiB for a hundred pictures
    printed = io.StringIO()
    if gpus:
        printed.write(_load_cuda_libraries())
    try:
        chosen = (provider, {"device_id": gpus[0], **CUDA_OPTIONS} if gpus else {})
        # ONNX Runtime prints why a provider fails; standard output may be a picture.
        with contextlib.redirect_stdout(printed) if gpus else contextlib.nullcontext():
            session = onnxruntime.InferenceSession(
                content if isinstance(content, bytes) else str(content), options, providers=[chosen]
            )
    except Exception as error:  # onnxruntime raises its own, unexported exception classes
        raise ModelError(f"{model}: ONNX Runtime cannot load it ({one_line(error)})") from error
    if (used := session.get_providers()[0]) != provider:
        raise BackendError(
            f"ONNX Runtime could not start {provider} and would run on {used}; {_GPU_BUILD}"
            + (f" ({said})" if (said := one_line(printed.getvalue())) else "")
        )
    return session


def _describe(device: str) -> str:
    if gpus := gpu_indices(device):
        names = {gpu.index: gpu.name for gpu in visible_gpus()}
        return f"GPU {gpus[0]} {names.get(gpus[0], '')}".strip()
    return f"CPU, {available_cores()} cores"
