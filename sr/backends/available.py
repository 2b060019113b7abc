"""Which packages this machine has, and what a backend lacks; probing loads as little as possible."""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import PackageNotFoundError, version

from sr.backends.specs import BACKENDS, Requirement, imported


def installed(backend: str) -> list[str]:
    """Return the installed packages of a backend, as "name version"."""
    found = []
    for requirement in BACKENDS[backend].requirements:
        if has_module(requirement.module):
            found.append(_package(requirement) or requirement.module)
    return found


def missing(backend: str) -> str:
    """Return the packages that a backend lacks, and the pip line for them; empty if it lacks none."""
    spec = BACKENDS[backend]
    lacking = [each.packages[0] for each in spec.requirements if not has_module(each.module)]
    lacking += [
        f"{requirement.packages[0]} {requirement.minimum} or later"
        for requirement in spec.requirements
        if requirement.minimum and has_module(requirement.module) and _too_old(requirement)
    ]
    return f"{' and '.join(lacking)}; {spec.pip_line}" if lacking else ""


def missing_requirements(backend: str) -> str:
    """Return what a backend lacks to run on the GPUs that the driver sees; empty if it lacks nothing."""
    probe = BACKENDS[backend].gpu_probe
    return missing(backend) or (imported(probe)() if probe else "")


def has_module(module: str) -> bool:
    """Say whether a module is installed, without importing large packages."""
    package, _, inner = module.partition(".")
    if importlib.util.find_spec(package) is None:
        return False
    try:
        return not inner or importlib.util.find_spec(module) is not None
    except (ImportError, AttributeError):  # another package of that name
        return False


def _package(requirement: Requirement) -> str:
    """Return name and version of the installed package; empty if its metadata is not found."""
    known = (f"{name} {number}" for name in requirement.packages if (number := _version(name)))
    return next(known, "")


def _too_old(requirement: Requirement) -> bool:
    number = _package(requirement).rpartition(" ")[2]
    return bool(number) and _numbers(number) < _numbers(requirement.minimum)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
