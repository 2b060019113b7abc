"""Pictures that exceed the memory: by bands, equal to the whole, gone on with after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from backends import Repeat
from click.testing import CliRunner
from PIL import Image, ImageCms

import sr.jobs.large
from sr.cli import main
from sr.errors import BackendError, ImageError, MissingExtraError, OutOfDeviceMemoryError, TooLargeError
from sr.image import Picture, read_picture, write_options, write_picture
from sr.image.alpha import BLEED_ROWS, BleedByBands, bleed_under_transparency
from sr.image.decode import read_header
from sr.image.formats.bigtiff import part_files
from sr.image.formats.tiles import Mosaic, TiledLayout
from sr.jobs.admission import Admission, RunLimits
from sr.jobs.large import LargePicture, upscale_large
from sr.jobs.pipeline import FileJob, upscale_files
from sr.jobs.setup import open_setup
from sr.jobs.upscaler import Capabilities
from sr.sized import Upscaling
from sr.upscale import Upscaler

pyvips = pytest.importorskip("pyvips")

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
KITTEN = EXAMPLES / "kitten.png"
DEEP = 257  # 16 bits from 8
SMALL_TILE = 64
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    """Return a photograph, 203x301 uint8 RGB."""
    return np.ascontiguousarray(read_picture(KITTEN).pixels[:203, :301])


@pytest.fixture(scope="module")
def cut_out(rgb) -> np.ndarray:
    """Return alpha with much that is hidden, some that is opaque and all between."""
    alpha = rgb[..., 0].copy()
    alpha[alpha < 90] = 0
    alpha[alpha > 160] = 255
    return alpha


@pytest.fixture(scope="module")
def repeat():
    """Open an upscaler with a known result that has many small tiles."""
    with Upscaler(backend=Repeat(), tile=70) as opened:
        yield opened


@pytest.fixture(scope="module")
def real():
    """Open a shipped network, with small tiles."""
    with Upscaler(scale=2, backend="onnx", device="cpu", tile=96) as opened:
        yield opened


@pytest.fixture
def little_memory(monkeypatch):
    """Let 1 MB be free."""
    monkeypatch.setattr(sr.jobs.admission, "available_memory", lambda: 1_000_000)


def by_bands(source: Path, target: Path, upscaler: Upscaler, **settings) -> sr.jobs.large.LargeResult:
    picture = LargePicture(source, target, read_header(source))
    return upscale_large(picture, upscaler, tile=SMALL_TILE, **settings)


def assert_equal_pictures(found: Picture, expected: Picture) -> None:
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.pixels.dtype == expected.pixels.dtype
    assert (found.alpha is None) == (expected.alpha is None)
    if found.alpha is not None:
        np.testing.assert_array_equal(found.alpha, expected.alpha)


def unfinished(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".srup")]


def exif(orientation: int) -> Image.Exif:
    result = Image.Exif()
    result[0x0112] = orientation
    return result


# --- equal to what is made whole ----------------------------------------------------------------

KINDS = {
    "rgb.png": lambda path, rgb, alpha: Image.fromarray(rgb).save(path),
    "rgb.jpg": lambda path, rgb, alpha: Image.fromarray(rgb).save(path, quality=90),
    "strips.tif": lambda path, rgb, alpha: Image.fromarray(rgb).save(path, compression="tiff_lzw"),
    "tiles.tif": lambda path, rgb, alpha: pyvips.Image.new_from_array(rgb).tiffsave(str(path), tile=True),
    "big.tif": lambda path, rgb, alpha: pyvips.Image.new_from_array(rgb).tiffsave(str(path), bigtiff=True),
    "grey.png": lambda path, rgb, alpha: Image.fromarray(rgb[..., 1]).save(path),
    "grey_as_rgb.png": lambda path, rgb, alpha: Image.fromarray(rgb[..., 1]).save(path, icc_profile=SRGB),
    "one_bit.tif": lambda path, rgb, alpha: Image.fromarray(rgb[..., 0] > 99).save(path),
    "alpha.png": lambda path, rgb, alpha: Image.fromarray(np.dstack((rgb, alpha))).save(path),
    "grey_alpha.tif": lambda path, rgb, alpha: Image.fromarray(np.dstack((rgb[..., 0], alpha))).save(path),
    "opaque.png": lambda path, rgb, alpha: Image.fromarray(rgb).convert("RGBA").save(path),
    "turned.jpg": lambda path, rgb, alpha: Image.fromarray(rgb).save(path, exif=exif(6)),
    "mirrored.png": lambda path, rgb, alpha: Image.fromarray(rgb).save(path, exif=exif(2)),
    "deep.png": lambda path, rgb, alpha: write_picture(path, Picture(rgb.astype(np.uint16) * DEEP + 3)),
    "deep_grey.tif": lambda path, rgb, alpha: write_picture(path, Picture(rgb[..., 0] * np.uint16(DEEP))),
    "deep_alpha.tif": lambda path, rgb, alpha: write_picture(
        path, Picture(rgb * np.uint16(DEEP), alpha * np.uint16(DEEP))
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_bands_equal_the_whole(kind, tmp_path, rgb, cut_out, repeat):
    source, target, whole = tmp_path / kind, tmp_path / "bands.tif", tmp_path / "whole.tif"
    KINDS[kind](source, rgb, cut_out)
    made = by_bands(source, target, repeat)
    write_picture(whole, repeat.picture(read_picture(source)))
    assert_equal_pictures(read_picture(target), read_picture(whole))
    assert made.output_size == (2 * made.size[0], 2 * made.size[1])
    assert unfinished(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rgb.png", "alpha.png", "grey.png", "deep_alpha.tif"])
def test_bands_equal_the_whole_with_a_network(kind, tmp_path, rgb, cut_out, real):
    source, target = tmp_path / kind, tmp_path / "bands.tif"
    KINDS[kind](source, rgb, cut_out)
    by_bands(source, target, real)
    assert_equal_pictures(read_picture(target), real.picture(read_picture(source)))


@pytest.mark.parametrize("compression", ["lzw", "deflate", "none"])
def test_libvips_and_pillow_read_what_was_written(compression, tmp_path, repeat):
    target = tmp_path / "out.tif"
    by_bands(KITTEN, target, repeat, options=write_options(".tif", tiff_compression=compression))
    expected = repeat.picture(read_picture(KITTEN)).pixels
    assert target.read_bytes()[:4] in (b"II+\0", b"MM\0+"), "BigTIFF"
    with Image.open(target) as opened:
        np.testing.assert_array_equal(np.asarray(opened), expected)
    image = pyvips.Image.new_from_file(str(target), fail_on="warning")
    np.testing.assert_array_equal(image.numpy(), expected)


def test_metadata_are_kept(tmp_path, rgb, repeat):
    source, target = tmp_path / "in.jpg", tmp_path / "out.tif"
    tags = exif(6)
    tags[0x010F], tags.get_ifd(0x8769)[0xA002] = "A maker", 301
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">some</x:xmpmeta>'
    Image.fromarray(rgb).save(source, exif=tags, icc_profile=SRGB, dpi=(300, 150), xmp=xmp)
    by_bands(source, target, repeat)
    before, after = read_picture(source).metadata, read_picture(target).metadata
    assert (after.icc_profile, after.xmp) == (SRGB, xmp)
    assert after.dpi == pytest.approx(before.dpi) == (150, 300)
    with Image.open(target) as opened:
        assert opened.getexif()[0x010F] == "A maker"
        assert opened.getexif().get(0x0112, 1) == 1
        assert opened.getexif().get_ifd(0x8769)[0xA002] == opened.width == 2 * rgb.shape[0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (64, 64), (129, 65)])
def test_odd_sizes(shape, tmp_path, repeat):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    by_bands(tmp_path / "in.png", tmp_path / "out.tif", repeat)
    np.testing.assert_array_equal(read_picture(tmp_path / "out.tif").pixels, repeat(pixels))


@pytest.mark.parametrize("density", [0, 0.002, 0.3, 1])
@pytest.mark.parametrize("shape", [(333, 77), (64, 40), (31, 40), (1, 9)])
def test_colours_bleed_by_bands_as_in_the_whole(shape, density):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (*shape, 3), np.uint8)
    alpha = (rng.random(shape) < density) * rng.integers(0, 256, shape, np.uint8)
    height, step = shape[0], 2 * BLEED_ROWS
    bleed = BleedByBands(
        (pixels[top : top + step], alpha[top : top + step]) for top in range(0, height, step)
    )
    expected = bleed_under_transparency(pixels, alpha)
    for start, stop in ((0, 40), (30, 170), (100, 233), (height - 20, height)):
        start, stop = max(0, min(start, height - 1)), min(stop, height)
        first, last = BleedByBands.around(start, stop, height=height)
        found = bleed.rows(pixels[first:last], alpha[first:last], first=first)
        np.testing.assert_array_equal(found[start - first : stop - first], expected[start:stop])


@pytest.mark.parametrize("rows", [[5, 3, 40, 16, 6], [70], [1] * 70])
def test_a_mosaic_holds_every_pixel_once(rows):
    layout = TiledLayout(height=70, width=50, channels=1, dtype="uint8", compression=None, tile=16)
    picture = np.random.default_rng(2).integers(0, 256, (70, 50, 1), np.uint8)
    mosaic, found, row = Mosaic(layout), {}, 0
    for height in rows:
        for left, right in ((0, 7), (7, 33), (33, 50)):
            for tile in mosaic.add(picture[row : row + height, left:right], row=row, column=left):
                assert tile.number not in found
                found[tile.number] = tile.pixels
        row += height
    assert sorted(found) == list(range(layout.count))
    for number, pixels in found.items():
        top, left = number // layout.across * 16, number % layout.across * 16
        np.testing.assert_array_equal(pixels, picture[top : top + 16, left : left + 16])


# --- interrupted --------------------------------------------------------------------------------

SLOW = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from backends import Repeat
from sr.image.decode import read_header
from sr.jobs.large import LargePicture, upscale_large
from sr.upscale import Upscaler

source, target, seconds = Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
with Upscaler(backend=Repeat(), tile=70) as upscaler:
    picture = LargePicture(source, target, read_header(source))
    upscale_large(picture, upscaler, tile=64, progress=lambda done, total: time.sleep(seconds))
"""


