"""Many files one after the other: decoding the next picture and encoding the last overlap with inference."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from sr.errors import ImageError, SrupError
from sr.image import (
    DEFAULT_MAX_PIXELS,
    Frame,
    Picture,
    PictureSequence,
    WriteOptions,
    check_output,
    open_picture,
    write_picture,
    write_sequence,
)
from sr.upscale import Progress


class PictureUpscaler(Protocol):
    """What turns a picture into a larger one: `sr.upscale.Upscaler`, `sr.sized.SizedUpscaler`."""

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of what becomes of a picture of this size."""

    def tile_count(self, height: int, width: int) -> int:
        """Return how many tiles a picture of this size is cut into."""

    def picture(self, picture: Picture, *, progress: Progress | None = None) -> Picture:
        """Upscale a picture."""


@dataclass(frozen=True)
class FileJob:
    """One picture file to upscale, and where the result goes.

    Attributes:
        source: the picture.
        target: the output.
        ledger: folder whose record the output belongs to, see `sr.ledger`; None if none.
    """

    source: Path
    target: Path
    ledger: Path | None = None


@dataclass(frozen=True)
class FileResult:
    """What became of a job.

    Attributes:
        job: the job.
        error: why it failed, or None.
        size: (width, height) of the input in pixels; None if it could not be read.
        output_size: (width, height) of the output.
        tiles: tiles run.
        seconds: of inference.
        frames: frames of an animation or pages, else 1.
        notes: what was reduced or converted, for the user to read.
    """

    job: FileJob
    error: SrupError | None = None
    size: tuple[int, int] | None = None
    output_size: tuple[int, int] | None = None
    tiles: int = 0
    seconds: float = 0.0
    frames: int = 1
    notes: tuple[str, ...] = ()


# A result, and the encoding that it waits for and whose notes it gets, unless it is final.
_Started = tuple[FileResult, Future[tuple[str, ...]] | None]


def upscale_files(
    jobs: Iterable[FileJob],
    upscaler: PictureUpscaler,
    *,
    write_options: WriteOptions | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Callable[[FileJob, int, int], None] | None = None,
) -> Iterator[FileResult]:
    """Upscale files in order and yield a result for each when its file has been written.

    A picture that fails yields its error and the others go on. At most three pictures are in
    memory: one being decoded, one upscaled, one encoded. Of an animation, or a file of several pages,
    two or three frames are.
    """
    options = write_options or WriteOptions()
    with ThreadPoolExecutor(1, "decode") as decoder, ThreadPoolExecutor(1, "encode") as encoder:

        def decode(job: FileJob) -> Picture | PictureSequence:
            picture = open_picture(job.source, max_pixels=max_pixels)
            height, width = upscaler.output_size(picture.height, picture.width)
            if isinstance(picture, PictureSequence):
                several = picture.kind
                check_output(job.target, height=height, width=width, alpha=False, several=several)
            else:
                alpha, deep = picture.transparent, picture.deep
                check_output(job.target, height=height, width=width, alpha=alpha, deep=deep)
            return picture

        def encode(job: FileJob, picture: Picture) -> tuple[str, ...]:
            _make_folder(job)
            return picture.notes + write_picture(job.target, picture, options=options)

        def infer(job: FileJob, decoding: Future[Picture | PictureSequence]) -> _Started:
            report = None if progress is None else (lambda done, total: progress(job, done, total))
            try:
                picture = decoding.result()
                if isinstance(picture, PictureSequence):
                    return _upscale_sequence(job, picture, upscaler, options, report), None
                size = (picture.width, picture.height)
                tiles = upscaler.tile_count(picture.height, picture.width)
                started = time.perf_counter()
                upscaled = upscaler.picture(picture, progress=report)
                seconds = time.perf_counter() - started
            except SrupError as error:
                return FileResult(job, error=error), None
            output_size = (upscaled.width, upscaled.height)
            result = FileResult(job, size=size, output_size=output_size, tiles=tiles, seconds=seconds)
            return result, encoder.submit(encode, job, upscaled)

        previous: _Started | None = None
        for job, decoding in _ahead(jobs, lambda job: decoder.submit(decode, job)):
            current = infer(job, decoding)
            if previous is not None:
                yield _finished(*previous)
            previous = current
        if previous is not None:
            yield _finished(*previous)


def _make_folder(job: FileJob) -> None:
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(
            f"{job.target}: its folder cannot be made ({error.strerror}); choose another (-o)"
        ) from error


def _upscale_sequence(
    job: FileJob,
    sequence: PictureSequence,
    upscaler: PictureUpscaler,
    options: WriteOptions,
    progress: Progress | None,
) -> FileResult:
    """Upscale an animation or pages: each is decoded, upscaled and encoded before the next."""
    tiles, seconds, index = 0, 0.0, 0

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(index * total + done, sequence.count * total)

    def upscaled() -> Iterator[Frame]:
        nonlocal tiles, seconds, index
        for index, frame in enumerate(sequence.frames()):  # noqa: B007  `report` reads it
            picture = frame.picture
            tiles += upscaler.tile_count(picture.height, picture.width)
            started = time.perf_counter()
            larger = upscaler.picture(picture, progress=report)
            seconds += time.perf_counter() - started
            yield replace(frame, picture=larger)

    _make_folder(job)
    notes = write_sequence(job.target, sequence, upscaled(), options=options)
    height, width = upscaler.output_size(sequence.height, sequence.width)
    return FileResult(
        job,
        size=(sequence.width, sequence.height),
        output_size=(width, height),
        tiles=tiles,
        seconds=seconds,
        frames=sequence.count,
        notes=notes,
    )


def _ahead(
    jobs: Iterable[FileJob], submit: Callable[[FileJob], Future[Picture | PictureSequence]]
) -> Iterator[tuple[FileJob, Future[Picture | PictureSequence]]]:
    """Pair each job with its decoding, started while the job before is being worked on."""
    waiting: tuple[FileJob, Future[Picture | PictureSequence]] | None = None
    for job in jobs:
        started = (job, submit(job))
        if waiting is not None:
            yield waiting
        waiting = started
    if waiting is not None:
        yield waiting


def _finished(result: FileResult, encoding: Future[tuple[str, ...]] | None) -> FileResult:
    """Wait for the file to be written."""
    if encoding is None:
        return result
    try:
        return replace(result, notes=encoding.result())
    except SrupError as error:
        return replace(result, error=error)
