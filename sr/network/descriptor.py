"""What tiling, backends and engines need to know of a network, ours or somebody else's.

Owns `ModelDescriptor` and how our ONNX files store it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sr.errors import ModelError
from sr.network.ends import FLOAT32, UINT8, Ends

FORMAT = "srup-onnx-1"
KEY_PREFIX = "srup."

Precision = Literal["fp32", "fp16", "bf16", "int8"]
IO = Literal["uint8", "float32"]

ENDS: dict[IO, Ends] = {"uint8": UINT8, "float32": FLOAT32}

# What a file whose convolutions have the precision on the left can be computed in.
COMPUTED_IN: dict[Precision, tuple[Precision, ...]] = {
    "fp32": ("fp32", "bf16"),
    "fp16": ("fp16",),
    "bf16": ("bf16",),
    "int8": ("int8",),
}


@dataclass(frozen=True)
class ModelDescriptor:
    """What is known of a network.

    Attributes:
        name: name of the preset or "custom"; for a network that is not ours, name of its file.
        scale: upscaling factor.
        colour: what the network's own channels are: "RGB", "YCbCr", "Y".
        channels: number of the network's own channels, 3 or 1. What goes into a file of ours is RGB.
        ends: how the network takes and gives images.
        precision: of the convolutions.
        attention: "frozen" (constant gates, folded away), "local", "dynamic" or "none"; empty if not known.
        receptive_field_radius: lr pixels; a pixel further away does not influence an output pixel.
        halo: lr pixels; the default overlap of tiles, at most the radius.
        tiles_exact: tiles equal the whole picture; False where an output pixel depends on all of it.
        minimum: smallest height and width of a picture or tile in lr pixels.
        multiple: height, width and position of a tile are multiples of this many lr pixels.
        params: trained parameters; 0 if not known.
        macs_per_lr_px: multiply-adds for each lr pixel; 0 if not known.
        activation_bytes_per_lr_px: about how many bytes of float32 are in use at once for each lr pixel.
        weights_sha256: of the trained weights, or of the file where the weights are not ours.
        training: summary of the training.
        licence: of the weights; empty where nobody stated one.
        restores: what the partner of another network says, see `sr.network.pair.Restores`; else {}.
        ours: whether the file has our metadata and our names of tensors.
        notes: what the user should know before using the network, a sentence each.
    """

    name: str
    scale: int
    ends: Ends
    precision: Precision
    receptive_field_radius: int
    halo: int
    activation_bytes_per_lr_px: int
    weights_sha256: str
    colour: str = "RGB"
    channels: int = 3
    attention: str = ""
    tiles_exact: bool = True
    minimum: int = 1
    multiple: int = 1
    params: int = 0
    macs_per_lr_px: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    restores: dict[str, Any] = field(default_factory=dict)
    ours: bool = True
    notes: tuple[str, ...] = ()

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What the network can be computed in."""
        return COMPUTED_IN[self.precision] if self.ours else (self.precision,)

    @property
    def any_size(self) -> bool:
        """Whether pictures and tiles of any size can go through the network as they are."""
        return self.ends.size is None and self.minimum == self.multiple == 1

    @property
    def sizes(self) -> str:
        """Which pictures and tiles go through the network as they are, in words."""
        if self.ends.size is not None:
            height, width = self.ends.size
            return f"{width}x{height} only"
        multiple = "any" if self.multiple == 1 else f"multiples of {self.multiple}"
        return multiple if self.minimum <= self.multiple else f"{multiple}, at least {self.minimum}"

    def side_within(self, side: int) -> int:
        """Return the largest side of a square tile, up to `side` lr pixels, that the network takes.

        That is its smallest one where `side` is less.
        """
        if self.ends.size is not None:
            return min(self.ends.size)
        return max(side // self.multiple, -(-self.minimum // self.multiple)) * self.multiple

    @property
    def io(self) -> IO:
        """Type of the images on both ends, as `srup export --io` names it."""
        return "float32" if self.ends.floats else "uint8"

    def to_properties(self) -> dict[str, str]:
        """Return ONNX metadata properties of a file of ours: each value is JSON."""
        given = {key: getattr(self, name) for key, name in _PROPERTIES.items()}
        given |= {key: getattr(self.ends, key) for key in _OF_ENDS} | {"format": FORMAT}
        properties = {
            key: json.dumps(value)
            for key, value in given.items()
            if key not in _UNUSUAL or value != _UNUSUAL[key]
        }
        return {KEY_PREFIX + key: value for key, value in properties.items()}

    @staticmethod
    def from_properties(properties: Mapping[str, str], *, source: str) -> ModelDescriptor:
        """Read what `to_properties` wrote.

        Raises:
            ModelError: the properties are not ours; `source` names the file.
        """
        remedy = "make one with: srup export --onnx"
        try:
            values = {
                name: json.loads(properties[KEY_PREFIX + key])
                for key, name in _PROPERTIES.items()
                if key not in _OPTIONAL or KEY_PREFIX + key in properties
            }
            ends = {key: json.loads(properties.get(KEY_PREFIX + key, "null")) for key in _OF_ENDS}
            known = json.loads(properties[KEY_PREFIX + "format"])
        except (KeyError, json.JSONDecodeError) as error:
            raise ModelError(f"{source}: not an ONNX file of srup (no srup metadata); {remedy}") from error
        if known != FORMAT:
            raise ModelError(f"{source}: ONNX format {known!r}, need {FORMAT!r}; {remedy}")
        if values["channels"] != 3 and "colour" not in values:
            raise ModelError(f"{source}: takes pictures of one channel, need RGB; {remedy}")
        if ends["size"] is not None:
            ends["size"] = tuple(ends["size"])
        io = values.pop("io")
        if io not in ENDS or values["precision"] not in COMPUTED_IN:
            raise ModelError(f"{source}: IO {io!r} in {values['precision']!r} is unknown; {remedy}")
        exact = values["attention"] != "dynamic"
        return ModelDescriptor(ends=replace(ENDS[io], **ends), tiles_exact=exact, **values)


# What only files have that are unlike most, and its value in all others: only the partner of another network
# restores, and only networks of other programs do not take any size.
_UNUSUAL: dict[str, Any] = {"restores": {}, "minimum": 1, "multiple": 1, "size": None, "batch": None}
# Older files have no colour.
_OPTIONAL = ("colour", *_UNUSUAL)
# Attributes of `Ends` that files store.
_OF_ENDS = ("size", "batch")

# Key in our ONNX files -> attribute, in the order in which files hold them.
_PROPERTIES = {
    "preset": "name",
    "scale": "scale",
    "img_channels": "channels",
    "precision": "precision",
    "io": "io",
    "attention": "attention",
    "receptive_field_radius": "receptive_field_radius",
    "halo": "halo",
    "params": "params",
    "macs_per_lr_px": "macs_per_lr_px",
    "activation_bytes_per_lr_px": "activation_bytes_per_lr_px",
    "weights_sha256": "weights_sha256",
    "training": "training",
    "licence": "licence",
    "colour": "colour",
    "restores": "restores",
    "minimum": "minimum",
    "multiple": "multiple",
}


def is_ours(properties: Mapping[str, str]) -> bool:
    """Say whether the metadata properties of an ONNX file are those of a file of ours."""
    return KEY_PREFIX + "format" in properties
