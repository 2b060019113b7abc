"""Names of outputs: made from their sources, and told apart where two would be the same."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from sr.errors import ImageError, printable
from sr.image.formats import read_suffixes
from sr.jobs.job import FileJob, FileResult

_FOLDERS = 1000  # whose kinship is kept


def name_after_source(source: Path) -> str:
    """Return a stem that tells a.jpg from a.png: "a_jpg"."""
    return f"{source.stem}_{source.suffix[1:]}" if source.suffix else source.stem


def any_number(suffix: str) -> str:
    """Return a pattern of the suffix of outputs with any numbers in the place of its numbers."""
    return re.sub(r"\d+", r"\\d+", re.escape(suffix))


@lru_cache(_FOLDERS)
def kinship(folder: str, suffix: str) -> Callable[[str], str]:
    """Return a function that gives one answer for all names in a folder whose outputs may share a name.

    These are names that differ in their ending, or in what `told_apart` and `suffix` append. Endings of
    unusual spelling are known as such, not where they were appended.

    Args:
        folder: name of the folder.
        suffix: of outputs.
    """
    endings = "|".join(re.escape(ending[1:]) for ending in read_suffixes())
    appended = f"(?:_(?:{endings}){f'|{any_number(suffix)}' if suffix else ''})+\\Z"
    pattern, prefix = re.compile(appended, re.IGNORECASE), f"{folder}_"

    def kin(name: str) -> str:
        return pattern.sub("", os.path.splitext(name)[0].removeprefix(prefix))  # noqa: PTH122  faster

    return kin


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
    named_twice = {(resolve(job.source), resolve(job.target)): job for job in jobs}
    sources, targets = map(list, zip(*named_twice, strict=True)) if named_twice else ([], [])
    jobs = list(named_twice.values())
    for stem in (name_after_source, lambda path: f"{path.parent.name}_{name_after_source(path)}"):
        for at in _clashing(targets):
            target = jobs[at].target.with_name(named(jobs[at].source, stem(jobs[at].source)))
            jobs[at], targets[at] = replace(jobs[at], target=target), resolve(target)
    clashing, inputs = set(_clashing(targets)), dict(zip(sources, jobs, strict=True))
    kept, refused = [], []
    for at, job in enumerate(jobs):
        if at in clashing:
            why = "several inputs would be written there; upscale them one by one, with -o"
        elif (replaced := inputs.get(targets[at])) is not None:
            why = f"would replace the input {printable(replaced.source)}; name another output (-o)"
        else:
            kept.append(job)
            continue
        refused.append(FileResult(job, error=ImageError(f"{printable(job.target)}: {why}")))
    return kept, refused


def _clashing(targets: Sequence[str]) -> list[int]:
    """Return the positions of targets that are there more than once."""
    if len(set(targets)) == len(targets):
        return []
    times = Counter(targets)
    return [at for at, target in enumerate(targets) if times[target] > 1]


def _resolver() -> Callable[[Path], str]:
    """Return a function that says which file a path means; it looks at each folder once."""
    folders: dict[str, str] = {}

    def resolve(path: Path) -> str:
        text = str(path)
        if os.path.islink(text):  # noqa: PTH114  as fast as it gets
            return os.path.normcase(os.path.realpath(text))
        folder, name = os.path.split(text)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        return os.path.normcase(f"{folders[folder]}{os.sep}{name}")

    return resolve
