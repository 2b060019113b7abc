"""The record of an output folder: from which input, in which state, with which settings each output was made.

One line of JSON is appended after each picture, so a killed run loses at most the last line. Each
process appends to a file of its own; a reader merges all files of the folder.
"""

from __future__ import annotations

import json
import os
import time
import weakref
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from sr.jobs.job import FileJob

try:
    import fcntl
except ImportError:  # Windows: processes of one writer append to one file
    fcntl = None  # type: ignore[assignment]

NAME = ".srup-ledger.jsonl"
_START, _END = ".srup-ledger", ".jsonl"
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
        self._known = _Known(folder)
        self._begun: dict[str, dict[str, Any]] = {}

    def is_done(self, job: FileJob) -> bool:
        """Say whether the existing output was made from the input as it is now, with these settings.

        An output without an entry (a run was killed before it wrote the entry) counts as done.
        """
        known = self._known.digest(self._name(job.target))
        return known is None or known == _digest(self._entry(job))

    def begin(self, jobs: Iterable[FileJob]) -> None:
        """Note the state of inputs before they are read: an input that changes meanwhile is redone next time.

        Entries about earlier outputs of these jobs become void, because a killed run may have replaced them.

        Raises:
            OSError: the record cannot be written.
        """
        void = []
        for job in jobs:
            name = self._name(job.target)
            try:
                self._begun[name] = self._entry(job)
            except OSError:  # it has vanished; reading it will report that
                continue
            if self._known.digest(name) is not None:
                void.append({"target": name})
        self._append(void)

    def add(self, job: FileJob) -> None:
        """Record an output that was begun and has been written.

        Raises:
            OSError: the record cannot be written.
        """
        if (entry := self._begun.pop(self._name(job.target), None)) is not None:
            self._append([entry])

    def _append(self, entries: list[dict[str, Any]]) -> None:
        if entries and self._descriptor is None:
            self._descriptor = self._opened()
            weakref.finalize(self, os.close, self._descriptor)
        for entry in entries:
            line = json.dumps({**entry, _WRITTEN: time.time_ns()}) + "\n"
            assert self._descriptor is not None
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
        }


class _Known:
    """The latest entries of a folder, in 16 bytes each: hashes of names and of what is said about them."""

    def __init__(self, folder: Path) -> None:
        names, digests, written = array("q"), array("q"), array("q")
        for entry in _lines(folder):
            names.append(hash(entry["target"]))
            digests.append(_digest(entry))
            written.append(entry[_WRITTEN])
        order = np.lexsort((written, names))  # of two entries of one time the later one in the file
        self._names = np.frombuffer(names, np.int64)[order] if names else np.zeros(0, np.int64)
        last = np.append(self._names[1:] != self._names[:-1], True)[: len(names)]
        self._names = self._names[last]
        self._digests = np.frombuffer(digests, np.int64)[order[last]] if names else self._names

    def digest(self, name: str) -> int | None:
        """Return what identifies the entry of an output; None if there is none."""
        key = hash(name)
        at = int(np.searchsorted(self._names, key))
        return int(self._digests[at]) if at < len(self._names) and self._names[at] == key else None


class RecordedTargets:
    """The outputs that records name, in 8 bytes each."""

    def __init__(self) -> None:
        self._hashes = np.zeros(0, np.int64)

    def read(self, folder: Path) -> None:
        """Add the outputs that a folder's record names."""
        hashes = array("q", (hash(str(folder / entry["target"])) for entry in _lines(folder)))
        if hashes:
            self._hashes = np.unique(np.append(self._hashes, np.frombuffer(hashes, np.int64)))

    def __contains__(self, path: Path) -> bool:
        if not len(self._hashes):
            return False
        key = hash(str(path))
        at = int(np.searchsorted(self._hashes, key))
        return at < len(self._hashes) and bool(self._hashes[at] == key)


def is_record(name: str) -> bool:
    """Say whether a file of this name is a record."""
    return name.startswith(_START) and name.endswith(_END)


def _digest(entry: dict[str, Any]) -> int:
    return hash(str([entry.get(key) for key in ("source", "bytes", "mtime_ns", "settings")]))


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of all records; none of those that cannot be read."""
    for path in sorted(folder.glob(f"{_START}*{_END}")):
        with suppress(OSError), path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with suppress(ValueError, KeyError, TypeError, AttributeError):  # cut off by a crash
                    entry = json.loads(line)
                    entry["target"].strip()  # a name
                    entry[_WRITTEN] = int(entry.get(_WRITTEN, 0))
                    yield entry
