"""NVIDIA GPUs: those that are here, and the compute capabilities of those that are not.

A compute capability is an int, as in the name of its code: 89 for SM89, which is 8.9.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass

from sr.errors import EngineError

# https://developer.nvidia.com/cuda-gpus and https://developer.nvidia.com/cuda-legacy-gpus; names as
# `_plain_name` leaves them.
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
    "rtxa4000": 86,
    "rtxa4500": 86,
    "rtxa5000": 86,
    "rtxa6000": 86,
    "orin": 87,
    # Ada Lovelace
    "l4": 89,
    "l40": 89,
    "l40s": 89,
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
    "rtx4000ada": 89,
    "rtx4500ada": 89,
    "rtx5000ada": 89,
    "rtx6000ada": 89,
    # Hopper
    "h100": 90,
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
        memory_bytes: all of it, not what is free.
        driver: the newest CUDA that the driver serves, e.g. "CUDA 13.0".
    """

    index: int
    name: str
    compute_capability: int
    memory_bytes: int
    driver: str


def visible_gpus() -> list[Gpu]:
    """Return the GPUs that CUDA sees; none where there is no driver or no cuda-bindings.

    Raises:
        EngineError: the driver names a device and then fails to describe it.
    """
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return []
    from cuda.bindings import runtime

    status, count = runtime.cudaGetDeviceCount()
    if status != runtime.cudaError_t.cudaSuccess:
        return []
    _, version = runtime.cudaDriverGetVersion()
    driver = f"CUDA {version // 1000}.{version % 1000 // 10}"
    gpus = []
    for index in range(count):
        status, properties = runtime.cudaGetDeviceProperties(index)
        if status != runtime.cudaError_t.cudaSuccess:
            raise EngineError(f"GPU {index}: CUDA cannot describe it ({status.name}); see nvidia-smi")
        name = properties.name
        gpus.append(
            Gpu(
                index,
                name.partition(b"\0")[0].decode(errors="replace") if isinstance(name, bytes) else str(name),
                properties.major * 10 + properties.minor,
                int(properties.totalGlobalMem),
                driver,
            )
        )
    return gpus


def compute_capability(name: str) -> int:
    """Return the compute capability of a GPU by its name, or of "smNN" itself.

    Raises:
        ValueError: there is no such name; the message lists those that there are.
    """
    plain = _plain_name(name)
    if number := re.fullmatch(r"sm(\d{2,3})", plain):
        return int(number[1])
    if plain in COMPUTE_CAPABILITIES:
        return COMPUTE_CAPABILITIES[plain]
    known = ", ".join(COMPUTE_CAPABILITIES)
    raise ValueError(f"unknown GPU {name!r}; give sm75, sm89 and the like, or one of {known}")


def _plain_name(name: str) -> str:
    """Return "rtx4090" for "NVIDIA GeForce RTX 4090", "sm89" for "SM_89"."""
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    return re.sub(r"^(nvidia)?(geforce|tesla)?", "", letters)
