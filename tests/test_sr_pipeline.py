"""The pipeline: stages overlap, order and errors do not depend on timing, no partial file remains."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sr.jobs.admission
import sr.jobs.pipeline
import sr.jobs.sequences
from sr.errors import BackendError, TooLargeError
from sr.image import Picture, read_picture
from sr.jobs.admission import RunLimits
from sr.jobs.pipeline import FileJob, FileResult, RunSettings, upscale_files
from sr.jobs.upscaler import Capabilities
from sr.streaming import Progress
from sr.upscale import Upscaler
from tests.simulated_device import SimulatedCuda
from tests.test_sr_backends_trt import opened


class Doubling:
    """Repeats pixels; `before` is called first, with how many pictures came before."""

    def __init__(self, before: Callable[[int], None] = lambda _: None) -> None:
        self.before, self.count = before, 0

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        return 2 * height, 2 * width

    def tile_count(self, height: int, width: int) -> int:
        return 1

    def picture(self, picture: Picture, *, progress: Progress | None = None) -> Picture:
        self.count += 1
        self.before(self.count - 1)
        if progress is not None:
            progress(1, 1)
        return replace(picture, pixels=picture.pixels.repeat(2, 0).repeat(2, 1))


def pixels(index: int) -> np.ndarray:
    return np.full((4 + index, 6, 3), 10 * index, np.uint8)


@pytest.fixture
def jobs(tmp_path: Path) -> list[FileJob]:
    for index in range(9):
        Image.fromarray(pixels(index)).save(tmp_path / f"{index}.png")
    return [FileJob(tmp_path / f"{index}.png", tmp_path / "out" / f"{index}.png") for index in range(9)]


@pytest.fixture
def animation(tmp_path: Path) -> FileJob:
    frames = [Image.fromarray(np.full((5, 7, 3), 60 * index, np.uint8)) for index in range(4)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    return FileJob(tmp_path / "a.webp", tmp_path / "b.webp")


def delay_writing(monkeypatch: pytest.MonkeyPatch, delays: dict[str, float]) -> None:
    """Let the writing of the files of these names take longer."""
    written = sr.jobs.pipeline.write_picture

    def write(path: Path, *arguments: object, **options: object) -> tuple[str, ...]:
        time.sleep(delays.get(path.name, 0))
        return written(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sr.jobs.pipeline, "write_picture", write)


def test_results_come_in_order_however_long_each_takes(
    jobs: list[FileJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    delay_writing(monkeypatch, {"0.png": 0.3, "3.png": 0.1})
    for index, result in enumerate(upscale_files(jobs, Doubling())):
        assert result.job == jobs[index]
        assert result.error is None
        assert (read_picture(result.job.target).pixels == pixels(index).repeat(2, 0).repeat(2, 1)).all()
    assert index == 8


def test_pictures_are_written_side_by_side(jobs: list[FileJob], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sr.jobs.pipeline, "available_cores", lambda: 2)
    both = threading.Barrier(2)  # broken, which raises, unless two threads write at once
    monkeypatch.setattr(sr.jobs.pipeline, "write_picture", lambda *_, **__: (str(both.wait(timeout=5)),))
    results = list(upscale_files(jobs[:2], Doubling()))
    assert {result.notes for result in results} == {("0",), ("1",)}


@pytest.mark.parametrize(("allowed_bytes", "waiting"), [(10**9, 4), (1, 2)])
def test_what_waits_to_be_written_is_bounded(
    jobs: list[FileJob], monkeypatch: pytest.MonkeyPatch, allowed_bytes: int, waiting: int
) -> None:
    monkeypatch.setattr(sr.jobs.pipeline, "available_cores", lambda: 3)
    monkeypatch.setattr(sr.jobs.pipeline, "WAITING_BYTES", allowed_bytes)
    go, upscaled = threading.Event(), []
    monkeypatch.setattr(sr.jobs.pipeline, "write_picture", lambda *_, **__: (str(go.wait(timeout=5)),))
    upscaler = Doubling(upscaled.append)
    worker = threading.Thread(target=lambda: list(upscale_files(jobs, upscaler)))
    worker.start()
    time.sleep(0.3)
    stuck = len(upscaled)
    go.set()
    worker.join()
    assert stuck == waiting + 1 if allowed_bytes > 1 else stuck == waiting
    assert len(upscaled) == 9


def failing_at(number: int, error: BaseException) -> Doubling:
    def fail(count: int) -> None:
        if count == number:
            raise error

    return Doubling(fail)


def test_a_picture_that_fails_does_not_stop_the_others(jobs: list[FileJob]) -> None:
    jobs[5].source.write_bytes(b"no picture")
    jobs[6].source.unlink()
    results = list(upscale_files(jobs, failing_at(2, BackendError("the device failed; try another"))))
    assert [index for index, result in enumerate(results) if result.error is not None] == [2, 5, 6]
    assert sorted(path.name for path in jobs[0].target.parent.iterdir()) == [
        f"{index}.png" for index in (0, 1, 3, 4, 7, 8)
    ]


class Streaming(Doubling):
    """Has two pictures under way at once, as a GPU may."""

    def pictures(
        self, pictures: Iterable[tuple[Picture, Progress | None] | None]
    ) -> Generator[Picture, None, None]:
        under_way: deque[Picture] = deque()
        for each in pictures:
            if each is not None:
                under_way.append(self.picture(each[0], progress=each[1]))
            if len(under_way) == 2 or (under_way and each is None):
                yield under_way.popleft()
        yield from under_way


def test_a_stream_that_fails_fails_only_the_picture_whose_fault_it_is(jobs: list[FileJob]) -> None:
    """Pictures of four and seven rows cannot be upscaled, one cannot be read, one is an animation."""
    Image.fromarray(pixels(5)).save(jobs[5].source, save_all=True, append_images=[Image.new("RGB", (6, 9))])
    jobs[6].source.unlink()
    upscaler = Streaming()
    upscaler.picture = lambda picture, **_: (  # type: ignore[method-assign]
        _failing(picture) if picture.height in (4, 7) else Doubling().picture(picture)
    )
    results = list(upscale_files(jobs, upscaler, capabilities=Capabilities(pictures=upscaler.pictures)))
    assert [result.job for result in results] == jobs
    assert [index for index, result in enumerate(results) if result.error is not None] == [0, 3, 6]
    assert all(str(results[index].job.source) in str(results[index].error) for index in (0, 3, 6))
    for index in (1, 2, 4, 7, 8):
        assert (read_picture(jobs[index].target).pixels == pixels(index).repeat(2, 0).repeat(2, 1)).all()


def _failing(picture: Picture) -> Picture:
    raise BackendError("the device failed; try another")


def test_a_stream_of_files_on_a_gpu(jobs: list[FileJob]) -> None:
    jobs *= 3
    with Upscaler(backend=opened(SimulatedCuda(schedule=1))) as upscaler:
        able = Capabilities(pictures=upscaler.pictures)
        results = list(upscale_files(jobs, upscaler, capabilities=able))
    assert [(result.job, result.error) for result in results] == [(job, None) for job in jobs]
    for index in range(9):
        larger = 255 - pixels(index).repeat(2, 0).repeat(2, 1)
        assert (read_picture(jobs[index].target).pixels == larger).all()


@pytest.mark.parametrize("stage", ["open_picture", "picture", "write_picture"])
def test_memory_that_runs_out_is_one_failed_job(
    jobs: list[FileJob], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Whatever was counted beforehand, another process may have taken the memory meanwhile."""
    upscaler = failing_at(4, MemoryError()) if stage == "picture" else Doubling()
    if stage != "picture":
        whole = getattr(sr.jobs.pipeline, stage)

        def failing(path: Path, *arguments: object, **options: object) -> object:
            if path.name == "4.png":
                raise MemoryError
            return whole(path, *arguments, **options)

        monkeypatch.setattr(sr.jobs.pipeline, stage, failing)
    results = list(upscale_files(jobs, upscaler))
    assert [index for index, result in enumerate(results) if result.error is not None] == [4]
    assert str(results[4].error).startswith(f"{jobs[4].source}: not enough memory")
    assert len(list(jobs[0].target.parent.iterdir())) == 8


