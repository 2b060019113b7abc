"""The configuration of the network: what determines its shape, its presets, and what follows without torch.

Owns `ModelConfig`. `sr.network.model` builds the network from it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from sr.errors import ModelError

Attention = Literal["dynamic", "frozen", "local", "none"]
Norm = Literal["weight", "batch", "none"]
AsymWidth = Literal["lo", "geometric"]
Colour = Literal["RGB", "YCbCr", "Y"]

# Channels of an image in each colour space.
COLOUR_CHANNELS: dict[Colour, int] = {"RGB": 3, "YCbCr": 3, "Y": 1}

# How many lr pixels away a pixel can influence one that is upscaled by the bicubic filter: four taps
# an axis (Keys, IEEE Trans. ASSP 29(6), 1981), two on each side of a point between pixel centres.
BICUBIC_RADIUS = 2


@dataclass(frozen=True)
class ModelConfig:
    """Everything that determines the shape of the network.

    Attributes:
        scale: upscaling factor, an integer >= 1.
        img_channels: channels of an image in `colour`: 3, or 1 for "Y".
        num_feats: nominal width; `lo` and `hi` derive from it and `wa_rate`.
        wa_rate: wide-activation rate (WDSR, arXiv 1808.08718); 1 switches it off.
        num_blocks: number of residual blocks.
        residual_scale: factor on every residual branch.
        attention: "dynamic" computes channel gates from the picture, "frozen" uses their running
            mean, "local" gates each pixel by a 1x1 convolution of the branch, "none" has no gates.
        norm: "weight" (every convolution), "batch" (convolutions of the blocks) or "none".
        asymmetric: 1x5 followed by 5x1 in place of the block's first 3x3.
        asym_width: channels between the 1x5 and the 5x1: "lo" or "geometric", sqrt(lo * hi).
        fusion: a 1x1 convolution joins the outputs of all blocks before the upsampler (after IMDN,
            arXiv 1909.11856, section 3.1); without it the upsampler sees the last block alone.
        colour: what the channels are: "RGB", or "YCbCr" or its luma "Y" as `sr.network.colour` makes them.
    """

    scale: int = 2
    img_channels: int = 3
    num_feats: int = 32
    wa_rate: float = 2.0
    num_blocks: int = 6
    residual_scale: float = 0.25
    attention: Attention = "dynamic"
    norm: Norm = "weight"
    asymmetric: bool = True
    asym_width: AsymWidth = "geometric"
    fusion: bool = False
    colour: Colour = "RGB"

    def __post_init__(self) -> None:
        problems = [
            (
                isinstance(self.scale, int) and self.scale >= 1,
                f"scale is {self.scale}, need an integer of at least 1",
            ),
            (self.colour in COLOUR_CHANNELS, f"colour {self.colour!r} is unknown"),
            (
                self.img_channels == COLOUR_CHANNELS.get(self.colour, self.img_channels),
                f"img_channels is {self.img_channels}, need {COLOUR_CHANNELS.get(self.colour)} "
                f"for colour {self.colour!r}",
            ),
            (
                isinstance(self.num_blocks, int) and self.num_blocks >= 1,
                f"num_blocks is {self.num_blocks}, need an integer of at least 1",
            ),
            (1 <= self.wa_rate < math.inf, f"wa_rate is {self.wa_rate}, need at least 1"),
            (
                self.wa_rate < 1 or self.num_feats >= self.wa_rate,
                f"num_feats {self.num_feats} / wa_rate {self.wa_rate} leaves no channel",
            ),
            (self.residual_scale > 0, f"residual_scale is {self.residual_scale}, need more than 0"),
            (self.attention in get_args(Attention), f"attention {self.attention!r} is unknown"),
            (self.norm in ("weight", "batch", "none"), f"norm {self.norm!r} is unknown"),
            (self.asym_width in ("lo", "geometric"), f"asym_width {self.asym_width!r} is unknown"),
        ]
        for fine, message in problems:
            if not fine:
                raise ModelError(f"model configuration: {message}")

    @property
    def lo(self) -> int:
        """Channels between blocks."""
        return round(self.num_feats / self.wa_rate)

    @property
    def hi(self) -> int:
        """Channels before the ReLU of a block."""
        return round(self.num_feats * self.wa_rate)

    @property
    def mid(self) -> int:
        """Channels between the 1x5 and the 5x1 convolution."""
        return self.lo if self.asym_width == "lo" else round(math.sqrt(self.lo * self.hi))

    @property
    def receptive_field_radius(self) -> int:
        """How many lr pixels away a pixel can still influence an output pixel (gates apart)."""
        per_block = (2 if self.asymmetric else 1) + 1
        hr_conv = math.ceil(1 / self.scale)  # one hr pixel, in lr pixels
        network = 1 + per_block * self.num_blocks + 1 + hr_conv
        return max(network, BICUBIC_RADIUS) if self.colour == "Y" else network  # chroma is bicubic

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return asdict(self)

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> ModelConfig:
        """Rebuild a configuration from `to_dict`.

        Without `colour`, as older files are, one channel is luma and three are RGB.

        Raises:
            ModelError: a field is unknown or has an impossible value.
        """
        try:
            values = dict(**fields)
            if values.get("img_channels") == 1:
                values.setdefault("colour", "Y")
            return ModelConfig(**values)
        except TypeError as error:
            raise ModelError(f"model configuration: {error}") from error


def _preset(num_feats: int, num_blocks: int) -> ModelConfig:
    return ModelConfig(num_feats=num_feats, num_blocks=num_blocks, asym_width="lo", fusion=True)


PRESETS: dict[str, ModelConfig] = {
    "tiny": _preset(num_feats=32, num_blocks=4),
    "small": _preset(num_feats=32, num_blocks=8),
    "base": _preset(num_feats=64, num_blocks=16),
    "large": _preset(num_feats=96, num_blocks=32),
}


def preset_config(name: str, **changes: Any) -> ModelConfig:
    """Return the configuration of a preset, with fields replaced by `changes`.

    `img_channels` follows from `colour` where only that is given.

    Raises:
        ModelError: there is no such preset, or a field has an impossible value.
    """
    if name not in PRESETS:
        from difflib import get_close_matches

        near = "".join(f"; did you mean {one}?" for one in get_close_matches(name, PRESETS, 1))
        raise ModelError(f"there is no preset {name!r}; the presets are {', '.join(PRESETS)}{near}")
    if changes.get("colour") in COLOUR_CHANNELS:
        changes.setdefault("img_channels", COLOUR_CHANNELS[changes["colour"]])
    return replace(PRESETS[name], **changes)


def preset_name(config: ModelConfig) -> str:
    """Return the preset whose network is deployed for `config`; "custom" if there is none.

    Norms and channel gates are folded away or left out, so they do not count. Nor do scale and colour.
    """
    folded = replace(
        config, scale=2, colour="RGB", img_channels=3, norm="weight", attention=_gates(config.attention)
    )
    return next((name for name, preset in PRESETS.items() if preset == folded), "custom")


def _gates(attention: Attention) -> Attention:
    return "local" if attention == "local" else "dynamic"
