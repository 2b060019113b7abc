"""Engines that run our networks, each as a function on pictures: for measurements that compare engines.

`srup-NAME` is srup's own backend NAME as users get it, through `Upscaler`: tiles, batches, stitching.
The others take whole pictures and are what a user with the same weights would write:

- `torch-eager`: the folded network in float32, NCHW; numpy converts the pictures on the host.
- `torch-channels-last`: converted on the device, in the layout that PyTorch's kernels prefer.
- `torch-compiled`: the same through `torch.compile`.
- `onnxruntime`, `onnxruntime-cuda`: our ONNX file in a session with defaults.
- `openvino`: our ONNX file in OpenVINO on the CPU, set to float32 (by default it uses bfloat16 where the
  processor has it) and to low latency.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lib.models import NamedModel
from sr.backends import BACKENDS
from sr.errors import BackendError, require_extra
from sr.network.descriptor import Precision
from sr.network.ends import UINT8, Ends
from sr.network.foreign.statedict import is_foreign_weights
from sr.network.modelfile import DEFAULT_PRESET, shipped_onnx, shipped_weights

Pictures = NDArray[np.uint8]  # (N, H, W, C)
Runner = Callable[[Pictures], Pictures]

_SRUP = "srup-"


@dataclass(frozen=True)
class Case:
    """What to run.

    Attributes:
        scale: of the shipped network.
        height: of a picture in lr pixels.
        width: of a picture in lr pixels.
        batch: pictures at once; for srup's backends, tiles at once if it is more than one.
        precision: of the network.
        device: "cpu" or "cuda".
        preset: of the shipped network.
        named: a network in place of the shipped one, of the same scale and precision.
    """

    scale: int
    height: int
    width: int
    batch: int = 1
    precision: Precision = "fp32"
    device: str = "cpu"
    preset: str = DEFAULT_PRESET
    named: NamedModel | None = field(default=None, compare=False)

    @property
    def output_megapixels(self) -> float:
        """Megapixels of all output pictures."""
        return self.batch * self.height * self.width * self.scale**2 / 1e6

    def model(self) -> Path:
        """Return the ONNX file.

        Raises:
            ModelError: none ships for this scale, or the named network has none.
        """
        if self.named is not None:
            return self.named.onnx
        return shipped_onnx(scale=self.scale, preset=self.preset, precision=self.precision)

    @property
    def ends(self) -> Ends:
        """How the ONNX file takes and gives images."""
        return UINT8 if self.named is None else self.named.descriptor.ends

    def pictures(self) -> Pictures:
        """Return the pictures to run: always the same noise, which no engine can exploit."""
        shape = (self.batch, self.height, self.width, 3)
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@contextmanager
def open_runner(name: str, case: Case) -> Iterator[Runner]:
    """Open the engine `name` for `case`.

    Raises:
        BackendError: it cannot run here; the message says what to install.
    """
    if name.startswith(_SRUP):
        with _open_srup(name.removeprefix(_SRUP), case) as runner:
            yield runner
    elif name in _FOREIGN:
        yield _FOREIGN[name](case)
    else:
        raise BackendError(f"unknown engine {name!r}; choose one of {', '.join(RUNNERS)}")


@contextmanager
def _open_srup(backend: str, case: Case) -> Iterator[Runner]:
    from deploy.engines.build import build_engine
    from sr.upscale import Upscaler

    if backend == "torch" and case.precision != "fp32":
        raise BackendError("srup's backend torch computes in fp32 only")
    settings: dict[str, Any] = {"scale": case.scale, "backend": backend, "device": case.device}
    if case.batch > 1:
        settings["batch"] = case.batch
    if case.named is not None:
        model = case.named.path
    elif backend == "torch":
        model = shipped_weights(scale=case.scale, preset=case.preset)
    else:
        model = case.model()
    with Upscaler(**settings, model=model, builder=build_engine) as upscaler:
        yield lambda pictures: np.stack([upscaler(picture) for picture in pictures])


def _torch_network(case: Case) -> Any:
    """Return the network for RGB pictures in [0, 1], on its device; ours folded."""
    require_extra("torch", "torch", "safetensors", purpose="PyTorch")
    import torch

    from deploy.fold import fold
    from sr.network.checkpoint import load_weights
    from sr.network.colour import RGBNet

    if case.precision not in ("fp32", "fp16"):
        raise BackendError(f"PyTorch runs in fp32 and fp16 here, not in {case.precision}")
    if case.device == "cuda" and not torch.cuda.is_available():
        raise BackendError("PyTorch sees no CUDA device; https://pytorch.org/get-started has the pip line")
    weights = shipped_weights(scale=case.scale, preset=case.preset) if case.named is None else case.named.path
    if weights.suffix == ".onnx":
        raise BackendError(f"PyTorch runs weights, {weights.name} is ONNX")
    if is_foreign_weights(weights):
        from sr.network.foreign.torchnet import load_network

        return load_network(weights).module.to(case.device)
    net = fold(load_weights(weights).build())
    net = net.half() if case.precision == "fp16" else net
    return RGBNet(net).eval().to(case.device)


def _torch_eager(case: Case) -> Runner:
    import torch

    net = _torch_network(case)

    def run(pictures: Pictures) -> Pictures:
        floats = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2).astype(np.float32) / 255)
        with torch.no_grad():
            sr = net(torch.from_numpy(floats).to(case.device)).cpu().numpy()
        levels = (sr * 255).round().clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))

    return run


def _torch_channels_last(case: Case, *, compiled: bool = False) -> Runner:
    import torch

    net = _torch_network(case).to(memory_format=torch.channels_last)

    def upscale(image: torch.Tensor) -> torch.Tensor:
        sr = net(image.permute(0, 3, 1, 2).float() / 255)
        return (sr * 255).round().clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8).contiguous()

    function = torch.compile(upscale, dynamic=False) if compiled else upscale

    def run(pictures: Pictures) -> Pictures:
        with torch.inference_mode():
            return function(torch.from_numpy(pictures).to(case.device)).cpu().numpy()

    return run


def _torch_compiled(case: Case) -> Runner:
    return _torch_channels_last(case, compiled=True)


def _onnxruntime(case: Case, *, provider: str = "CPUExecutionProvider") -> Runner:
    _check_size(case)
    return onnxruntime_runner(case.model(), provider=provider, ends=case.ends)


def _onnxruntime_cuda(case: Case) -> Runner:
    return _onnxruntime(case, provider="CUDAExecutionProvider")


def _openvino(case: Case) -> Runner:
    _check_size(case)
    return openvino_runner(case.model(), precision=case.precision, ends=case.ends)


def _check_size(case: Case) -> None:
    """Check that the network takes whole pictures of the case.

    Raises:
        ModelError: it does not.
    """
    if case.named is not None:
        case.named.check_size(height=case.height, width=case.width)


def onnxruntime_runner(
    model: Path | bytes, *, provider: str = "CPUExecutionProvider", ends: Ends = UINT8
) -> Runner:
    """Return a function that runs an ONNX model on pictures, in ONNX Runtime with its defaults.

    Raises:
        BackendError: the installed ONNX Runtime does not have the provider.
    """
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        raise BackendError(
            f"the installed ONNX Runtime has no {provider}; swap it: "
            "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        )
    source = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(source, providers=[provider])
    if session.get_providers()[0] != provider:
        raise BackendError(f"ONNX Runtime could not start {provider}; see srup info")
    names = [ends.output_name]
    return _between(ends, lambda tensor: session.run(names, {ends.input_name: tensor})[0])


def _between(ends: Ends, run: Callable[[NDArray[Any]], NDArray[Any]]) -> Runner:
    """Return a function on pictures from one on tensors."""
    return lambda pictures: ends.batch_from_tensor(
        ends.in_batches(run, ends.tensor_from_batch(pictures)), np.dtype(np.uint8)
    )


def openvino_runner(model: Path | bytes, *, precision: str = "fp32", ends: Ends = UINT8) -> Runner:
    """Return a function that runs an ONNX model on pictures, in OpenVINO on the CPU.

    Raises:
        BackendError: OpenVINO is not installed.
    """
    if importlib.util.find_spec("openvino") is None:
        raise BackendError("OpenVINO is not installed: pip install openvino")
    from sr.backends.openvino import load_openvino

    openvino = load_openvino()

    core = openvino.Core()
    hints = {"PERFORMANCE_HINT": "LATENCY"}
    if precision == "fp32":
        hints["INFERENCE_PRECISION_HINT"] = "f32"
    source = model if isinstance(model, bytes) else model.read_bytes()
    compiled = core.compile_model(core.read_model(source, b""), "CPU", hints)
    request, output = compiled.create_infer_request(), compiled.output(ends.output_name)
    return _between(ends, lambda tensor: np.array(request.infer({ends.input_name: tensor})[output]))


_FOREIGN: dict[str, Callable[[Case], Runner]] = {
    "torch-eager": _torch_eager,
    "torch-channels-last": _torch_channels_last,
    "torch-compiled": _torch_compiled,
    "onnxruntime": _onnxruntime,
    "onnxruntime-cuda": _onnxruntime_cuda,
    "openvino": _openvino,
}
RUNNERS = (*_FOREIGN, *(f"{_SRUP}{name}" for name in BACKENDS if name != "auto"))
# Engines that need a GPU, and engines that cannot use one.
GPU_ONLY = {"onnxruntime-cuda", "srup-trt", "srup-trt-rtx"}
CPU_ONLY = {"onnxruntime", "openvino", "srup-openvino"}
