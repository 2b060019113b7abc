"""Model files: what their metadata say, how they are named, and where the shipped ones lie.

Owns the metadata of our ONNX files. `deploy.export` writes them, the backends read them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from sr.errors import ModelError

FORMAT = "srup-onnx-1"
KEY_PREFIX = "srup."
SHIPPED_DIR = Path(__file__).parent.parent / "weights"
DEFAULT_PRESET = "small"

# Names of the tensors of an ONNX file.
INPUT_NAME, OUTPUT_NAME, FINITE_NAME = "image", "upscaled", "finite"

Precision = Literal["fp32", "fp16", "bf16", "int8"]
IO = Literal["uint8", "float32"]


@dataclass(frozen=True)
class ModelMetadata:
    """What an ONNX file says of itself.

    Attributes:
        preset: name of the preset, or "custom".
        scale: upscaling factor.
        img_channels: channels of the network, 3 or 1; what goes into the file is RGB in any case.
        precision: of the convolutions; no file is bf16, but a backend may compute one so.
        io: "uint8" is NHWC, [0, 255]; "float32" is NCHW, [0, 1], not clipped.
        attention: "frozen" (constant gates, folded away), "dynamic" or "none".
        receptive_field_radius: lr pixels; beyond it nothing influences an output pixel.
        halo: lr pixels; the default overlap of tiles, at most the radius.
        params: parameters of the trained network.
        macs_per_lr_px: multiply-adds for each lr pixel.
        activation_bytes_per_lr_px: float32 bytes that are alive at once for each lr pixel, about.
        weights_sha256: of the weights file that was exported.
        training: summary of the training.
        licence: of the weights.
        colour: what the network's channels are, "RGB", "YCbCr" or "Y"; older files are "RGB".
    """

    preset: str
    scale: int
    img_channels: int
    precision: Precision
    io: IO
    attention: str
    receptive_field_radius: int
    halo: int
    params: int
    macs_per_lr_px: int
    activation_bytes_per_lr_px: int
    weights_sha256: str
    training: dict[str, Any]
    licence: str
    colour: str = "RGB"

    def to_properties(self) -> dict[str, str]:
        """Return the metadata as ONNX metadata properties: each value is JSON."""
        properties = {f.name: json.dumps(getattr(self, f.name)) for f in fields(self)}
        properties["format"] = json.dumps(FORMAT)
        return {KEY_PREFIX + name: value for name, value in properties.items()}

    @staticmethod
    def from_properties(properties: Mapping[str, str], *, source: str) -> ModelMetadata:
        """Read back what `to_properties` wrote.

        Raises:
            ModelError: the properties are not ours; `source` names the file.
        """
        remedy = "make one with: srup export --onnx"
        try:
            values = {
                name: json.loads(properties[KEY_PREFIX + name])
                for name in _FIELD_NAMES
                if name != "colour" or KEY_PREFIX + name in properties
            }
            known = json.loads(properties[KEY_PREFIX + "format"])
        except (KeyError, json.JSONDecodeError) as error:
            raise ModelError(f"{source}: not an ONNX file of srup (no srup metadata); {remedy}") from error
        if known != FORMAT:
            raise ModelError(f"{source}: ONNX format {known!r}, need {FORMAT!r}; {remedy}")
        if values["img_channels"] != 3 and "colour" not in values:
            raise ModelError(f"{source}: takes pictures of one channel, need RGB; {remedy}")
        return ModelMetadata(**values)


_FIELD_NAMES = tuple(f.name for f in fields(ModelMetadata))


def onnx_name(*, preset: str, scale: int, precision: Precision, io: IO, attention: str) -> str:
    """Return the file name of an export, e.g. `small_x3_fp32_uint8.onnx`."""
    dynamic = "_dynamic" if attention == "dynamic" else ""
    return f"{preset}_x{scale}_{precision}_{io}{dynamic}.onnx"


def weights_name(*, preset: str, scale: int) -> str:
    """Return the file name of trained weights, e.g. `small_x3.safetensors`."""
    return f"{preset}_x{scale}.safetensors"


def shipped_scales(preset: str = DEFAULT_PRESET) -> list[int]:
    """Return the scales for which weights ship, ascending."""
    found = SHIPPED_DIR.glob(f"{preset}_x*.safetensors")
    return sorted(int(path.stem.rpartition("_x")[2]) for path in found)


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
    """Return the sha256 of model files, one after the other.

    Raises:
        ModelError: one cannot be read.
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
        f"no {preset!r} weights ship for scale {scale} (there are: {scales}); "
        "train some with srup train and pass them with --model"
    )
