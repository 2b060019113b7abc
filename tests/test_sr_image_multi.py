"""Animations and files of several pages: frame by frame, timing and loops kept, memory bounded."""

import struct
import weakref
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from sr.errors import ImageError
from sr.image import (
    Frame,
    Metadata,
    Picture,
    PictureSequence,
    WriteOptions,
    open_picture,
    read_picture,
    write_picture,
    write_sequence,
)
from sr.jobs.pipeline import FileJob, upscale_files
from sr.upscale import Upscaler
from tests.backends import Repeat
from tests.pictures import apng, encoded, exif_block, gif, png, png_chunk, xmp_packet

Pixels = NDArray[np.uint8]
ANIMATED = (".png", ".webp", ".gif", ".avif")
EXACT = (".png", ".webp", ".gif")
DURATIONS = (100.0, 40.0, 250.0, 30.0, 80.0)
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 200, 0], [40, 40, 255], [255, 255, 255]], np.uint8)
PALETTE = COLOURS.tobytes() + bytes(9)


@pytest.fixture
def upscaler() -> Iterator[Upscaler]:
    with Upscaler(backend=Repeat()) as opened:
        yield opened


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def opened_sequence(path: Path) -> PictureSequence:
    sequence = open_picture(path)
    assert isinstance(sequence, PictureSequence)
    return sequence


def read_all(path: Path) -> list[Frame]:
    picture = open_picture(path)
    return list(picture.frames()) if isinstance(picture, PictureSequence) else [Frame(picture)]


def moving(count: int = len(DURATIONS), *, alpha: bool = False) -> list[Pixels]:
    """Return frames in which a square moves; RGBA where all else is transparent, or RGB."""
    frames = []
    for number in range(count):
        frame = np.zeros((24, 32, 4), np.uint8) if alpha else np.full((24, 32, 3), (0, 200, 0), np.uint8)
        frame[4:12, 3 * number : 3 * number + 8] = (255, 0, 0, 255)[: frame.shape[2]]
        frame[20:, 28:] = (40, 40, 255, 255)[: frame.shape[2]]
        frames.append(frame)
    return frames


def as_frames(arrays: Iterable[Pixels]) -> Iterator[Frame]:
    for pixels, duration in zip(arrays, DURATIONS, strict=False):
        alpha = pixels[..., 3] if pixels.shape[2] == 4 else None
        yield Frame(Picture(pixels[..., :3], alpha), duration)


def sequence_of(count: int, *, plays: int = 0, kind: str = "frames") -> PictureSequence:
    return PictureSequence(Path("none"), "PNG", kind, count, 24, 32, 1 << 20, plays)


def composited(path: Path) -> tuple[list[Pixels], list[float], object]:
    """Read with Pillow alone: RGBA frames, durations, loop as stored."""
    with Image.open(path) as image:
        frames, durations = [], []
        for frame in ImageSequence.Iterator(image):
            frames.append(np.asarray(frame.convert("RGBA")))
            durations.append(float(frame.info.get("duration", 0)))
        return frames, durations, image.info.get("loop")


# Writing


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("suffix", ANIMATED)
def test_frames_and_timing_are_written(tmp_path: Path, suffix: str, alpha: bool) -> None:
    arrays = moving(alpha=alpha)
    path = tmp_path / f"out{suffix}"
    write_sequence(path, sequence_of(len(arrays), plays=3), as_frames(arrays))
    frames, durations, loop = composited(path)
    assert durations == list(DURATIONS)
    assert len(frames) == len(arrays)
    assert loop == {".png": 3, ".webp": 3, ".gif": 2, ".avif": None}[suffix]
    for written, pixels in zip(frames, arrays, strict=True):
        opaque = pixels[..., 3] if alpha else np.full(pixels.shape[:2], 255)
        assert np.abs(written[..., 3].astype(int) - opaque).max() <= (0 if suffix in EXACT else 40)
        difference = np.abs(written[..., :3].astype(int) - pixels[..., :3])[opaque > 0]
        assert (difference.max() == 0) if suffix in EXACT else (difference.mean() < 6)


