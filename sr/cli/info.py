"""`srup info`: what is installed, what a model is, which engines were built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from sr.cli import options, options_engine
from sr.cli.help import GroupedCommand
from sr.cli.stated import check_others, check_stated, stated_conventions

EXAMPLES = (
    "srup info                  # versions, devices, backends and what they miss",
    "srup info --model small    # parameters, multiply-adds, training",
)


@dataclass(frozen=True)
class InfoRequest:
    """The options of `srup info`, each as its help describes it; None and False were not given."""

    model: str | None
    scale: int | None
    model_range: tuple[float, float] | None
    model_order: Literal["RGB", "BGR"] | None
    patience: float | None
    engines: bool
    prune: bool
    engine_dir: Path | None


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.option("--model", metavar="PRESET|PATH", help="Describe a model: parameters, multiply-adds, training.")
@options.scale
@options.conventions
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    metavar="MINUTES",
    help="How long measuring how far tiles of another program's network must overlap may take, once.  "
    "[default: 5]",
)
@click.option("--engines", is_flag=True, help="List the TensorRT engines that were built.")
@click.option("--prune", is_flag=True, help="With --engines: remove stale engines, and list them.")
@options_engine.engine_dir
@options.as_record(InfoRequest)
def command(request: InfoRequest) -> None:
    """Show what is installed, describe a model, or list engines."""
    if (request.prune or request.engine_dir) and not request.engines:
        raise click.UsageError("--prune and --engine-dir need --engines")
    stated = stated_conventions(request.model_range, request.model_order)
    models = [] if request.model is None else [request.model]
    check_stated(stated, models)
    if request.patience is not None:
        check_others("--patience", models)
    if request.engines:
        from sr.cli.report_engines import print_engines

        print_engines(request.engine_dir, prune=request.prune)
    elif request.model is None:
        from sr.cli.environment import environment_lines

        click.echo("\n".join(environment_lines()))
    else:
        from sr.cli.model_info import model_lines

        seconds = None if request.patience is None else 60 * request.patience
        click.echo(
            "\n".join(model_lines(request.model, scale=request.scale, stated=stated, patience=seconds))
        )
