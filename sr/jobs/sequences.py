"""Animations, and files of several pages: frame by frame, decoding, inference and encoding overlapped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, Queue
from typing import TypeVar

from sr.errors import SrupError
from sr.image import Frame, Picture, PictureSequence, WriteOptions, write_sequence
from sr.image.picture import Restoration
from sr.jobs.job import FileJob, FileResult
from sr.jobs.upscaler import PictureUpscaler, Progress

T = TypeVar("T")
_OutOfFrames = object()


class _Handoff:
    """Frames on their way to the thread that writes them, one waiting at most."""

    def __init__(self) -> None:
        self._queue: Queue[Frame | BaseException | None] = Queue(1)
        self._left = False

    def put(self, item: Frame | BaseException | None) -> bool:
        """Hand over a frame, an error that ends them, or None as the end; return whether it was accepted."""
        if not self._left:
            self._queue.put(item)
        return not self._left

    def frames(self) -> Iterator[Frame]:
        """Yield the frames that are handed over.

        Raises:
            BaseException: the one that was handed over.
        """
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def leave(self) -> None:
        """Refuse further frames, and release a thread that waits to hand one over."""
        self._left = True
        with suppress(Empty):
            self._queue.get_nowait()


def upscale_sequence(
    job: FileJob,
    sequence: PictureSequence,
    upscaler: PictureUpscaler,
    *,
    options: WriteOptions,
    progress: Progress | None,
    check: Callable[[Picture], None],
    pools: tuple[ThreadPoolExecutor, ThreadPoolExecutor],
) -> tuple[FileResult, Future[tuple[str, ...]], int]:
    """Upscale an animation or pages; while one is upscaled, the next is decoded and the one before encoded.

    Args:
        job: the job.
        sequence: its pictures.
        upscaler: upscales each.
        options: of the encoder.
        progress: called with tiles done and tiles in all.
        check: called with each picture before it is upscaled; raises if it is too large.
        pools: threads that decode, and threads that encode.

    Returns:
        The result, the writing of its file, and the bytes of pixels that wait to be written.
    """
    handoff, tally, (decoder, encoder) = _Handoff(), _Tally(), pools

    def write() -> tuple[str, ...]:
        try:
            return write_sequence(job.target, sequence, handoff.frames(), options=options, stream=job.stdout)
        finally:
            handoff.leave()

    writing = encoder.submit(write)
    try:
        for index, frame in enumerate(_prefetched(sequence.frames(), decoder)):
            check(frame.picture)
            larger = tally.upscaled(frame, upscaler, _frame_progress(progress, index, sequence.count))
            if not handoff.put(larger):
                break
    except BaseException as error:  # so that Ctrl-C leaves nothing partial either
        handoff.put(error)
        if not isinstance(error, SrupError | MemoryError):
            raise
    handoff.put(None)
    return tally.result(job, sequence, upscaler), writing, tally.pixel_bytes


@dataclass
class _Tally:
    """What the frames so far took."""

    tiles: int = 0
    seconds: float = 0.0
    pixel_bytes: int = 0  # of the last one's output
    restored: Restoration | None = None  # of the first one

    def upscaled(self, frame: Frame, upscaler: PictureUpscaler, progress: Progress | None) -> Frame:
        """Return the upscaled frame, and count it."""
        self.tiles += upscaler.tile_count(frame.picture.height, frame.picture.width)
        started = time.perf_counter()
        larger = upscaler.picture(frame.picture, progress=progress)
        self.seconds += time.perf_counter() - started
        self.pixel_bytes, self.restored = larger.bytes, self.restored or larger.restored
        return replace(frame, picture=larger)

    def result(self, job: FileJob, sequence: PictureSequence, upscaler: PictureUpscaler) -> FileResult:
        """Return the result of a job whose frames these were."""
        height, width = upscaler.output_size(sequence.height, sequence.width)
        return FileResult(
            job,
            size=(sequence.width, sequence.height),
            output_size=(width, height),
            tiles=self.tiles,
            seconds=self.seconds,
            frames=sequence.count,
            restored=self.restored,
        )


def _frame_progress(progress: Progress | None, index: int, count: int) -> Progress | None:
    """Count the tiles of one frame among those of all."""
    if progress is None:
        return None
    return lambda done, total: progress(index * total + done, count * total)


def _prefetched(items: Iterator[T], pool: ThreadPoolExecutor) -> Iterator[T]:
    """Yield items; the next is made by `pool` while one is being used."""
    following = pool.submit(next, items, _OutOfFrames)
    while (item := following.result()) is not _OutOfFrames:
        following = pool.submit(next, items, _OutOfFrames)
        yield item  # type: ignore[misc]
