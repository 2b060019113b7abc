"""Which kind of file was given as a model, told by its content, so that a wrong one is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sr.errors import ModelError, printable

_HEAD_BYTES = 16
_ENGINE_SUFFIXES = (".engine", ".plan", ".trt")
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # torch.save since version 1.6, and before
_ENGINE = b"ftrt"  # a serialised TensorRT engine begins so


def check_model_file(path: Path, suffixes: Sequence[str]) -> None:
    """Refuse a file that no backend takes as a model.

    Args:
        path: given as a model.
        suffixes: of the files that backends run; their content is left to whoever reads them.

    Raises:
        ModelError: it is missing, a PyTorch checkpoint of another program, an engine, or something else.
    """
    name, suffix = printable(path), path.suffix.lower()
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise ModelError(f"{name}: no such model file") from error
    except OSError as error:
        raise ModelError(f"{name}: cannot be read ({error.strerror}); give a model file") from error
    if suffix in suffixes:
        return
    if suffix in _ENGINE_SUFFIXES or head.startswith(_ENGINE):
        raise ModelError(
            f"{name}: a TensorRT engine, which cannot be given as a model; give the ONNX file that it was "
            "built from, with --backend trt"
        )
    if head.startswith((_ZIP, _PICKLE)):
        raise ModelError(
            f"{name}: a PyTorch checkpoint by its content, but not by its name; rename it to .pth, or export "
            "its network to ONNX (torch.onnx.export) and give that file"
        )
    raise ModelError(f"{name}: not a model file; give one of {', '.join(suffixes)}")
