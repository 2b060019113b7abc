"""Model files: their names, and which networks ship in this package.

Owns the records of the shipped networks, from which scales, file names and help come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sr.errors import ModelError
from sr.network.descriptor import IO, Precision

SHIPPED_DIR = Path(__file__).parent.parent / "weights"


@dataclass(frozen=True)
class ShippedFamily:
    """Networks of one architecture and one training, one for each scale.

    Attributes:
        name: of the family, with which file names begin; that of its preset.
        scales: upscaling factors, ascending.
        summary: what the networks are for, for help and lists.
        files: precision and IO of the ONNX files that ship for each scale.
        licence: of the weights, SPDX.
    """

    name: str
    scales: tuple[int, ...]
    summary: str
    files: tuple[tuple[Precision, IO], ...]
    licence: str


SHIPPED = {
    "small": ShippedFamily(
        name="small",
        scales=(2, 3, 4),
        summary="clean photographs, shrunk by the bicubic filter",
        files=(("fp32", "uint8"), ("fp32", "float32"), ("fp16", "uint8"), ("int8", "uint8")),
        licence="Apache-2.0",
    ),
}
DEFAULT_PRESET = "small"
DEFAULT_SCALE = 2
# The shipped network of this scale returns its picture; only its partner does something, it restores.
RESTORING_SCALE = 1


def onnx_name(*, preset: str, scale: int, precision: Precision, io: IO, attention: str) -> str:
    """Return the file name of an export, e.g. `small_x3_fp32_uint8.onnx`."""
    dynamic = "_dynamic" if attention == "dynamic" else ""
    return f"{preset}_x{scale}_{precision}_{io}{dynamic}.onnx"


def weights_name(*, preset: str, scale: int) -> str:
    """Return the file name of trained weights, e.g. `small_x3.safetensors`."""
    return f"{preset}_x{scale}.safetensors"


def shipped_scales(preset: str = DEFAULT_PRESET) -> list[int]:
    """Return the factors by which the networks of a preset that ship upscale, ascending; maybe none."""
    return list(SHIPPED[preset].scales) if preset in SHIPPED else []


def ships(scale: float, preset: str = DEFAULT_PRESET) -> bool:
    """Tell whether a network ships for this scale, be it one that only restores."""
    return preset in SHIPPED and scale in (RESTORING_SCALE, *shipped_scales(preset))


def shipped_onnx(
    *, scale: int, preset: str = DEFAULT_PRESET, precision: Precision = "fp32", io: IO = "uint8"
) -> Path:
    """Return the path of a shipped ONNX file.

    Raises:
        ModelError: no weights ship for this scale.
    """
    path = SHIPPED_DIR / onnx_name(preset=preset, scale=scale, precision=precision, io=io, attention="frozen")
    return _require(path, preset, scale)


def shipped_weights(*, scale: int, preset: str = DEFAULT_PRESET) -> Path:
    """Return the path of shipped trained weights.

    Raises:
        ModelError: no weights ship for this scale.
    """
    return _require(SHIPPED_DIR / weights_name(preset=preset, scale=scale), preset, scale)


def files_digest(paths: Sequence[Path]) -> str:
    """Return the sha256 of the contents of model files, joined in this order.

    Raises:
        ModelError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
        except OSError as error:
            raise ModelError(f"{path}: the model file cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def _require(path: Path, preset: str, scale: int) -> Path:
    if path.is_file():
        return path
    scales = ", ".join(map(str, shipped_scales(preset))) or "none"
    raise ModelError(
        f"no {preset!r} weights ship for scale {scale} (scales that ship: {scales}); "
        "train a network with srup train and pass its file with --model"
    )
