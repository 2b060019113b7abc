"""A run over a worklist: ledgers, leftovers of killed runs, Ctrl-C, and the figures of the summary.

The run prints nothing; its caller listens to its events.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sr.errors import ImageError
from sr.files import remove_left_over
from sr.jobs.claims import Claims
from sr.jobs.interrupt import second_interrupt_stops_at_once
from sr.jobs.job import FileJob, FileResult
from sr.jobs.pipeline import RunSettings, upscale_files
from sr.jobs.setup import UpscalerSetup
from sr.jobs.worklist import Worklist

MOST_KEPT = 10_000  # jobs and results that a summary holds: a run may have millions
_MOST_FOLDERS = 10_000  # that a run remembers to have cleaned; cleaning one again costs its listing
_WAIT_S = 0.5  # before pictures that other runs have claimed are looked at again


class RunListener:
    """Hears the events of a run; each method does nothing unless a subclass overrides it."""

    wants_tiles = False  # whether `tiles_done` is to be called

    def planned(self, pictures: int, *, all_known: bool) -> None:
        """Called with the number of pictures before the first, and when more have been found.

        Args:
            pictures: found so far.
            all_known: that is all of them.
        """

    def tiles_done(self, job: FileJob, done: int, total: int) -> None:
        """Called after each batch of tiles of the current picture."""

    def finished(self, result: FileResult) -> None:
        """Called with the result of each picture."""

    def skipped(self, job: FileJob) -> None:
        """Called with each picture that another run has made meanwhile."""

    def warned(self, text: str) -> None:
        """Called with a warning about the run as a whole."""

    def interrupted(self, kept: str) -> None:
        """Called after Ctrl-C with a sentence about an unfinished picture that a later run continues."""


@dataclass
class RunSummary:
    """The figures of a run.

    Attributes:
        total: pictures found.
        done: pictures whose outputs were written.
        made: the first of their jobs.
        failures: pictures that failed.
        failed: the first of their results.
        output_pixels: of all outputs, frames counted.
        seconds: the run took.
        skipped: pictures that another run made meanwhile.
        interrupted: Ctrl-C ended it.
        too_many_failed: more pictures failed than allowed, which ended it.
        restored: how many pictures were restored with each strength; empty if the model cannot.
    """

    total: int = 0
    done: int = 0
    made: list[FileJob] = field(default_factory=list)
    failures: int = 0
    failed: list[FileResult] = field(default_factory=list)
    output_pixels: int = 0
    seconds: float = 0.0
    skipped: int = 0
    interrupted: bool = False
    too_many_failed: bool = False
    restored: Counter[float] = field(default_factory=Counter)

    @property
    def finished(self) -> int:
        """How many pictures have been dealt with."""
        return self.done + self.failures + self.skipped

    def add(self, result: FileResult) -> None:
        """Count a result."""
        if result.error is not None:
            self.failures += 1
            if len(self.failed) < MOST_KEPT:
                self.failed.append(result)
            return
        self.done += 1
        if result.restored is not None:
            self.restored[result.restored.strength] += 1
        if len(self.made) < MOST_KEPT:
            self.made.append(result.job)
        if result.output_size is not None:
            width, height = result.output_size
            self.output_pixels += width * height * result.frames


@dataclass(frozen=True)
class FailureLimit:
    """How many pictures may fail before a run ends: a number, or a share of all.

    Attributes:
        number: pictures, or percent of all.
        percent: what `number` is.
    """

    number: float
    percent: bool = False

    @staticmethod
    def parse(text: str) -> FailureLimit:
        """Read "20" or "5%".

        Raises:
            ImageError: it is neither.
        """
        match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", text.strip())
        if match is None:
            raise ImageError(f"{text!r} is neither a number of pictures nor a percentage, e.g. 20 or 5%")
        return FailureLimit(float(match[1] or match[2]), percent=match[1] is None)

    def exceeded(self, failed: int, total: int) -> bool:
        """Say whether so many failures, of so many pictures, are too many."""
        return failed > (self.number * total / 100 if self.percent else self.number)


def run_worklist(
    worklist: Worklist,
    setup: UpscalerSetup,
    settings: RunSettings,
    listener: RunListener,
    *,
    most_failures: FailureLimit | None = None,
) -> RunSummary:
    """Upscale what a worklist names, in order, in this process.

    Args:
        worklist: the files.
        setup: what upscales them; it stays open.
        settings: of the run.
        listener: hears each event, on the calling thread.
        most_failures: that may happen before the run ends early; None is any number.
    """

    def upscale(jobs: Iterator[FileJob]) -> Generator[FileResult, None, None]:
        return upscale_files(
            jobs,
            setup.upscaler,
            capabilities=setup.capabilities,
            settings=settings,
            progress=listener.tiles_done if listener.wants_tiles else None,
        )

    return run_jobs(
        worklist,
        upscale,
        listener,
        warning=setup.warning,
        notes=setup.notes,
        most_failures=most_failures,
    )


def run_jobs(
    worklist: Worklist,
    upscale: Callable[[Iterator[FileJob]], Generator[FileResult, None, None]],
    listener: RunListener,
    *,
    warning: str | None,
    notes: Callable[[], Sequence[str]],
    most_failures: FailureLimit | None = None,
) -> RunSummary:
    """Upscale what a worklist names with a function that takes jobs and yields results.

    Runs on one output folder share its pictures: each takes those that no other has in hand, and at the end
    waits for those that others have, to make them if these end without. A picture that fails is one failed
    result. The first Ctrl-C lets what is being written finish and ends
    the run; the second ends the process.

    Args:
        worklist: the files.
        upscale: takes the jobs one by one, in order, and yields the result of each.
        listener: hears each event, on the calling thread.
        warning: what the user should know before the run, or None.
        notes: called after the run; returns what the user should know of it.
        most_failures: that may happen before the run ends early; None is any number.
    """
    started = time.perf_counter()
    run = _Run(worklist, listener, most_failures)
    if warning:
        listener.warned(warning)
    with second_interrupt_stops_at_once(), closing(run):
        run.take_all(upscale(run.jobs()))
        while run.waits_for_others:
            run.take_all(upscale(run.jobs_of_others()))
    for note in dict.fromkeys(notes()):
        listener.warned(note)
    run.summary.seconds = time.perf_counter() - started
    return run.summary


class _TooManyFailed(KeyboardInterrupt):
    """Ends a run as Ctrl-C does: what is being written is finished."""


class _Run:
    """The state of a run."""

    def __init__(self, worklist: Worklist, listener: RunListener, most_failures: FailureLimit | None) -> None:
        self.summary = RunSummary()
        self._worklist, self._listener, self._most_failures = worklist, listener, most_failures
        self._records = _Records(worklist, listener)
        self._claims = Claims()
        self._of_others: list[FileJob] = []
        self._cleaned: set[Path] = set()
        self._warnings = 0  # of the worklist that have been passed on

    @property
    def waits_for_others(self) -> bool:
        """Whether other runs have pictures in hand that this one would upscale."""
        return bool(self._of_others) and not (self.summary.interrupted or self.summary.too_many_failed)

    def jobs(self) -> Iterator[FileJob]:
        """Yield each job when its turn comes, unless another run has it in hand, or has done it."""
        for window in self._worklist.windows():
            self._begin(window)
            yield from self._claimed(window.jobs)

    def jobs_of_others(self) -> Iterator[FileJob]:
        """Wait a moment, then yield those that other runs had in hand and have not done.

        Nothing of this run is in hand while it waits: runs that wait for each other would never end.
        """
        time.sleep(_WAIT_S)
        jobs, self._of_others = self._of_others, []
        yield from self._claimed(jobs)

    def take(self, result: FileResult) -> None:
        """Count and record a result, and pass it on."""
        self.summary.add(result)
        if result.error is None:
            self._records.add(result.job)
        self._claims.release(result.job)
        self._listener.finished(result)

    def close(self) -> None:
        """Give up all claims."""
        self._claims.close()

    def _begin(self, window: Worklist) -> None:
        """Count a window, clean its folders, and take what it refuses."""
        self.summary.total += len(window.jobs) + len(window.refused)
        self._listener.planned(self.summary.total, all_known=window.is_complete)
        for text in window.warnings[self._warnings :]:
            self._listener.warned(text)
        self._warnings = len(window.warnings)
        if len(self._cleaned) > _MOST_FOLDERS:
            self._cleaned.clear()
        for folder in {job.target.parent for job in (*window.jobs, *window.done)} - self._cleaned:
            remove_left_over(folder)
            self._cleaned.add(folder)
        for refused in window.refused:
            self.take(refused)

    def _claimed(self, jobs: Iterable[FileJob]) -> Iterator[FileJob]:
        """Yield the jobs that become ours, and note the state of their inputs."""
        for job in jobs:
            if self._worklist.is_shared and not self._claims.take(job):
                self._of_others.append(job)
            elif self._worklist.was_done_meanwhile(job):  # asked when nobody else can be writing it
                self._claims.release(job)
                self.summary.skipped += 1
                self._listener.skipped(job)
            else:
                self._records.begin(job)
                yield job

    def take_all(self, files: Generator[FileResult, None, None]) -> None:
        """Take results to the end, or until Ctrl-C or too many failures; then what is being written."""
        try:
            for result in files:
                self.take(result)
                self._refuse_too_many_failures()
        except KeyboardInterrupt as interrupt:
            self.summary.too_many_failed = isinstance(interrupt, _TooManyFailed)
            self.summary.interrupted = not self.summary.too_many_failed
            for result in _being_written(files, interrupt):
                self.take(result)
            for kept in interrupt.args:
                self._listener.interrupted(kept)

    def _refuse_too_many_failures(self) -> None:
        limit, summary = self._most_failures, self.summary
        if limit is not None and limit.exceeded(summary.failures, summary.total):
            raise _TooManyFailed


def _being_written(
    files: Generator[FileResult, None, None], interrupt: KeyboardInterrupt
) -> Iterator[FileResult]:
    """Yield what is still finished after Ctrl-C, which `files` may not have seen yet."""
    with suppress(KeyboardInterrupt):
        yield files.throw(interrupt)
        yield from files


class _Records:
    """The ledgers of a worklist; one that cannot be written is reported once and does not stop the work."""

    def __init__(self, worklist: Worklist, listener: RunListener) -> None:
        self._ledgers, self._listener, self._failed = worklist.ledgers, listener, False

    def begin(self, job: FileJob) -> None:
        """Note the state of a picture before it is read."""
        if job.ledger is not None:
            with self._warning(job.ledger):
                self._ledgers[job.ledger].begin([job])

    def add(self, job: FileJob) -> None:
        """Record a picture that has been written."""
        if job.ledger is not None:
            with self._warning(job.ledger):
                self._ledgers[job.ledger].add(job)

    @contextmanager
    def _warning(self, folder: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._failed:
                self._listener.warned(
                    f"{folder}: the record of finished pictures cannot be written ({error.strerror}); "
                    "--skip-existing will look at names only"
                )
            self._failed = True
