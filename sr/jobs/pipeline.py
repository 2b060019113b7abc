"""Many files one after the other, their stages overlapped.

Decoding, inference and encoding run at once, on threads with bounded queues between them, so that over a
folder the slowest stage sets the rate. Pictures are upscaled one at a time, in order, on the calling
thread; a picture is encoded by one thread, several pictures by as many as there are processor cores.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from queue import Empty, Queue
from typing import Any, BinaryIO, Protocol, TypeVar

from sr.errors import ImageError, SrupError, TooLargeError
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
from sr.jobs.large import LargePicture, large_picture, largest_whole, refuse_beyond_memory, upscale_large
from sr.memory import available_memory, give_back_memory
from sr.processor import available_cores
from sr.upscale import Progress, Upscaler

# Pictures that wait to be upscaled, or to be written, may together hold so many bytes of pixels, or this
# share of the memory that is there, if that is less; one of each kind always may.
WAITING_BYTES, _WAITING_SHARE = 256 * 2**20, 1 / 8

_GIVE_BACK_EVERY = 32  # pictures; it takes 3 ms, and folders of 500 grew by 6 MiB where they had by 10

T = TypeVar("T")
_Decoded = Picture | PictureSequence | LargePicture
_OutOfFrames = object()


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
        ledger: folder whose record the output belongs to, see `sr.jobs.ledger`; None if none.
        stdin: seekable, what to read in place of `source`, which then only names it.
        stdout: where the result goes in place of `target`, whose suffix says in which format.
    """

    source: Path
    target: Path
    ledger: Path | None = None
    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None


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


@dataclass(frozen=True)
class _Writing:
    """A result, and the writing of its file, whose notes it gets; None if there is nothing to wait for."""

    result: FileResult
    future: Future[tuple[str, ...]] | None = None
    pixel_bytes: int = 0

    @property
    def waiting(self) -> bool:
        return self.future is not None and not self.future.done()

    def finished(self) -> FileResult:
        """Wait for the file to be written."""
        if self.future is None:
            return self.result
        try:
            return replace(self.result, notes=self.future.result())
        except SrupError as error:
            return replace(self.result, error=error)