@pytest.mark.parametrize("plays", [0, 1, 2, 7])
@pytest.mark.parametrize("suffix", EXACT)
def test_the_number_of_plays_comes_back(tmp_path: Path, suffix: str, plays: int) -> None:
    path = tmp_path / f"out{suffix}"
    notes = write_sequence(path, sequence_of(3, plays=plays), as_frames(moving(3)))
    assert opened_sequence(path).plays == plays
    assert ("256 colours" in " ".join(notes)) == (suffix == ".gif")


def test_avif_says_that_it_repeats_without_end(tmp_path: Path) -> None:
    path = tmp_path / "out.avif"
    assert "repeats" in write_sequence(path, sequence_of(3, plays=2), as_frames(moving(3)))[0]
    assert write_sequence(path, sequence_of(3, plays=0), as_frames(moving(3))) == ()


def test_what_appears_and_vanishes_in_a_gif_does_so(tmp_path: Path) -> None:
    """Transparent pixels of a GIF keep what was there, so clearing has to be planned one frame ahead."""
    random = np.random.default_rng(0)
    arrays = []
    for _ in DURATIONS:
        frame = np.zeros((9, 11, 4), np.uint8)
        frame[random.random((9, 11)) < 0.5] = (255, 0, 0, 255)
        arrays.append(frame)
    arrays[1:3] = [arrays[0] | np.array([0, 0, 0, 0], np.uint8), np.zeros((9, 11, 4), np.uint8)]
    write_sequence(tmp_path / "out.gif", sequence_of(5), as_frames(arrays))
    frames = [frame.picture for frame in opened_sequence(tmp_path / "out.gif").frames()]
    for picture, pixels in zip(frames, arrays, strict=True):
        alpha = np.full(pixels.shape[:2], 255) if picture.alpha is None else picture.alpha
        np.testing.assert_array_equal(alpha, pixels[..., 3])
        np.testing.assert_array_equal(picture.pixels[alpha > 0], pixels[..., :3][alpha > 0])


def test_odd_durations_sum_up(tmp_path: Path) -> None:
    frames = [Frame(Picture(pixels), 1000 / 30) for pixels in moving(5)]
    for suffix, expected in ((".png", 1000 / 30), (".gif", None), (".webp", None)):
        write_sequence(tmp_path / f"out{suffix}", sequence_of(5), iter(frames))
        durations = composited(tmp_path / f"out{suffix}")[1]
        assert sum(durations) == pytest.approx(5000 / 30, abs=5)
        assert expected is None or durations == pytest.approx([expected] * 5)


def test_metadata_of_the_first_frame_is_kept(tmp_path: Path) -> None:
    metadata = Metadata(exif=exif_block(None, size=(7, 5)), xmp=xmp_packet(1))
    frames = [Frame(Picture(pixels, None, metadata), 50) for pixels in moving(3)]
    for suffix in (".png", ".webp", ".avif"):
        write_sequence(tmp_path / f"out{suffix}", sequence_of(3), iter(frames))
        kept = next(opened_sequence(tmp_path / f"out{suffix}").frames()).picture.metadata
        assert kept.xmp == xmp_packet(1), suffix
        assert kept.exif is not None
        assert b"NOTE with an offset" in kept.exif


@pytest.mark.parametrize("suffix", [".png", ".webp", ".gif", ".tif"])
def test_few_frames_are_in_memory(tmp_path: Path, suffix: str) -> None:
    alive: set[int] = set()
    most = 0

    def frames() -> Iterator[Frame]:
        nonlocal most
        for number in range(40):
            pixels = np.full((24, 32, 3), number, np.uint8)
            alive.add(number)
            weakref.finalize(pixels, alive.discard, number)
            most = max(most, len(alive))
            yield Frame(Picture(pixels), 20)

    kind = "pages" if suffix == ".tif" else "frames"
    write_sequence(tmp_path / f"out{suffix}", sequence_of(40, kind=kind), frames())
    assert most <= 4
    assert opened_sequence(tmp_path / f"out{suffix}").count == 40


