"""The manifest of a folder of prepared pairs: its settings, and the pictures that they were made from.

Owns `prepare.json`. It tells a second run what is missing, and lets it refuse to mix settings.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sr.errors import DataError
from sr.files import atomic_write
from train.prepare.layout import MANIFEST_NAME

_FORMAT = 1
_REMEDY = "choose another folder (-o), or replace these pairs (--overwrite)"

# A lazy save waits for this many times as long as the last one took (0.12 s for 3,450 pictures and
# three scales), so that it costs 5 % of a core at most. What a kill undoes is as little.
_SAVE_EVERY = 20


@dataclass(frozen=True)
class Stamp:
    """Size and time of a file, by which a change is noticed."""

    bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Take the stamp of a file."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class MadeScale:
    """What was made of a picture for a scale: the places dropped as flat; the lr picture taken, or None."""

    flat: tuple[int, ...]
    lr: Stamp | None


@dataclass(frozen=True)
class Record:
    """A source as it was when its files were made; `file` is relative to the source folder."""

    file: str
    stamp: Stamp
    height: int
    width: int
    scales: dict[int, MadeScale] = field(default_factory=dict)


@dataclass
class Manifest:
    """The settings of a folder of pairs, the scales made there, and the record of each name."""

    folder: Path
    settings: dict[str, Any]
    scales: set[int] = field(default_factory=set)
    records: dict[str, Record] = field(default_factory=dict)
    _next_save: float = field(default=0.0, repr=False)

    def save(self, *, lazily: bool = False) -> None:
        """Write the file; `lazily` only if the last time is a while ago."""
        started = time.monotonic()
        if lazily and started < self._next_save:
            return
        content = {
            "format": _FORMAT,
            "settings": self.settings,
            "scales": sorted(self.scales),
            "pictures": {name: asdict(record) for name, record in sorted(self.records.items())},
        }
        write_text(self.folder / MANIFEST_NAME, json.dumps(content))
        ended = time.monotonic()
        self._next_save = ended + _SAVE_EVERY * (ended - started)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole.

    Raises:
        DataError: it cannot be written, the disk is full for example.
    """
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error


def open_manifest(
    folder: Path, *, settings: dict[str, Any], scales: tuple[int, ...], overwrite: bool
) -> Manifest:
    """Return the manifest of `folder`, fit to make `scales` with `settings` there; writes nothing.

    Raises:
        DataError: the folder holds pairs made otherwise, or by something else.
    """
    fresh = Manifest(folder, settings)
    if overwrite:
        return _replacing(fresh, scales)
    found = _load(folder) or fresh
    for key in settings | found.settings:
        there, value = found.settings.get(key), settings.get(key)
        if there != value:
            label = key.replace("_", " ")
            raise DataError(f"{folder}: holds pairs made with {label} {there}, not {value}; {_REMEDY}")
    for scale in set(scales) - found.scales:
        for path in (folder / f"x{scale}.json", folder / f"x{scale}/HR", folder / f"x{scale}/LR"):
            if path.is_file() or (path.is_dir() and any(path.iterdir())):
                raise DataError(f"{path}: was not made by srup prepare; {_REMEDY}")
    return found


def _replacing(fresh: Manifest, scales: tuple[int, ...]) -> Manifest:
    """Return a manifest that forgets `scales`, and all records unless other scales rest on them."""
    try:
        found = _load(fresh.folder)
    except DataError:
        return fresh
    others = set() if found is None else found.scales - set(scales)
    others = {scale for scale in others if (fresh.folder / f"x{scale}.json").exists()}
    if found is None or not others:
        return fresh
    if found.settings != fresh.settings:
        named = " ".join(f"--scale {scale}" for scale in sorted(others))
        raise DataError(
            f"{fresh.folder}: holds other scales made with other settings; replace them too ({named}), "
            "or name another folder (-o)"
        )
    fresh.scales = others
    for name, record in found.records.items():
        kept = {scale: made for scale, made in record.scales.items() if scale in others}
        fresh.records[name] = Record(record.file, record.stamp, record.height, record.width, kept)
    return fresh


def _load(folder: Path) -> Manifest | None:
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise DataError(f"{path}: was made by another version of srup; {_REMEDY}")
        records = {name: _record(entry) for name, entry in content["pictures"].items()}
        return Manifest(folder, dict(content["settings"]), set(content["scales"]), records)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is damaged; {_REMEDY}") from error


def _record(entry: dict[str, Any]) -> Record:
    scales = {
        int(scale): MadeScale(tuple(made["flat"]), made["lr"] and Stamp(**made["lr"]))
        for scale, made in entry["scales"].items()
    }
    return Record(entry["file"], Stamp(**entry["stamp"]), entry["height"], entry["width"], scales)
