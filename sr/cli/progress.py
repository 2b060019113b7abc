"""Progress as the user sees it: bars on a terminal, a few lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sr.cli.console import draws_bars, terminal

if TYPE_CHECKING:
    from train.report import Progress, StepReport


def phase_lines() -> Callable[[str, float], None]:
    """Return a callback (phase, share) that prints each phase once."""
    seen: set[str] = set()

    def progress(phase: str, share: float) -> None:
        if phase not in seen:
            seen.add(phase)
            terminal.message(phase)

    return progress


@contextmanager
def picture_progress() -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (done, total): it draws a bar if stderr is a terminal, else prints each tenth."""

    def plain(done: int, total: int) -> None:
        if done * 10 // total > (done - 1) * 10 // total:
            terminal.message(f"{done:,} of {total:,} pictures")

    if not draws_bars():
        yield plain
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("pictures"), TimeRemainingColumn())
    with terminal.bars(*columns) as bars:
        task = bars.add_task("pictures", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def training_progress() -> Iterator[Progress]:
    """Yield a listener to a training run: a bar if stderr is a terminal, else a line each minute."""
    from train.report import duration, now_and_then

    if not draws_bars():
        yield now_and_then(lambda report: terminal.message(str(report)))
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    description, rest = TextColumn("{task.description}"), TextColumn("{task.fields[rest]}")
    with terminal.bars(description, BarColumn(), MofNCompleteColumn(), rest) as bars:
        task = bars.add_task("", total=None, rest="")

        def show(report: StepReport) -> None:
            rate = f"{report.images_per_s:,.0f} images/s"
            text = f"loss {report.loss:.4f}  {rate}  {duration(report.seconds_left)} left"
            epoch = f"epoch {report.epoch}/{report.total_epochs}"
            bars.update(task, completed=report.step, total=report.steps, description=epoch, rest=text)

        yield show
