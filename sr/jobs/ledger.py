"""The record of an output folder: from which input, in which state, with which settings each output was made.

One line of JSON is appended after each picture, so a killed run loses at most the last line. Each
process appends to a file of its own; a reader merges all files of the folder.
"""

from __future__ import annotations

import json
import os
import time
import weakref
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from sr.jobs.job import FileJob

try:
    import fcntl
except ImportError:  # Windows: processes of one writer append to one file
    fcntl = None  # type: ignore[assignment]

NAME = ".srup-ledger.jsonl"
_PATTERN = ".srup-ledger*.jsonl"
_WRITTEN = "written_ns"  # key; of two entries for one output the later one counts


class Ledger:
    """The record of one output folder."""

    def __init__(self, folder: Path, *, settings: str, writer: str = "") -> None:
        """Read the entries of all writers.

        Args:
            folder: the output folder.
            settings: everything besides the input that the pixels depend on; an output that was made
                with other settings is not done.
            writer: names the file that this process appends to, e.g. "3-of-16"; empty is the common one.
                If another process has it, a number is added to the name.
        """
        self._folder, self._settings, self._writer = folder, settings, writer
        self._descriptor: int | None = None
        self._entries = _merged(folder)
        self._begun: dict[str, dict[str, Any]] = {}

    def is_done(self, job: FileJob) -> bool:
        """Say whether the existing output was made from the input as it is now, with these settings.

        An output without an entry (a run was killed before it wrote the entry) counts as done.
        """
        entry = self._entries.get(self._name(job.target))
        return entry is None or {**entry, _WRITTEN: 0} == self._entry(job)

    def begin(self, jobs: Iterable[FileJob]) -> None:
        """Note the state of inputs before they are read: an input that changes meanwhile is redone next time.

        Entries about earlier outputs of these jobs become void, because a killed run may have replaced them.

        Raises:
            OSError: the record cannot be written.
        """
        for job in jobs:
            try:
                self._begun[self._name(job.target)] = self._entry(job)
            except OSError:  # it has vanished; reading it will report that
                continue
        void = [name for name in self._begun if self._entries.pop(name, None) is not None]
        if void:
            self._append({"target": name} for name in void)

    def add(self, job: FileJob) -> None:
        """Record an output that was begun and has been written.

        Raises:
            OSError: the record cannot be written.
        """
        if (entry := self._begun.pop(self._name(job.target), None)) is not None:
            self._append([entry])

    def _append(self, entries: Iterable[dict[str, Any]]) -> None:
        if self._descriptor is None:
            self._descriptor = self._opened()
            weakref.finalize(self, os.close, self._descriptor)
        for entry in entries:
            self._entries[entry["target"]] = entry
            line = json.dumps({**entry, _WRITTEN: time.time_ns()}) + "\n"
            os.write(self._descriptor, line.encode())

    def _opened(self) -> int:
        """Open the first file of this writer that no other process has; the lock ends with the process."""
        for number in count(1):
            name = ".".join(filter(None, (self._writer, str(number) if number > 1 else "")))
            path = self._folder / (NAME.replace(".jsonl", f".{name}.jsonl") if name else NAME)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                if fcntl is not None:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            except OSError:  # no locks on this storage
                pass
            return descriptor
        raise AssertionError  # numbers do not end

    def _name(self, target: Path) -> str:
        return Path(os.path.relpath(target, self._folder)).as_posix()

    def _entry(self, job: FileJob) -> dict[str, Any]:
        state = job.source.stat()
        return {
            "target": self._name(job.target),
            "source": Path(os.path.realpath(job.source)).as_posix(),
            "bytes": state.st_size,
            "mtime_ns": state.st_mtime_ns,
            "settings": self._settings,
            _WRITTEN: 0,
        }


def has_record(folder: Path) -> bool:
    """Say whether a folder contains a record."""
    return any(True for _ in folder.glob(_PATTERN))


def recorded_targets(folder: Path) -> set[Path]:
    """Return the outputs that a folder's record names."""
    return {folder / name for name in _merged(folder)}


def _merged(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the latest entry for each output, by its name."""
    latest: dict[str, dict[str, Any]] = {}
    for entry in _lines(folder):
        known = latest.get(entry["target"])
        if known is None or entry.get(_WRITTEN, 0) >= known.get(_WRITTEN, 0):
            latest[entry["target"]] = entry
    return latest


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob(_PATTERN)):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            try:
                entry = json.loads(line)
                entry["target"].strip()  # a name
                yield entry
            except (json.JSONDecodeError, KeyError, TypeError, AttributeError):  # cut off by a crash
                continue
