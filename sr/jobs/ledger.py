"""What has been upscaled into a folder: of which picture in which state, with which settings.

One JSON object a line is appended after each picture, so a killed run loses at most the last line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sr.jobs.pipeline import FileJob

NAME = ".srup-ledger.jsonl"


class Ledger:
    """The record of one output folder."""

    def __init__(self, folder: Path, *, settings: str) -> None:
        """Read what is there.

        Args:
            settings: what the pixels depend on besides the input; a picture that was made with
                others is not done.
        """
        self._path, self._settings = folder / NAME, settings
        self._entries: dict[str, dict[str, Any]] = {}
        self._begun: dict[str, dict[str, Any]] = {}
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                entry = json.loads(line)
                self._entries[entry["target"]] = entry
            except (json.JSONDecodeError, KeyError, TypeError):  # cut off by a crash
                continue

    def is_done(self, job: FileJob) -> bool:
        """Say whether the output that exists was made of the picture as it is now, with these settings.

        An output that is not in the record (it was killed between the two) counts as done.
        """
        entry = self._entries.get(self._name(job.target))
        return entry is None or entry == self._entry(job)

    def begin(self, jobs: Iterable[FileJob]) -> None:
        """Note the state of pictures before they are read: one that changes meanwhile is redone next time.

        What the record says of earlier outputs no longer holds: a run that is killed may have replaced them.

        Raises:
            OSError: the record cannot be written.
        """
        for job in jobs:
            try:
                self._begun[self._name(job.target)] = self._entry(job)
            except OSError:  # it has vanished, which reading it will say
                continue
        void = [name for name in self._begun if self._entries.pop(name, None) is not None]
        if void:
            self._append({"target": name} for name in void)

    def add(self, job: FileJob) -> None:
        """Record a picture that has been written, and was begun.

        Raises:
            OSError: the record cannot be written.
        """
        if (entry := self._begun.pop(self._name(job.target), None)) is not None:
            self._append([entry])

    def _append(self, entries: Iterable[dict[str, Any]]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            for entry in entries:
                self._entries[entry["target"]] = entry
                file.write(json.dumps(entry) + "\n")

    def _name(self, target: Path) -> str:
        return Path(os.path.relpath(target, self._path.parent)).as_posix()

    def _entry(self, job: FileJob) -> dict[str, Any]:
        state = job.source.stat()
        return {
            "target": self._name(job.target),
            "source": Path(os.path.realpath(job.source)).as_posix(),
            "bytes": state.st_size,
            "mtime_ns": state.st_mtime_ns,
            "settings": self._settings,
        }
