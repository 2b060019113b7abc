"""What has been upscaled into a folder: of which picture in which state, with which settings.

One JSON object a line is appended after each picture, so a killed run loses at most the last line.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sr.pipeline import FileJob

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

    def add(self, job: FileJob) -> None:
        """Record a picture that has been written."""
        self._entries[self._name(job.target)] = entry = self._entry(job)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _name(self, target: Path) -> str:
        return Path(os.path.relpath(target, self._path.parent)).as_posix()

    def _entry(self, job: FileJob) -> dict[str, Any]:
        state = job.source.stat()
        return {
            "target": self._name(job.target),
            "source": job.source.resolve().as_posix(),
            "bytes": state.st_size,
            "mtime_ns": state.st_mtime_ns,
            "settings": self._settings,
        }
