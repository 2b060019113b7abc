"""Standard input and output in place of picture files: `-` on the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import BinaryIO

import click

from sr.cli.request import UpscaleRequest
from sr.cli.types import STREAM, OutputPath
from sr.errors import ImageError
from sr.image import spooled
from sr.jobs.worklist import OutputRules, Worklist, stream_worklist

INPUT_NAME = "standard input"


def check_streams(request: UpscaleRequest) -> None:
    """Check that at most one picture comes from a stream, and one goes into it.

    Raises:
        UsageError: there are several, a picture without a name would need one, or standard output is
            a terminal.
    """
    inputs, output = request.inputs, request.output
    if STREAM in inputs:
        if len(inputs) > 1:
            raise click.UsageError("- is one picture, from standard input; leave out the other inputs")
        if isinstance(output, OutputPath) and (
            output.folder or output.path.is_dir() or not output.path.suffix
        ):
            raise click.UsageError(
                f"{output.path} is a folder, and a picture from standard input has no name; name a file (-o)"
            )
    if request.to_stdout:
        if len(inputs) > 1 or any(source.is_dir() for source in request.files):
            raise click.UsageError("-o - writes one picture; several, or a folder, need a folder (-o)")
        if sys.stdout is not None and sys.stdout.isatty():
            raise click.UsageError("a picture would garble the terminal; redirect it, or name a file (-o)")


def streamed_worklist(request: UpscaleRequest, rules: OutputRules) -> Worklist | None:
    """Return the job of a picture that comes from a stream or goes into one; None if neither does.

    Standard input is read to its end.

    Raises:
        ImageError: standard input is not a picture, a stream is closed, or as `stream_worklist`.
    """
    from_stdin = STREAM in request.inputs
    if not from_stdin and not request.to_stdout:
        return None
    source = Path(INPUT_NAME) if from_stdin else request.files[0]
    stdin = spooled(_stdin(), INPUT_NAME) if from_stdin else None
    if stdin is not None:
        click.get_current_context().call_on_close(stdin.close)
    if request.to_stdout and sys.stdout is None:
        raise ImageError("standard output: is closed; redirect it, or name a file (-o)")
    stdout = sys.stdout.buffer if request.to_stdout else None
    return stream_worklist(source, rules, stdin=stdin, stdout=stdout)


@contextmanager
def reserved_stdout() -> Iterator[None]:
    """Keep standard output for a picture: what is printed goes to stderr.

    If the reader of standard output goes away, the command ends quietly with exit status 1.
    """
    stdout = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    except BrokenPipeError:
        # What is still buffered would fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        sys.exit(1)


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise ImageError(f"{INPUT_NAME}: is closed; pipe a picture into it, or name a file")
    if sys.stdin.isatty():
        raise ImageError(f"{INPUT_NAME}: is a terminal; pipe a picture into it, or name a file")
    return sys.stdin.buffer