def upscale_files(
    jobs: Iterable[FileJob],
    upscaler: PictureUpscaler,
    *,
    write_options: WriteOptions | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    low_memory: bool = False,
    progress: Callable[[FileJob, int, int], None] | None = None,
) -> Generator[FileResult, None, None]:
    """Upscale files in order and yield a result for each, in order, when its file has been written.

    A picture that fails yields its error and the others go on. In memory are the picture being
    upscaled, and before and behind it one each or `WAITING_BYTES` of pixels, less where memory is
    scarce. Of an animation, or a file of several pages, a few frames are, and of a picture that would
    not fit, a few bands; with `low_memory` of every picture that can be, see `sr.jobs.large`.
    """
    options, cores = write_options or WriteOptions(), available_cores()
    memory = available_memory()
    reading = _Reading(max_pixels, low_memory, memory)
    decoders = max(1, cores // 4)  # a picture takes far less to decode than its larger one to encode
    # One more writer than cores: while a file is flushed to the disk, its thread does nothing.
    with _threads(decoders, "decode") as decoder, _threads(cores + 1, "encode") as encoder:

        def decode(job: FileJob) -> _Decoded:
            picture = reading.opened(job, upscaler)
            if isinstance(picture, LargePicture):
                return picture
            height, width = upscaler.output_size(picture.height, picture.width)
            if isinstance(picture, PictureSequence):
                kind: dict[str, Any] = {"alpha": False, "multi_image": picture.kind}
            else:
                kind = {"alpha": picture.transparent, "sixteen_bit": picture.sixteen_bit}
            check_output(job.target, height=height, width=width, **kind, stream=job.stdout)
            return picture

        def encode(job: FileJob, picture: Picture) -> tuple[str, ...]:
            _make_folder(job)
            return picture.notes + write_picture(job.target, picture, options=options, stream=job.stdout)

        def infer(job: FileJob, decoding: Future[_Decoded]) -> _Writing:
            report = None if progress is None else (lambda done, total: progress(job, done, total))
            try:
                try:
                    picture = decoding.result()
                except TooLargeError:  # beside others that were in memory: now alone
                    wait(each.future for each in writings if each.future)
                    picture = decode(job)
                if isinstance(picture, LargePicture):
                    return _Writing(_upscale_large(job, picture, upscaler, options, report))
                if isinstance(picture, PictureSequence):
                    frames = _prefetched(picture.frames(), decoder)
                    return _upscale_sequence(job, picture, frames, upscaler, options, report, encoder)
                size = (picture.width, picture.height)
                tiles = upscaler.tile_count(picture.height, picture.width)
                started = time.perf_counter()
                upscaled = upscaler.picture(picture, progress=report)
                seconds = time.perf_counter() - started
            except SrupError as error:
                return _Writing(FileResult(job, error=error))
            output_size = (upscaled.width, upscaled.height)
            result = FileResult(job, size=size, output_size=output_size, tiles=tiles, seconds=seconds)
            return _Writing(result, encoder.submit(encode, job, upscaled), _pixel_bytes(upscaled))

        writings: deque[_Writing] = deque()
        written = count(1)

        def first() -> FileResult:
            result = writings[0].finished()  # whose place in the line stays if Ctrl-C ends the wait
            writings.popleft()
            if next(written) % _GIVE_BACK_EVERY == 0:
                give_back_memory()
            return result

        room = int(min(WAITING_BYTES, memory * _WAITING_SHARE))
        decodings = _ahead(jobs, lambda job: decoder.submit(decode, job), depth=decoders, room=room)
        try:
            for job, decoding in decodings:
                writings.append(infer(job, decoding))
                while writings and (not writings[0].waiting or _full(writings, at_most=cores + 1, room=room)):
                    yield first()
        except KeyboardInterrupt:
            while writings:
                yield first()
            raise
        while writings:
            yield first()


@dataclass(frozen=True)
class _Reading:
    """Which pictures are read whole."""

    max_pixels: int
    low_memory: bool
    memory: int  # that was there in the beginning: asking for each picture takes longer than some do

    def opened(self, job: FileJob, upscaler: PictureUpscaler) -> _Decoded:
        """Decode a picture, or say that it will be upscaled by bands."""
        files = job.stdin is None and job.stdout is None
        if files and self.low_memory and (large := self._large(job, upscaler, asked=True)):
            return large
        limit = min(self.max_pixels, largest_whole(upscaler, self.memory))
        try:
            return self._whole(job, upscaler, limit)
        except TooLargeError:
            if files and (large := self._large(job, upscaler)):
                return large
        return self._whole(job, upscaler, self.max_pixels)

    def _whole(self, job: FileJob, upscaler: PictureUpscaler, max_pixels: int) -> Picture | PictureSequence:
        picture = open_picture(job.source, job.stdin, max_pixels=max_pixels)
        if isinstance(picture, PictureSequence):
            return replace(picture, max_pixels=self.max_pixels)
        refuse_beyond_memory(picture, job.source, job.target, upscaler, self.memory)
        return picture

    def _large(self, job: FileJob, upscaler: PictureUpscaler, *, asked: bool = False) -> LargePicture | None:
        return large_picture(job.source, job.target, upscaler, max_pixels=self.max_pixels, asked=asked)


def _upscale_large(
    job: FileJob,
    picture: LargePicture,
    upscaler: PictureUpscaler,
    options: WriteOptions,
    progress: Progress | None,
) -> FileResult:
    assert isinstance(upscaler, Upscaler)
    made = upscale_large(picture, upscaler, options=options, progress=progress)
    return FileResult(
        job,
        size=made.size,
        output_size=made.output_size,
        tiles=made.tiles,
        seconds=made.seconds,
        notes=made.notes,
    )


@contextmanager
def _threads(number: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool; in the end wait for what it does, not for what it would have done next."""
    pool = ThreadPoolExecutor(number, name)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _full(started: Iterable[_Writing], *, at_most: int, room: int) -> bool:
    """Say whether no further picture may be upscaled before one has been written."""
    waiting = [writing.pixel_bytes for writing in started if writing.waiting]
    return len(waiting) > at_most or (len(waiting) > 1 and sum(waiting) > room)


def _pixel_bytes(picture: _Decoded) -> int:
    if not isinstance(picture, Picture):
        return 0  # frames, or bands, are decoded later
    return picture.pixels.nbytes + (0 if picture.alpha is None else picture.alpha.nbytes)


def _make_folder(job: FileJob) -> None:
    if job.stdout is not None:
        return
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(
            f"{job.target}: its folder cannot be made ({error.strerror}); choose another (-o)"
        ) from error


def _ahead(
    jobs: Iterable[FileJob], submit: Callable[[FileJob], Future[_Decoded]], *, depth: int, room: int
) -> Iterator[tuple[FileJob, Future[_Decoded]]]:
    """Pair each job with its decoding, started while up to `depth` jobs before it are being worked on."""
    started: deque[tuple[FileJob, Future[_Decoded]]] = deque()

    def full() -> bool:
        # What failed raises when its turn has come.
        decoded = [each for _, each in started if each.done() and not each.exception()]
        return len(started) > depth or sum(_pixel_bytes(each.result()) for each in decoded) > room

    for job in jobs:
        while started and full():
            yield started.popleft()
        started.append((job, submit(job)))
    while started:
        yield started.popleft()


def _prefetched(items: Iterator[T], pool: ThreadPoolExecutor) -> Iterator[T]:
    """Yield items; the next is made by `pool` while one is being used."""
    following = pool.submit(next, items, _OutOfFrames)
    while (item := following.result()) is not _OutOfFrames:
        following = pool.submit(next, items, _OutOfFrames)
        yield item  # type: ignore[misc]


class _Handoff:
    """Frames on their way to the thread that writes them, one waiting at most."""

    def __init__(self) -> None:
        self._queue: Queue[Frame | BaseException | None] = Queue(1)
        self._left = False

    def put(self, item: Frame | BaseException | None) -> bool:
        """Hand over a frame, the reason why there will be none, or None as the end; say if it is wanted."""
        if not self._left:
            self._queue.put(item)
        return not self._left

    def frames(self) -> Iterator[Frame]:
        """Yield what is handed over.

        Raises:
            BaseException: the one that was.
        """
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def leave(self) -> None:
        """Want no more, whoever waits to hand over does so no longer."""
        self._left = True
        with suppress(Empty):
            self._queue.get_nowait()


def _upscale_sequence(
    job: FileJob,
    sequence: PictureSequence,
    frames: Iterator[Frame],
    upscaler: PictureUpscaler,
    options: WriteOptions,
    progress: Progress | None,
    encoder: ThreadPoolExecutor,
) -> _Writing:
    """Upscale an animation or pages; while one is upscaled, the one before is encoded."""
    handoff, tiles, seconds, pixel_bytes = _Handoff(), 0, 0.0, 0
    _make_folder(job)

    def write() -> tuple[str, ...]:
        try:
            return write_sequence(job.target, sequence, handoff.frames(), options=options, stream=job.stdout)
        finally:
            handoff.leave()

    writing = encoder.submit(write)
    try:
        for index, frame in enumerate(frames):

            def report(done: int, total: int, index: int = index) -> None:
                if progress is not None:
                    progress(index * total + done, sequence.count * total)

            tiles += upscaler.tile_count(frame.picture.height, frame.picture.width)
            started = time.perf_counter()
            larger = upscaler.picture(frame.picture, progress=report)
            seconds += time.perf_counter() - started
            pixel_bytes = _pixel_bytes(larger)
            if not handoff.put(replace(frame, picture=larger)):
                break
    except BaseException as error:  # so that nothing partial is left by Ctrl-C either
        handoff.put(error)
        if not isinstance(error, SrupError):
            raise
    handoff.put(None)
    height, width = upscaler.output_size(sequence.height, sequence.width)
    result = FileResult(
        job,
        size=(sequence.width, sequence.height),
        output_size=(width, height),
        tiles=tiles,
        seconds=seconds,
        frames=sequence.count,
    )
    return _Writing(result, writing, pixel_bytes)
