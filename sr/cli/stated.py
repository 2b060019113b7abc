"""What a command line states of a network of another program: its range of values and order of channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from sr.network.ends import Conventions


def stated_conventions(
    value_range: tuple[float, float] | None, order: Literal["RGB", "BGR"] | None
) -> Conventions | None:
    """Return what `sr.cli.options.conventions` states; None where that is nothing."""
    return None if value_range is None and order is None else Conventions(value_range, order)


def check_stated(stated: Conventions | None, models: Sequence[str | Path]) -> None:
    """Check that conventions are stated of one network, and that another program made it.

    Raises:
        UsageError, ModelError: as `check_others`.
    """
    if stated is not None:
        check_others("--model-range and --model-order", models)


def check_others(given: str, models: Sequence[str | Path]) -> None:
    """Check that options go with one network, and that another program made it.

    Raises:
        UsageError: they do not.
        ModelError: its file is missing or damaged, or must not be run.
    """
    from sr.network.foreign.describe import is_others

    if len(models) != 1:
        raise click.UsageError(f"give one --model with {given}")
    if not is_others(Path(models[0])):
        raise click.UsageError(
            f"leave out {given}, for networks of other programs; {models[0]} is not one of them"
        )
