"""Stale engines and unfinished files in a folder of engines: which they are, and their removal."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

from sr.backends.tensorrt.kernels import KERNELS_SUFFIX, kernels_of
from sr.backends.tensorrt.manifest import (
    MANIFEST_START,
    MANIFEST_SUFFIX,
    OUR_NAME,
    PLAN_SUFFIX,
    EngineManifest,
    cuda_major,
    plans_in,
    read_engine,
    this_platform,
)
from sr.backends.tensorrt.modules import KINDS, TensorRt
from sr.errors import SrupError
from sr.files import TEMPORARY_PREFIX
from sr.network.modelfile import SHIPPED_DIR

# Unfinished files of engines, as a killed process leaves them. Pictures and ledgers have other suffixes.
_LEFT_OVER = re.compile(
    rf"{re.escape(TEMPORARY_PREFIX)}[0-9a-f]+({re.escape(PLAN_SUFFIX)}|\.cache|{re.escape(KERNELS_SUFFIX)})"
)


def stale_engines(folder: Path) -> dict[Path, str]:
    """Return the plans that can never be used on this machine again, each with the reason."""
    versions = {name: _installed_version(kind) for name, kind in KINDS.items()}
    shipped = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in SHIPPED_DIR.glob("*.onnx")
    }
    reasons = {}
    for path in plans_in(folder):
        try:
            manifest = read_engine(path).manifest
        except ValueError as error:
            reasons[path] = str(error)
            continue
        if differences := _outdated(manifest, versions, shipped):
            reasons[path] = "; ".join(differences)
    return reasons


def remove_engine(plan: Path) -> None:
    """Remove a plan, its manifest and its kernels.

    Raises:
        OSError: one cannot be removed.
    """
    for path in (plan, plan.with_suffix(MANIFEST_SUFFIX), *kernels_of(plan)):
        path.unlink(missing_ok=True)


def remove_left_over(folder: Path) -> None:
    """Remove unfinished files of engines, and kernels of engines that are gone; nobody else's files.

    Raises:
        OSError: one cannot be removed.
    """
    for path in folder.iterdir():
        if _LEFT_OVER.fullmatch(path.name) or _is_unfinished_manifest(path):
            path.unlink(missing_ok=True)
    kept = {kernels for plan in plans_in(folder) for kernels in kernels_of(plan)}
    for path in folder.glob(f"*{KERNELS_SUFFIX}"):
        if path not in kept and OUR_NAME.match(path.stem):
            path.unlink(missing_ok=True)


def _is_unfinished_manifest(path: Path) -> bool:
    if not (path.name.startswith(TEMPORARY_PREFIX) and path.suffix == MANIFEST_SUFFIX and path.is_file()):
        return False
    return path.read_bytes().startswith(MANIFEST_START.encode())


def _installed_version(kind: type[TensorRt]) -> str | None:
    try:
        return kind.load().version
    except SrupError:
        return None


def _outdated(
    manifest: EngineManifest, versions: dict[str, str | None], shipped: dict[str, str]
) -> list[str]:
    """Return in words why an engine can never be used on this machine again; empty if it can."""
    identity = manifest.identity
    version = versions.get(identity.module)
    if version is not None and identity.spec.compatible:
        version = version.partition(".")[0]
    here = replace(
        identity,
        module_version=version or identity.module_version,
        platform=this_platform(),
        cuda_major=cuda_major() or identity.cuda_major,
        onnx_sha256=shipped.get(manifest.onnx_name, identity.onnx_sha256),
    )
    return identity.on_any_system(here).differences(here)
