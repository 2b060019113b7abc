"""16 bits per channel: read, upscaled and written without losing one, or refused in one line."""

import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from sr.backends import open_sixteen_bit_backend
from sr.backends.base import BackendRequest
from sr.cli import main
from sr.errors import BackendError, ImageError, MissingExtraError
from sr.image import Metadata, Picture, WriteOptions, open_picture, read_picture, write_picture
from sr.image.decode import read_header
from sr.image.picture import to_8_bits
from sr.jobs.pipeline import FileJob, upscale_files
from sr.network.ends import INPUT_NAME
from sr.network.modelfile import shipped_onnx
from sr.upscale import Upscaler
from tests.pictures import (
    ARTIST,
    MAKER_NOTE,
    PNG_GREY,
    PNG_GREY_ALPHA,
    PNG_RGB,
    PNG_RGBA,
    exif_block,
    icc_profile,
    png,
    png_chunk,
    tiff_16,
    unfiltered_png,
    xmp_packet,
)

pytest.importorskip("pyvips")

SHAPES = [(13, 17), (13, 17, 3), (1, 1), (1, 300, 3)]
PNG_CHANNELS = {PNG_GREY: 1, PNG_RGB: 3, PNG_GREY_ALPHA: 2, PNG_RGBA: 4}


def random_samples(*shape: int, seed: int = 0) -> NDArray[np.uint16]:
    samples = np.random.default_rng(seed).integers(0, 65536, shape, np.uint16)
    samples.flat[:3] = 0, 65535, 258
    return samples


def gradient(height: int, width: int) -> NDArray[np.uint16]:
    """Rise by less than a 257th of the range per pixel, so that 8 bits would show steps."""
    y, x = np.mgrid[0:height, 0:width]
    return (20_000 + 40 * x + 23 * y).astype(np.uint16)


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_bit_comes_back(tmp_path: Path, suffix: str, with_alpha: bool, shape: tuple[int, ...]) -> None:
    pixels = random_samples(*shape)
    alpha = random_samples(*shape[:2], seed=1) if with_alpha else None
    write_picture(tmp_path / f"out{suffix}", Picture(pixels, alpha))
    picture = read_picture(tmp_path / f"out{suffix}")
    assert picture.sixteen_bit
    assert picture.metadata == Metadata()
    np.testing.assert_array_equal(picture.pixels, pixels)
    np.testing.assert_array_equal(picture.alpha, alpha)


@pytest.mark.parametrize("colour", PNG_CHANNELS)
def test_png_is_what_the_specification_says(tmp_path: Path, colour: int) -> None:
    channels = PNG_CHANNELS[colour]
    samples = random_samples(9, 11, channels)
    rows = [row.astype(">u2").tobytes() for row in samples]
    picture = read_picture(saved(tmp_path / "in.png", png(rows, width=11, bits=16, colour=colour)))
    read = np.dstack([picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha])
    np.testing.assert_array_equal(read, samples)
    write_picture(tmp_path / "out.png", picture)
    np.testing.assert_array_equal(unfiltered_png((tmp_path / "out.png").read_bytes()), samples)


@pytest.mark.parametrize(
    ("channels", "planar"), [(1, False), (2, False), (3, False), (4, False), (3, True), (4, True)]
)
def test_tiff_is_what_the_specification_says(tmp_path: Path, channels: int, planar: bool) -> None:
    samples = random_samples(9, 11, channels)
    extra = 2 if channels in (2, 4) else None  # unassociated alpha
    file = tiff_16(samples, photometric=2 if channels > 2 else 1, extra=extra, planar=planar)
    picture = read_picture(saved(tmp_path / "in.tif", file))
    read = np.dstack([picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha])
    np.testing.assert_array_equal(read, samples)
    write_picture(tmp_path / "out.tif", picture, options=WriteOptions(tiff_compression=None))
    assert samples.astype("<u2").tobytes() in (tmp_path / "out.tif").read_bytes()