@pytest.mark.parametrize("suffix", [*ANIMATED, ".tif"])
def test_a_failure_in_between_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    def frames() -> Iterator[Frame]:
        yield from as_frames(moving(3))
        raise ImageError("in.gif: damaged; get another")

    kind = "pages" if suffix == ".tif" else "frames"
    with pytest.raises(ImageError, match=r"in\.gif: "):
        write_sequence(tmp_path / f"out{suffix}", sequence_of(5, kind=kind), frames())
    assert not list(tmp_path.iterdir())


# Reading


def test_gif_frames_are_composited_as_the_specification_says(tmp_path: Path) -> None:
    def block(value: int, height: int, width: int) -> Pixels:
        return np.full((height, width), value, np.uint8)

    key = 4
    second = block(1, 4, 4)
    second[1, 1] = key  # transparent: what is below shows
    frames = [
        (block(2, 8, 10), (0, 0), 1, None, 10),  # stays
        (second, (1, 1), 3, key, 5),  # is taken back
        (block(3, 3, 3), (6, 4), 2, key, 7),  # is cleared
        (block(1, 2, 2), (0, 6), 1, key, 9),
    ]
    path = saved(tmp_path / "in.gif", gif(frames, size=(10, 8), palette=PALETTE[:24], loop=0))
    canvas = np.full((8, 10), 2)
    expected = [canvas.copy()]
    with_second = canvas.copy()
    with_second[1:5, 1:5] = 1
    with_second[2, 2] = 2
    expected.append(with_second)
    with_third = canvas.copy()
    with_third[4:7, 6:9] = 3
    expected.append(with_third)
    with_fourth = canvas.copy()
    with_fourth[4:7, 6:9] = -1
    with_fourth[6:8, 0:2] = 1
    expected.append(with_fourth)

    sequence = opened_sequence(path)
    assert (sequence.count, sequence.plays, sequence.kind) == (4, 0, "frames")
    read = list(sequence.frames())
    assert [frame.duration_ms for frame in read] == [100, 50, 70, 90]
    for frame, indices in zip(read, expected, strict=True):
        alpha = np.full((8, 10), 255) if frame.picture.alpha is None else frame.picture.alpha
        np.testing.assert_array_equal(alpha, np.where(indices < 0, 0, 255))
        seen = indices >= 0
        np.testing.assert_array_equal(frame.picture.pixels[seen], COLOURS[indices[seen]])


@pytest.mark.parametrize(("loop", "plays"), [(None, 1), (0, 0), (3, 4)])
def test_plays_of_a_gif_are_those_of_browsers(tmp_path: Path, loop: int | None, plays: int) -> None:
    frame = (np.ones((2, 2), np.uint8), (0, 0), 1, None, 4)
    other = (np.zeros((2, 2), np.uint8), (0, 0), 1, None, 4)
    path = saved(tmp_path / "in.gif", gif([frame, other], size=(2, 2), palette=PALETTE[:24], loop=loop))
    assert opened_sequence(path).plays == plays


def test_a_picture_for_programs_that_do_not_animate_is_no_frame(tmp_path: Path) -> None:
    hidden, frames = Image.new("RGB", (4, 4), "white"), [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    file = encoded(
        hidden, "PNG", save_all=True, default_image=True, append_images=frames, duration=[50, 70], loop=2
    )
    sequence = opened_sequence(saved(tmp_path / "in.png", file))
    assert (sequence.count, sequence.plays) == (2, 2)
    read = list(sequence.frames())
    assert [frame.picture.pixels[0, 0].tolist() for frame in read] == [[255, 0, 0], [0, 0, 255]]
    assert [frame.duration_ms for frame in read] == [50, 70]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".gif"])
