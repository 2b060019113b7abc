"""Which files a command line means: pictures found, outputs named, collisions refused."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from sr.errors import ImageError
from sr.files import TEMPORARY_PREFIX
from sr.image import OUTPUT_FORMATS, PICTURE_SUFFIXES
from sr.upscale import FileJob

DEFAULT_SUFFIX = ".png"  # lossless: nothing that was computed is thrown away


def plan_jobs(
    inputs: Sequence[Path], output: Path | None, *, scale: int, suffix: str | None = None
) -> list[FileJob]:
    """Return a job for each picture that `inputs` name, folders searched through.

    A picture `in.jpg` becomes `in_x3.png` beside it. A folder `dir` becomes `dir_x3` beside it,
    the tree below mirrored. With `output`, a single picture goes to that file, or into that folder
    if the name has no suffix or the folder exists; several pictures and folders go into that folder.

    Args:
        inputs: files and folders.
        output: file or folder, or None for the default.
        scale: upscaling factor, part of default names.
        suffix: of the outputs, e.g. ".webp"; None means PNG, or what `output` says.

    Raises:
        ImageError: an input is missing, a folder holds no pictures, two outputs would have one
            name, or an output would replace an input.
    """
    one_picture = len(inputs) == 1 and not inputs[0].is_dir()
    to_file = output is not None and output.suffix != "" and not output.is_dir() and one_picture
    if (
        output is not None
        and output.suffix.lower() in OUTPUT_FORMATS
        and not (one_picture or output.is_dir())
    ):
        raise ImageError(f"{output}: is one file, but the input is more; name a folder for the output (-o)")
    jobs: list[FileJob] = []
    for source in inputs:
        if to_file and output is not None:
            jobs.append(FileJob(source, output))
        elif source.is_dir():
            root = output or source.resolve().with_name(f"{source.resolve().name}_x{scale}")
            found = [path for path in pictures_below(source) if not _is_inside(path, root)]
            if not found:
                raise ImageError(
                    f"{source}: no pictures in this folder; looked for {', '.join(sorted(PICTURE_SUFFIXES))}"
                )
            jobs += [
                FileJob(path, root / path.relative_to(source).parent / _named(path, scale, suffix))
                for path in found
            ]
        else:
            jobs.append(FileJob(source, (output or source.parent) / _named(source, scale, suffix)))
    _refuse_collisions(jobs)
    return jobs


def pictures_below(folder: Path) -> Iterator[Path]:
    """Yield the picture files in `folder` and below, in sorted order; links to folders are not followed."""
    for directory, names, files in os.walk(folder):
        names.sort()
        for name in sorted(files):
            path = Path(directory, name)
            if path.suffix.lower() in PICTURE_SUFFIXES and not name.startswith(TEMPORARY_PREFIX):
                yield path


def _named(source: Path, scale: int, suffix: str | None) -> str:
    return f"{source.stem}_x{scale}{suffix or DEFAULT_SUFFIX}"


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _refuse_collisions(jobs: Sequence[FileJob]) -> None:
    sources = {os.path.realpath(job.source): job.source for job in jobs}
    taken: dict[str, Path] = {}
    for job in jobs:
        target = os.path.normcase(os.path.realpath(job.target))
        if target in taken:
            raise ImageError(
                f"{job.target}: both {taken[target]} and {job.source} would be written there; "
                "upscale them one by one, with -o"
            )
        if target in sources:
            raise ImageError(
                f"{job.target}: would replace the input {sources[target]}; name another output (-o)"
            )
        taken[target] = job.source
