"""Super-resolution, deployed: upscale pictures with the networks that ship in this package."""

from typing import Any

from sr.version import __version__

__all__ = ["Upscaler", "__version__"]


def __getattr__(name: str) -> Any:
    """Load `Upscaler` when it is asked for: it needs numpy, Pillow and ONNX Runtime."""
    if name == "Upscaler":
        from sr.upscale import Upscaler

        return Upscaler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
