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
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count

from sr.errors import BackendError, ImageError, SrupError, TooLargeError, printable
from sr.image import (
    Picture,
    PictureSequence,
    WriteOptions,
    check_output,
    open_picture,
    write_picture,
)
from sr.image.source import Header
from sr.jobs.admission import Admission, NotNowError, RunLimits
from sr.jobs.job import FileJob, FileResult
from sr.jobs.large import LargePicture, upscale_large
from sr.jobs.sequences import upscale_sequence
from sr.jobs.stages import Peekable, ahead, threads
from sr.jobs.upscaler import Capabilities, PictureUpscaler, Progress, Stream
from sr.memory import available_memory, give_back_memory, require_address_space
from sr.processor import available_cores

__all__ = ["FileJob", "FileResult", "RunSettings", "upscale_files"]

# Pictures that wait to be upscaled, and pictures that wait to be written, may each hold this many bytes of
# pixels, or this share of available memory if that is less; one picture may always wait.
WAITING_BYTES, _WAITING_SHARE = 256 * 2**20, 1 / 8

_GIVE_BACK_EVERY = 32  # pictures; it takes 3 ms, and folders of 500 grew by 6 MiB where they had by 10

_Decoded = Picture | PictureSequence | LargePicture
_Decoding = tuple[FileJob, Future[_Decoded]]
JobProgress = Callable[[FileJob, int, int], None]


@dataclass(frozen=True)
class RunSettings:
    """How files are upscaled.

    Attributes:
        write_options: how outputs are encoded.
        limits: what is refused, and what is upscaled in bands.
    """

    write_options: WriteOptions = field(default_factory=WriteOptions)
    limits: RunLimits = field(default_factory=RunLimits)


def upscale_files(
    jobs: Iterable[FileJob],
    upscaler: PictureUpscaler,
    *,
    capabilities: Capabilities | None = None,
    settings: RunSettings | None = None,
    progress: JobProgress | None = None,
) -> Generator[FileResult, None, None]:
    """Upscale files in order and yield a result for each, in order, when its file has been written.

    A failed picture yields its error and the others continue. Memory holds the picture that is being
    upscaled, and on either side of it one more picture or `WAITING_BYTES` of pixels, less if memory is
    scarce. Animations and files with several pages are in memory a few frames at a time, pictures that
    would not fit a few bands at a time (see `sr.jobs.large`).

    Args:
        jobs: the files.
        upscaler: upscales each picture.
        capabilities: what the upscaler can do besides; None is nothing.
        settings: of the run; None is the defaults.
        progress: called with a job, its tiles done and its tiles in all.
    """
    pipeline = _Pipeline(upscaler, capabilities or Capabilities(), settings or RunSettings(), progress)
    return pipeline.run(jobs)


@dataclass(frozen=True)
class _Writing:
    """A result, and the task that writes its file and returns notes; None if there is no such task."""

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
            with _memory_errors(self.result.job, "encode it"):
                return replace(self.result, notes=self.future.result())
        except SrupError as error:
            return replace(self.result, error=_naming(self.result.job, error))


