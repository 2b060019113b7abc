"""Options about engines: those of `srup export`, and the folder of engines for all commands."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class GpuName(click.ParamType):
    """A GPU by name or as "smNN", converted to its compute capability."""

    name = "NAME|smNN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return 89 for "rtx4090" and for "sm89"."""
        from sr.backends.gpus import compute_capability

        if isinstance(value, int):
            return value
        try:
            return compute_capability(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


engine_dir = click.option(
    "--engine-dir",
    type=click.Path(path_type=Path),
    help="Folder of TensorRT engines.  [default: srup/engines in the user's cache folder]",
)

_BUILDING = (
    click.option("--trt", is_flag=True, help="Build TensorRT engines for the GPUs of this machine."),
    click.option("--trt-rtx", is_flag=True, help="Build TensorRT-RTX engines for any GPUs; needs no GPU."),
    click.option(
        "--gpu",
        "targets",
        type=GpuName(),
        multiple=True,
        help="GPU that a TensorRT-RTX engine is built for, e.g. rtx4090 or sm89; repeat the option for one "
        "engine that serves several GPUs.  [default: the GPUs of this machine]",
    ),
    click.option(
        "--tile",
        type=click.IntRange(min=1),
        help="Largest side of a tile in pixels.  [default: 512, for Triton 256]",
    ),
    click.option(
        "--batch",
        type=click.IntRange(min=1),
        help="Largest number of tiles at once.  [default: 4, for Triton 8]",
    ),
    click.option(
        "--builder-level", type=click.IntRange(0, 5), help="How long TensorRT searches for fast kernels."
    ),
    click.option(
        "--tiling-level",
        type=click.Choice(["none", "fast", "moderate", "full"]),
        help="How long TensorRT searches for layers that pass tiles through the GPU's L2 cache.",
    ),
    click.option(
        "--static",
        is_flag=True,
        help="Let TensorRT also build kernels for --batch tiles of --tile pixels alone; they may be faster.",
    ),
    click.option(
        "--compatible",
        is_flag=True,
        help="Build TensorRT engines that all GPUs since Ampere and later versions can load; slower.",
    ),
)


def building(command: Command) -> Command:
    """Add the options of building engines to a command."""
    return reduce(lambda decorated, option: option(decorated), reversed(_BUILDING), command)
