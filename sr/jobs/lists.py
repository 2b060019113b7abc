"""Lists of files: one path a line, or ended by NUL."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO


def read_list(file: BinaryIO, *, nul: bool) -> Iterator[Path]:
    """Yield the paths of a list: one a line, where empty lines and those that begin with # say nothing.

    Args:
        file: the list.
        nul: paths end with NUL instead, and may hold anything.
    """
    rest = b""
    separator = b"\0" if nul else b"\n"
    for chunk in iter(lambda: file.read(1 << 16), b""):
        *whole, rest = (rest + chunk).split(separator)
        yield from _paths(whole, nul=nul)
    yield from _paths([rest], nul=nul)


def _paths(lines: Iterable[bytes], *, nul: bool) -> Iterator[Path]:
    for line in lines:
        name = line if nul else line.removesuffix(b"\r")
        if name and (nul or not name.startswith(b"#")):
            yield Path(os.fsdecode(name))
