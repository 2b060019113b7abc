"""`--failures`: a list of failed files with reasons, which `--files-from` can read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sr.errors import printable
from sr.jobs.job import FileResult


class FailureList:
    """Writes each failure at once, so that the list survives if the run is killed."""

    def __init__(self, file: BinaryIO, folder: Path | None) -> None:
        self._file, self._folder = file, folder

    def add(self, result: FileResult) -> None:
        """Write why a picture failed, as a remark, and its path relative to the folder."""
        source = result.job.source
        path = source if self._folder is None else source.relative_to(self._folder)
        reason = " ".join(str(result.error).split())
        name = os.fsencode(path)
        if b"\n" in name:  # no line of a list can name it
            name = f"# {printable(path)}".encode(errors="replace")
        elif name.startswith(b"#"):
            name = b"./" + name
        self._file.write(b"# " + reason.encode(errors="replace") + b"\n" + name + b"\n")
        self._file.flush()


@contextmanager
def written_failures(path: Path | None, *, folder: Path | None) -> Iterator[FailureList | None]:
    """Yield a list of failures that is written to a file, which is replaced; None if there is no path.

    Args:
        path: of the list.
        folder: that paths are relative to; None leaves them as they are.
    """
    if path is None:
        yield None
        return
    with path.open("wb") as file:
        yield FailureList(file, folder)
