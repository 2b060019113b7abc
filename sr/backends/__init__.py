"""Backends: what runs a network, on a CPU or on GPUs. `specs` lists them, `choice` opens them.

The names below are loaded when they are first used, because the command line imports `specs` for its help.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sr.backends.specs import BACKENDS

if TYPE_CHECKING:
    from sr.backends.base import Backend, BackendInfo, BackendRequest, Batch, Workload
    from sr.backends.choice import model_scale, open_backend, open_sixteen_bit_backend

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendInfo",
    "BackendRequest",
    "Batch",
    "Workload",
    "model_scale",
    "open_backend",
    "open_sixteen_bit_backend",
]

_IN_CHOICE = ("model_scale", "open_backend", "open_sixteen_bit_backend")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"sr.backends.{'choice' if name in _IN_CHOICE else 'base'}"), name)
