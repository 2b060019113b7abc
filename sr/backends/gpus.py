"""NVIDIA GPUs: those of this machine, as the driver tells, and the compute capabilities of others by name.

Needs no package: the driver's library is asked directly. A compute capability is an int as in the name of its
code: 89 for SM89, which is 8.9.
"""

from __future__ import annotations

import ctypes
import re
import sys
from dataclasses import dataclass

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR, from the driver's cuda.h
_MAJOR, _MINOR = 75, 76

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
    """A GPU that the driver shows.

    Attributes:
        index: of the device, as CUDA counts.
        name: as the driver gives it, e.g. "NVIDIA L4".
        compute_capability: 89 for SM89; 0 if the driver cannot describe the GPU.
    """

    index: int
    name: str
    compute_capability: int


def visible_gpus() -> list[Gpu]:
    """Return the GPUs that the driver shows, in CUDA's order; none where there is no driver."""
    driver, count = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    return [_described(driver, index) for index in range(count.value)]


def driver_cuda_version() -> str:
    """Return the newest CUDA that the driver supports, e.g. "13.0"; empty where there is no driver."""
    driver, number = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return ""
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(_DRIVER)
    except OSError:
        return None


def _described(driver: ctypes.CDLL, index: int) -> Gpu:
    name, (device, major, minor) = ctypes.create_string_buffer(256), (ctypes.c_int(0) for _ in range(3))
    known = (
        driver.cuDeviceGet(ctypes.byref(device), index) == 0
        and driver.cuDeviceGetName(name, len(name), device) == 0
        and driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device) == 0
        and driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device) == 0
    )
    if not known:
        return Gpu(index, "unknown", 0)
    return Gpu(index, name.value.decode(errors="replace"), major.value * 10 + minor.value)


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
