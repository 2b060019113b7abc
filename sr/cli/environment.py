"""The lines of `srup info`: versions, driver, GPUs, backends and shipped models."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from sr.backends.available import installed, missing, missing_requirements
from sr.backends.gpus import driver_cuda_version, visible_gpus
from sr.backends.specs import BACKENDS, BackendSpec
from sr.network.modelfile import DEFAULT_PRESET, RESTORING_SCALE, shipped_scales
from sr.processor import available_cores
from sr.version import __version__


def environment_lines() -> Iterator[str]:
    """Yield versions, the driver and its GPUs, each backend and what is missing, shipped models."""
    yield f"srup {__version__}, Python {sys.version.split()[0]}"
    gpus, cuda = visible_gpus(), driver_cuda_version()
    driver = f"supports CUDA {cuda}, {len(gpus) or 'no'} GPU{'' if len(gpus) == 1 else 's'}"
    yield f"NVIDIA driver: {driver if cuda else 'none found'}"
    for gpu in gpus:
        yield f"  {gpu.index}  {gpu.name}"
    yield "backends:"
    for spec in BACKENDS.values():
        yield f"  {spec.name:8} {_state(spec, gpus=len(gpus))}"
    scales = " ".join(f"x{scale}" for scale in shipped_scales())
    yield f"shipped models: {DEFAULT_PRESET} {scales}, x{RESTORING_SCALE} that only restores"


def _state(spec: BackendSpec, *, gpus: int) -> str:
    found = ", ".join(installed(spec.name))
    if gap := missing(spec.name):
        return f"{found or 'not installed'}; missing: {gap}"
    gpus = 0 if spec.devices == ("cpu",) else gpus
    gap_on_gpu = missing_requirements(spec.name) if gpus else ""
    devices = [f"cpu ({available_cores()} cores)"] if "cpu" in spec.devices else []
    devices += [_gpus(gpus)] if gpus and not gap_on_gpu else []
    text = f"{found}; devices: {', '.join(devices) or 'none, needs an NVIDIA GPU'}"
    return text + (f"; missing for the GPU: {gap_on_gpu}" if gap_on_gpu else "")


def _gpus(count: int) -> str:
    return ", ".join(f"GPU {index}" for index in range(count))
