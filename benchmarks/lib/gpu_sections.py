"""The sections of `benchmarks.gpu_check`, in the order in which they run, and what they need of a machine.

The most telling come first, so a short plan is the beginning of a longer one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sr.backends.gpus import Gpu

Need = Literal["gpu", "tensorrt", "several GPUs"]

PLANS = (10, 30, 60)  # minutes
# Compute capabilities of GeForce and RTX GPUs, which TensorRT-RTX is for. It has no engines for Hopper (9.0)
# and later data-centre GPUs, and on the A100 (8.0) TensorRT is the usual choice.
_RTX_CAPABILITIES = (75, 86, 89, 120, 121)


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Attributes:
        name: of its files.
        title: in the report.
        commands: run one after the other until one fails; words in braces are those of `words`.
        limit_s: seconds for all of them together.
        plan: minutes of the shortest plan that has it.
        needs: what the machine must have.
        after: sections that must have passed.
        evidence: regular expression that the output must contain, since a script that leaves out what it
            cannot measure ends with status 0 too.
    """

    name: str
    title: str
    commands: tuple[tuple[str, ...], ...]
    limit_s: float
    plan: int
    needs: tuple[Need, ...] = ("gpu",)
    after: tuple[str, ...] = ()
    evidence: str = ""


_PYTEST = ("{python}", "-m", "pytest", "-m", "gpu", "-ra", "-o", "faulthandler_timeout=120")
_SPEED = ("-m", "benchmarks.throughput", "--device", "cuda", "--precision", "fp16", "--rounds", "50")
_SHAPES = (("512x512", "1"), ("512x512", "4"), ("1920x1080", "1"))
_TENSORRT = ("--backend", "srup-trt", "--backend", "srup-trt-rtx", "--backend", "torch-channels-last")
_TORCH = ("--backend", "torch-eager", "--backend", "torch-channels-last")
_ORT = ("--backend", "srup-onnx", "--backend", "onnxruntime-cuda")
_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")
_TRAINING = (
    *("{python}", "-m", "train", "--scale", "2", "--train-list", "{parts}/pairs/x2.json"),
    *("--total-epochs", "3", "--patches-per-picture", "400", "--batch-size", "64", "--amp", "bf16"),
    *("--checkpoint-dir", "{parts}/checkpoints"),
)
_FRESH = ("rm", "-rf", "{parts}/checkpoints")  # of an earlier attempt
_PAIRS = ("{python}", "-m", "sr.cli", "prepare", "{root}/examples", "--scale", "2", "-o", "{parts}/pairs")