def test_grey_is_read_as_pillow_reads_it(tmp_path: Path) -> None:
    samples = random_samples(9, 11)
    for suffix in (".png", ".tif"):
        Image.fromarray(samples).save(tmp_path / f"pillow{suffix}")
        np.testing.assert_array_equal(read_picture(tmp_path / f"pillow{suffix}").pixels, samples)
        write_picture(tmp_path / f"ours{suffix}", Picture(samples))
        with Image.open(tmp_path / f"ours{suffix}") as image:
            np.testing.assert_array_equal(np.asarray(image), samples)


def test_white_may_be_zero(tmp_path: Path) -> None:
    samples = random_samples(4, 5, 1)
    picture = read_picture(saved(tmp_path / "in.tif", tiff_16(samples, photometric=0)))
    np.testing.assert_array_equal(picture.pixels, 65535 - samples[..., 0])


@pytest.mark.parametrize("channels", [1, 3])
def test_premultiplied_colours_are_divided(tmp_path: Path, channels: int) -> None:
    samples = np.full((3, 4, channels + 1), 10_000, np.uint16)
    samples[..., -1] = 40_000
    samples[0, 0] = 0
    file = tiff_16(samples, photometric=2 if channels == 3 else 1, extra=1)
    picture = read_picture(saved(tmp_path / "in.tif", file))
    assert np.abs(picture.pixels[1:].astype(int) - 10_000 * 65_535 / 40_000).max() <= 1
    assert (picture.pixels[0, 0] == 0).all()


@pytest.mark.parametrize(("colour", "key"), [(PNG_GREY, (258,)), (PNG_RGB, (258, 2, 3))])
def test_a_value_that_means_transparent(tmp_path: Path, colour: int, key: tuple[int, ...]) -> None:
    samples = np.array([[key, (2, *key[1:])]], np.uint16)  # 258 & 255 == 2
    chunk = png_chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    file = png([samples.astype(">u2").tobytes()], width=2, bits=16, colour=colour, before=chunk)
    picture = read_picture(saved(tmp_path / "in.png", file))
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0, 65535]]


@pytest.mark.parametrize(
    ("channels", "photometric", "extra", "says"),
    [
        (4, 5, None, "grey.*RGB"),  # CMYK
        (3, 8, None, "grey.*RGB"),  # Lab
        (4, 2, 0, "extra channels"),
    ],
)
def test_other_kinds_are_refused(
    tmp_path: Path, channels: int, photometric: int, extra: int | None, says: str
) -> None:
    file = tiff_16(random_samples(4, 5, channels), photometric=photometric, extra=extra)
    with pytest.raises(ImageError, match=says):
        read_picture(saved(tmp_path / "in.tif", file))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_metadata_is_kept_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    profile = icc_profile(b"RGB ")
    exif = b"".join(exif_block(1, size=(7, 5)).partition(b"\xff\xd8\xff\xdbTHUMB")[:1])
    metadata = Metadata(profile, exif_block(None, size=(7, 5))[: len(exif)], xmp_packet(1), (300, 150))
    write_picture(tmp_path / f"a{suffix}", Picture(random_samples(5, 7, 3), None, metadata))
    picture = read_picture(tmp_path / f"a{suffix}")
    write_picture(tmp_path / f"b{suffix}", Picture(random_samples(15, 21, 3), None, picture.metadata))
    again = read_picture(tmp_path / f"b{suffix}").metadata
    assert again.icc_profile == profile
    assert again.xmp == xmp_packet(1)
    assert again.dpi == pytest.approx((300, 150), abs=0.02)
    assert again.exif is not None
    assert ARTIST in again.exif
    assert MAKER_NOTE in again.exif
    with Image.open(tmp_path / f"b{suffix}") as image:
        photo = image.getexif().get_ifd(0x8769)
        assert (photo[0xA002], photo[0xA003]) == (21, 15)


