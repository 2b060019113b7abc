"""The one place where `srup` writes to the terminal: results to stdout, all else to stderr.

While progress bars are drawn, every line goes through their console, which prints it above the bars.
A line that bypassed the console would be overwritten.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn


class Terminal:
    """Prints lines, and bars if stderr is a terminal."""

    def __init__(self) -> None:
        self._live: Console | None = None  # while bars are drawn

    def result(self, line: str) -> None:
        """Print a line to stdout."""
        if self._live is not None and sys.stdout.isatty():
            self._above_bars(line)
        else:
            click.echo(line)

    def message(self, line: str) -> None:
        """Print a line to stderr."""
        if self._live is not None:
            self._above_bars(line)
        else:
            click.echo(line, err=True)

    @contextmanager
    def bars(self, *columns: ProgressColumn) -> Iterator[Progress]:
        """Draw progress bars until the block ends, then erase them."""
        from rich.progress import Progress

        console = stderr_console()
        with Progress(*columns, console=console, transient=True) as progress:
            self._live = console
            try:
                yield progress
            finally:
                self._live = None

    def _above_bars(self, line: str) -> None:
        assert self._live is not None
        self._live.print(line, markup=False, highlight=False, soft_wrap=True)


terminal = Terminal()


def draws_bars() -> bool:
    """Say whether progress bars are drawn: stderr is a terminal that can move its cursor."""
    return sys.stderr is not None and sys.stderr.isatty()


def stderr_console() -> Console:
    """Return the console of stderr."""
    from rich.console import Console

    return Console(stderr=True)
