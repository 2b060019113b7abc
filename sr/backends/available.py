"""Which packages, drivers and GPUs this machine has; probing loads as little as possible."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from importlib.metadata import PackageNotFoundError, version

from sr.backends.specs import BACKENDS, Requirement, imported

_CUDA_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def driver_gpu_count() -> int:
    """Return how many GPUs the NVIDIA driver sees; 0 where there is no driver."""
    driver = _driver()
    count = ctypes.c_int(0)
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def driver_cuda_version() -> str:
    """Return the newest CUDA that the driver supports, e.g. "13.0"; empty where there is no driver."""
    driver = _driver()
    number = ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return ""
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def gpu_names() -> list[str]:
    """Return the names of the GPUs, in CUDA's order."""
    driver = _driver()
    names = []
    for index in range(driver_gpu_count()):
        name, device = ctypes.create_string_buffer(256), ctypes.c_int(0)
        known = (
            driver is not None
            and driver.cuDeviceGet(ctypes.byref(device), index) == 0
            and driver.cuDeviceGetName(name, len(name), device) == 0
        )
        names.append(name.value.decode(errors="replace") if known else "unknown")
    return names


def installed(backend: str) -> list[str]:
    """Return the installed packages of a backend, as "name version"."""
    found = []
    for requirement in BACKENDS[backend].requirements:
        if _has(requirement.module):
            found.append(_package(requirement) or requirement.module)
    return found


def missing(backend: str) -> str:
    """Return the packages that a backend lacks, and the pip line for them; empty if it lacks none."""
    spec = BACKENDS[backend]
    lacking = [requirement.packages[0] for requirement in spec.requirements if not _has(requirement.module)]
    lacking += [
        f"{requirement.packages[0]} {requirement.minimum} or later"
        for requirement in spec.requirements
        if requirement.minimum and _has(requirement.module) and _too_old(requirement)
    ]
    return f"{' and '.join(lacking)}; {spec.pip_line}" if lacking else ""


def missing_requirements(backend: str) -> str:
    """Return what a backend lacks to run on the GPUs that the driver sees; empty if it lacks nothing."""
    probe = BACKENDS[backend].gpu_probe
    return missing(backend) or (imported(probe)() if probe else "")


def _package(requirement: Requirement) -> str:
    """Return name and version of the installed package; empty if its metadata is not found."""
    known = (f"{name} {number}" for name in requirement.packages if (number := _version(name)))
    return next(known, "")


def _too_old(requirement: Requirement) -> bool:
    number = _package(requirement).rpartition(" ")[2]
    return bool(number) and _numbers(number) < _numbers(requirement.minimum)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(_CUDA_DRIVER)
    except OSError:
        return None


def _has(module: str) -> bool:
    """Say whether a module is installed, without importing large packages."""
    package, _, inner = module.partition(".")
    if importlib.util.find_spec(package) is None:
        return False
    try:
        return not inner or importlib.util.find_spec(module) is not None
    except (ImportError, AttributeError):  # another package of that name
        return False


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
