"""Arrays and PIL images from Python: every kind keeps its kind; threads may share an upscaler."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from sr.errors import BackendError, ImageError
from sr.sized import SizedUpscaler
from sr.sizing import SizeRequest
from sr.upscale import Upscaler
from tests.backends import Repeat
from tests.pictures import cmyk_profile

ROOT = Path(__file__).resolve().parent.parent
RANDOM = np.random.default_rng(0)


@pytest.fixture
def repeating() -> Iterator[Upscaler]:
    """An upscaler that repeats each pixel, 2x2."""
    with Upscaler(backend=Repeat()) as upscaler:
        yield upscaler


def doubled(array: NDArray) -> NDArray:
    return array.repeat(2, 0).repeat(2, 1)


# --- arrays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4)], ids=str)
def test_arrays_keep_their_channels(repeating: Upscaler, shape: tuple[int, ...], dtype: object) -> None:
    array = RANDOM.integers(0, 256, shape).astype(dtype)
    if len(shape) == 3 and shape[2] in (2, 4):
        array[..., -1] = np.iinfo(array.dtype).max
    before = array.copy()
    result = repeating(array)
    assert result.dtype == (np.uint8 if dtype is np.uint8 else np.uint16)
    np.testing.assert_array_equal(result, doubled(array))
    np.testing.assert_array_equal(array, before)
    np.testing.assert_array_equal(repeating(array[::-1, ::2]), doubled(array[::-1, ::2]))


def test_colours_under_transparency_are_those_of_the_edge(repeating: Upscaler) -> None:
    array = np.zeros((6, 8, 4), np.uint8)
    array[:, 4:] = (200, 100, 50, 255)
    result = repeating(array)
    np.testing.assert_array_equal(result[..., 3], doubled(array[..., 3]))
    assert (result[:, 6:8, :3] == (200, 100, 50)).all(), "not the black that lay there"


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((3, 4, 30), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), bool),
        np.zeros((4,), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 4, 0), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_other_arrays_are_refused(repeating: Upscaler, array: NDArray) -> None:
    with pytest.raises(ImageError, match="uint8 or uint16"):
        repeating(array)


def test_other_objects_are_refused(repeating: Upscaler) -> None:
    with pytest.raises(ImageError, match="list"):
        repeating([[1, 2], [3, 4]])  # type: ignore[call-overload]


def test_an_array_needs_no_pillow() -> None:
    program = (
        "import sys, numpy as np; from sr import Upscaler\n"
        "with Upscaler(backend='onnx', device='cpu') as u: print(u(np.zeros((4, 5, 3), np.uint8)).shape)\n"
        "print('PIL' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert answer.stdout.splitlines() == ["(8, 10, 3)", "False"]


# --- PIL images ---------------------------------------------------------------------------------


def coloured() -> Image.Image:
    return Image.fromarray(RANDOM.integers(0, 256, (5, 7, 3), np.uint8))


@pytest.mark.parametrize(
    ("mode", "result"),
    [
        ("1", "L"),
        ("L", "L"),
        ("LA", "LA"),
        ("P", "RGB"),
        ("PA", "RGBA"),
        ("RGB", "RGB"),
        ("RGBA", "RGBA"),
        ("CMYK", "RGB"),
        ("YCbCr", "RGB"),
    ],
)
def test_pil_images_keep_their_family(repeating: Upscaler, mode: str, result: str) -> None:
    """What Pillow itself makes of it, doubled."""
    image = coloured().convert("P").convert("PA") if mode == "PA" else coloured().convert(mode)
    answer = repeating(image)
    assert (answer.mode, answer.size) == (result, (14, 10))
    np.testing.assert_array_equal(np.asarray(answer), doubled(np.asarray(image.convert(result))))


def test_palettes_become_rgb_or_grey(repeating: Upscaler) -> None:
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    assert repeating(image).mode == "L"
    image.putpalette([0, 0, 0, 9, 9, 9, 200, 30, 40])
    image.putpixel((0, 0), 2)
    image.putpixel((3, 2), 0)
    image.info["transparency"] = 0
    answer = repeating(image)
    assert (answer.mode, answer.info) == ("RGBA", {})
    assert [answer.getpixel(at) for at in ((0, 0), (4, 2))] == [(200, 30, 40, 255), (9, 9, 9, 255)]
    assert answer.getpixel((7, 5))[3] == 0


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bits_grey(repeating: Upscaler, mode: str) -> None:
    samples = RANDOM.integers(0, 65536, (5, 7)).astype(np.uint16)
    stored = samples.astype(">u2" if mode == "I;16B" else "<u2").tobytes()
    answer = repeating(Image.frombytes(mode, (7, 5), stored))
    assert answer.mode == "I;16"
    np.testing.assert_array_equal(np.asarray(answer), doubled(samples))


@pytest.mark.parametrize("mode", ["F", "I", "HSV", "LAB"])
def test_other_modes_are_refused(repeating: Upscaler, mode: str) -> None:
    with pytest.raises(ImageError, match=rf"{mode}.*convert"):
        repeating(Image.new(mode, (4, 4)))


def test_info_goes_along_and_orientation_is_left_to_it(repeating: Upscaler, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    coloured().save(tmp_path / "a.jpg", exif=exif, icc_profile=profile, dpi=(300, 300))
    with Image.open(tmp_path / "a.jpg") as image:
        answer = repeating(image)
        assert answer.size == (14, 10), "as it lies, like Image.resize"
        assert answer.info == image.info
    assert answer.getexif()[0x0112] == 6
    ink = coloured().convert("CMYK")
    ink.info["icc_profile"] = cmyk_profile()[0]
    assert "icc_profile" not in repeating(ink).info, "it has been applied"


def test_any_size_from_python() -> None:
    with SizedUpscaler(SizeRequest(long_side=20)) as upscaler:
        assert upscaler(coloured()).size == (20, 14)
        assert upscaler(np.zeros((5, 10, 2), np.uint8)).shape == (10, 20, 2)
    with pytest.raises(BackendError, match="closed"):
        upscaler(coloured())
    upscaler.close()


# --- threads and closing ------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_threads_share_an_upscaler(backend: str, one_thread: None) -> None:
    """8 and 16 bits, sizes and kinds mixed, so that the second network is opened under way too."""
    if backend == "torch":
        pytest.importorskip("torch")
    shapes = [(20 + number, 40 - number, *((3,) if number % 3 else ())) for number in range(12)]
    kinds = (np.uint8, np.uint16)
    images = [RANDOM.integers(0, 256, shape).astype(kinds[n // 2 % 2]) for n, shape in enumerate(shapes)]
    with Upscaler(scale=2, backend=backend, device="cpu", tile=64, batch=2) as alone:
        expected = [alone(image) for image in images]
    with Upscaler(scale=2, backend=backend, device="cpu", tile=64, batch=2) as shared:
        with ThreadPoolExecutor(6) as pool:
            results = list(pool.map(shared, images * 2))
        assert len(shared.backends) == (2 if backend == "onnx" else 1)
    for result, image in zip(results, expected * 2, strict=True):
        np.testing.assert_array_equal(result, image)


def test_threads_share_a_chain_of_networks() -> None:
    images = [RANDOM.integers(0, 256, (8 + number, 12, 3), np.uint8) for number in range(6)]
    with SizedUpscaler(SizeRequest(factor=5)) as sized, ThreadPoolExecutor(6) as pool:
        results = list(pool.map(sized, images))
        assert [len(sized.backends), *map(np.shape, results)] == [2, *((5 * len(i), 60, 3) for i in images)]
        for result, image in zip(results, images, strict=True):
            np.testing.assert_array_equal(result, sized(image))


def test_a_closed_upscaler_says_so() -> None:
    upscaler = Upscaler(backend=Repeat())
    upscaler.close()
    upscaler.close()
    for image in (np.zeros((3, 3), np.uint8), Image.new("L", (3, 3))):
        with pytest.raises(BackendError, match="closed"):
            upscaler(image)


def test_closing_waits_for_the_picture_that_is_being_computed() -> None:
    """The first tile has come when another thread closes; the others come all the same."""
    started, results = Event(), []
    upscaler = Upscaler(backend=Repeat(), tile=64, batch=1)
    closing = Thread(target=lambda: (started.wait(), upscaler.close()))
    closing.start()
    image = RANDOM.integers(0, 256, (200, 200, 3), np.uint8)

    def progress(done: int, total: int) -> None:
        started.set()
        results.append((done, total, upscaler._closed))

    pixels, _ = upscaler.upscale(image, progress=progress)
    closing.join()
    np.testing.assert_array_equal(pixels, doubled(image))
    assert len(results) > 4
    assert not any(closed for _, _, closed in results)
    with pytest.raises(BackendError, match="closed"):
        upscaler(image)


def test_what_ends_a_picture_ends_its_batches_too() -> None:
    """After an exception in `progress`, while it is being handled, the backend is free again."""
    image, opened = RANDOM.integers(0, 256, (150, 150, 3), np.uint8), []

    class Exclusive(Repeat):
        def run(self, batches):  # type: ignore[no-untyped-def]
            assert not opened, "one run at a time"
            opened.append(1)
            try:
                yield from super().run(batches)
            finally:
                opened.clear()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with Upscaler(backend=Exclusive(), tile=64, batch=1) as upscaler:
        try:
            upscaler.upscale(image, progress=stop)
        except KeyboardInterrupt:
            np.testing.assert_array_equal(upscaler(image), doubled(image))