class _Pipeline:
    """One run over files."""

    def __init__(
        self,
        upscaler: PictureUpscaler,
        capabilities: Capabilities,
        settings: RunSettings,
        progress: JobProgress | None,
    ) -> None:
        self._upscaler, self._capabilities = upscaler, capabilities
        self._options, self._progress = settings.write_options, progress
        self._admission = Admission(upscaler, capabilities, settings.limits)
        self._room = int(min(WAITING_BYTES, available_memory() * _WAITING_SHARE))
        self._writings: deque[_Writing] = deque()
        self._decode_seconds: dict[FileJob, float] = {}
        self._written = count(1)

    def run(self, jobs: Iterable[FileJob]) -> Generator[FileResult, None, None]:
        cores = available_cores()
        decoders = max(1, cores // 4)  # a picture takes far less to decode than its larger one to encode
        # One more writer than cores: while a file is flushed to the disk, its thread does nothing.
        with threads(decoders, "decode") as decoder, threads(cores + 1, "encode") as encoder:
            decodings = ahead(
                jobs,
                lambda job: decoder.submit(self._decode_timed, job),
                is_full=lambda number, decoded: (
                    number > decoders or sum(map(_pixel_bytes, decoded)) > self._room
                ),
            )
            try:
                for writing in self._inferred(decodings, decoder, encoder):
                    self._writings.append(writing)
                    while self._writings and (not self._writings[0].waiting or self._full(at_most=cores + 1)):
                        yield self._first()
            except KeyboardInterrupt:
                while self._writings:
                    yield self._first()
                raise
            while self._writings:
                yield self._first()

    def _inferred(
        self, decodings: Iterator[_Decoding], decoder: ThreadPoolExecutor, encoder: ThreadPoolExecutor
    ) -> Iterator[_Writing]:
        """Upscale all; single pictures as a stream where the upscaler can."""
        waiting = Peekable(decodings)
        while waiting.peek() is not None:
            if self._capabilities.pictures is not None:
                yield from self._streamed(self._capabilities.pictures, waiting, decoder, encoder)
            if (following := next(waiting, None)) is not None:
                yield self._infer(*following, decoder, encoder)

    def _streamed(
        self,
        stream: Stream,
        waiting: Peekable[_Decoding],
        decoder: ThreadPoolExecutor,
        encoder: ThreadPoolExecutor,
    ) -> Iterator[_Writing]:
        """Upscale pictures until the next is none that can be upscaled whole, at once.

        If a picture fails, those under way are upscaled again one by one, which shows whose failure it is.
        """
        under_way: deque[tuple[FileJob, Picture, float]] = deque()  # since when

        def pictures() -> Iterator[tuple[Picture, Progress | None] | None]:
            while (following := waiting.peek()) is not None:
                job, decoding = following
                if under_way and (not decoding.done() or self._crowded(each for _, each, _ in under_way)):
                    yield None
                elif decoding.exception() or not isinstance(picture := decoding.result(), Picture):
                    return
                else:
                    next(waiting)
                    under_way.append((job, picture, time.perf_counter()))
                    yield picture, self._reporter(job)

        finished = 0.0
        with closing(stream(pictures())) as upscaled:
            while True:
                try:
                    larger = next(upscaled, None)
                except (SrupError, MemoryError) as error:
                    failed = error
                    break
                if larger is None:
                    return
                job, picture, started = under_way.popleft()
                started, finished = max(started, finished), time.perf_counter()
                yield self._writing(job, picture, larger, finished - started, encoder)
        alone = failed if len(under_way) == 1 else None
        for job, picture, _ in under_way:
            yield self._infer(job, _result_of(picture, alone), decoder, encoder)

    def _crowded(self, under_way: Iterable[Picture]) -> bool:
        """Say whether the outputs of those under way and those that wait to be written fill the room."""
        coming = 0
        for each in under_way:
            height, width = self._upscaler.output_size(each.height, each.width)
            coming += each.bytes * height * width // (each.height * each.width)
        return coming + sum(each.pixel_bytes for each in self._writings if each.waiting) > self._room

    def _decode_timed(self, job: FileJob) -> _Decoded:
        started = time.perf_counter()
        try:
            return self._decode(job)
        finally:
            self._decode_seconds[job] = time.perf_counter() - started

    def _decode(self, job: FileJob, header: Header | None = None) -> _Decoded:
        """Decode a picture, unless it will be upscaled in bands.

        Args:
            job: the job.
            header: of its picture, if that has been read and admitted.
        """
        with _memory_errors(job, "decode it"):
            if header is None:
                header = self._admission.header(job, depth=self._options.depth)
                try:
                    route = self._admission.route(job, header)
                except NotNowError as error:
                    error.header = header
                    raise
                if route == "bands":
                    return LargePicture(job.source, job.target, header)
            picture = open_picture(
                job.source,
                job.stdin,
                max_pixels=self._admission.max_pixels,
                depth=self._options.depth,
            )
            self._check_output(job, picture)
            return picture

    def _check_output(self, job: FileJob, picture: Picture | PictureSequence) -> None:
        height, width = self._upscaler.output_size(picture.height, picture.width)
        if isinstance(picture, PictureSequence):
            check_output(
                job.target,
                height=height,
                width=width,
                alpha=False,
                multi_image=picture.kind,
                stream=job.stdout,
            )
        else:
            check_output(
                job.target,
                height=height,
                width=width,
                alpha=picture.transparent,
                sixteen_bit=picture.sixteen_bit,
                stream=job.stdout,
            )

    def _infer(
        self,
        job: FileJob,
        decoding: Future[_Decoded],
        decoder: ThreadPoolExecutor,
        encoder: ThreadPoolExecutor,
    ) -> _Writing:
        try:
            with _memory_errors(job, "upscale it"):
                try:
                    picture = decoding.result()
                except NotNowError as error:  # beside others that were in memory: now alone
                    wait(each.future for each in self._writings if each.future)
                    give_back_memory()
                    require_address_space(error.address_space)
                    picture = self._decode(job, error.header)
                return self._upscaled(job, picture, decoder, encoder)
        except SrupError as error:
            return _Writing(FileResult(job, error=_naming(job, error)))
        finally:
            self._decode_seconds.pop(job, None)

    def _upscaled(
        self, job: FileJob, picture: _Decoded, decoder: ThreadPoolExecutor, encoder: ThreadPoolExecutor
    ) -> _Writing:
        report = self._reporter(job)
        if isinstance(picture, LargePicture):
            return _Writing(self._upscale_large(job, picture, report))
        if isinstance(picture, PictureSequence):
            _make_folder(job)
            result, writing, pixel_bytes = upscale_sequence(
                job,
                picture,
                self._upscaler,
                options=self._options,
                progress=report,
                check=lambda page: self._admission.check_page(job, page),
                pools=(decoder, encoder),
            )
            return _Writing(result, writing, pixel_bytes)
        started = time.perf_counter()
        upscaled = self._upscaler.picture(picture, progress=report)
        return self._writing(job, picture, upscaled, time.perf_counter() - started, encoder)

    def _writing(
        self, job: FileJob, picture: Picture, upscaled: Picture, seconds: float, encoder: ThreadPoolExecutor
    ) -> _Writing:
        """Start to write a picture."""
        stages = {"decode": self._decode_seconds.pop(job, 0.0), "infer": seconds}
        result = FileResult(
            job,
            size=(picture.width, picture.height),
            output_size=(upscaled.width, upscaled.height),
            tiles=self._upscaler.tile_count(picture.height, picture.width),
            seconds=seconds,
            stages=stages,
            restored=upscaled.restored,
        )
        return _Writing(result, encoder.submit(self._encode, job, upscaled, stages), _pixel_bytes(upscaled))

    def _encode(self, job: FileJob, picture: Picture, stages: dict[str, float]) -> tuple[str, ...]:
        started = time.perf_counter()
        _make_folder(job)
        written = write_picture(job.target, picture, options=self._options, stream=job.stdout)
        stages["write"] = time.perf_counter() - started
        return picture.notes + written

    def _upscale_large(self, job: FileJob, picture: LargePicture, report: Progress | None) -> FileResult:
        bands = self._capabilities.bands
        assert bands is not None  # or the picture would not have been admitted
        made = upscale_large(picture, bands, options=self._options, progress=report)
        return FileResult(
            job,
            size=made.size,
            output_size=made.output_size,
            tiles=made.tiles,
            seconds=made.seconds,
            notes=made.notes,
            restored=made.restored,
        )

    def _reporter(self, job: FileJob) -> Progress | None:
        progress = self._progress
        return None if progress is None else (lambda done, total: progress(job, done, total))

    def _full(self, *, at_most: int) -> bool:
        """Say whether no further picture may be upscaled before one has been written."""
        waiting = [writing.pixel_bytes for writing in self._writings if writing.waiting]
        return len(waiting) > at_most or (len(waiting) > 1 and sum(waiting) > self._room)

    def _first(self) -> FileResult:
        result = self._writings[0].finished()  # it stays in the queue if Ctrl-C ends the wait
        self._writings.popleft()
        if next(self._written) % _GIVE_BACK_EVERY == 0:
            give_back_memory()
        return result


@contextmanager
def _memory_errors(job: FileJob, doing: str) -> Iterator[None]:
    """Turn a `MemoryError` into the failure of one job."""
    try:
        yield
    except MemoryError as error:
        raise TooLargeError(
            f"{printable(job.source)}: not enough memory to {doing}; free some memory, or use a smaller "
            "picture or scale"
        ) from error


def _naming(job: FileJob, error: SrupError) -> SrupError:
    """Return an error that names the picture; those of a backend do not know it."""
    if isinstance(error, ImageError):
        return error
    named = BackendError(f"{printable(job.source)}: {error}")
    named.__cause__ = error
    return named


def _result_of(picture: Picture, failure: BaseException | None) -> Future[_Decoded]:
    """Return a task that is done: it gave a picture, or failed."""
    done: Future[_Decoded] = Future()
    done.set_result(picture) if failure is None else done.set_exception(failure)
    return done


def _make_folder(job: FileJob) -> None:
    if job.stdout is not None:
        return
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(
            f"{job.target}: its folder cannot be made ({error.strerror}); choose another (-o)"
        ) from error


def _pixel_bytes(picture: _Decoded) -> int:
    """Return the bytes of decoded pixels; frames and bands are decoded later."""
    return picture.bytes if isinstance(picture, Picture) else 0