def test_a_damaged_animation_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (4, 24, 32, 3), np.uint8)
    write_sequence(path, sequence_of(4), as_frames(noise), options=WriteOptions())
    whole = path.read_bytes()
    for tenths in range(1, 10):
        path.write_bytes(whole[: len(whole) * tenths // 10])
        with pytest.raises(ImageError) as caught:
            read_all(path)
        assert "\n" not in str(caught.value)


def test_a_frame_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    small, large = np.ones((2, 2), np.uint8), np.ones((300, 400), np.uint8)  # of which 2x2 are seen
    frames = [(small, (0, 0), 1, None, 4), (large, (0, 0), 1, None, 4)]
    path = saved(tmp_path / "in.gif", gif(frames, size=(2, 2), palette=PALETTE[:24]))
    sequence = open_picture(path, max_pixels=1000)
    assert isinstance(sequence, PictureSequence)
    with pytest.raises(ImageError, match="--max-pixels 120000"):
        list(sequence.frames())


# Pages


def many_pages() -> bytes:
    """Return a TIFF with colour, grey with alpha, 16 bits and a reduced copy of the first."""
    colour = Image.fromarray(np.full((20, 30, 3), (9, 100, 200), np.uint8))
    thumbnail = colour.resize((10, 7))
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    grey = Image.fromarray(np.dstack([np.full((8, 9), 77, np.uint8), np.full((8, 9), 128, np.uint8)]))
    deep = Image.fromarray(np.arange(300, 420, dtype=np.uint16).reshape(10, 12))
    return encoded(colour, "TIFF", save_all=True, append_images=[thumbnail, grey, deep], dpi=(300, 300))


def test_pages_are_upscaled_one_by_one(tmp_path: Path, upscaler: Upscaler) -> None:
    pytest.importorskip("pyvips")
    saved(tmp_path / "in.tif", many_pages())
    assert opened_sequence(tmp_path / "in.tif").count == 3
    (result,) = upscale_files([FileJob(tmp_path / "in.tif", tmp_path / "out.tif")], upscaler)
    assert (result.error, result.frames, result.notes) == (None, 3, ())
    pages = [frame.picture for frame in opened_sequence(tmp_path / "out.tif").frames()]
    assert [page.pixels.shape for page in pages] == [(40, 60, 3), (16, 18), (20, 24)]
    assert (pages[0].pixels == (9, 100, 200)).all()
    assert (pages[1].pixels == 77).all()
    assert pages[1].alpha is not None
    assert (pages[1].alpha == 128).all()
    expected = np.arange(300, 420, dtype=np.uint16).reshape(10, 12).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(pages[2].pixels, expected)
    with Image.open(tmp_path / "out.tif") as image:  # what another reader makes of it
        assert [(page.size, page.mode) for page in ImageSequence.Iterator(image)] == [
            ((60, 40), "RGB"),
            ((18, 16), "LA"),
            ((24, 20), "I;16"),
        ]
        image.seek(0)
        assert image.info["dpi"] == (300, 300)


def test_metadata_of_each_page_is_kept(tmp_path: Path) -> None:
    pages = [
        Frame(Picture(pixels, None, Metadata(exif=exif_block(None, order=order), xmp=xmp_packet(number))))
        for number, (pixels, order) in enumerate(zip(moving(2), "<>", strict=True), 1)
    ]
    write_sequence(tmp_path / "out.tif", sequence_of(2, kind="pages"), iter(pages))
    for number, frame in enumerate(opened_sequence(tmp_path / "out.tif").frames(), 1):
        metadata = frame.picture.metadata
        assert metadata.xmp == xmp_packet(1)
        assert metadata.exif is not None, number
        assert b"NOTE with an offset" in metadata.exif
        assert b"2024:02:29" in metadata.exif


def test_a_loop_of_pages_ends(tmp_path: Path) -> None:
    file = bytearray(encoded(np.zeros((4, 4), np.uint8), "TIFF"))
    first = struct.unpack_from("<I", file, 4)[0]
    count = struct.unpack_from("<H", file, first)[0]
    struct.pack_into("<I", file, first + 2 + 12 * count, first)
    assert read_picture(saved(tmp_path / "in.tif", bytes(file))).width == 4


# Files


@pytest.mark.parametrize("target", EXACT)
@pytest.mark.parametrize("source", EXACT)
def test_animations_go_from_each_format_to_each(
    tmp_path: Path, upscaler: Upscaler, source: str, target: str
) -> None:
    arrays = moving(alpha=True)
    path = tmp_path / f"in{source}"
    write_sequence(path, sequence_of(5, plays=4), as_frames(arrays))
    seen: list[tuple[int, int]] = []
    (result,) = upscale_files(
        [FileJob(path, tmp_path / f"out{target}")],
        upscaler,
        progress=lambda job, done, total: seen.append((done, total)),
    )
    assert (result.error, result.frames, result.size) == (None, 5, (32, 24))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
    sequence = opened_sequence(tmp_path / f"out{target}")
    assert sequence.plays == 4
    for frame, pixels, duration in zip(sequence.frames(), arrays, DURATIONS, strict=True):
        expected = pixels.repeat(2, 0).repeat(2, 1)
        assert frame.duration_ms == duration
        assert frame.picture.alpha is not None
        np.testing.assert_array_equal(frame.picture.alpha, expected[..., 3])
        seen_pixels = expected[..., 3] > 0
        np.testing.assert_array_equal(frame.picture.pixels[seen_pixels], expected[..., :3][seen_pixels])


@pytest.mark.parametrize(
    ("content", "suffix", "says"),
    [
        (apng(5), ".jpg", "JPEG cannot hold several frames; use .png, .webp, .avif or .gif"),
        (apng(5), ".tif", "TIFF cannot hold several frames; use .png"),
        (apng(5), ".bmp", "BMP cannot hold several frames; use .png"),
        (
            encoded(Image.new("L", (2, 2)), "TIFF", save_all=True, append_images=[Image.new("L", (3, 2))]),
            ".png",
            "PNG cannot hold several pages; use .tif",
        ),
    ],
)
def test_formats_for_one_picture_are_refused(
    tmp_path: Path, upscaler: Upscaler, content: bytes, suffix: str, says: str
) -> None:
    path = saved(tmp_path / "in", content)
    (result,) = upscale_files([FileJob(path, tmp_path / f"out{suffix}")], upscaler)
    assert says in str(result.error)
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_frames_of_16_bits_are_refused(tmp_path: Path, upscaler: Upscaler) -> None:
    control = png_chunk(b"acTL", struct.pack(">II", 2, 0))
    frame = struct.pack(">IIIIHHBB", 1, 1, 0, 0, 1, 10, 0, 0)
    first = control + png_chunk(b"fcTL", struct.pack(">I", 0) + frame)
    second = png_chunk(b"fcTL", struct.pack(">I", 1) + frame) + png_chunk(b"fdAT", struct.pack(">I", 2))
    path = saved(tmp_path / "in.png", png([b"\0\0"], width=1, bits=16, colour=0, before=first, after=second))
    (result,) = upscale_files([FileJob(path, tmp_path / "out.png")], upscaler)
    assert "16 bits" in str(result.error)


def test_a_still_gif_is_written_in_its_own_colours(tmp_path: Path) -> None:
    pixels = COLOURS[np.random.default_rng(0).integers(0, 5, (20, 30))]
    alpha = np.where(np.arange(30) < 9, 0, 255).astype(np.uint8) * np.ones((20, 1), np.uint8)
    for opacity in (None, alpha, np.zeros_like(alpha)):
        write_picture(tmp_path / "out.gif", Picture(pixels, opacity))
        picture = read_picture(tmp_path / "out.gif")
        if opacity is not None:
            np.testing.assert_array_equal(picture.alpha, opacity)
        shown = np.ones((20, 30), bool) if opacity is None else opacity > 0
        if shown.any():  # else it is black, and grey
            np.testing.assert_array_equal(picture.pixels[shown], pixels[shown])
    assert BytesIO((tmp_path / "out.gif").read_bytes()).read(6) == b"GIF89a"
