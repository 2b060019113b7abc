"""Command-line options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sr.errors import SrupError


class IntOrWord(click.ParamType):
    """An integer of at least `minimum`, or a word that stands for another value."""

    def __init__(self, word: str, value: int | None, *, minimum: int) -> None:
        self.word, self.value, self.minimum = word, value, minimum
        self.name = f"{word}|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Return the number, or what the word stands for."""
        if value == self.word or value is self.value:
            return self.value
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is neither {self.word!r} nor a whole number", param, ctx)
        if number < self.minimum:
            self.fail(f"{number} is less than {self.minimum}", param, ctx)
        return number


class DeviceName(click.ParamType):
    """A device: auto, cpu, cuda, or GPUs by number."""

    name = "auto|cpu|cuda|N[,N]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, checked."""
        from sr.backends.base import gpu_indices

        try:
            gpu_indices(value)
        except SrupError as error:
            self.fail(str(error), param, ctx)
        return value


scale = click.option(
    "--scale", type=click.IntRange(min=1), help="Upscaling factor; 2, 3 and 4 ship.  [default: 2]"
)
scales = click.option(
    "--scale",
    "scales",
    type=click.IntRange(min=1),
    multiple=True,
    help="Upscaling factor; repeat it for several.  [default: all there are]",
)
backend = click.option(
    "--backend",
    type=click.Choice(["auto", "onnx", "torch", "trt", "trt-rtx"]),
    default="auto",
    show_default=True,
    help="What computes. A backend that is named is used or fails, it never falls back.",
)
device = click.option(
    "--device",
    type=DeviceName(),
    default="auto",
    show_default=True,
    help="GPUs are counted from 0; cuda is the first. Several (0,1) share the tiles of a picture (trt).",
)
model = click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Model file in place of the shipped one: .onnx, or .safetensors for the torch backend.",
)
tile = click.option(
    "--tile",
    type=IntOrWord("auto", None, minimum=1),
    default="auto",
    show_default=True,
    help="Largest side of a tile in pixels of the input.",
)
halo = click.option(
    "--halo",
    type=IntOrWord("exact", -1, minimum=0),
    help="Overlap of tiles in pixels; 'exact' is the whole receptive field.  [default: the model's own]",
)
batch = click.option("--batch", type=click.IntRange(min=1), help="Tiles computed at once.  [default: auto]")
max_pixels = click.option(
    "--max-pixels", type=click.IntRange(min=1), help="Refuse pictures of more pixels than this."
)

skip_existing = click.option(
    "--skip-existing", is_flag=True, help="Leave out pictures whose output exists; decided before decoding."
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
