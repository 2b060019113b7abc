"""From inputs to jobs: pictures are found, outputs named, existing outputs refused, skipped or replaced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from sr.errors import ImageError, printable
from sr.image import format_of_suffix, multi_image_suffix
from sr.jobs.find import OUTPUT
from sr.jobs.job import FileJob
from sr.jobs.parts import NoPicturesError, folder_parts, listed_parts
from sr.jobs.rules import DEFAULT_FORMAT, OutputRules
from sr.jobs.windows import Part, Worklist, planned

__all__ = ["OutputRules", "Worklist", "check_inputs", "listed_worklist", "make_worklist", "stream_worklist"]

_MOST_NAMED = 20  # missing inputs in one message


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
        return planned([_file_part(worklist, FileJob(inputs[0], output), rules)], rules, worklist)
    parts = _parts(worklist, inputs, rules)
    if len(inputs) > 1:  # outputs of different folders may have one name
        whole = Part()
        for part in parts:
            whole.add(part)
        parts = iter([whole])
    return planned(parts, rules, worklist)


def listed_worklist(folder: Path, files: Iterable[Path], rules: OutputRules) -> Worklist:
    """Return a job for each file of a list; outputs go where those of the whole folder would go.

    Args:
        folder: that the files are in.
        files: relative to `folder`, or absolute.
        rules: as in `make_worklist`; `include` and `exclude` hold too.

    Raises:
        ImageError: an output exists and `rules.existing` is "refuse".
    """
    worklist = Worklist()
    return planned(listed_parts(worklist, folder, files, rules), rules, worklist)


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
    job = FileJob(source, target, stdin=stdin, stdout=stdout)
    return Worklist([job]) if stdout is not None else planned([Part([job])], rules)


def _parts(worklist: Worklist, inputs: Sequence[Path], rules: OutputRules) -> Iterator[Part]:
    """Yield the jobs of files and folders.

    Raises:
        ImageError: there is no picture at all.
    """
    empty, some = list[str](), False
    for source in inputs:
        if not source.is_dir():
            target = (rules.output or source.parent) / rules.name(source, source.stem)
            yield _file_part(worklist, FileJob(source, target), rules)
            some = True
            continue
        try:
            yield from folder_parts(worklist, source, rules)
            some = True
        except NoPicturesError as error:
            empty.append(str(error))
    if empty and not (some or worklist.left_out[OUTPUT]):
        raise ImageError(empty[0])
    worklist.warnings += empty


def _file_part(worklist: Worklist, job: FileJob, rules: OutputRules) -> Part:
    """Return a job that may belong to another shard."""
    if rules.shard is None or rules.shard.holds(job.source):
        return Part([job])
    worklist.other_shards += 1
    return Part(beside=[job])
