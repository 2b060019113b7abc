"""Which files a command line means: pictures found, outputs named, collisions refused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import BinaryIO, Literal

from sr.errors import ImageError
from sr.files import TEMPORARY_PREFIX
from sr.image import format_of_suffix, read_suffixes, suffix_for_several
from sr.jobs.ledger import Ledger
from sr.jobs.pipeline import FileJob

DEFAULT_FORMAT = ".png"  # lossless: nothing that was computed is thrown away

# What cameras, phones and editors write and folders of pictures hold; that it is left out is said.
UNREAD_SUFFIXES = frozenset(
    {".heic", ".heif", ".jxl", ".jp2", ".psd", ".xcf", ".svg", ".tga", ".ppm", ".exr", ".hdr"}
    | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"}
)

Existing = Literal["refuse", "skip", "overwrite"]


@dataclass(frozen=True)
class OutputRules:
    """Where outputs go and what becomes of those that are there.

    Attributes:
        output: file or folder, or None for beside the input.
        suffix: added to names, e.g. "_x3".
        format: e.g. ".webp"; None means what `output` says, or PNG, and for animations and pages what
            keeps them, see `sr.image.suffix_for_several`.
        include: globs of the pictures to take from folders; none takes all.
        exclude: globs of those to leave out.
        existing: what to do where an output is there already.
        settings: what the pixels depend on besides the input, for `sr.jobs.ledger`.
    """

    output: Path | None = None
    suffix: str = "_x2"
    format: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    existing: Existing = "refuse"
    settings: str = ""


@dataclass
class Plan:
    """What is to be done.

    Attributes:
        jobs: pictures to upscale, in order.
        done: those that were upscaled before and are skipped.
        ours: pictures in folders that are outputs of earlier runs, and not taken for inputs.
        unread: pictures in folders, by their names, of formats that are not read.
        unlisted: folders that could not be listed, and why.
        ledgers: of the output folders of folders, by folder.
    """

    jobs: list[FileJob] = field(default_factory=list)
    done: list[FileJob] = field(default_factory=list)
    ours: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    unlisted: list[OSError] = field(default_factory=list)
    ledgers: dict[Path, Ledger] = field(default_factory=dict)

    @property
    def suffixes(self) -> set[str]:
        """The suffixes of all outputs, e.g. {".png"}."""
        return {job.target.suffix for job in self.jobs + self.done}


def check_inputs(inputs: Sequence[Path]) -> None:
    """Check that what is to be upscaled is there.

    Raises:
        ImageError: it is not.
    """
    missing = [source for source in inputs if not source.exists()]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise ImageError(f"{missing[0]}{more}: no such file or folder; check the name")


def plan_jobs(inputs: Sequence[Path], rules: OutputRules) -> Plan:
    """Return a job for each picture that `inputs` name, folders searched through.

    A picture `in.jpg` becomes `in_x3.png` beside it. A folder `dir` becomes `dir_x3` beside it,
    the tree below mirrored. With `rules.output`, a single picture goes to that file, or into that
    folder if the name has no suffix or the folder exists; several pictures and folders go into that
    folder. No picture is decoded. What `check_inputs` finds missing is to be refused before.

    Raises:
        ImageError: a folder holds no pictures, two outputs would have one
            name, an output would replace an input, or one exists and `rules.existing` is "refuse".
    """
    plan, output = Plan(), rules.output
    one_picture = len(inputs) == 1 and not inputs[0].is_dir()
    to_file = one_picture and output is not None and output.suffix != "" and not output.is_dir()
    if (
        output is not None
        and format_of_suffix(output.suffix) is not None
        and not (one_picture or output.is_dir())
    ):
        raise ImageError(f"{output}: is one file, but the input is more; name a folder for the output (-o)")
    for source in inputs:
        if to_file and output is not None:
            plan.jobs.append(FileJob(source, output))
        elif source.is_dir():
            _add_folder(plan, source, rules)
        else:
            plan.jobs.append(FileJob(source, (output or source.parent) / _named(source, rules)))
    _refuse_collisions(plan.jobs)
    _settle_existing(plan, rules)
    return plan


def plan_streams(
    source: Path, rules: OutputRules, *, stdin: BinaryIO | None = None, stdout: BinaryIO | None = None
) -> Plan:
    """Return the job of a picture that is read from a stream, or written to one, or both.

    Args:
        source: the picture, or what messages call it if `stdin` is given.
        rules: with a file as output, unless `stdout` is given.
        stdin: the picture, seekable.
        stdout: where it goes.

    Raises:
        ImageError: as `plan_jobs`.
    """
    suffix = rules.format or suffix_for_several(source, stdin) or DEFAULT_FORMAT
    target = rules.output if stdout is None and rules.output else Path(f"standard output{suffix}")
    plan = Plan([FileJob(source, target, stdin=stdin, stdout=stdout)])
    if stdout is None:
        _settle_existing(plan, rules)
    return plan


def _add_folder(plan: Plan, folder: Path, rules: OutputRules) -> None:
    if not rules.output and not rules.suffix:
        raise ImageError(f"{folder}: without a suffix its pictures need another folder; name one (-o)")
    resolved = folder.resolve()
    root = rules.output or resolved.with_name(f"{resolved.name}{rules.suffix}")
    nested = _is_inside(root, folder)
    found = [path for path in _pictures_below(folder, plan) if not (nested and _is_inside(path, root))]
    plan.unread = [
        path
        for path in plan.unread
        if not path.is_relative_to(folder) or _is_taken(path.relative_to(folder), rules)
    ]
    taken = [path for path in found if _is_taken(path.relative_to(folder), rules)]
    if not taken:
        why = (
            f"none of the {len(found)} pictures in this folder is asked for (--include, --exclude)"
            if found
            else f"no pictures in this folder; looked for {', '.join(sorted(read_suffixes()))}"
        )
        raise ImageError(f"{folder}: {why}")
    stems = {path.with_suffix("") for path in found}
    ours = {path for path in taken if _is_output(path, rules.suffix, stems)}
    plan.ours += sorted(ours)
    plan.ledgers[root] = Ledger(root, settings=rules.settings)
    plan.jobs += [
        FileJob(path, root / path.relative_to(folder).parent / _named(path, rules), ledger=root)
        for path in taken
        if path not in ours
    ]


def _pictures_below(folder: Path, plan: Plan) -> Iterator[Path]:
    """Yield the picture files in `folder` and below, in sorted order; links to folders are not followed.

    What looks like a picture and is not read, and folders that cannot be listed, are noted in `plan`.
    """
    for directory, names, files in os.walk(folder, onerror=plan.unlisted.append):
        names.sort()
        for name in sorted(files):
            path = Path(directory, name)
            if path.suffix.lower() in read_suffixes() and not name.startswith(TEMPORARY_PREFIX):
                yield path
            elif path.suffix.lower() in UNREAD_SUFFIXES:
                plan.unread.append(path)


def _is_taken(path: PurePath, rules: OutputRules) -> bool:
    """Say whether the globs let a path, relative to its folder, pass; `*` matches slashes too."""

    def matches(globs: Sequence[str]) -> bool:
        return any(fnmatch(path.as_posix(), glob) or fnmatch(path.name, glob) for glob in globs)

    return (not rules.include or matches(rules.include)) and not matches(rules.exclude)


def _is_output(path: Path, suffix: str, stems: set[Path]) -> bool:
    """Say whether a picture is named as the output of another one of the same folder, at any scale."""
    pattern = re.sub(r"\d+", r"\\d+", re.escape(suffix))
    match = re.fullmatch(f"(.+){pattern}", path.stem, re.DOTALL) if suffix else None
    return match is not None and path.with_name(match[1]) in stems


def _named(source: Path, rules: OutputRules) -> str:
    return f"{source.stem}{rules.suffix}{rules.format or suffix_for_several(source) or DEFAULT_FORMAT}"


def _is_inside(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))  # links may go in circles


def _refuse_collisions(jobs: Sequence[FileJob]) -> None:
    sources = {os.path.realpath(job.source): job.source for job in jobs}
    taken: dict[str, Path] = {}
    for job in jobs:
        target = os.path.normcase(os.path.realpath(job.target))
        if target in taken:
            raise ImageError(
                f"{job.target}: both {taken[target]} and {job.source} would be written there; "
                "leave one out (--exclude), or upscale them one by one, with -o"
            )
        if target in sources:
            raise ImageError(
                f"{job.target}: would replace the input {sources[target]}; name another output (-o)"
            )
        taken[target] = job.source


def _settle_existing(plan: Plan, rules: OutputRules) -> None:
    """Refuse, skip or leave to be replaced what exists.

    Raises:
        ImageError: an output exists, and nothing was said about that.
    """
    existing = [job for job in plan.jobs if os.path.lexists(job.target)]
    if rules.existing == "refuse" and existing:
        more = f" and {len(existing) - 1:,} more" if len(existing) > 1 else ""
        raise ImageError(
            f"{existing[0].target}{more}: exists already; --overwrite replaces it, --skip-existing keeps it"
        )
    if rules.existing == "skip":
        done = {job for job in existing if job.ledger is None or plan.ledgers[job.ledger].is_done(job)}
        plan.done = [job for job in plan.jobs if job in done]
        plan.jobs = [job for job in plan.jobs if job not in done]
