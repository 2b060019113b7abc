"""Command-line options that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sr.errors import ImageError, SrupError
from sr.image.formats import concerned_formats, write_suffixes
from sr.image.formats.options import (
    DEFAULT_AVIF_QUALITY,
    DEFAULT_PNG_LEVEL,
    DEFAULT_QUALITY,
    SUBSAMPLINGS,
    TIFF_COMPRESSIONS,
)
from sr.sizing import MAX_FACTOR, SizeRequest


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


class PathOrStream(click.Path):
    """A path, or "-" for standard input or output; "./-" is a file of that name."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # Path, or "-"
        """Return the path, or "-" as it is."""
        return value if value == "-" else super().convert(value, param, ctx)


class DeviceName(click.ParamType):
    """A device: auto, cpu, cuda, or GPUs by number."""

    name = "auto|cpu|cuda|N[,N]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, checked."""
        if value in ("auto", "cpu", "cuda"):  # shells complete fast: nothing is loaded for a default
            return value
        from sr.backends.base import gpu_indices

        try:
            gpu_indices(value)
        except SrupError as error:
            self.fail(str(error), param, ctx)
        return value


class GroupedCommand(click.Command):
    """Shows its options under headings: first those that matter first."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write them by the groups of `GROUPS`; what stands in none comes last."""
        records = {
            param.name: record
            for param in self.get_params(ctx)
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None
        }
        for heading, names in GROUPS.items():
            if rows := [records.pop(name) for name in names if name in records]:
                with formatter.section(heading):
                    formatter.write_dl(rows)
        with formatter.section("Other options"):
            formatter.write_dl(list(records.values()))


# Heading -> options of `srup upscale`, in the order in which they are shown.
GROUPS: dict[str, tuple[str, ...]] = {
    "Options": ("scale", "output", "format_", "backend", "overwrite"),
    "Exact size": ("size", "long_side", "linear"),
    "Encoding of the output": ("quality", "lossless", "subsampling", "png_level", "tiff_compression"),
    "Folders": ("skip_existing", "suffix", "include", "exclude", "dry_run", "as_json"),
    "Computation": (
        *("model", "precision", "device", "tile", "halo", "batch"),
        *("low_memory", "max_pixels", "engine_dir"),
    ),
}


class Factor(click.ParamType):
    """A factor above 0 and at most `sr.sizing.MAX_FACTOR`; whole ones become integers."""

    name = "factor"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        """Return the number."""
        try:
            factor = float(value)
        except ValueError:
            self.fail(f"{value!r} is no number", param, ctx)
        if not 0 < factor <= MAX_FACTOR:
            self.fail(f"{value} is not above 0 and at most {MAX_FACTOR}", param, ctx)
        return int(factor) if factor == int(factor) else factor


class Size(click.ParamType):
    """WIDTHxHEIGHT, or one side of it, as a `SizeRequest`."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> SizeRequest:
        """Return the request."""
        try:
            return value if isinstance(value, SizeRequest) else SizeRequest.parse_size(value)
        except ImageError as error:
            self.fail(str(error), param, ctx)


factor = click.option(
    "--scale",
    type=Factor(),
    help="Upscaling factor, e.g. 3 or 1.5; networks for 2, 3 and 4 ship.  [default: 2]",
)
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
    type=click.Choice(["auto", "onnx", "openvino", "torch", "trt", "trt-rtx"]),
    default="auto",
    show_default=True,
    help="What computes. A backend that is named is used or fails, it never falls back.",
)
device = click.option(
    "--device",
    type=DeviceName(),
    metavar="[auto|cpu|cuda|N[,N]]",
    default="auto",
    show_default=True,
    help="GPUs are counted from 0; cuda is the first. Several (0,1) share the tiles of a picture (trt).",
)
precision = click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    help="To compute in; bf16 and int8 are for CPUs and need the openvino extra.  "
    "[default: fp32, TensorRT fp16]",
)
model = click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Model file in place of the shipped one: .onnx, or .safetensors or .pt for the torch backend.",
)
tile = click.option(
    "--tile",
    type=IntOrWord("auto", None, minimum=1),
    metavar="[auto|N]",
    default="auto",
    show_default=True,
    help="Largest side of a tile in pixels of the input.",
)
halo = click.option(
    "--halo",
    type=IntOrWord("exact", -1, minimum=0),
    metavar="[exact|N]",
    help="Overlap of tiles in pixels; 'exact' is the whole receptive field.  [default: the model's own]",
)
batch = click.option(
    "--batch", type=click.IntRange(min=1), metavar="N", help="Tiles computed at once.  [default: auto]"
)
max_pixels = click.option(
    "--max-pixels", type=click.IntRange(min=1), metavar="N", help="Refuse pictures of more pixels than this."
)

low_memory = click.option(
    "--low-memory",
    is_flag=True,
    help="Read and write piece by piece, as is done with what exceeds the memory; output is TIFF.",
)

skip_existing = click.option(
    "--skip-existing", is_flag=True, help="Leave out pictures whose output exists; decided before decoding."
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")

format_ = click.option(
    "--format",
    "format_",
    type=click.Choice([suffix.removeprefix(".") for suffix in write_suffixes()]),
    help="Output format when -o names no file.  [default: png; animations and pages keep theirs]",
)

_ENCODING = (
    click.option(
        "--quality",
        type=click.IntRange(0, 100),
        metavar="N",
        help=f"Quality of {concerned_formats('quality')}; WebP becomes lossy.  "
        f"[default: {DEFAULT_QUALITY}, AVIF {DEFAULT_AVIF_QUALITY}]",
    ),
    click.option(
        "--lossless/--lossy",
        default=None,
        help=f"Compression of {concerned_formats('lossless')}.  "
        "[default: lossless unless --quality is given]",
    ),
    click.option(
        "--subsampling",
        type=click.Choice(SUBSAMPLINGS),
        help=f"Chroma subsampling of {concerned_formats('subsampling')}; 4:4:4 is none.  "
        f"[default: {SUBSAMPLINGS[0]}]",
    ),
    click.option(
        "--png-level",
        type=click.IntRange(0, 9),
        metavar="N",
        help=f"Compression of {concerned_formats('png_level')}: 0 is none, 9 makes the smallest file.  "
        f"[default: {DEFAULT_PNG_LEVEL}, which is fast]",
    ),
    click.option(
        "--tiff-compression",
        type=click.Choice(list(TIFF_COMPRESSIONS)),
        help=f"Lossless compression of {concerned_formats('tiff_compression')}.  "
        f"[default: {next(iter(TIFF_COMPRESSIONS))}]",
    ),
)
ENCODING = ("quality", "lossless", "subsampling", "png_level", "tiff_compression")


def encoding(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `ENCODING`, which say how outputs are encoded."""
    for option in reversed(_ENCODING):
        command = option(command)
    return command
