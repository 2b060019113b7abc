"""The backends: one record for each, from which help, messages and `srup info` are made.

Names only, so that the command line starts fast: what a backend needs is imported when it is opened.
To add a backend, write a module with an opener and add a record to `BACKENDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from sr.network.descriptor import Precision

Device = Literal["cpu", "gpu", "gpus"]

# In the order of help.
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class Requirement:
    """A Python module that a backend needs.

    Attributes:
        module: name to import.
        packages: distributions that contain it; the first is the one to install.
        minimum: oldest version that works; empty if any does.
    """

    module: str
    packages: tuple[str, ...]
    minimum: str = ""


@dataclass(frozen=True)
class CpuGain:
    """What a backend costs and saves on a CPU in fp32, against the one of the base install.

    Times are in lr pixels that the other one computes meanwhile, so they hold for slow and fast machines.

    Attributes:
        start_px: its longer start.
        picture_px: the first run of a new shape; at worst each picture has one.
        saved: share of the other one's time that it saves, by scale; a scale at which it is not surely
            faster is left out.
    """

    start_px: int
    picture_px: int
    saved: Mapping[int, float]

    def pays(self, *, scale: int, pictures: int, lr_px: int) -> bool:
        """Say whether it finishes the pictures earlier, its start included."""
        return lr_px * self.saved.get(scale, 0.0) > self.start_px + pictures * self.picture_px


@dataclass(frozen=True)
class BackendSpec:
    """What is known of a backend without importing it.

    Attributes:
        name: on the command line.
        title: name of the product.
        opener: "module:function"; the function takes this record and a `BackendRequest`, which the
            record allows, and returns the opened `Backend` (both in `sr.backends.base`).
        requirements: modules that it needs.
        extra: pip extra that installs them; empty for the base install.
        devices: where it runs: "cpu", "gpu" (one), "gpus" (several at once).
        precisions: that it computes with the shipped models; the first is the default.
        model_suffixes: files that it runs.
        sixteen_bit: it can compute 16 bits per channel, with the float32 file of the model.
        fastest_on_cpu: precisions for which `auto` takes it on a CPU.
        cpu_gain: when `auto` takes it on a CPU in fp32 although it starts later; None is never.
        gpu_rank: place in the order in which `auto` tries backends on a GPU.
        gpu_precisions: precisions for which `auto` takes it on a GPU.
        gpu_probe: "module:function" that returns why it cannot use a GPU, or an empty string.
        needs_engines: it runs engines that have to be built first.
    """

    name: str
    title: str
    opener: str
    requirements: tuple[Requirement, ...]
    extra: str
    devices: tuple[Device, ...]
    precisions: tuple[Precision, ...]
    model_suffixes: tuple[str, ...]
    sixteen_bit: bool = False
    fastest_on_cpu: tuple[Precision, ...] = ()
    cpu_gain: CpuGain | None = None
    gpu_rank: int = 0
    gpu_precisions: tuple[Precision, ...] = ()
    gpu_probe: str = ""
    needs_engines: bool = False

    @property
    def pip_line(self) -> str:
        """The command that installs what it needs."""
        return f'pip install "srup[{self.extra}]"' if self.extra else "pip install srup"

    def takes(self, model: Path | None) -> bool:
        """Say whether it runs a model file, by its suffix; unknown suffixes are taken for ONNX files."""
        if model is None:
            return True
        known = any(model.suffix in spec.model_suffixes for spec in BACKENDS.values())
        return (model.suffix if known else ".onnx") in self.model_suffixes


def imported(path: str) -> Callable[..., Any]:
    """Return the function that "module:function" names."""
    module, _, function = path.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found


_CUDA = Requirement("cuda.bindings.runtime", ("cuda-bindings",), minimum="12.9.1")  # before, it holds the GIL

# From benchmarks/README.md, "Levers": 0.5 s more to start, and at most 60 ms for a new shape, while ONNX
# Runtime took 49 ms for 57,600 lr px at x3 (benchmarks/results/throughput-2-cores-amd-epyc-2026-11-24.json).
# The shares are the cautious end there: one minus the p90 over rounds of OpenVINO's time as a multiple of
# ONNX Runtime's. At x2 it is 1.10, so nothing is sure to be saved.
OPENVINO_GAIN = CpuGain(start_px=590_000, picture_px=70_000, saved={3: 0.12, 4: 0.10})

BACKENDS: dict[str, BackendSpec] = {
    "onnx": BackendSpec(
        name="onnx",
        title="ONNX Runtime",
        opener="sr.backends.ort:open_ort",
        requirements=(Requirement("onnxruntime", ("onnxruntime", "onnxruntime-gpu")),),
        extra="",
        devices=("cpu", "gpu"),
        precisions=("fp32", "fp16", "int8"),
        model_suffixes=(".onnx",),
        sixteen_bit=True,
        fastest_on_cpu=("fp32", "fp16"),  # starts sooner than OpenVINO, see `cpu_gain` there
        gpu_rank=3,
        gpu_precisions=("fp32", "fp16"),
        gpu_probe="sr.backends.ort:gpu_problem",
    ),
    "openvino": BackendSpec(
        name="openvino",
        title="OpenVINO",
        opener="sr.backends.openvino:open_openvino",
        requirements=(Requirement("openvino", ("openvino",)),),
        extra="openvino",
        devices=("cpu",),
        precisions=("fp32", "bf16", "int8"),
        model_suffixes=(".onnx",),
        sixteen_bit=True,
        fastest_on_cpu=("bf16", "int8"),
        cpu_gain=OPENVINO_GAIN,
    ),
    "torch": BackendSpec(
        name="torch",
        title="PyTorch",
        opener="sr.backends.pytorch:open_torch",
        requirements=(Requirement("torch", ("torch",)), Requirement("safetensors", ("safetensors",))),
        extra="torch",
        devices=("cpu", "gpu"),
        precisions=("fp32",),
        model_suffixes=(".safetensors", ".pth", ".pt"),
        sixteen_bit=True,
        gpu_rank=4,
        gpu_precisions=("fp32",),
        gpu_probe="sr.backends.pytorch:gpu_problem",
    ),
    "trt": BackendSpec(
        name="trt",
        title="TensorRT",
        opener="sr.backends.tensorrt.opening:open_trt",
        requirements=(Requirement("tensorrt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")), _CUDA),
        extra="trt",
        devices=("gpu", "gpus"),
        precisions=("fp16", "fp32"),
        model_suffixes=(".onnx",),
        gpu_rank=1,
        gpu_precisions=("fp16", "fp32"),
        needs_engines=True,
    ),
    "trt-rtx": BackendSpec(
        name="trt-rtx",
        title="TensorRT-RTX",
        opener="sr.backends.tensorrt.opening:open_trt",
        requirements=(Requirement("tensorrt_rtx", ("tensorrt-rtx",)), _CUDA),
        extra="trt-rtx",
        devices=("gpu", "gpus"),
        precisions=("fp16", "fp32"),
        model_suffixes=(".onnx",),
        gpu_rank=2,
        gpu_precisions=("fp16", "fp32"),
        needs_engines=True,
    ),
}


def names_of(specs: Iterable[BackendSpec], *, last: str = "or") -> str:
    """Return the names of backends in words, e.g. "onnx, openvino or torch"."""
    *names, final = [spec.name for spec in specs] or ["none"]
    return f"{', '.join(names)} {last} {final}" if names else final


def with_precision(precision: Precision) -> list[BackendSpec]:
    """Return the backends that compute in a precision."""
    return [spec for spec in BACKENDS.values() if precision in spec.precisions]


def on_cpu() -> list[BackendSpec]:
    """Return the backends that run on a CPU; those of the base install first."""
    return sorted((spec for spec in BACKENDS.values() if "cpu" in spec.devices), key=lambda spec: spec.extra)


def on_several_gpus() -> list[BackendSpec]:
    """Return the backends that share a picture among GPUs."""
    return [spec for spec in BACKENDS.values() if "gpus" in spec.devices]


def sixteen_bit() -> list[BackendSpec]:
    """Return the backends that compute 16 bits per channel."""
    return [spec for spec in BACKENDS.values() if spec.sixteen_bit]


def backend_choices() -> list[str]:
    """Return the values of `--backend`."""
    return ["auto", *BACKENDS]


def model_suffixes() -> list[str]:
    """Return the suffixes of all files that backends run, each once."""
    return list(dict.fromkeys(suffix for spec in BACKENDS.values() for suffix in spec.model_suffixes))


def precisions_help() -> str:
    """Return which backends compute the precisions that few have, and the defaults."""
    rare = [
        f"{precision}: {names_of(able)}"
        for precision in PRECISIONS
        if len(able := with_precision(precision)) < len(BACKENDS) / 2
    ]
    usual = PRECISIONS[0]
    others: dict[Precision, list[BackendSpec]] = {}
    for spec in BACKENDS.values():
        if spec.precisions[0] != usual:
            others.setdefault(spec.precisions[0], []).append(spec)
    defaults = "".join(f", {names_of(specs, last='and')} {name}" for name, specs in others.items())
    return f"Precision of the computation; {'; '.join(rare)}.  [default: {usual}{defaults}]"


def models_help() -> str:
    """Return which backend runs which model files."""
    by_suffixes: dict[tuple[str, ...], list[BackendSpec]] = {}
    for spec in BACKENDS.values():
        by_suffixes.setdefault(spec.model_suffixes, []).append(spec)
    parts = [f"{' or '.join(suffixes)} for {names_of(specs)}" for suffixes, specs in by_suffixes.items()]
    return f"Model file in place of the shipped one: {'; '.join(parts)}."
