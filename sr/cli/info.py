"""`srup info`: what is installed, what a model is, which engines were built."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from sr.cli import options, options_engine
from sr.cli.help import GroupedCommand
from sr.cli.stated import check_stated, stated_conventions

EXAMPLES = (
    "srup info                  # versions, devices, backends and what they miss",
    "srup info --model small    # parameters, multiply-adds, training",
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.option("--model", metavar="PRESET|PATH", help="Describe a model: parameters, multiply-adds, training.")
@options.scale
@options.conventions
@click.option("--engines", is_flag=True, help="List the TensorRT engines that were built.")
@click.option("--prune", is_flag=True, help="With --engines: remove stale engines, and list them.")
@options_engine.engine_dir
def command(
    model: str | None,
    scale: int | None,
    model_range: tuple[float, float] | None,
    model_order: Literal["RGB", "BGR"] | None,
    engines: bool,
    prune: bool,
    engine_dir: Path | None,
) -> None:
    """Show what is installed, describe a model, or list engines."""
    if (prune or engine_dir) and not engines:
        raise click.UsageError("--prune and --engine-dir need --engines")
    stated = stated_conventions(model_range, model_order)
    check_stated(stated, [] if model is None else [model])
    if engines:
        from sr.cli.report_engines import print_engines

        print_engines(engine_dir, prune=prune)
    elif model is None:
        from sr.cli.environment import environment_lines

        click.echo("\n".join(environment_lines()))
    else:
        from sr.cli.model_info import model_lines

        click.echo("\n".join(model_lines(model, scale=scale, stated=stated)))
