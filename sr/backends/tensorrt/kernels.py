"""Kernels that TensorRT-RTX compiled for a GPU, kept beside the plan for the next process."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sr.backends.gpus import Gpu
from sr.backends.tensorrt.log import logger
from sr.files import atomic_write

KERNELS_SUFFIX = ".kernels"
LOCK_NAME = ".lock"  # in a folder of engines, held by who writes to it
_LOCK_SECONDS = 5.0  # to write them; a build may hold the lock for minutes


@dataclass(frozen=True)
class KernelFile:
    """The file of kernels for one plan, kind of GPU and version of TensorRT-RTX; it need not exist."""

    path: Path

    @staticmethod
    def beside(plan: Path, *, gpu: Gpu, version: str) -> KernelFile:
        """Return the file for a plan on a GPU with a version of TensorRT-RTX."""
        key = f"sm{gpu.compute_capability}_{version.replace('.', '-')}"
        return KernelFile(plan.with_name(f"{plan.stem}_{key}{KERNELS_SUFFIX}"))

    def read(self) -> bytes:
        """Return its content; empty if there is none."""
        with contextlib.suppress(OSError):
            return self.path.read_bytes()
        return b""

    def write(self, content: bytes) -> None:
        """Replace its content. A folder that cannot be written costs the next process time, no more."""
        try:
            with (
                FileLock(self.path.parent / LOCK_NAME, timeout=_LOCK_SECONDS),
                atomic_write(self.path) as new,
            ):
                new.write_bytes(content)
        except (OSError, Timeout) as error:
            logger.info("%s: not written (%s)", self.path.name, error)


def kernels_of(plan: Path) -> list[Path]:
    """Return the files of kernels beside a plan."""
    return sorted(plan.parent.glob(f"{plan.stem}_sm*{KERNELS_SUFFIX}"))
