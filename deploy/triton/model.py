"""The `model.py` of a tiled model in a Triton model repository: loads srup, which must be installed there.

`srup export --triton` copies this file. Only what Triton's Python backend needs is in it; all else comes from
the installed srup, so that its parts fit together.
"""

from __future__ import annotations

import os
import sys

# Triton's Python backend ignores PYTHONPATH (seen in 24.10): srup could be installed in one place only.
sys.path[:0] = [
    folder
    for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if folder and folder not in sys.path
]

try:
    from deploy.triton.tiled_model import TritonPythonModel
except ImportError as error:
    version = ".".join(map(str, sys.version_info[:2]))
    raise ImportError(
        f"this model needs srup in the server's Python {version} ({error}); install it there, or set "
        "PYTHONPATH to the folder in which it is installed before the server starts"
    ) from error

__all__ = ["TritonPythonModel"]
