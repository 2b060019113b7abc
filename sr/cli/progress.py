"""Progress as the user sees it: bars on a terminal, a few lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sr.cli.console import draws_bars, terminal


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
