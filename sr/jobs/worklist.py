"""From inputs to jobs: pictures are found, outputs named, existing outputs refused, skipped or replaced."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import BinaryIO, Literal

from sr.errors import ImageError, printable
from sr.image import format_of_suffix, multi_image_suffix
from sr.image.content import is_picture, left_out_words
from sr.jobs.find import OUTPUT, count_left_out, find_pictures, name_after_source
from sr.jobs.job import FileJob, FileResult
from sr.jobs.ledger import Ledger
from sr.jobs.naming import told_apart
from sr.jobs.shards import Shard

DEFAULT_FORMAT = ".png"  # lossless: nothing that was computed is thrown away

_MOST_NAMED = 20  # missing inputs in one message

Existing = Literal["refuse", "skip", "overwrite"]
_State = tuple[int, int, int]  # inode, time of change, bytes


@dataclass(frozen=True)
class OutputRules:
    """Where outputs go, and what happens to existing ones.

    Attributes:
        output: file or folder, or None for beside the input.
        is_folder: `output` is a folder, whatever its name.
        suffix: added to names, e.g. "_x3".
        format: e.g. ".webp"; None means what `output` says, or PNG, and for animations and pages what
            keeps them, see `sr.image.multi_image_suffix`.
        include: globs of the pictures to process in folders; none means all.
        exclude: globs of files to leave out.
        existing: what to do where an output exists.
        settings: what the pixels depend on besides the input, for `sr.jobs.ledger`.
        shard: the part of all files to take; None is all.
    """

    output: Path | None = None
    is_folder: bool = False
    suffix: str = "_x2"
    format: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    existing: Existing = "refuse"
    settings: str = ""
    shard: Shard | None = None

    @property
    def writer(self) -> str:
        """Who writes the record of an output folder, see `sr.jobs.ledger`."""
        return "" if self.shard is None else self.shard.label


@dataclass
class Worklist:
    """What is to be done.

    Attributes:
        jobs: files to upscale, in order.
        done: those that were upscaled before and are skipped.
        refused: jobs whose output cannot be written, with the reason.
        left_out: number of files in folders that are not inputs, by kind.
        warnings: sentences about inputs that could not be searched.
        ledgers: records of the output folders of folders, by folder.
        other_shards: number of files that belong to other shards.
        is_shared: other runs on the same folder make some of the outputs; not if all are to be replaced.
        outdated: jobs whose outputs have to be made again, with the state of these when the list was made.
    """

    jobs: list[FileJob] = field(default_factory=list)
    done: list[FileJob] = field(default_factory=list)
    refused: list[FileResult] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    ledgers: dict[Path, Ledger] = field(default_factory=dict)
    other_shards: int = 0
    is_shared: bool = False
    outdated: dict[FileJob, _State] = field(default_factory=dict)

    def was_done_meanwhile(self, job: FileJob) -> bool:
        """Say whether another run has made an output since the list was made, so that it can be skipped."""
        if not self.is_shared:
            return False
        state = _state(job.target)
        return state is not None and state != self.outdated.get(job)

    @property
    def suffixes(self) -> set[str]:
        """The suffixes of all outputs, e.g. {".png"}."""
        return {job.target.suffix for job in self.jobs + self.done}


def check_inputs(inputs: Sequence[Path]) -> None:
    """Check that all inputs exist.

    Raises:
        ImageError: some do not; the message names them.
    """
    missing = [printable(source) for source in inputs if not source.exists()]
    if missing:
        more = f" and {len(missing) - _MOST_NAMED:,} more" if len(missing) > _MOST_NAMED else ""
        raise ImageError(
            f"{', '.join(missing[:_MOST_NAMED])}{more}: no such file or folder; check the "
            f"name{'s' * (len(missing) > 1)}"
        )


def make_worklist(inputs: Sequence[Path], rules: OutputRules) -> Worklist:
    """Return a job for each picture that `inputs` name; folders are searched with all below them.

    A picture `in.jpg` becomes `in_x3.png` beside it. A folder `dir` becomes `dir_x3` beside it,
    with the same tree inside. With `rules.output`, a single picture goes to that file, or into that
    folder if the name has no suffix or the folder exists; several pictures and folders go into that
    folder. Outputs whose names would clash are named after their source: a.jpg becomes `a_jpg_x3.png`.
    No picture is decoded. Missing inputs are refused beforehand, by `check_inputs`.

    Raises:
        ImageError: there is no picture at all, or an output exists and `rules.existing` is "refuse".
    """
    worklist, output = Worklist(), rules.output
    one_picture = len(inputs) == 1 and not inputs[0].is_dir()
    is_folder = output is None or rules.is_folder or output.is_dir()
    if output is not None and not is_folder and not one_picture and format_of_suffix(output.suffix):
        raise ImageError(f"{output}: names one file, but there are several inputs; name a folder (-o)")
    if one_picture and output is not None and not is_folder and output.suffix:
        worklist.jobs.append(FileJob(inputs[0], output))
    else:
        empty = [why for source in inputs if (why := _add_input(worklist, source, rules))]
        if empty and not (worklist.jobs or worklist.left_out[OUTPUT]):
            raise ImageError(empty[0])
        worklist.warnings += empty
    _tell_apart(worklist, rules)
    _take_shard(worklist, rules.shard, folder=inputs[0] if len(inputs) == 1 and not one_picture else None)
    _settle_existing(worklist, rules)
    return worklist


def listed_worklist(folder: Path, files: Iterable[Path], rules: OutputRules) -> Worklist:
    """Return a job for each file of a list; outputs go where those of the whole folder would go.

    Args:
        folder: that the files are in.
        files: relative to `folder`, or absolute.
        rules: as in `make_worklist`; `include` and `exclude` hold too.

    Raises:
        ImageError: an output exists and `rules.existing` is "refuse".
    """
    worklist, resolved = Worklist(), folder.resolve()
    root = rules.output or resolved.with_name(f"{resolved.name}{rules.suffix}")
    worklist.ledgers[root] = Ledger(root, settings=rules.settings, writer=rules.writer)
    for file in files:
        relative = Path(os.path.relpath(file, folder)) if file.is_absolute() else file
        source = folder / relative
        if ".." in relative.parts:
            error = ImageError(f"{printable(file)}: is not in {printable(folder)}; name its own folder")
            worklist.refused.append(FileResult(FileJob(source, source), error=error))
        elif _is_taken(relative, rules):
            target = root / relative.parent / _named(source, rules, source.stem)
            worklist.jobs.append(FileJob(source, target, ledger=root))
    _tell_apart(worklist, rules, beside=_neighbours(worklist.jobs, folder, rules))
    _take_shard(worklist, rules.shard, folder=folder)
    _settle_existing(worklist, rules)
    return worklist


def stream_worklist(
    source: Path, rules: OutputRules, *, stdin: BinaryIO | None = None, stdout: BinaryIO | None = None
) -> Worklist:
    """Return the job of a picture that is read from a stream, or written to one, or both.

    Args:
        source: the picture, or its name in messages if `stdin` is given.
        rules: with a file as output, unless `stdout` is given.
        stdin: the picture, seekable.
        stdout: where it goes.

    Raises:
        ImageError: as `make_worklist`.
    """
    suffix = rules.format or multi_image_suffix(source, stdin) or DEFAULT_FORMAT
    target = rules.output if stdout is None and rules.output else Path(f"standard output{suffix}")
    worklist = Worklist([FileJob(source, target, stdin=stdin, stdout=stdout)])
    if stdout is None:
        _settle_existing(worklist, rules)
    return worklist


def _add_input(worklist: Worklist, source: Path, rules: OutputRules) -> str:
    """Add the jobs of a file or folder; return why there are none, else nothing."""
    if source.is_dir():
        return _add_folder(worklist, source, rules)
    worklist.jobs.append(
        FileJob(source, (rules.output or source.parent) / _named(source, rules, source.stem))
    )
    return ""


def _add_folder(worklist: Worklist, folder: Path, rules: OutputRules) -> str:
    resolved = folder.resolve()
    root = rules.output or resolved.with_name(f"{resolved.name}{rules.suffix}")
    if not rules.suffix and root.resolve() == resolved:
        raise ImageError(f"{folder}: without a suffix its pictures need another folder; name one (-o)")
    found = find_pictures(folder, output=root, suffix=rules.suffix)
    worklist.left_out += count_left_out(
        [(kind, path) for kind, path in found.left_out if _is_taken(path.relative_to(folder), rules)]
    )
    worklist.warnings += [
        f"{printable(Path(error.filename))}: cannot be listed ({error.strerror}); its files are left out"
        for error in found.unlisted
    ]
    taken = [path for path in found.pictures if _is_taken(path.relative_to(folder), rules)]
    worklist.ledgers[root] = Ledger(root, settings=rules.settings, writer=rules.writer)
    worklist.jobs += [
        FileJob(
            path,
            root / path.relative_to(folder).parent / _named(path, rules, path.stem),
            ledger=root,
        )
        for path in taken
    ]
    if taken:
        return ""
    if found.pictures:
        return (
            f"{folder}: none of its {len(found.pictures):,} pictures matches; change --include or --exclude"
        )
    return f"{folder}: no pictures in this folder{left_out_words(worklist.left_out)}"


def _is_taken(path: PurePath, rules: OutputRules) -> bool:
    """Say whether the globs let a path, relative to its folder, pass; `*` matches slashes too."""

    def matches(globs: Sequence[str]) -> bool:
        return any(fnmatch(path.as_posix(), glob) or fnmatch(path.name, glob) for glob in globs)

    return (not rules.include or matches(rules.include)) and not matches(rules.exclude)


def _named(source: Path, rules: OutputRules, stem: str) -> str:
    return f"{stem}{rules.suffix}{rules.format or multi_image_suffix(source) or DEFAULT_FORMAT}"


def _tell_apart(worklist: Worklist, rules: OutputRules, *, beside: Sequence[FileJob] = ()) -> None:
    """Tell outputs of one name apart; `beside` are other jobs of the same folder, which are not done now."""
    jobs, refused = told_apart([*worklist.jobs, *beside], lambda source, stem: _named(source, rules, stem))
    others = {job.source for job in beside}
    worklist.jobs = [job for job in jobs if job.source not in others]
    worklist.refused += [result for result in refused if result.job.source not in others]


def _neighbours(jobs: Sequence[FileJob], folder: Path, rules: OutputRules) -> list[FileJob]:
    """Return the jobs of unlisted files whose outputs would clash if the whole folder were upscaled.

    So a list of some files of a folder gives them the names that they have among all.
    """
    stems: dict[Path, set[str]] = {}
    for job in jobs:
        before, _, _ = job.source.stem.rpartition("_")  # of a.png, whose output may be named as a_png.jpg's
        names = {job.source.stem, name_after_source(job.source), before}
        stems.setdefault(job.source.parent, set()).update(names)
    listed, found = {job.source for job in jobs}, []
    for parent, wanted in stems.items():
        with suppress(OSError):
            found += [path for path in parent.iterdir() if path.stem in wanted and path not in listed]
    targets = {job.source.parent: job for job in jobs}
    return [
        replace(job, source=path, target=job.target.with_name(_named(path, rules, path.stem)))
        for path in sorted(found)
        if _is_taken(path.relative_to(folder), rules) and is_picture(path)
        for job in [targets[path.parent]]
    ]


def _take_shard(worklist: Worklist, shard: Shard | None, *, folder: Path | None) -> None:
    """Leave to others what does not belong to a shard; names have been told apart over all files."""
    if shard is None:
        return

    def holds(source: Path) -> bool:
        return shard.holds(source if folder is None else source.relative_to(folder))

    everything = len(worklist.jobs) + len(worklist.refused)
    worklist.jobs = [job for job in worklist.jobs if holds(job.source)]
    worklist.refused = [result for result in worklist.refused if holds(result.job.source)]
    worklist.other_shards = everything - len(worklist.jobs) - len(worklist.refused)


def _settle_existing(worklist: Worklist, rules: OutputRules) -> None:
    """Refuse or skip jobs whose outputs exist, or leave these to be replaced.

    Raises:
        ImageError: an output exists, and the user did not say what to do about it.
    """
    worklist.is_shared = rules.existing != "overwrite"
    existing = [job for job in worklist.jobs if os.path.lexists(job.target)]
    if rules.existing == "refuse" and existing:
        one = len(existing) == 1
        what = "exists already" if one else f"exists already, as {len(existing) - 1:,} more outputs do"
        it = "it" if one else "them"
        raise ImageError(
            f"{printable(existing[0].target)}: {what}; --overwrite replaces {it}, --skip-existing keeps {it}"
        )
    if rules.existing == "skip":
        done = {job for job in existing if job.ledger is None or worklist.ledgers[job.ledger].is_done(job)}
        worklist.done = [job for job in worklist.jobs if job in done]
        worklist.jobs = [job for job in worklist.jobs if job not in done]
        worklist.outdated = {
            job: state for job in existing if job not in done and (state := _state(job.target))
        }


def _state(path: Path) -> _State | None:
    """Return what tells a file from one that replaces it; None if it does not exist."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
