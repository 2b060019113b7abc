"""A worklist planned window by window: of millions of files the first is done within seconds."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sr.errors import ImageError, printable
from sr.jobs.job import FileJob, FileResult
from sr.jobs.ledger import Ledger
from sr.jobs.naming import told_apart
from sr.jobs.rules import OutputRules

# Files of the first window and of later ones, at about 1.5 kB each. The first takes a second to plan on a
# local disk; later ones are larger, since what is done once for a window then weighs less.
FIRST, LATER = 10_000, 30_000

_State = tuple[int, int, int]  # inode, time of change, bytes


@dataclass
class Part:
    """Some files of a folder or of a list.

    Attributes:
        jobs: to be done.
        beside: jobs that are not to be done here, whose outputs may have the same names.
        refused: what cannot be done, with the reason.
    """

    jobs: list[FileJob] = field(default_factory=list)
    beside: list[FileJob] = field(default_factory=list)
    refused: list[FileResult] = field(default_factory=list)

    def add(self, other: Part) -> None:
        """Take in another part."""
        self.jobs += other.jobs
        self.beside += other.beside
        self.refused += other.refused


@dataclass
class Worklist:
    """What is to be done, window by window: of very many files only some thousands are planned at a time.

    Attributes:
        jobs: files of this window to upscale, in order.
        done: those of this window that were upscaled before and are skipped.
        refused: jobs of this window whose output cannot be written, with the reason.
        skipped: number of files that were upscaled before, in all windows so far.
        left_out: number of files in folders that are not inputs, by kind, so far.
        warnings: sentences about inputs that could not be searched, so far.
        ledgers: records of the output folders of folders, by folder.
        other_shards: number of files that belong to other shards, so far.
        is_shared: other runs on the same folder make some of the outputs; not if all are to be replaced.
        outdated: jobs whose outputs have to be made again, with the state of these when this was planned.
        is_complete: this window is the last.
    """

    jobs: list[FileJob] = field(default_factory=list)
    done: list[FileJob] = field(default_factory=list)
    refused: list[FileResult] = field(default_factory=list)
    skipped: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    ledgers: dict[Path, Ledger] = field(default_factory=dict)
    other_shards: int = 0
    is_shared: bool = False
    outdated: dict[FileJob, _State] = field(default_factory=dict)
    is_complete: bool = True
    further: Iterator[None] = field(default_factory=lambda: iter(()), repr=False)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to upscale, as far as is known."""
        return bool(self.jobs) or not self.is_complete

    def plan_further(self) -> bool:
        """Plan the next window, in place of this one; say whether there is one."""
        return next(self.further, self) is None

    def windows(self) -> Iterator[Worklist]:
        """Yield this worklist with this window, and with each that follows."""
        yield self
        while self.plan_further():
            yield self

    def was_done_meanwhile(self, job: FileJob) -> bool:
        """Say whether another run has made an output since this was planned, so that it can be skipped."""
        if not self.is_shared:
            return False
        state = _state(job.target)
        return state is not None and state != self.outdated.get(job)

    @property
    def suffixes(self) -> set[str]:
        """The suffixes of the outputs of this window, e.g. {".png"}."""
        return {job.target.suffix for job in self.jobs + self.done}


def planned(parts: Iterable[Part], rules: OutputRules, worklist: Worklist | None = None) -> Worklist:
    """Return a worklist whose first window is planned.

    Args:
        parts: all files; those whose outputs may have one name are in one part.
        rules: what happens to existing outputs.
        worklist: what `parts` counts in; None if it counts nothing.

    Raises:
        ImageError: an output of the first window exists, and `rules.existing` is "refuse". In later windows
            such jobs are skipped.
    """
    worklist = worklist or Worklist()
    worklist.is_shared, worklist.is_complete = rules.existing != "overwrite", False
    worklist.further = _windows(worklist, parts, rules)
    worklist.plan_further()
    return worklist


def _windows(worklist: Worklist, parts: Iterable[Part], rules: OutputRules) -> Iterator[None]:
    """Fill the worklist with one window after the other; windows with nothing to do are passed over."""
    waiting, limit = Part(), FIRST
    for part in parts:
        if waiting.jobs and len(waiting.jobs) + len(part.jobs) > limit:
            _fill(worklist, waiting, rules, is_first=limit == FIRST)
            waiting, limit = Part(), LATER
            if worklist.jobs or worklist.refused:
                yield
        waiting.add(part)
    worklist.is_complete = True
    _fill(worklist, waiting, rules, is_first=limit == FIRST)
    yield


def _fill(worklist: Worklist, part: Part, rules: OutputRules, *, is_first: bool) -> None:
    """Plan one window; whoever is told of existing outputs is told before work has begun."""
    jobs, refused = told_apart([*part.jobs, *part.beside], rules.name)
    if part.beside:
        others = {job.source for job in part.beside}
        jobs = [job for job in jobs if job.source not in others]
        refused = [result for result in refused if result.job.source not in others]
    worklist.refused = part.refused + refused
    existing = [] if rules.existing == "overwrite" else [job for job in jobs if os.path.lexists(job.target)]
    if rules.existing == "refuse" and is_first:
        _refuse(existing)
    done = {job for job in existing if rules.existing == "refuse" or _is_done(worklist, job)}
    worklist.jobs = [job for job in jobs if job not in done] if done else jobs
    worklist.done = [job for job in jobs if job in done] if done else []
    worklist.skipped += len(done)
    worklist.outdated = {
        job: state for job in existing if job not in done and (state := _state(job.target)) is not None
    }
    if rules.largest_first:
        worklist.jobs.sort(key=_bytes, reverse=True)


def _is_done(worklist: Worklist, job: FileJob) -> bool:
    return job.ledger is None or worklist.ledgers[job.ledger].is_done(job)


def _refuse(existing: list[FileJob]) -> None:
    """Refuse to replace outputs.

    Raises:
        ImageError: there are any.
    """
    if existing:
        one = len(existing) == 1
        what = "exists already" if one else f"exists already, as {len(existing) - 1:,} more outputs do"
        it = "it" if one else "them"
        raise ImageError(
            f"{printable(existing[0].target)}: {what}; --overwrite replaces {it}, --skip-existing keeps {it}"
        )


def _state(path: Path) -> _State | None:
    """Return what tells a file from one that replaces it; None if it does not exist."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _bytes(job: FileJob) -> int:
    """Return the size of a source, which costs less to ask for than that of the picture, and goes with it."""
    try:
        return job.source.stat().st_size
    except OSError:
        return 0
