"""What the commands of the measurements share: errors of one line, and options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sr.errors import SrupError


class Script(click.Command):
    """A command whose errors are one line and exit status 1, as those of `srup`."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SrupError as error:
            raise click.ClickException(" ".join(str(error).splitlines())) from error


def click_size(_context: object, _parameter: object, text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT, as screens are named, to height and width; a callback of `click.option`.

    Raises:
        click.BadParameter: it is not that.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise click.BadParameter(f"{text!r} is not WIDTHxHEIGHT, e.g. 1280x720")
    return int(height), int(width)


def click_sets(_context: object, _parameter: object, entries: Sequence[str]) -> dict[str, Path]:
    """Parse entries NAME=FOLDER, or FOLDER, which names itself; a callback of `click.argument`.

    Raises:
        click.BadParameter: a folder does not exist.
    """
    found = {}
    for entry in entries:
        name, equals, folder = entry.rpartition("=")
        if not Path(folder).is_dir():
            raise click.BadParameter(f"{folder}: no such folder; give NAME=FOLDER, e.g. Set5=PATH/TO/Set5/HR")
        found[name if equals else Path(folder).resolve().name] = Path(folder)
    return found


store_option = click.option("--store", is_flag=True, help="Keep the result in benchmarks/results/.")