@pytest.mark.parametrize("side", [1, 8, 30, 100])
def test_metadata_larger_than_a_buffer_is_read_behind_pixels_of_any_size(tmp_path: Path, side: int) -> None:
    """libvips reads through the same descriptor, and must not move where buffered reading goes on."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + b"0123456789" * 5000 + b"</x:xmpmeta>"
    samples = np.zeros((side, side, 3), np.uint16)
    for suffix in (".tif", ".png"):
        write_picture(tmp_path / f"deep{suffix}", Picture(samples, metadata=Metadata(xmp=xmp)))
        assert read_picture(tmp_path / f"deep{suffix}").metadata.xmp == xmp


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.array([[1000, 2000, 3000], [4000, 5000, 6000]], np.uint16)
    ways = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }
    stored = ways[orientation]
    rows = [row.astype(">u2").tobytes() for row in stored]
    chunk = png_chunk(b"eXIf", exif_block(orientation)[6:])
    file = png(rows, width=stored.shape[1], bits=16, colour=PNG_GREY, before=chunk)
    picture = read_picture(saved(tmp_path / "in.png", file))
    np.testing.assert_array_equal(picture.pixels, upright)
    tiff = BytesIO()
    Image.fromarray(np.ascontiguousarray(stored)).save(tiff, "TIFF", tiffinfo={0x0112: orientation})
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "in.tif", tiff.getvalue())).pixels, upright)


def test_grey_with_an_rgb_profile_is_written_as_rgb(tmp_path: Path) -> None:
    grey = random_samples(4, 5)
    for suffix in (".png", ".tif"):
        write_picture(tmp_path / f"out{suffix}", Picture(grey, None, Metadata(icc_profile(b"RGB "))))
        np.testing.assert_array_equal(read_picture(tmp_path / f"out{suffix}").pixels, np.dstack([grey] * 3))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_file_cut_anywhere_is_refused_quietly(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write_picture(tmp_path / f"whole{suffix}", Picture(random_samples(40, 50, 3)))
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    for tenths in range(1, 10):
        with pytest.raises(ImageError) as caught:
            read_picture(saved(tmp_path / "in", whole[: len(whole) * tenths // 10]))
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_without_the_extra_the_refusal_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix in (".png", ".tif"):
        write_picture(tmp_path / f"in{suffix}", Picture(random_samples(4, 5)))
    monkeypatch.setitem(sys.modules, "pyvips", None)
    for suffix in (".png", ".tif"):
        with pytest.raises(MissingExtraError, match=r'in.* 16 bits .*pip install "srup\[vips\]"'):
            read_picture(tmp_path / f"in{suffix}")
        with pytest.raises(MissingExtraError, match=r"srup\[vips\]"):
            write_picture(tmp_path / f"out{suffix}", Picture(random_samples(4, 5)))
        assert not (tmp_path / f"out{suffix}").exists()


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_depth_8_reduces_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, channels: int, installed: bool
) -> None:
    """It is the way out where libvips is missing; what refuses names it."""
    samples = random_samples(6, 7) if channels == 1 else random_samples(6, 7, 3)
    path = tmp_path / f"in{suffix}"
    write_picture(path, Picture(samples))
    if not installed:
        monkeypatch.setitem(sys.modules, "pyvips", None)
        with pytest.raises(MissingExtraError, match="--depth 8"):
            read_picture(path)
    picture = open_picture(path, depth=8)
    assert isinstance(picture, Picture)
    assert picture.pixels.dtype == np.uint8
    assert any("--depth 8" in note for note in picture.notes)
    # Of colours in a PNG Pillow gives the higher bits, which are not rounded.
    limit = 1 if suffix == ".png" and channels == 3 and not installed else 0
    assert np.abs(picture.pixels.astype(int) - to_8_bits(samples)).max() <= limit
    write_picture(tmp_path / f"out{suffix}", picture)
    assert not read_header(path, depth=8).sixteen_bit


def test_depth_8_goes_through_the_command_line(tmp_path: Path) -> None:
    write_picture(tmp_path / "in.tif", Picture(gradient(20, 30)))
    out = tmp_path / "out.tif"
    for more in ([], ["--low-memory"]):
        arguments = [
            "upscale",
            str(tmp_path / "in.tif"),
            "-o",
            str(out),
            "--depth",
            "8",
            "--overwrite",
            *more,
        ]
        result = CliRunner().invoke(main, [*arguments, *more])
        assert result.exit_code == 0, result.output
        assert read_picture(out).pixels.dtype == np.uint8


@pytest.mark.parametrize("compression", [50_000, 34_925])
def test_compressions_that_libvips_may_not_know(tmp_path: Path, compression: int) -> None:
    """Zstandard and LZMA; Pillow decompresses them."""
    name = {50_000: "zstd", 34_925: "lzma"}[compression]
    samples = random_samples(5, 8)
    path = tmp_path / "in.tif"
    Image.fromarray(samples).save(path, compression=name)
    np.testing.assert_array_equal(read_picture(path).pixels, samples)


def test_rounding_to_8_bits_is_that_of_real_numbers() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(to_8_bits(every), np.rint(every / 257).astype(np.uint8))


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif", ".bmp", ".gif"])
def test_formats_of_8_bits_get_8_bits_and_a_note(tmp_path: Path, suffix: str) -> None:
    notes = write_picture(tmp_path / f"out{suffix}", Picture(gradient(40, 50)))
    assert "16 bits per channel, written as 8" in notes[0]
    picture = read_picture(tmp_path / f"out{suffix}")
    pixels = picture.pixels if picture.grey else picture.pixels[..., 0]
    assert np.abs(pixels.astype(int) - to_8_bits(gradient(40, 50))).max() <= 2


# Upscaling


def network(samples: NDArray[np.uint16], scale: int) -> NDArray[np.float64]:
    """Run the float32 file on a whole RGB picture, without anything of ours; [0, 65535]."""
    session = onnxruntime.InferenceSession(
        str(shipped_onnx(scale=scale, io="float32")), providers=["CPUExecutionProvider"]
    )
    lr = (samples.astype(np.float32) / 65535).transpose(2, 0, 1)[None]
    result = session.run(None, {INPUT_NAME: lr})[0]
    return result[0].transpose(1, 2, 0).astype(np.float64).clip(0, 1) * 65535


@pytest.fixture(scope="module")
def upscaler():
    with Upscaler(scale=2, backend="onnx", device="cpu", tile=96) as opened:
        yield opened


def test_tiles_are_what_the_network_makes_of_the_whole(upscaler: Upscaler) -> None:
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 65536, (16, 20, 3)).repeat(8, 0).repeat(8, 1)
    lr = (texture // 2 + gradient(128, 160)[..., None] // 2).astype(np.uint16)
    assert len(upscaler.grid(128, 160)) > 1
    expected = network(lr, 2)
    difference = np.abs(upscaler(lr) - expected)
    assert difference.max() <= 257  # a level of 8 bits, the tiling contract's bound
    assert (difference > 16).mean() < 1e-4


def test_gradients_stay_finer_than_8_bits(upscaler: Upscaler) -> None:
    lr = gradient(64, 80)
    result = upscaler(lr)
    assert result.dtype == np.uint16
    assert len(np.unique(result)) > 2000
    y, x = (np.mgrid[0:128, 0:160] + 0.5) / 2 - 0.5  # where the pixels of the result lie in the source
    truth = 20_000 + 40 * x + 23 * y
    assert np.abs(result - truth)[16:-16, 16:-16].max() < 257


def test_8_and_16_bits_agree(upscaler: Upscaler) -> None:
    lr = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    deep = upscaler(lr.astype(np.uint16) * 257)
    assert np.abs(deep / 257 - upscaler(lr)).max() <= 0.51


def test_files_of_16_bits_go_through(upscaler: Upscaler, tmp_path: Path) -> None:
    cut_out = np.where(np.arange(50) < 25, 65535, 0).astype(np.uint16) * np.ones((40, 1), np.uint16)
    write_picture(tmp_path / "in.tif", Picture(np.dstack([gradient(40, 50)] * 3), cut_out))
    jobs = [FileJob(tmp_path / "in.tif", tmp_path / f"out{suffix}") for suffix in (".png", ".tif", ".webp")]
    results = list(upscale_files(jobs, upscaler))
    assert [result.error for result in results] == [None] * 3
    assert [len(result.notes) for result in results] == [0, 0, 1]
    for suffix in (".png", ".tif"):
        picture = open_picture(tmp_path / f"out{suffix}")
        assert isinstance(picture, Picture)
        assert picture.pixels.shape == (80, 100, 3)
        assert picture.pixels.dtype == np.uint16
        assert picture.alpha is not None
        assert (picture.alpha[:, :46] == 65535).all()
        assert (picture.alpha[:, 54:] == 0).all()


def test_torch_computes_16_bits_itself(upscaler: Upscaler) -> None:
    pytest.importorskip("torch")
    lr = random_samples(24, 32, 3)
    with Upscaler(scale=2, backend="torch", device="cpu") as other:
        difference = np.abs(other(lr).astype(int) - upscaler(lr))
    assert difference.max() <= 16


def test_a_model_with_float32_io_runs_both_depths() -> None:
    lr = random_samples(24, 32, 3)
    with Upscaler(model=shipped_onnx(scale=2, io="float32"), device="cpu") as upscaler:
        assert np.abs(upscaler(lr) - network(lr, 2)).max() <= 0.51
        assert upscaler((lr >> 8).astype(np.uint8)).dtype == np.uint8


def test_what_was_named_and_has_8_bits_is_refused() -> None:
    with pytest.raises(BackendError, match=r"trt.* 8 bits.*--backend onnx"):
        open_sixteen_bit_backend("trt", BackendRequest(2))
    upscaler = Upscaler(model=shipped_onnx(scale=2), device="cpu")
    with upscaler, pytest.raises(BackendError, match="--io float32"):
        upscaler(random_samples(8, 8))


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from sr.errors import ImageError
from sr.image import Picture, write_picture

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
picture = Picture(np.random.default_rng(0).integers(0, 65536, (100, 120, 3), np.uint16))
for suffix in (".png", ".tif"):
    path = folder / f"out{suffix}"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    write_picture(path, picture)
    size = path.stat().st_size
    path.unlink()
    for limit in (0, 10, size // 2, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            write_picture(path, picture)
        except ImageError as error:
            assert str(error).startswith(f"{path}: cannot be written ("), error
            assert "\\n" not in str(error)
        else:
            raise SystemExit(f"{path} with {limit} of {size} bytes passed for written")
        assert not list(folder.iterdir()), list(folder.iterdir())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_a_file_that_cannot_be_written_to_its_end_leaves_nothing(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


LITTLE_SPACE = """
import resource, sys
from pathlib import Path
import numpy as np
from sr.errors import ImageError
from sr.image import Picture, read_picture, write_picture

path = Path(sys.argv[1])
picture = Picture(np.zeros((50, 60, 3), np.uint16))
write_picture(path, picture)
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (30 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
for call in (lambda: read_picture(path), lambda: write_picture(path, picture)):
    try:
        call()
    except ImageError as error:
        assert "memory" in str(error), error
    else:
        raise SystemExit("there was room")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_libvips_is_not_called_where_glib_would_end_the_process(tmp_path: Path, suffix: str) -> None:
    command = [sys.executable, "-c", LITTLE_SPACE, str(tmp_path / f"out{suffix}")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, "")
