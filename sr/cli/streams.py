"""Standard input and output in the place of picture files: `-` on the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import BinaryIO

import click

from sr.errors import ImageError
from sr.image import spooled
from sr.jobs.folders import OutputRules, Plan, plan_streams

STREAM = "-"
INPUT_NAME = "standard input"


def check_streams(inputs: Sequence[Path | str], output: Path | str | None) -> None:
    """Check that one picture at most comes from a stream, and one goes into it.

    Raises:
        UsageError: there are several, a picture without a name would need one, or standard output is
            a terminal.
    """
    if STREAM in inputs:
        if len(inputs) > 1:
            raise click.UsageError("- is one picture, from standard input; leave out the other inputs")
        if isinstance(output, Path) and (output.is_dir() or not output.suffix):
            raise click.UsageError(
                f"{output} is a folder, and a picture from standard input has no name; name a file (-o)"
            )
    if _goes_to_stdout(inputs, output):
        if len(inputs) > 1 or any(isinstance(source, Path) and source.is_dir() for source in inputs):
            raise click.UsageError("-o - writes one picture; several, or a folder, need a folder (-o)")
        if sys.stdout is not None and sys.stdout.isatty():
            raise click.UsageError("a picture would garble the terminal; redirect it, or name a file (-o)")


def stream_plan(inputs: Sequence[Path | str], output: Path | str | None, rules: OutputRules) -> Plan | None:
    """Plan what is read from standard input, to its end, or written to standard output; None if neither is.

    Raises:
        ImageError: standard input is no picture, a stream is closed, or as `plan_streams`.
    """
    to_stdout = _goes_to_stdout(inputs, output)
    if STREAM not in inputs and not to_stdout:
        return None
    (given,) = inputs
    source = Path(INPUT_NAME) if isinstance(given, str) else given
    stdin = spooled(_stdin(), INPUT_NAME) if given == STREAM else None
    if stdin is not None:
        click.get_current_context().call_on_close(stdin.close)
    if to_stdout and sys.stdout is None:
        raise ImageError("standard output: is closed; redirect it, or name a file (-o)")
    return plan_streams(source, rules, stdin=stdin, stdout=sys.stdout.buffer if to_stdout else None)


@contextmanager
def reserved_stdout() -> Iterator[None]:
    """Keep standard output for a picture: what is printed goes to stderr.

    If its reader goes away, what is left is quiet: exit status 1.
    """
    stdout = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    except BrokenPipeError:
        # What is still buffered would fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        sys.exit(1)


def _goes_to_stdout(inputs: Sequence[Path | str], output: Path | str | None) -> bool:
    return output == STREAM or (output is None and STREAM in inputs)


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise ImageError(f"{INPUT_NAME}: is closed; pipe a picture into it, or name a file")
    if sys.stdin.isatty():
        raise ImageError(f"{INPUT_NAME}: is a terminal; pipe a picture into it, or name a file")
    return sys.stdin.buffer
