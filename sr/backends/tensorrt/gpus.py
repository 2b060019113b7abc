"""NVIDIA GPUs: those of this machine, and the compute capabilities of others by name.

A compute capability is an int as in the name of its code: 89 for SM89, which is 8.9.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from sr.backends.available import driver_cuda_version
from sr.errors import EngineError

# https://developer.nvidia.com/cuda-gpus and https://developer.nvidia.com/cuda-legacy-gpus; names as
# `_plain_name` shortens them.
COMPUTE_CAPABILITIES = {
    # Turing
    "gtx1650": 75,
    "gtx1660": 75,
    "gtx1660super": 75,
    "gtx1660ti": 75,
    "rtx2060": 75,
    "rtx2060super": 75,
    "rtx2070": 75,
    "rtx2070super": 75,
    "rtx2080": 75,
    "rtx2080super": 75,
    "rtx2080ti": 75,
    "titanrtx": 75,
    "t4": 75,
    "quadrortx4000": 75,
    "quadrortx5000": 75,
    "quadrortx6000": 75,
    "quadrortx8000": 75,
    # Ampere
    "a30": 80,
    "a100": 80,
    "a800": 80,
    "a2": 86,
    "a10": 86,
    "a10g": 86,
    "a16": 86,
    "a40": 86,
    "rtx3050": 86,
    "rtx3050ti": 86,
    "rtx3060": 86,
    "rtx3060ti": 86,
    "rtx3070": 86,
    "rtx3070ti": 86,
    "rtx3080": 86,
    "rtx3080ti": 86,
    "rtx3090": 86,
    "rtx3090ti": 86,
    "rtxa2000": 86,
    "rtxa3000": 86,
    "rtxa4000": 86,
    "rtxa4500": 86,
    "rtxa5000": 86,
    "rtxa5500": 86,
    "rtxa6000": 86,
    "orin": 87,
    # Ada Lovelace
    "l4": 89,
    "l40": 89,
    "l40s": 89,
    "l20": 89,
    "rtx4050": 89,
    "rtx4060": 89,
    "rtx4060ti": 89,
    "rtx4070": 89,
    "rtx4070super": 89,
    "rtx4070ti": 89,
    "rtx4070tisuper": 89,
    "rtx4080": 89,
    "rtx4080super": 89,
    "rtx4090": 89,
    "rtx2000ada": 89,
    "rtx3500ada": 89,
    "rtx4000ada": 89,
    "rtx4500ada": 89,
    "rtx5000ada": 89,
    "rtx5880ada": 89,
    "rtx6000ada": 89,
    # Hopper
    "h100": 90,
    "h20": 90,
    "h800": 90,
    "h200": 90,
    "gh200": 90,
    # Blackwell
    "b200": 100,
    "gb200": 100,
    "b300": 103,
    "gb300": 103,
    "rtx5050": 120,
    "rtx5060": 120,
    "rtx5060ti": 120,
    "rtx5070": 120,
    "rtx5070ti": 120,
    "rtx5080": 120,
    "rtx5090": 120,
    "rtxpro2000": 120,
    "rtxpro4000": 120,
    "rtxpro4500": 120,
    "rtxpro5000": 120,
    "rtxpro6000": 120,
    "gb10": 121,
}


@dataclass(frozen=True)
class Gpu:
    """A GPU that the driver sees.

    Attributes:
        index: of the device, as CUDA counts.
        name: as the driver gives it, e.g. "NVIDIA L4".
        compute_capability: 89 for SM89.
    """

    index: int
    name: str
    compute_capability: int


def visible_gpus() -> list[Gpu]:
    """Return the GPUs that CUDA sees; none where there is no driver or no cuda-bindings.

    Raises:
        EngineError: the driver is too old for the installed CUDA, or cannot describe one of its devices.
    """
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return []
    from cuda.bindings import runtime

    status, count = runtime.cudaGetDeviceCount()
    if status == runtime.cudaError_t.cudaErrorInsufficientDriver and (serves := driver_cuda_version()):
        raise EngineError(
            f"the NVIDIA driver is too old: it supports CUDA {serves}, but cuda-bindings "
            f"{version('cuda-bindings')} needs a newer one; update the driver, or install the cuda-bindings "
            "and TensorRT packages for its CUDA version"
        )
    if status != runtime.cudaError_t.cudaSuccess:
        return []
    return [_described(runtime, index) for index in range(count)]


def _described(runtime: Any, index: int) -> Gpu:
    status, properties = runtime.cudaGetDeviceProperties(index)
    if status != runtime.cudaError_t.cudaSuccess:
        raise EngineError(f"GPU {index}: CUDA cannot describe it ({status.name}); see nvidia-smi")
    name = properties.name
    text = name.partition(b"\0")[0].decode(errors="replace") if isinstance(name, bytes) else str(name)
    return Gpu(index, text, properties.major * 10 + properties.minor)


def compute_capability(name: str) -> int:
    """Return the compute capability of a GPU by its name, e.g. as nvidia-smi prints it, or of "smNN".

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    plain = _plain_name(name)
    if number := re.fullmatch(r"sm(\d{2,3})", plain):
        return int(number[1])
    if plain in COMPUTE_CAPABILITIES:
        return COMPUTE_CAPABILITIES[plain]
    known = ", ".join(COMPUTE_CAPABILITIES)
    raise ValueError(f"unknown GPU {name!r}; give its compute capability (sm75, sm89, ...) or one of {known}")


# Words in names of nvidia-smi that do not change the compute capability: brand, memory, form factor, edition.
_QUALIFIER = re.compile(
    r"nvidia|geforce|tesla|graphics|gpu|\d+gb?|sxm\d*|pcie|hbm\d\w*|nvl|laptop|mobile|with|max|q|design|"
    r"blackwell|workstation|server|edition|generation|sff|d|v2"
)


def _plain_name(name: str) -> str:
    """Return "rtx4090" for "NVIDIA GeForce RTX 4090 Laptop GPU", "sm89" for "SM_89"."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    if "mig" in words:  # a slice of a GPU; its profile follows, e.g. "MIG 1g.10gb"
        words = words[: words.index("mig")]
    joined = "".join(word for word in words if not _QUALIFIER.fullmatch(word))
    return re.sub(r"^(nvidia)?(geforce|tesla)?", "", joined)