def start(source: Path, target: Path, *, seconds_a_tile: float) -> subprocess.Popen:
    arguments = [str(Path(__file__).parent), str(source), str(target), str(seconds_a_tile)]
    return subprocess.Popen([sys.executable, "-c", SLOW, *arguments])


def wait_for_bands(target: Path, number: int) -> None:
    journal, deadline = part_files(target)[1], time.monotonic() + 60
    while not journal.exists() or journal.read_text().count("\n") < 1 + number:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_it_goes_on_and_the_file_is_the_same(tmp_path, repeat):
    source, target, undisturbed = tmp_path / "in.tif", tmp_path / "out.tif", tmp_path / "undisturbed.tif"
    shutil.copy(KITTEN, source)
    by_bands(source, undisturbed, repeat)
    for bands in (2, 5):
        process = start(source, target, seconds_a_tile=0.02)
        wait_for_bands(target, bands)
        process.kill()
        process.wait()
        assert process.returncode == -signal.SIGKILL
        assert not target.exists()
    assert len(unfinished(tmp_path)) == 2
    seen = []
    made = by_bands(source, target, repeat, progress=lambda done, total: seen.append((done, total)))
    assert " row " in made.notes[0]
    assert seen[0][0] > 1
    assert seen[-1][0] == seen[-1][1] == len(repeat.grid(339, 510))
    assert target.read_bytes() == undisturbed.read_bytes()
    assert unfinished(tmp_path) == []


