"""Command-line options that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce, update_wrapper
from pathlib import Path
from typing import Any, TypeVar

import click

from sr.backends.specs import (
    PRECISIONS,
    backend_choices,
    models_help,
    names_of,
    on_several_gpus,
    precisions_help,
)
from sr.cli.types import DeviceName, Factor, IntOrWord, Strength, ValueRange
from sr.image.formats import concerned_formats, write_suffixes
from sr.image.formats.options import (
    DEFAULT_AVIF_QUALITY,
    DEFAULT_PNG_LEVEL,
    DEFAULT_QUALITY,
    SUBSAMPLINGS,
    TIFF_COMPRESSIONS,
)
from sr.network.modelfile import DEFAULT_SCALE, RESTORING_SCALE, shipped_scales

Command = TypeVar("Command", bound=Callable[..., Any])
Record = TypeVar("Record")


def as_record(record: Callable[..., Record]) -> Callable[[Callable[[Record], None]], Callable[..., None]]:
    """Hand all options of a command to it as one record, a frozen dataclass with a field for each."""

    def decorate(command: Callable[[Record], None]) -> Callable[..., None]:
        def with_record(**options: Any) -> None:
            command(record(**options))

        return update_wrapper(with_record, command)

    return decorate


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Make one decorator of several options, in the order in which help shows them."""
    return lambda command: reduce(lambda decorated, option: option(decorated), reversed(options), command)


_SHIPPED = " and ".join(", ".join(map(str, shipped_scales())).rsplit(", ", 1))

factor = click.option(
    "-s",
    "--scale",
    type=Factor(),
    help=f"Upscaling factor, e.g. 3 or 1.5; networks for {_SHIPPED} ship, and one for {RESTORING_SCALE} that "
    f"only restores.  [default: {DEFAULT_SCALE}]",
)
scale = click.option(
    "-s",
    "--scale",
    type=click.IntRange(min=1),
    help=f"Upscaling factor; {_SHIPPED} ship.  [default: {DEFAULT_SCALE}]",
)
scales = click.option(
    "-s",
    "--scale",
    "scales",
    type=click.IntRange(min=1),
    multiple=True,
    help="Upscaling factor; repeatable.  [default: all that the weights have]",
)
backend = click.option(
    "--backend",
    type=click.Choice(backend_choices()),
    default="auto",
    show_default=True,
    help="Inference backend; a named one never falls back.",
)
device = click.option(
    "--device",
    type=DeviceName(),
    metavar="[auto|cpu|cuda|N[,N]]",
    default="auto",
    show_default=True,
    help="Device. GPUs are counted from 0; cuda is the first. Several (0,1) share the tiles of a picture "
    f"(backends {names_of(on_several_gpus(), last='and')}).",
)
precision = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help=precisions_help(),
)
model = click.option(
    "--model",
    type=click.Path(path_type=Path),
    help=models_help(),
)
models = click.option(
    "--model",
    "models",
    type=click.Path(path_type=Path),
    multiple=True,
    help=f"{models_help()} Several are run one after the other.",
)
conventions = together(
    click.option(
        "--model-range",
        type=ValueRange(),
        metavar="LOW..HIGH",
        help="Values of black and white in another program's network, e.g. 0..255.  [default: found by "
        "small runs]",
    ),
    click.option(
        "--model-order",
        type=click.Choice(["RGB", "BGR"]),
        help="Order of channels in another program's network, which runs cannot tell.  [default: RGB]",
    ),
)
restore = click.option(
    "--restore",
    type=Strength(),
    metavar="[auto|0..1]",
    help="Undo damage such as JPEG's so strongly, with a model that has weights for it; auto reads the "
    "strength from each file.  [default: auto with such a model]",
)
max_pixels = click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    metavar="N",
    help="Refuse pictures with more pixels than this.  [default: 450 million, no limit for those upscaled "
    "in bands]",
)
skip_existing = click.option(
    "--skip-existing",
    is_flag=True,
    help="Skip pictures whose output exists and is up to date, without decoding them.",
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace existing outputs.")

tiles = together(
    click.option(
        "--tile",
        type=IntOrWord("auto", None, minimum=1),
        metavar="[auto|N]",
        default="auto",
        show_default=True,
        help="Largest side of a tile in input pixels; auto is chosen from available memory.",
    ),
    click.option(
        "--halo",
        type=IntOrWord("exact", -1, minimum=0),
        metavar="[exact|N]",
        help="Overlap of tiles in pixels; 'exact' is the whole receptive field.  [default: the model's own]",
    ),
    click.option(
        "--batch", type=click.IntRange(min=1), metavar="N", help="Tiles per inference call.  [default: auto]"
    ),
)

format_ = click.option(
    "--format",
    "format_",
    type=click.Choice([suffix.removeprefix(".") for suffix in write_suffixes()]),
    help="Output format when -o names no file.  [default: png; animations and pages keep theirs]",
)

encoding = together(
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
    click.option(
        "--depth",
        type=click.IntRange(8, 8),
        metavar="8",
        help="Reduce 16 bits per channel to 8.  [default: keep them where the format can]",
    ),
)
