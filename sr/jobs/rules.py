"""Rules for outputs: which files are taken, what outputs are called, what happens to existing ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Literal

from sr.image import multi_image_suffix
from sr.jobs.shards import Shard

DEFAULT_FORMAT = ".png"  # lossless: nothing that was computed is thrown away

Existing = Literal["refuse", "skip", "overwrite"]


@dataclass(frozen=True)
class OutputRules:
    """Where outputs go, and what happens to existing ones.

    Attributes:
        output: file or folder, or None for beside the input.
        is_folder: `output` is a folder, whatever its name.
        suffix: added to names, e.g. "_x3".
        format: e.g. ".webp"; None means what `output` says, or PNG, and for animations and pages what
            keeps them, see `sr.image.multi_image_suffix`.
        include: globs of the pictures to process in folders; none means all.
        exclude: globs of files to leave out.
        existing: what to do where an output exists.
        settings: what the pixels depend on besides the input, for `sr.jobs.ledger`.
        shard: the part of all files to take; None is all.
        largest_first: begin with large files, within a window, so that several workers end together.
    """

    output: Path | None = None
    is_folder: bool = False
    suffix: str = "_x2"
    format: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    existing: Existing = "refuse"
    settings: str = ""
    shard: Shard | None = None
    largest_first: bool = False

    @property
    def writer(self) -> str:
        """Who writes the record of an output folder, see `sr.jobs.ledger`."""
        return "" if self.shard is None else self.shard.label

    def root(self, folder: Path) -> Path:
        """Return the folder of the outputs of a folder."""
        if self.output is not None:
            return self.output
        resolved = folder.resolve()
        return resolved.with_name(f"{resolved.name}{self.suffix}")

    def take(self, path: PurePath) -> bool:
        """Say whether the globs let a path, relative to its folder, pass; `*` matches slashes too."""

        def matches(globs: Sequence[str]) -> bool:
            return any(fnmatch(path.as_posix(), glob) or fnmatch(path.name, glob) for glob in globs)

        return (not self.include or matches(self.include)) and not matches(self.exclude)

    def name(self, source: Path, stem: str) -> str:
        """Return the name of an output; the header of its source is read if no format was asked for."""
        return f"{stem}{self.suffix}{self.format or multi_image_suffix(source) or DEFAULT_FORMAT}"
