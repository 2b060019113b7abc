"""Search a folder for pictures; files that are left out are counted by kind."""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sr.errors import ImageError
from sr.files import TEMPORARY_PREFIX
from sr.image import identify, read_suffixes
from sr.jobs.ledger import has_record, recorded_targets

# Kinds of files that are left out, as summaries name them.
OUTPUT = "output of an earlier run"
SYSTEM = "system file"
NOT_A_PICTURE = "not a picture"

# Formats that cameras, phones and editors write, and that are not read.
_UNSUPPORTED_SUFFIXES = frozenset(
    {".heic", ".heif", ".jxl", ".jp2", ".psd", ".xcf", ".svg", ".tga", ".ppm", ".exr", ".hdr"}
    | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"}
)

# Files and folders of macOS, Windows, Linux desktops and network storage; some are named like pictures.
_SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
    | {".thumbnails", ".AppleDouble", ".Trash", ".Trashes", ".Spotlight-V100", ".fseventsd", ".git"}
)
_SYSTEM_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", "ehthumbs.db", "Icon\r"})
_APPLE_DOUBLE = "._"  # the resource fork of a file, on file systems without forks


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
        names[:] = sorted(name for name in names if name not in _SYSTEM_FOLDERS)
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


def kind_left_out(path: Path) -> str:
    """Return the kind of a file that is left out; empty for pictures.

    The content decides. A file with the suffix of a picture is kept in any case, so that a damaged picture
    is reported.
    """
    suffix = path.suffix.lower()
    if path.name in _SYSTEM_FILES or path.name.startswith(_APPLE_DOUBLE):
        return SYSTEM
    if suffix in read_suffixes():
        return ""
    with suppress(OSError, ImageError):  # a pipe, a link to nothing, a file that may not be read
        if identify(path) is not None:
            return ""
    return f"unsupported format {suffix}" if suffix in _UNSUPPORTED_SUFFIXES else NOT_A_PICTURE


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
