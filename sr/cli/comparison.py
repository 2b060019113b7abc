"""`--compare`: which pictures go on the page, and what is printed about it."""

from __future__ import annotations

from pathlib import Path

from sr.cli.compare import Compared, write_page
from sr.cli.console import terminal
from sr.cli.planning import PlannedRun
from sr.cli.printing import pictures
from sr.image import DEFAULT_MAX_PIXELS
from sr.jobs.run import RunSummary
from sr.jobs.setup import Description


def print_comparison(
    page: Path, planned: PlannedRun, summary: RunSummary, description: Description, *, as_json: bool
) -> None:
    """Write the page of outputs, of this run first, beside nearest and bicubic; print what is on it.

    Raises:
        ImageError: the page cannot be written.
    """
    about = (
        f"{description.model} {description.label}, {description.precision}, {description.backend} on "
        f"{description.device}"
    )
    compared = [Compared(job.source, job.target) for job in summary.made]
    compared += [
        Compared(job.source, job.target, "output of an earlier run") for job in planned.worklist.done
    ]
    max_pixels = planned.run_settings.limits.max_pixels or DEFAULT_MAX_PIXELS
    shown = write_page(page, compared, about=about, max_pixels=max_pixels)
    for line in shown.left_out:
        terminal.message(f"Note: not on {page}: {line}")
    if shown.shown:
        line = f"{page}: {pictures(shown.shown)} compared, {shown.size / 1e6:.1f} MB"
        (terminal.message if as_json else terminal.result)(line)
    else:
        terminal.message(f"Note: {page} was not written, there is no picture to compare")
