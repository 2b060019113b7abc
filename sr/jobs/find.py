"""Search a folder for pictures; files that are left out are counted by kind."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sr.files import TEMPORARY_PREFIX
from sr.image.content import SYSTEM_FOLDERS, kind_left_out
from sr.jobs.ledger import has_record, recorded_targets

OUTPUT = "output of an earlier run"  # a kind of files that are left out, beside those of `sr.image.content`


@dataclass
class Found:
    """What a search through a folder found.

    Attributes:
        pictures: in sorted order.
        left_out: files that are not pictures to upscale, by kind and path.
        unlisted: folders that could not be listed, and why.
    """

    pictures: list[Path] = field(default_factory=list)
    left_out: list[tuple[str, Path]] = field(default_factory=list)
    unlisted: list[OSError] = field(default_factory=list)


def find_pictures(folder: Path, *, output: Path, suffix: str) -> Found:
    """Search a folder and all below it for pictures; links to folders are not followed.

    Outputs of earlier runs are left out: files that a record names, pictures named like the output of a
    neighbour, and everything in the output folder. A record in `folder` itself counts only if outputs
    go there: a user who names a folder of outputs as input wants these upscaled.

    Args:
        folder: folder to search.
        output: folder of the outputs.
        suffix: text added to the names of outputs, e.g. "_x2"; any number matches the number in it.
    """
    found, beside = Found(), _same(output, folder)
    recorded = recorded_targets(folder) if beside else set[Path]()
    inside: set[str] = set()  # folders of outputs
    for directory, names, files in os.walk(folder, onerror=found.unlisted.append):
        names[:] = sorted(name for name in names if name not in SYSTEM_FOLDERS)
        here = Path(directory)
        if here != folder and has_record(here):
            recorded |= recorded_targets(here)
            if _is_named_after_sibling(here, suffix):
                inside.add(directory)
        if not beside and _same(here, output):
            names.clear()
            continue
        ours = bool(inside) and any(str(parent) in inside for parent in (here, *here.parents))
        for name in sorted(files):
            if name.startswith(TEMPORARY_PREFIX):
                continue
            path = here / name
            if reason := kind_left_out(path):
                found.left_out.append((reason, path))
            elif ours or path in recorded:
                found.left_out.append((OUTPUT, path))
            else:
                found.pictures.append(path)
    _leave_out_outputs(found, suffix)
    return found


def count_left_out(left_out: list[tuple[str, Path]]) -> Counter[str]:
    """Return how many files of each kind were left out."""
    return Counter(kind for kind, _ in left_out)


def _leave_out_outputs(found: Found, suffix: str) -> None:
    """Leave out pictures that are named as the output of another one of their folder, at any scale."""
    if not suffix:
        return
    pattern = re.compile(f"(.+){_any_number(suffix)}", re.DOTALL)
    stems = {path.with_suffix("") for path in found.pictures}
    stems |= {path.with_name(name_after_source(path)) for path in found.pictures}
    outputs = {
        path
        for path in found.pictures
        if (match := pattern.fullmatch(path.stem)) is not None and path.with_name(match[1]) in stems
    }
    found.left_out += [(OUTPUT, path) for path in found.pictures if path in outputs]
    found.pictures = [path for path in found.pictures if path not in outputs]


def name_after_source(source: Path) -> str:
    """Return a stem that tells a.jpg from a.png: "a_jpg"."""
    return f"{source.stem}_{source.suffix[1:]}" if source.suffix else source.stem


def _is_named_after_sibling(folder: Path, suffix: str) -> bool:
    match = re.fullmatch(f"(.+){_any_number(suffix)}", folder.name, re.DOTALL) if suffix else None
    return match is not None and folder.with_name(match[1]).is_dir()


def _any_number(suffix: str) -> str:
    return re.sub(r"\d+", r"\\d+", re.escape(suffix))


def _same(path: Path, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)  # links may form circles
