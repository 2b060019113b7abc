"""Print a run of `srup upscale`, as lines or as JSON, by listening to its events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING

from sr.cli.console import draws_bars, terminal
from sr.cli.debug import show_traceback
from sr.cli.failures import FailureList
from sr.errors import ImageError, printable
from sr.image.content import check_content, left_out_words
from sr.jobs.job import FileJob, FileResult
from sr.jobs.run import RunListener, RunSummary
from sr.jobs.setup import Description
from sr.jobs.shards import Shard
from sr.jobs.worklist import Worklist

if TYPE_CHECKING:
    from rich.progress import Progress


class ResultPrinter(RunListener):
    """Prints a line for each picture as it is finished: a sentence, or an object of JSON."""

    def __init__(
        self,
        description: Description,
        *,
        as_json: bool,
        failures: FailureList | None = None,
        shard: Shard | None = None,
    ) -> None:
        self._description, self._as_json, self._failures = description, as_json, failures
        self._shard, self._planned, self._over = shard, 0, 0

    def planned(self, pictures: int, *, all_known: bool) -> None:
        """Keep how many pictures there are."""
        self._planned = pictures

    def skipped(self, job: FileJob) -> None:
        """Count the picture."""
        self._over += 1

    def finished(self, result: FileResult) -> None:
        """Print the result of a picture."""
        self._over += 1
        if result.error is not None:
            show_traceback(result.error)
            if self._failures is not None:
                self._failures.add(result)
        if self._as_json:
            run = {"shard": self._shard and str(self._shard), "queue": self._planned - self._over}
            terminal.result(json_line(result, self._description, run))
            return
        if result.error is None:
            terminal.result(_result_line(result))
        else:
            terminal.message(_error_line(result))
        for note in result.notes:
            terminal.message(f"Note: {printable(result.job.target)}: {note}")

    def warned(self, text: str) -> None:
        """Print a warning."""
        terminal.message(f"Warning: {text}")

    def interrupted(self, kept: str) -> None:
        """Print that a later run continues a picture."""
        terminal.message(f"Note: {kept}")


class BarPrinter(ResultPrinter):
    """Draws bars below the lines: one of all pictures, one of the tiles of the picture in hand."""

    wants_tiles = True

    def __init__(
        self,
        bars: Progress,
        description: Description,
        *,
        as_json: bool,
        failures: FailureList | None = None,
        shard: Shard | None = None,
    ) -> None:
        super().__init__(description, as_json=as_json, failures=failures, shard=shard)
        self._bars = bars
        self._files = bars.add_task("all", total=None, unit="pictures", rate="", visible=False)
        self._tiles = bars.add_task("", total=None, unit="tiles", rate="", visible=False)
        self._current: FileJob | None = None

    def planned(self, pictures: int, *, all_known: bool) -> None:
        """Show how many pictures there are, if there are several."""
        super().planned(pictures, all_known=all_known)
        self._bars.update(self._files, total=pictures if all_known else None, visible=pictures > 1)

    def tiles_done(self, job: FileJob, done: int, total: int) -> None:
        """Show the tiles of the picture in hand."""
        from rich.markup import escape

        if self._current != job:
            self._current = job
            name = escape(printable(Path(job.source.name)))
            self._bars.reset(self._tiles, total=total, description=name, visible=True)
        self._bars.update(self._tiles, completed=done)
        speed = self._bars.tasks[self._tiles].speed
        self._bars.update(self._tiles, rate=f"{speed:.1f}/s" if speed else "")

    def skipped(self, job: FileJob) -> None:
        """Count the picture."""
        super().skipped(job)
        self._bars.advance(self._files)

    def finished(self, result: FileResult) -> None:
        """Count the picture, and print its result."""
        self._bars.advance(self._files)
        super().finished(result)


@contextmanager
def printer(
    description: Description,
    *,
    as_json: bool,
    failures: FailureList | None = None,
    shard: Shard | None = None,
) -> Iterator[ResultPrinter]:
    """Yield what prints a run, with bars if stderr is a terminal; what fails goes into a list too."""
    if not draws_bars():
        yield ResultPrinter(description, as_json=as_json, failures=failures, shard=shard)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", table_column=Column(max_width=24, no_wrap=True)),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with terminal.bars(*columns) as bars:
        yield BarPrinter(bars, description, as_json=as_json, failures=failures, shard=shard)


def print_worklist(worklist: Worklist, *, as_json: bool) -> bool:
    """Print what would be done; return whether all of it can be, as far as the first bytes tell."""
    possible = impossible = warnings = 0
    for window in worklist.windows():
        for warning in window.warnings[warnings:]:
            terminal.message(f"Warning: {warning}")
        warnings = len(window.warnings)
        refused = list(window.refused)
        for job in window.jobs:
            try:
                if job.stdin is None:
                    check_content(job.source)
            except ImageError as error:
                refused.append(FileResult(job, error=error))
            else:
                possible += 1
                _print_planned(job, as_json=as_json)
        for result in refused:
            if as_json:
                terminal.result(json_line(result, Description()))
            else:
                terminal.message(_error_line(result))
        impossible += len(refused)
    if as_json:
        totals = {"to_upscale": possible, "refused": impossible}
        terminal.result(json.dumps({"summary": totals | _counts(worklist)}))
    else:
        terminal.result(f"{pictures(possible)} to upscale{_not_taken(worklist)}")
    return not impossible


def _print_planned(job: FileJob, *, as_json: bool) -> None:
    exists = job.target.exists()
    if as_json:
        planned = {"source": str(job.source), "target": str(job.target), "replaces": exists}
        terminal.result(json.dumps(planned))
    else:
        replaces = "  (replaces it)" if exists else ""
        terminal.result(f"{printable(job.source)} -> {printable(job.target)}{replaces}")


def print_summary(
    worklist: Worklist, summary: RunSummary, description: Description, *, as_json: bool
) -> None:
    """Print the figures of a run, and what failed."""
    finished = summary.done + summary.failures
    ended = summary.interrupted or summary.too_many_failed
    output = summary.output_pixels / 1e6
    if as_json:
        totals: dict[str, object] = {
            "done": summary.done,
            "failed": summary.failures,
            "interrupted": summary.interrupted,
            "too_many_failed": summary.too_many_failed,
            "output_megapixels": round(output, 4),
            "seconds": round(summary.seconds, 4),
            "host": gethostname(),
        }
        if summary.restored:
            totals["restored"] = {
                f"{strength:g}": count for strength, count in sorted(summary.restored.items())
            }
        terminal.result(json.dumps({"summary": totals | _counts(worklist, summary.skipped)}))
    elif not ended:
        why = f"; {description.why}" if description.why else ""
        terminal.result(
            f"{summary.done:,} of {pictures(finished)}, {description.label}, "
            f"{output:.2f} megapixels out in {summary.seconds:.1f} s ({output / summary.seconds:.2f} MP/s) "
            f"on {description.device} (backend {description.backend}{why}){_restored(summary)}"
            f"{_not_taken(worklist, summary.skipped)}"
        )
        if summary.failed and finished > 1:
            terminal.message(f"{summary.failures:,} failed:")
            for result in summary.failed:
                terminal.message(f"  {printable(result.job.source)}")
            if summary.failures > len(summary.failed):
                terminal.message(f"  and {summary.failures - len(summary.failed):,} more")
    if ended:
        why = f"{pictures(summary.failures)} failed, " if summary.too_many_failed else ""
        terminal.message(
            f"stopped: {why}{summary.finished:,} of {pictures(summary.total)} done, no partial file was "
            "left; continue with --skip-existing"
        )


def pictures(number: int) -> str:
    """Return "1 picture" or "2 pictures"."""
    return f"{number:,} picture" if number == 1 else f"{number:,} pictures"


def json_line(result: FileResult, description: Description, run: Mapping[str, object] | None = None) -> str:
    """Return a result as JSON, in ASCII: file names need not be valid in any encoding.

    Args:
        result: of a picture.
        description: of what upscaled it.
        run: what is known of the run besides.
    """
    width, height = result.size or (None, None)
    output_width, output_height = result.output_size or (None, None)
    record = {
        "source": str(result.job.source),
        "target": str(result.job.target),
        "ok": result.error is None,
        "error": None if result.error is None else " ".join(str(result.error).splitlines()),
        "width": width,
        "height": height,
        "output_width": output_width,
        "output_height": output_height,
        "scale": output_width and width and round(output_width / width, 4),
        "tiles": result.tiles,
        "seconds": round(result.seconds, 4),
        "frames": result.frames,
        "notes": result.notes,
        "stages": {name: round(seconds, 4) for name, seconds in result.stages.items()},
        "backend": description.backend,
        "device": result.device or description.device,
        "host": result.host or gethostname(),
    }
    if result.restored is not None:
        record |= {"restore": result.restored.strength, "restore_why": result.restored.why}
    return json.dumps(record | dict(run or {}))


def _restored(summary: RunSummary) -> str:
    """Return how many pictures were restored with which strength, to be appended to a sentence."""
    counts = [f"{count:,} at {strength:g}" for strength, count in sorted(summary.restored.items())]
    return f"; strength of restoration: {', '.join(counts)}" if counts else ""


def _counts(worklist: Worklist, skipped: int = 0) -> dict[str, object]:
    return {
        "skipped": worklist.skipped + skipped,
        "other_shards": worklist.other_shards,
        "left_out": dict(sorted(worklist.left_out.items())),
    }


def _not_taken(worklist: Worklist, skipped: int = 0) -> str:
    """Return which inputs were not upscaled, and why, to be appended to a sentence."""
    skipped += worklist.skipped
    done = f"; {pictures(skipped)} skipped, their outputs exist" if skipped else ""
    others = f"; {pictures(worklist.other_shards)} left to other shards" if worklist.other_shards else ""
    return done + others + left_out_words(worklist.left_out)


def _error_line(result: FileResult) -> str:
    return f"Error: {' '.join(str(result.error).splitlines())}"


def _result_line(result: FileResult) -> str:
    (width, height), (output_width, output_height) = result.size or (0, 0), result.output_size or (0, 0)
    return (
        f"{printable(result.job.source)} -> {printable(result.job.target)}  "
        f"{width}x{height} -> {output_width}x{output_height}  "
        f"{'' if result.frames == 1 else f'{result.frames} frames, '}"
        f"{result.tiles} {'tile' if result.tiles == 1 else 'tiles'}, {result.seconds:.2f} s"
        f"{_restoration(result)}"
    )


def _restoration(result: FileResult) -> str:
    """Return how strongly a picture was restored, and why, to be appended to its line."""
    if result.restored is None:
        return ""
    strength = result.restored.strength
    how = f"restored at strength {strength:g}" if strength else "not restored"
    return f", {how} ({result.restored.why})"
