"""Search a folder for pictures, part by part; files that are left out are counted by kind."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sr.files import TEMPORARY_PREFIX
from sr.image.content import SYSTEM_FOLDERS, kind_left_out
from sr.jobs.ledger import RecordedTargets, is_record
from sr.jobs.naming import any_number, kinship, name_after_source

OUTPUT = "output of an earlier run"  # a kind of files that are left out, beside those of `sr.image.content`

# Names of one folder that are in memory together, at about 100 bytes each; a larger folder is listed again
# for each share of its names, in 1 s for a million.
NAMES_AT_ONCE = 100_000
# Pictures of a part, at about 1 kB each with their jobs.
PART = 10_000


@dataclass
class Found:
    """What a search found in a part of one folder.

    Attributes:
        pictures: in sorted order; whatever is named alike is in one part.
        left_out: files that are not pictures to upscale, by kind and path.
        unlisted: folders that could not be listed, and why.
    """

    pictures: list[Path] = field(default_factory=list)
    left_out: list[tuple[str, Path]] = field(default_factory=list)
    unlisted: list[OSError] = field(default_factory=list)


def find_pictures(folder: Path, *, output: Path, suffix: str) -> Iterator[Found]:
    """Search a folder and all below it for pictures, as they are needed; links to folders are not followed.

    Outputs of earlier runs are left out: files that a record names, pictures named like the output of a
    neighbour, and everything in the output folder. A record in `folder` itself counts only if outputs
    go there: a user who names a folder of outputs as input wants these upscaled.

    Args:
        folder: folder to search.
        output: folder of the outputs.
        suffix: text added to the names of outputs, e.g. "_x2"; any number matches the number in it.
    """
    search = _Search(folder, output, suffix)
    waiting = [(folder, False)]  # folders to search, and whether they hold outputs
    while waiting:
        here, ours = waiting.pop()
        if not search.enters(here):
            continue
        listing = _Listing(here, kinship(here.name, suffix))
        if listing.error is not None:
            yield Found(unlisted=[listing.error])
        if listing.has_record and here != folder:
            search.recorded.read(here)
            ours = ours or search.is_named_after_sibling(here)
        for names in listing.parts():
            yield search.sorted_out(here, names, ours=ours)
        waiting += [(here / name, ours) for name in sorted(listing.folders, reverse=True)]


class _Search:
    """What is known of outputs while folders are searched."""

    def __init__(self, folder: Path, output: Path, suffix: str) -> None:
        self._output, self._beside = os.path.realpath(output), _same(output, folder)
        self._of_outputs = _of_outputs(suffix)
        self.recorded = RecordedTargets()
        if self._beside:
            self.recorded.read(folder)

    def enters(self, folder: Path) -> bool:
        """Say whether a folder is searched: not that of the outputs."""
        return self._beside or os.path.realpath(folder) != self._output  # links may form circles

    def is_named_after_sibling(self, folder: Path) -> bool:
        """Say whether a folder is named as that of the outputs of another one beside it."""
        match = self._of_outputs.fullmatch(folder.name) if self._of_outputs else None
        return match is not None and folder.with_name(match[1]).is_dir()

    def sorted_out(self, folder: Path, names: Iterable[str], *, ours: bool) -> Found:
        """Return which of the files of a folder are pictures to upscale; `ours`: all are outputs."""
        return _sorted_out(folder, names, self._of_outputs, lambda path: ours or path in self.recorded)


def pictures_among(folder: Path, names: Iterable[str], suffix: str) -> list[Path]:
    """Return which of these files of a folder are pictures to upscale, as `find_pictures` finds them.

    Records are not looked at.
    """
    files = [name for name in names if not name.startswith(TEMPORARY_PREFIX) and (folder / name).is_file()]
    return _sorted_out(folder, files, _of_outputs(suffix), lambda path: False).pictures


def _sorted_out(
    folder: Path, names: Iterable[str], outputs: re.Pattern[str] | None, is_output: Callable[[Path], bool]
) -> Found:
    """Return which of the files of a folder are pictures to upscale.

    Args:
        folder: the folder.
        names: of files in it.
        outputs: matches stems of outputs, and tells those of their sources.
        is_output: says that a file is an output, whatever its name.
    """
    found = Found()
    for name in names:
        path = folder / name
        if reason := kind_left_out(path):
            found.left_out.append((reason, path))
        elif is_output(path):
            found.left_out.append((OUTPUT, path))
        else:
            found.pictures.append(path)
    named = {path: match[1] for path in found.pictures if outputs and (match := outputs.fullmatch(path.stem))}
    if named:  # like outputs of others, at any scale
        stems = {path.stem for path in found.pictures} | {name_after_source(path) for path in found.pictures}
        made = {path for path, stem in named.items() if stem in stems}
        found.left_out += [(OUTPUT, path) for path in found.pictures if path in made]
        found.pictures = [path for path in found.pictures if path not in made]
    return found


def _of_outputs(suffix: str) -> re.Pattern[str] | None:
    return re.compile(f"(.+){any_number(suffix)}", re.DOTALL) if suffix else None


class _Listing:
    """The names in one folder; of one with very many, only a share is in memory."""

    def __init__(self, folder: Path, kin: Callable[[str], str]) -> None:
        """List the folder.

        Args:
            folder: the folder.
            kin: see `sr.jobs.naming.kinship`.
        """
        self._folder, self._kin = folder, kin
        self.folders: list[str] = []
        self.has_record = False
        self.error: OSError | None = None
        self._names: list[str] = []
        self._count = 0
        for entry in self._entries():
            if _is_folder(entry):
                if entry.name not in SYSTEM_FOLDERS and not entry.is_symlink():
                    self.folders.append(entry.name)
            elif entry.name.startswith(TEMPORARY_PREFIX):
                self.has_record = self.has_record or is_record(entry.name)
            else:
                self._count += 1
                if self._count <= NAMES_AT_ONCE:
                    self._names.append(entry.name)

    def parts(self) -> Iterator[list[str]]:
        """Yield the names of files, in parts; whatever is akin is in one part."""
        if self._count <= PART:
            yield sorted(self._names)
            return
        shares = -(-self._count // NAMES_AT_ONCE)
        for share in range(shares):
            names = self._names if shares == 1 else self._share(share, shares)
            self._names = []
            names.sort(key=lambda name: (self._kin(name), name))
            first = 0
            for last in range(PART, len(names)):
                if last - first >= PART and self._kin(names[last]) != self._kin(names[last - 1]):
                    yield names[first:last]
                    first = last
            yield names[first:]

    def _share(self, share: int, shares: int) -> list[str]:
        return [
            entry.name
            for entry in self._entries()
            if not entry.name.startswith(TEMPORARY_PREFIX)
            and hash(self._kin(entry.name)) % shares == share
            and not _is_folder(entry)
        ]

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self._folder) as entries:
                yield from entries
        except OSError as error:
            self.error = error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _same(path: Path, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)
