"""The model card that lies beside an exported file: what the network is for, its limits, where it comes from.

Owns the card's text; everything in it comes from the descriptor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sr.network.descriptor import ModelDescriptor

_TENSORS = {
    "uint8": "uint8 RGB, (N, H, W, 3), 0 to 255",
    "float32": "float32 RGB, (N, 3, H, W), 0 to 1, output not clipped",
}


def model_card(model: ModelDescriptor, *, file_name: str) -> str:
    """Return the card of a file of ours, as Markdown."""
    training = dict(model.training)
    data = training.pop("data", "")
    halo = f"overlap by {model.halo} px and then equal the whole picture within one level"
    lines = [
        f"# {file_name}",
        "",
        "## Intended use and limits",
        "",
        f"Upscales pictures {model.scale} times in width and height:",
        "",
        f"    srup upscale PICTURE --model {file_name}",
        "",
        f"Input and output: {_TENSORS[model.io]}. Convolutions are computed in {model.precision}.",
        *(
            []
            if model.any_size
            else [f"Sizes of pictures and tiles: {model.sizes}; `srup` fits pictures to them."]
        ),
        "",
        f"* Training data: {data or 'not described. Test the network on pictures like yours first'}.",
        "* It restores the kind of pictures that it was trained on. Noise, blur and JPEG artefacts stay, or",
        "  get sharper, unless it was trained to remove them.",
        "* Fine detail in the output is a guess from other pictures. Do not use it as evidence.",
        f"* Tiles {halo if model.tiles_exact else 'differ from the whole picture: its gates see all of it'}.",
        "",
        "## Network",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {model.params:,} |",
        f"| multiply-adds per input pixel | {model.macs_per_lr_px:,} |",
        f"| receptive-field radius | {model.receptive_field_radius} input pixels |",
        f"| attention | {model.attention} |",
        f"| colour space | {model.colour} |",
        f"| sha256 of the weights | `{model.weights_sha256}` |",
        "",
        "## Training",
        "",
        *(_training_table(training) or ["Not recorded."]),
        "",
        "## Licence",
        "",
        model.licence or "None stated; `srup export --licence TEXT` sets it.",
        "",
    ]
    return "\n".join(lines)


def _training_table(training: dict[str, Any]) -> list[str]:
    rows = [f"| {label} | {value} |" for label, value in training_entries(training)]
    return ["| | |", "|---|---|", *rows] if rows else []


def training_entries(training: dict[str, Any], prefix: str = "", runs: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield label and value of each entry of a training summary, those of `runs` before it included."""
    for key, value in training.items():
        if key == "started_from" and isinstance(value, dict):
            before = "run" if runs == 0 else f"{runs + 1} runs"
            yield from training_entries(value, f"{before} before: ", runs + 1)
        elif isinstance(value, dict):
            yield from training_entries(value, f"{prefix}{key.replace('_', ' ')}: ", runs)
        elif key == "beside":
            for number, other in enumerate(value, 1):
                yield from training_entries(other, f"{prefix}averaged with run {number}: ", runs)
        elif value not in (None, "", [], ()):
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            yield f"{prefix}{key.replace('_', ' ')}", shown
