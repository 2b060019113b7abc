"""A stable split of many files over machines: no coordination, the same everywhere."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePath

from sr.errors import ImageError


@dataclass(frozen=True)
class Shard:
    """One of several parts of a list of files.

    Attributes:
        index: counted from 1.
        count: how many parts there are.
    """

    index: int
    count: int

    @staticmethod
    def parse(text: str) -> Shard:
        """Read "3/16".

        Raises:
            ImageError: it does not read so, or there is no such part.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        shard = Shard(int(match[1]), int(match[2])) if match else None
        if shard is None or not 1 <= shard.index <= shard.count:
            raise ImageError(f"shard {text!r} does not read as I/N with I from 1 to N, e.g. 3/16")
        return shard

    @property
    def label(self) -> str:
        """A short name for files, e.g. "3-of-16"."""
        return f"{self.index}-of-{self.count}"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def holds(self, path: PurePath) -> bool:
        """Say whether a file, named relative to the folder of all, belongs to this part."""
        name = os.fsencode(path.as_posix())
        number = int.from_bytes(blake2b(name, digest_size=8).digest(), "big")
        return number % self.count == self.index - 1
