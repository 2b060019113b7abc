"""Names of outputs: made from their sources, and told apart where two would be the same."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sr.errors import ImageError, printable
from sr.jobs.find import name_after_source
from sr.jobs.job import FileJob, FileResult


def told_apart(
    jobs: Sequence[FileJob], named: Callable[[Path, str], str]
) -> tuple[list[FileJob], list[FileResult]]:
    """Give outputs that would have one name other names, made from their sources.

    Inputs that were named twice count once.

    Args:
        jobs: with the names that outputs have if they are the only ones.
        named: returns the name of an output from its source and a stem.

    Returns:
        The jobs, and refusals of jobs that would still share a name or replace an input.
    """
    resolve = _resolver()
    jobs = list({(resolve(job.source), resolve(job.target)): job for job in jobs}.values())
    for stem in (name_after_source, lambda path: f"{path.parent.name}_{name_after_source(path)}"):
        clashing = _clashing(jobs, resolve)
        jobs = [
            replace(job, target=job.target.with_name(named(job.source, stem(job.source))))
            if job.target in clashing
            else job
            for job in jobs
        ]
    clashing, sources = _clashing(jobs, resolve), {resolve(job.source): job.source for job in jobs}
    kept, refused = [], []
    for job in jobs:
        if job.target in clashing:
            why = "several inputs would be written there; upscale them one by one, with -o"
        elif (replaced := sources.get(resolve(job.target))) is not None:
            why = f"would replace the input {printable(replaced)}; name another output (-o)"
        else:
            kept.append(job)
            continue
        refused.append(FileResult(job, error=ImageError(f"{printable(job.target)}: {why}")))
    return kept, refused


def _clashing(jobs: Sequence[FileJob], resolve: Callable[[Path], str]) -> set[Path]:
    names = Counter(resolve(job.target) for job in jobs)
    return {job.target for job in jobs if names[resolve(job.target)] > 1}


def _resolver() -> Callable[[Path], str]:
    """Return a function that says which file a path means; it looks at each folder once."""
    folders: dict[Path, str] = {}

    def resolve(path: Path) -> str:
        if os.path.islink(path):  # noqa: PTH114  as fast as it gets
            return os.path.normcase(os.path.realpath(path))
        if path.parent not in folders:
            folders[path.parent] = os.path.realpath(path.parent)
        return os.path.normcase(os.path.join(folders[path.parent], path.name))  # noqa: PTH118

    return resolve