def _sized(python: str, backends: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple((python, *_SPEED, *backends, "--size", size, "--batch", batch) for size, batch in _SHAPES)


# In the order in which they run: the most telling first.
SECTIONS = (
    Section("driver", "Driver", (("nvidia-smi",),), 30, 10, ()),  # says why no GPU is found
    Section(
        "install-tensorrt",
        "TensorRT is installed",
        (("{python}", *_PIP, "--editable", "{root}[{tensorrt}]"),),
        300,
        10,
        ("gpu", "tensorrt"),
    ),
    Section("info", "Backends", (("{python}", "-m", "sr.cli", "info"),), 60, 10, ()),
    Section("packages", "Packages", (("{python}", "-m", "pip", "list"),), 60, 10, ()),
    Section(
        "pixels",
        "Pixels of TensorRT at x2, x3, x4",
        ((*_PYTEST, "tests/test_gpu.py", "-k", "equal_those_of_the_cpu"),),
        240,
        10,
        ("gpu", "tensorrt"),
        ("install-tensorrt",),
        evidence=r"\d passed",
    ),
    Section(
        "pixels-torch",
        "Pixels of PyTorch on CUDA at x2, x3, x4",
        (("{python}", "-m", "benchmarks.parity", "--backend", "torch", "{root}/examples/kitten.png"),),
        180,
        10,
        evidence=r"(?m)^x\d torch +cuda",
    ),
    Section(
        "speed",
        "Speed in fp16 of 1 and 4 x 512x512 and of 1920x1080; engines alone (enqueue, copies, compute)",
        _sized("{python}", _TENSORRT),
        300,
        10,
        ("gpu", "tensorrt"),
        ("install-tensorrt",),
        evidence=r"srup-trt\S* +[\d.]+ ms",
    ),
    Section(
        "speed-torch",
        "Speed of PyTorch on CUDA in fp16",
        _sized("{python}", _TORCH),
        120,
        10,
        evidence=r"torch-\S+ +[\d.]+ ms",
    ),
    Section(
        "training",
        "Training: images a second",
        (_FRESH, _PAIRS, (*_TRAINING, "--save-subdir", "one", "--processes", "1")),
        180,
        10,
        evidence=r"[\d,]+ images/s",
    ),
    Section(
        "install-onnxruntime",
        "ONNX Runtime for GPUs is installed in an environment of its own",
        (
            ("{python}", "-m", "venv", "{parts}/onnxruntime"),
            ("{ort_python}", *_PIP, "--editable", "{root}[train]", "cuda-bindings>=12.9.1"),
            ("{ort_python}", "-m", "pip", "uninstall", "--yes", "--quiet", "onnxruntime"),
            ("{ort_python}", *_PIP, "onnxruntime-gpu[cuda,cudnn]"),
        ),
        600,
        10,
    ),
    Section(
        "pixels-onnxruntime",
        "Pixels of ONNX Runtime on CUDA at x2, x3, x4",
        (("{ort_python}", "-m", "benchmarks.parity", "--backend", "onnx", "{root}/examples/kitten.png"),),
        240,
        30,
        after=("install-onnxruntime",),
        evidence=r"(?m)^x\d onnx +cuda",
    ),
    Section(
        "speed-onnxruntime",
        "Speed of ONNX Runtime on CUDA",
        _sized("{ort_python}", _ORT),
        240,
        10,
        after=("install-onnxruntime",),
        evidence=r"onnx\S* +[\d.]+ ms",
    ),
    Section(
        "folder",
        "Folder of 200 photographs, files to files",
        (
            (
                *("{python}", "-m", "benchmarks.pipeline", "--count", "200", "--format", "jpg"),
                *("--long-side", "1920", "--rounds", "1", "--device", "cuda", "{photographs}"),
            ),
        ),
        300,
        30,
    ),
    Section(
        "settings",
        "Tiles and batches",
        (("{python}", "-m", "benchmarks.gpu"),),
        600,
        30,
        ("gpu", "tensorrt"),
        ("install-tensorrt",),
        evidence=r"trt.* [\d.]+ MP/s",
    ),
    Section(
        "merged",
        "Each 1x5 and 5x1 convolution merged into a 5x5: engine alone",
        (("{python}", "-m", "benchmarks.merged"),),
        300,
        60,
        ("gpu", "tensorrt"),
        ("install-tensorrt",),
        evidence=r"merged [\d.]+ ms",
    ),
    Section(
        "training-nccl",
        "Training on all GPUs through NCCL: images a second",
        (_FRESH, _PAIRS, (*_TRAINING, "--save-subdir", "all", "--processes", "{gpus}")),
        240,
        30,
        ("gpu", "several GPUs"),
        evidence=r"[\d,]+ images/s",
    ),
    Section(
        "tests",
        "All tests for a GPU",
        (_PYTEST,),
        900,
        30,
        evidence=r"\d passed",
    ),
    Section(
        "host",
        "Host work of the TensorRT runtime, on a simulated GPU",
        (("{python}", "-m", "benchmarks.runtime_overhead"),),
        300,
        60,
        (),
    ),
    Section(
        "report",
        "Report of all benchmarks",
        (("{python}", "-m", "benchmarks.report", "--quick", "-o", "{page}"),),
        1500,
        60,
        (),
    ),
)


@dataclass(frozen=True)
class Machine:
    """The GPUs of this machine.

    Attributes:
        gpus: as CUDA counts them; the first decides what is installed.
    """

    gpus: tuple[Gpu, ...] = ()

    @property
    def tensorrt(self) -> str:
        """The extra that installs the TensorRT for this GPU; empty without one."""
        if not self.gpus:
            return ""
        return "trt-rtx" if self.gpus[0].compute_capability in _RTX_CAPABILITIES else "trt"

    def lacks(self, section: Section) -> str:
        """Return what a section needs and this machine does not have; empty if it has all."""
        has: dict[Need, bool] = {
            "gpu": bool(self.gpus),
            "tensorrt": bool(self.tensorrt),
            "several GPUs": len(self.gpus) > 1,
        }
        return next((need for need in section.needs if not has[need]), "")


def planned(minutes: float, sections: Sequence[Section] = SECTIONS) -> list[Section]:
    """Return the sections of a plan, in order."""
    return [section for section in sections if section.plan <= minutes]
