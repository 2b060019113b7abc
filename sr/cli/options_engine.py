"""The options that concern engines, of `srup export` and of all commands that use a folder of engines."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class GpuName(click.ParamType):
    """A GPU by name, or "smNN"; becomes its compute capability."""

    name = "NAME|smNN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return 89 for "rtx4090" and for "sm89"."""
        from deploy.engine import compute_capability

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
    click.option("--trt", is_flag=True, help="Build TensorRT engines, for the GPUs that are here."),
    click.option(
        "--trt-rtx", is_flag=True, help="Build TensorRT-RTX engines, for any GPUs; none need be here."
    ),
    click.option(
        "--gpu",
        "targets",
        type=GpuName(),
        multiple=True,
        help="GPU to build a TensorRT-RTX engine for, e.g. rtx4090 or sm89; repeat it for one engine that "
        "serves several.  [default: those that are here]",
    ),
    click.option(
        "--tile", type=click.IntRange(min=1), help="Engines: largest side of a tile.  [default: 512]"
    ),
    click.option(
        "--batch", type=click.IntRange(min=1), help="Engines: largest number of tiles at once.  [default: 4]"
    ),
    click.option(
        "--builder-level", type=click.IntRange(0, 5), help="TensorRT: how long to search for fast kernels."
    ),
    click.option(
        "--compatible",
        is_flag=True,
        help="TensorRT: engines for all GPUs since Ampere and for later versions; slower.",
    ),
)


def building(command: Command) -> Command:
    """Add the options of building engines to a command."""
    return reduce(lambda decorated, option: option(decorated), reversed(_BUILDING), command)
