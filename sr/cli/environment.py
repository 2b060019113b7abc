"""What is installed and which devices there are, in lines: what `srup info` says."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from sr.backends import BACKENDS, CPU_ONLY
from sr.backends.available import driver_cuda_version, gpu_names, installed, lacks, missing
from sr.network.modelfile import DEFAULT_PRESET, shipped_scales
from sr.processor import available_cores
from sr.version import __version__


def environment_lines() -> Iterator[str]:
    """Yield versions, the driver and its GPUs, each backend with what it lacks, shipped models."""
    yield f"srup {__version__}, Python {sys.version.split()[0]}"
    names, cuda = gpu_names(), driver_cuda_version()
    driver = f"serves CUDA {cuda}, {len(names) or 'no'} GPU{'' if len(names) == 1 else 's'}"
    yield f"NVIDIA driver: {driver if cuda else 'none found'}"
    for index, name in enumerate(names):
        yield f"  {index}  {name}"
    yield "backends:"
    for backend in BACKENDS:
        if backend != "auto":
            yield f"  {backend:8} {_state(backend, gpus=len(names))}"
    yield f"shipped models: {DEFAULT_PRESET} {' '.join(f'x{scale}' for scale in shipped_scales())}"


def _state(backend: str, *, gpus: int) -> str:
    found = ", ".join(installed(backend))
    if gap := missing(backend):
        return f"{found or 'not installed'}; missing: {gap}"
    if backend in CPU_ONLY:
        gpus = 0
    lack = lacks(backend) if gpus else ""
    if backend in ("trt", "trt-rtx"):
        return f"{found}; devices: {_gpus(gpus) or 'none, needs an NVIDIA GPU'}"
    devices = f"cpu ({available_cores()} cores)" + (f", {_gpus(gpus)}" if gpus and not lack else "")
    return f"{found}; devices: {devices}" + (f"; for the GPU: {lack}" if gpus and lack else "")


def _gpus(count: int) -> str:
    return ", ".join(f"GPU {index}" for index in range(count))