def interrupt(source: Path, target: Path, upscaler: Upscaler, *, tiles: int = 40) -> None:
    """Press Ctrl-C after so many tiles."""

    def progress(done: int, total: int) -> None:
        if done >= tiles:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="same command"):
        by_bands(source, target, upscaler, progress=progress)


@pytest.mark.slow
def test_what_is_torn_is_made_anew(tmp_path, repeat):
    """A crash of the machine can cut both files anywhere."""
    target, undisturbed = tmp_path / "out.tif", tmp_path / "undisturbed.tif"
    by_bands(KITTEN, undisturbed, repeat)
    part, journal = part_files(target)
    for tear, gone_on in (
        (lambda: os.truncate(journal, journal.stat().st_size - 9), True),
        (lambda: os.truncate(part, part.stat().st_size // 2), True),
        (lambda: os.truncate(journal, 5), False),
        (part.unlink, False),
        (journal.unlink, False),
    ):
        interrupt(KITTEN, target, repeat)
        tear()
        made = by_bands(KITTEN, target, repeat)
        assert bool(made.notes) == gone_on
        assert target.read_bytes() == undisturbed.read_bytes()
        target.unlink()


def test_another_source_or_setting_begins_anew(tmp_path, repeat):
    source, target = tmp_path / "in.png", tmp_path / "out.tif"
    shutil.copy(KITTEN, source)
    interrupt(source, target, repeat)
    made = by_bands(source, target, repeat, options=write_options(".tif", tiff_compression="none"))
    assert made.notes == ()
    interrupt(source, target, repeat)
    os.utime(source, (1, 1))
    assert by_bands(source, target, repeat).notes == ()
    with Upscaler(backend=Repeat(), tile=90) as other:
        interrupt(source, target, repeat)
        assert by_bands(source, target, other).notes == ()
    np.testing.assert_array_equal(read_picture(target).pixels, repeat(read_picture(source).pixels))


def test_one_target_is_not_written_by_two(tmp_path, repeat):
    target = tmp_path / "out.tif"
    process = start(KITTEN, target, seconds_a_tile=0.1)
    try:
        wait_for_bands(target, 1)
        with pytest.raises(ImageError, match="another process"):
            by_bands(KITTEN, target, repeat)
    finally:
        process.kill()
        process.wait()
    assert "interrupted" in by_bands(KITTEN, target, repeat).notes[0]


def test_a_device_that_runs_out_of_memory_goes_on_with_smaller_tiles(tmp_path):
    class Small(Repeat):
        def run(self, batches):
            for number, batch in enumerate(super().run(batches)):
                if number == 9 and self.info.max_tile is None:
                    self.info = sr.upscale.replace(self.info, max_tile=80)
                    raise OutOfDeviceMemoryError("out of memory")
                yield batch

    with Upscaler(backend=Small(), tile=100) as upscaler:
        by_bands(KITTEN, tmp_path / "out.tif", upscaler)
        assert upscaler.spec.tile == 80
        np.testing.assert_array_equal(
            read_picture(tmp_path / "out.tif").pixels, upscaler(read_picture(KITTEN).pixels)
        )


def test_a_failing_device_leaves_what_is_done(tmp_path, repeat):
    class Failing(Repeat):
        def run(self, batches):
            for number, batch in enumerate(super().run(batches)):
                if number == 20:
                    raise BackendError("the device is gone")
                yield batch

    target = tmp_path / "out.tif"
    with Upscaler(backend=Failing(), tile=70) as upscaler, pytest.raises(BackendError, match="is gone"):
        by_bands(KITTEN, target, upscaler)
    assert not target.exists()
    assert "interrupted" in by_bands(KITTEN, target, repeat).notes[0]


# --- what is chosen, and what is refused --------------------------------------------------------


def test_what_fits_is_upscaled_whole_and_what_does_not_by_bands(tmp_path, repeat, monkeypatch):
    def route(**limits) -> str:
        admission = Admission(repeat, Capabilities(bands=repeat), RunLimits(**limits))
        job = FileJob(KITTEN, tmp_path / "out.tif")
        return admission.route(job, admission.header(job))

    assert route() == "whole"
    assert route(low_memory=True) == "bands"
    monkeypatch.setattr(sr.jobs.admission, "available_memory", lambda: 1_000_000)
    assert route() == "bands"


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_limit_of_pixels_that_is_given_holds_for_bands_too(suffix, tmp_path, repeat, rgb, monkeypatch):
    job = FileJob(KITTEN, tmp_path / f"out{suffix}")
    for low_memory in (False, True):
        admission = Admission(repeat, Capabilities(bands=repeat), RunLimits(1000, low_memory))
        with pytest.raises(TooLargeError, match="--max-pixels"):
            admission.route(job, admission.header(job))
    # Without one, only pictures that are decoded whole have a limit.
    monkeypatch.setattr(sr.jobs.admission, "DEFAULT_MAX_PIXELS", 1000)
    admission = Admission(repeat, Capabilities(bands=repeat), RunLimits())
    if suffix == ".tif":
        assert admission.route(job, admission.header(job)) == "bands"
    else:
        with pytest.raises(TooLargeError, match="--max-pixels"):
            admission.route(job, admission.header(job))


def test_files_choose_by_memory(tmp_path, repeat, little_memory, rgb):
    small = tmp_path / "small.png"
    Image.fromarray(rgb[:50, :50]).save(small)
    jobs = [FileJob(KITTEN, tmp_path / "large.tif"), FileJob(small, tmp_path / "small.tif")]
    large_result, small_result = upscale_files(jobs, repeat, capabilities=Capabilities(bands=repeat))
    assert (large_result.error, small_result.error) == (None, None)
    assert large_result.output_size == (1020, 678)
    assert [job.target.read_bytes()[2] for job in jobs] == [43, 42], "BigTIFF and TIFF"
    np.testing.assert_array_equal(read_picture(jobs[0].target).pixels, repeat(read_picture(KITTEN).pixels))


def test_what_takes_more_than_its_pixels_say_goes_by_bands(tmp_path, repeat, monkeypatch, rgb, cut_out):
    """With 16 bits and alpha it takes 2.7 times what RGB of 8 bits takes."""
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    write_picture(source, Picture(rgb * np.uint16(DEEP), cut_out * np.uint16(DEEP)))
    memory = 2 * 2 * rgb.size * 5
    monkeypatch.setattr(sr.jobs.admission, "available_memory", lambda: memory)
    (result,) = upscale_files([FileJob(source, target)], repeat, capabilities=Capabilities(bands=repeat))
    assert result.error is None
    assert target.read_bytes()[2] == 43, "BigTIFF"


def test_what_cannot_be_written_by_bands_names_the_remedy(tmp_path, repeat, little_memory):
    (result,) = upscale_files(
        [FileJob(KITTEN, tmp_path / "out.png")], repeat, capabilities=Capabilities(bands=repeat)
    )
    assert isinstance(result.error, TooLargeError)
    assert "--format tif" in str(result.error)
    with open_setup(Upscaling(long_side=2000), backend="onnx", device="cpu") as setup:
        job = FileJob(KITTEN, tmp_path / "out.tif")
        (result,) = upscale_files([job], setup.upscaler, capabilities=setup.capabilities)
        assert "--scale 2, 3 or 4" in str(result.error)
        assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize("name", ["in.webp", "palette.png", "cmyk.jpg"])
def test_what_cannot_be_read_by_bands_says_so(name, tmp_path, repeat, little_memory, rgb):
    image = Image.fromarray(rgb)
    modes = {"palette.png": "P", "cmyk.jpg": "CMYK"}
    image.convert(modes.get(name, "RGB")).save(tmp_path / name)
    job = FileJob(tmp_path / name, tmp_path / "out.tif")
    (result,) = upscale_files([job], repeat, capabilities=Capabilities(bands=repeat))
    assert isinstance(result.error, TooLargeError)
    assert "RGB TIFF" in str(result.error)


def test_a_truncated_source_leaves_nothing(tmp_path, repeat):
    source = tmp_path / "in.png"
    source.write_bytes(KITTEN.read_bytes()[: KITTEN.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"in\.png: .*PNG"):
        by_bands(source, tmp_path / "out.tif", repeat)
    assert unfinished(tmp_path) == []


def test_a_full_disk_is_seen_before_the_work(tmp_path, repeat, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**5))
    with pytest.raises(ImageError, match=r"out\.tif: .* GB"):
        by_bands(KITTEN, tmp_path / "out.tif", repeat)
    assert unfinished(tmp_path) == []


def test_a_disk_that_fills_keeps_what_is_done(tmp_path, repeat, monkeypatch):
    commit = sr.jobs.large.TiledTiff._commit

    def full(self, rows):
        if rows > 300:
            raise OSError(28, "No space left on device")
        commit(self, rows)

    monkeypatch.setattr(sr.jobs.large.TiledTiff, "_commit", full)
    with pytest.raises(ImageError, match=r"No space left on device.*same command"):
        by_bands(KITTEN, tmp_path / "out.tif", repeat)
    monkeypatch.undo()
    assert "interrupted" in by_bands(KITTEN, tmp_path / "out.tif", repeat).notes[0]


def test_without_the_extra_it_is_named(tmp_path, repeat, monkeypatch):
    monkeypatch.setattr("sr.errors.importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"srup\[vips\]"):
        by_bands(KITTEN, tmp_path / "out.tif", repeat)


def test_command_line(tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(KITTEN, tmp_path / "in" / "kitten.png")
    arguments = ["upscale", str(tmp_path / "in"), "--format", "tif", "--low-memory", "--json"]
    answer = CliRunner().invoke(main, arguments)
    assert answer.exit_code == 0, answer.output
    record = json.loads(answer.stdout.splitlines()[0])
    assert record["output_width"] == 1020
    target = Path(record["target"])
    assert target.read_bytes()[2] == 43, "BigTIFF"
    assert CliRunner().invoke(main, [*arguments, "--skip-existing"]).exit_code == 0


@pytest.mark.parametrize("wrong", [["--format", "png"], ["--format", "tif", "--scale", "1.5"]])
def test_low_memory_makes_tiff_at_whole_scales(wrong, tmp_path):
    answer = CliRunner().invoke(main, ["upscale", str(KITTEN), "--low-memory", *wrong])
    assert answer.exit_code == 2
    assert "--low-memory" in answer.output
