"""`--compare`: which pictures go on the page, and what is printed about it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from sr.cli.compare import Compared, write_page
from sr.cli.console import terminal
from sr.cli.planning import Opener, PlannedRun, open_planned
from sr.cli.printing import pictures
from sr.image import DEFAULT_MAX_PIXELS, Picture
from sr.jobs.run import RunSummary
from sr.jobs.setup import Description, UpscalerSetup


def print_comparison(
    page: Path,
    planned: PlannedRun,
    summary: RunSummary,
    description: Description,
    *,
    as_json: bool,
    opener: Opener | None = None,
) -> None:
    """Write the page of outputs, of this run first, beside nearest and bicubic; print what is on it.

    A model that restores is also shown without restoration and with all of it; `opener` as in `open_planned`.

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
    with ExitStack() as stack:
        strengths = (0.0, 1.0) if summary.restored else ()
        variants = {f"restore {each:g}": _restoring(each, planned, opener, stack) for each in strengths}
        shown = write_page(page, compared, about=about, max_pixels=max_pixels, variants=variants)
    for line in shown.left_out:
        terminal.message(f"Note: not on {page}: {line}")
    if shown.shown:
        line = f"{page}: {pictures(shown.shown)} compared, {shown.size / 1e6:.1f} MB"
        (terminal.message if as_json else terminal.result)(line)
    else:
        terminal.message(f"Note: {page} was not written, there is no picture to compare")


def _restoring(
    strength: float, planned: PlannedRun, opener: Opener | None, stack: ExitStack
) -> Callable[[Picture], Picture]:
    """Return what upscales a picture as the run does, but with this strength; opened when first used."""
    other = replace(
        planned,
        upscaling=replace(planned.upscaling, restore=strength),
        upscaler_settings={**planned.upscaler_settings, "restore": strength},
    )
    opened: list[UpscalerSetup] = []

    def upscale(picture: Picture) -> Picture:
        if not opened:
            opened.append(stack.enter_context(open_planned(other, opener)))
        return opened[0].upscaler.picture(picture)

    return upscale
