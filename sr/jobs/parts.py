"""From a folder, or a list of its files, to jobs, part by part."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from sr.errors import ImageError, printable
from sr.image.content import left_out_words
from sr.jobs.find import Found, find_pictures, pictures_among
from sr.jobs.job import FileJob, FileResult
from sr.jobs.ledger import Ledger
from sr.jobs.naming import kinship
from sr.jobs.rules import OutputRules
from sr.jobs.windows import Part, Worklist

_LINES = 10_000  # of a list, whose folders are looked at together


class NoPicturesError(ImageError):
    """A folder holds nothing to upscale."""


def folder_parts(worklist: Worklist, folder: Path, rules: OutputRules) -> Iterator[Part]:
    """Yield the jobs of a folder; count in the worklist what is left out.

    Raises:
        NoPicturesError: there are none.
        ImageError: outputs would replace the inputs.
    """
    root, pictures, taken = rules.root(folder), 0, 0
    if not rules.suffix and root.resolve() == folder.resolve():
        raise ImageError(f"{folder}: without a suffix its pictures need another folder; name one (-o)")
    worklist.ledgers[root] = Ledger(root, settings=rules.settings, writer=rules.writer)
    for found in find_pictures(folder, output=root, suffix=rules.suffix):
        _count_left_out(worklist, found, folder, rules)
        matching = found.pictures
        if rules.include or rules.exclude:
            matching = [path for path in matching if rules.take(path.relative_to(folder))]
        pictures, taken = pictures + len(found.pictures), taken + len(matching)
        yield _part(worklist, matching, folder, rules)
    if not pictures:
        raise NoPicturesError(f"{folder}: no pictures in this folder{left_out_words(worklist.left_out)}")
    if not taken:
        raise NoPicturesError(
            f"{folder}: none of its {pictures:,} pictures matches; change --include or --exclude"
        )


def listed_parts(
    worklist: Worklist, folder: Path, files: Iterable[Path], rules: OutputRules
) -> Iterator[Part]:
    """Yield the jobs of listed files of a folder; each output has the name that it has among all files."""
    root, files = rules.root(folder), iter(files)
    worklist.ledgers[root] = Ledger(root, settings=rules.settings, writer=rules.writer)
    while lines := list(islice(files, _LINES)):
        part, listed = Part(), dict[Path, None]()
        for file in lines:
            relative = Path(os.path.relpath(file, folder)) if file.is_absolute() else file
            source = folder / relative
            if ".." in relative.parts:
                if rules.shard is None or rules.shard.holds(relative):
                    error = f"{printable(file)}: is not in {printable(folder)}; name its own folder"
                    part.refused.append(FileResult(FileJob(source, source), error=ImageError(error)))
            elif rules.take(relative):
                listed[source] = None
        part.add(_part(worklist, [*listed], folder, rules, beside=_akin(listed, folder, rules)))
        yield part


def _part(
    worklist: Worklist, files: list[Path], folder: Path, rules: OutputRules, *, beside: Iterable[Path] = ()
) -> Part:
    """Return the jobs of files in a folder; those of other shards are counted.

    Args:
        worklist: counts.
        files: of the folder.
        folder: that the outputs mirror.
        rules: for outputs.
        beside: files of the folder that are not to be done, whose outputs may have the same names.
    """
    root, shard = rules.root(folder), rules.shard
    mirrored: dict[Path, Path] = {}

    def job(path: Path) -> FileJob:
        parent = path.parent
        if parent not in mirrored:
            mirrored[parent] = root / parent.relative_to(folder)
        return FileJob(path, mirrored[parent] / rules.name(path, path.stem), ledger=root)

    ours, others = files, [*beside]
    if shard is not None:
        ours = [path for path in files if shard.holds(path.relative_to(folder))]
        held = set(ours)
        worklist.other_shards += len(files) - len(ours)
        # Only names are known of the others; headers are read of those that matter.
        kin = {_kin(path, rules) for path in ours}
        others += [path for path in files if path not in held and _kin(path, rules) in kin]
    return Part([job(path) for path in ours], [job(path) for path in others])


def _akin(listed: Iterable[Path], folder: Path, rules: OutputRules) -> list[Path]:
    """Return the unlisted pictures whose outputs may have the names of those of listed ones."""
    listed = set(listed)
    kin: dict[Path, set[str]] = {}
    for path in listed:
        kin.setdefault(path.parent, set()).add(_kin(path, rules)[1])
    found: list[Path] = []
    for parent, wanted in sorted(kin.items()):
        name_of = kinship(parent.name, rules.suffix)
        with suppress(OSError), os.scandir(parent) as entries:
            names = sorted(entry.name for entry in entries if name_of(entry.name) in wanted)
            found += pictures_among(parent, names, rules.suffix)
    return [path for path in found if path not in listed and rules.take(path.relative_to(folder))]


def _kin(path: Path, rules: OutputRules) -> tuple[Path, str]:
    return path.parent, kinship(path.parent.name, rules.suffix)(path.name)


def _count_left_out(worklist: Worklist, found: Found, folder: Path, rules: OutputRules) -> None:
    worklist.left_out.update(kind for kind, path in found.left_out if rules.take(path.relative_to(folder)))
    worklist.warnings += [
        f"{printable(Path(error.filename))}: cannot be listed ({error.strerror}); its files are left out"
        for error in found.unlisted
    ]
