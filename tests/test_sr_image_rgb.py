"""Any picture as uint8 RGB, for training and measuring."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr.errors import ImageError, TooLargeError
from sr.image import Picture, read_rgb, write_picture
from tests.pictures import encoded, exif_block, tiff_16


def test_rgb_grey_and_orientation(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for name, pixels, exif, expected in (
        ("rgb", colour, b"", colour),
        ("grey", colour[..., 0], b"", np.dstack([colour[..., 0]] * 3)),
        ("turned", colour, exif_block(6), np.rot90(colour, -1)),
    ):
        path = tmp_path / f"{name}.dat"
        path.write_bytes(encoded(pixels, "PNG", exif=exif))
        np.testing.assert_array_equal(read_rgb(path), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_rounded(tmp_path: Path, channels: int) -> None:
    pytest.importorskip("pyvips")
    samples = np.random.default_rng(0).integers(0, 1 << 16, (6, 9, channels), np.uint16)
    path = tmp_path / "deep.tif"
    path.write_bytes(tiff_16(samples, photometric=1 if channels == 1 else 2))
    expected = np.rint(samples / 257).astype(np.uint8)
    np.testing.assert_array_equal(read_rgb(path), np.broadcast_to(expected, (6, 9, 3)))


def test_transparent_pixels_are_refused_or_laid_on_a_background(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pixels, alpha = random.integers(0, 256, (5, 7, 3), np.uint8), random.integers(0, 256, (5, 7), np.uint8)
    path = tmp_path / "cut_out.png"
    write_picture(path, Picture(pixels, alpha))
    with pytest.raises(ImageError, match=r"cut_out\.png.*transparent"):
        read_rgb(path)
    share = alpha[..., None] / 255
    expected = np.rint(pixels * share + 200 * (1 - share))
    np.testing.assert_array_equal(read_rgb(path, background=200), expected)
    write_picture(path, Picture(pixels, np.full((5, 7), 255, np.uint8)))
    np.testing.assert_array_equal(read_rgb(path), pixels)


def test_no_size_is_too_large_unless_the_caller_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # twice that is Pillow's own limit
    path = tmp_path / "large.png"
    write_picture(path, Picture(np.zeros((30, 40, 3), np.uint8)))
    assert read_rgb(path).shape == (30, 40, 3)
    with pytest.raises(TooLargeError):
        read_rgb(path, max_pixels=1199)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"x\.png: "):
        read_rgb(tmp_path / "x.png")