def test_a_refusal_looks_at_the_file_once_and_waits_for_nobody(
    jobs: list[FileJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first picture is not written before the third is upscaled, so the second waits for nothing."""
    looks: list[Path] = []
    for module, name in ((sr.jobs.admission, "read_header"), (sr.jobs.pipeline, "open_picture")):
        read = getattr(module, name)

        def counting(path: Path, *arguments: object, read: Callable = read, **options: object) -> object:
            looks.append(path)
            return read(path, *arguments, **options)

        monkeypatch.setattr(module, name, counting)
    third = threading.Event()
    monkeypatch.setattr(sr.jobs.pipeline, "write_picture", lambda *_, **__: (str(third.wait(timeout=20)),))
    upscaler = Doubling(lambda count: third.set() if count == 1 else None)
    settings = RunSettings(limits=RunLimits(max_pixels=40))
    first, refused, last = upscale_files([jobs[0], jobs[8], jobs[1]], upscaler, settings=settings)
    assert first.notes == last.notes == ("True",)
    assert isinstance(refused.error, TooLargeError)
    assert looks.count(jobs[8].source) == 1


def test_what_fits_only_alone_waits_until_the_others_have_left_memory(
    jobs: list[FileJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.zeros((800, 1000, 3), np.uint8)).save(jobs[1].source)
    calls, events = iter([35 * 2**20]), []  # free when the run begins; later nothing is, see below
    monkeypatch.setattr(sr.jobs.admission, "available_memory", lambda: next(calls, 0))
    write, upscaler = (
        sr.jobs.pipeline.write_picture,
        Doubling(lambda count: events.append(f"upscale {count}")),
    )

    def slow(path: Path, *arguments: object, **options: object) -> tuple[str, ...]:
        time.sleep(0.3)
        events.append(f"written {path.name}")
        return write(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sr.jobs.pipeline, "write_picture", slow)
    results = list(upscale_files(jobs[:2], upscaler))
    assert [result.error for result in results] == [None, None]
    assert events.index("written 0.png") < events.index("upscale 1")


def test_an_interrupt_finishes_what_was_upscaled_and_leaves_nothing_partial(
    jobs: list[FileJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    delay_writing(monkeypatch, {"2.png": 0.2})
    results: list[FileResult] = []
    with pytest.raises(KeyboardInterrupt):
        results += upscale_files(jobs, failing_at(4, KeyboardInterrupt()))
    assert [result.job for result in results] == jobs[:4]
    assert sorted(path.name for path in jobs[0].target.parent.iterdir()) == [f"{i}.png" for i in range(4)]


def names_below(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_frames_of_an_animation_are_decoded_upscaled_and_encoded(animation: FileJob) -> None:
    (result,) = upscale_files([animation], Doubling())
    assert (result.error, result.frames, result.tiles, result.output_size) == (None, 4, 4, (14, 10))
    with Image.open(animation.target) as opened:
        values = []
        for index in range(4):
            opened.seek(index)
            values.append(np.asarray(opened.convert("RGB")).max())
    assert values == [0, 60, 120, 180]


@pytest.mark.parametrize("frame", [0, 2])
@pytest.mark.parametrize("error", [BackendError("the device failed; try another"), KeyboardInterrupt()])
def test_a_frame_that_fails_leaves_no_file(animation: FileJob, frame: int, error: BaseException) -> None:
    results: list[FileResult] = []
    with suppress(KeyboardInterrupt):
        results += upscale_files([animation], failing_at(frame, error))
    expected = [f"{animation.source}: {error}"] if isinstance(error, BackendError) else []
    assert [str(result.error) for result in results] == expected
    assert names_below(animation.source.parent) == {"a.webp"}


def test_an_animation_that_cannot_be_written_does_not_hang(
    animation: FileJob, jobs: list[FileJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_path: Path, _sequence: object, frames: Iterator[object], **_: object) -> tuple[str, ...]:
        next(frames)
        raise BackendError("the disk is full; free some space")

    monkeypatch.setattr(sr.jobs.sequences, "write_sequence", write)
    results: list[FileResult] = []
    worker = threading.Thread(
        target=lambda: results.extend(upscale_files([animation, jobs[0]], Doubling())), daemon=True
    )
    worker.start()
    worker.join(timeout=20)
    broken, whole = results
    assert "disk is full" in str(broken.error)
    assert whole.error is None
