"""Picture files: what is read, what is refused, and what survives the way through."""

import errno
import os
import re
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from sr.errors import ImageError
from sr.image import (
    Metadata,
    Picture,
    WriteOptions,
    bleed_under_transparency,
    check_output,
    format_of_suffix,
    read_picture,
    read_suffixes,
    write_picture,
    write_suffixes,
)
from sr.image.metadata import add_to_tiff, exif_from_tiff, resized_exif, upright_exif
from sr.image.pillow import PILLOW_LIMITS_LIFTED
from tests.pictures import (
    ARTIST,
    MAKER_NOTE,
    PNG_GREY,
    PNG_PALETTE,
    PNG_RGB,
    apng,
    encoded,
    exif_block,
    header_bombs,
    icc_profile,
    png,
    png_chunk,
    xmp_packet,
)

Pixels = NDArray[np.uint8]
ROOT = Path(__file__).resolve().parent.parent
LOSSLESS = (".png", ".webp", ".tif", ".bmp")
EXIF_IFD, GPS_IFD = 0x8769, 0x8825


def random_pixels(*shape: int, seed: int = 0) -> Pixels:
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    pixels.flat[:2] = 0, 255
    return pixels


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refusal(call: Callable[[], object]) -> str:
    """Return the message of the ImageError that `call` raises; it is one line and names a remedy."""
    with pytest.raises(ImageError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message
    return message


def read_refusal(path: Path) -> str:
    message = refusal(lambda: read_picture(path))
    assert message.startswith(f"{path}: ")
    return message


# Pixels


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("shape", [(13, 17, 3), (13, 17), (1, 1, 3), (1, 1), (1, 300), (300, 1, 3)])
def test_lossless_formats_give_back_every_pixel(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    pixels = random_pixels(*shape)
    write_picture(tmp_path / f"out{suffix}", Picture(pixels))
    picture = read_picture(tmp_path / f"out{suffix}")
    grey_kept = format_of_suffix(suffix).grey  # type: ignore[union-attr]
    expected = pixels if pixels.ndim == 3 or grey_kept else np.dstack([pixels] * 3)
    assert picture.grey == (pixels.ndim == 2 and grey_kept)
    assert (picture.height, picture.width) == shape[:2]
    assert picture.alpha is None
    np.testing.assert_array_equal(picture.pixels, expected)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".tiff"])
@pytest.mark.parametrize("shape", [(13, 17, 3), (13, 17)])
def test_alpha_and_the_colour_under_it_come_back(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    pixels, alpha = random_pixels(*shape), random_pixels(*shape[:2], seed=1)
    assert (alpha == 0).any()
    write_picture(tmp_path / f"out{suffix}", Picture(pixels, alpha))
    picture = read_picture(tmp_path / f"out{suffix}")
    expected = pixels if pixels.ndim == 3 or suffix != ".webp" else np.dstack([pixels] * 3)
    np.testing.assert_array_equal(picture.pixels, expected)
    np.testing.assert_array_equal(picture.alpha, alpha)


@pytest.mark.parametrize("options", [WriteOptions(tiff_compression=c) for c in ("tiff_adobe_deflate", None)])
def test_other_tiff_compressions_are_lossless(tmp_path: Path, options: WriteOptions) -> None:
    pixels = random_pixels(40, 50, 3)
    write_picture(tmp_path / "out.tif", Picture(pixels), options=options)
    np.testing.assert_array_equal(read_picture(tmp_path / "out.tif").pixels, pixels)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_views_and_read_only_arrays_are_written(tmp_path: Path, suffix: str) -> None:
    pixels = random_pixels(20, 30, 3)[::-1, ::2].swapaxes(0, 1)
    pixels.setflags(write=False)
    write_picture(tmp_path / f"out{suffix}", Picture(pixels))
    np.testing.assert_array_equal(read_picture(tmp_path / f"out{suffix}").pixels, pixels)


def test_options_reach_the_encoders(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(200), np.arange(300)).astype(np.uint8)
    photo = np.dstack([ramp, ramp // 2, 255 - ramp])

    def size(name: str, options: WriteOptions) -> int:
        write_picture(tmp_path / name, Picture(photo), options=options)
        return (tmp_path / name).stat().st_size

    assert size("a.png", WriteOptions(png_level=9)) < size("a.png", WriteOptions(png_level=0))
    assert size("a.jpg", WriteOptions(jpeg_quality=50)) < size("a.jpg", WriteOptions())
    size("a.webp", WriteOptions(webp_lossless=False, webp_quality=30))
    assert not np.array_equal(read_picture(tmp_path / "a.webp").pixels, photo)


@pytest.mark.parametrize("shape", [(64, 80, 3), (64, 80)])
def test_jpeg_keeps_colour_resolution_and_grey(tmp_path: Path, shape: tuple[int, ...]) -> None:
    # Stripes of one pixel in pure colours would be averaged by chroma subsampling.
    pixels = np.zeros(shape, np.uint8)
    pixels[:, ::2] = 255 if len(shape) == 2 else (255, 0, 0)
    write_picture(tmp_path / "out.jpg", Picture(pixels))
    picture = read_picture(tmp_path / "out.jpg")
    assert picture.pixels.shape == shape
    assert np.abs(picture.pixels.astype(int) - pixels).mean() < 6


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    pixels = np.full((20, 30, 3), 77, np.uint8)
    picture = read_picture(saved(tmp_path / "photo.png", encoded(pixels, "JPEG")))
    assert np.abs(picture.pixels.astype(int) - 77).max() <= 1


def test_names_of_any_script_work(tmp_path: Path) -> None:
    path = tmp_path / "büro 写真\nline.png"
    write_picture(path, Picture(random_pixels(3, 4)))
    assert read_picture(path).width == 4


def test_every_suffix_that_is_written_means_to_pillow_what_it_means_here() -> None:
    known = Image.registered_extensions()
    assert set(read_suffixes()) >= set(write_suffixes())
    for suffix in write_suffixes():
        spec = format_of_suffix(suffix)
        assert spec is not None
        assert spec.pillow_name == known[suffix]


# Palettes, one bit, colour keys, premultiplied alpha


COLOURS = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
GREYS = bytes([0, 0, 0, 80, 80, 80, 200, 200, 200, 255, 255, 255])


def test_palette_becomes_rgb(tmp_path: Path) -> None:
    file = png([b"\0\1", b"\2\3"], width=2, bits=8, colour=PNG_PALETTE, before=png_chunk(b"PLTE", COLOURS))
    picture = read_picture(saved(tmp_path / "in.png", file))
    assert picture.alpha is None
    assert picture.pixels.tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]]


@pytest.mark.parametrize(
    ("transparency", "alpha"),
    [(b"\xff\0", [[255, 0], [255, 255]]), (b"\x10\x80\xff\0", [[16, 128], [255, 0]])],
)
def test_palette_transparency_becomes_alpha(
    tmp_path: Path, transparency: bytes, alpha: list[list[int]]
) -> None:
    chunks = png_chunk(b"PLTE", COLOURS) + png_chunk(b"tRNS", transparency)
    file = png([b"\0\1", b"\2\3"], width=2, bits=8, colour=PNG_PALETTE, before=chunks)
    picture = read_picture(saved(tmp_path / "in.png", file))
    assert picture.pixels.shape == (2, 2, 3)
    assert picture.pixels[1, 0].tolist() == [0, 0, 255]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == alpha


def test_a_palette_of_greys_becomes_grey(tmp_path: Path) -> None:
    chunks = png_chunk(b"PLTE", GREYS) + png_chunk(b"tRNS", b"\0")
    file = png([b"\x1b"], width=4, bits=2, colour=PNG_PALETTE, before=chunks)  # indices 0, 1, 2, 3
    picture = read_picture(saved(tmp_path / "in.png", file))
    assert picture.pixels.tolist() == [[0, 80, 200, 255]]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0, 255, 255, 255]]


def test_an_opaque_palette_transparency_is_no_alpha(tmp_path: Path) -> None:
    chunks = png_chunk(b"PLTE", COLOURS) + png_chunk(b"tRNS", b"\xff\xff")
    file = png([b"\0\1"], width=2, bits=8, colour=PNG_PALETTE, before=chunks)
    assert read_picture(saved(tmp_path / "in.png", file)).alpha is None


def test_a_tiff_palette_with_alpha(tmp_path: Path) -> None:
    image = Image.new("PA", (2, 1))
    image.putpalette(COLOURS)
    image.putpixel((0, 0), (1, 255))
    image.putpixel((1, 0), (2, 7))
    picture = read_picture(saved(tmp_path / "in.tif", encoded(image, "TIFF")))
    assert picture.pixels.tolist() == [[[0, 255, 0], [0, 0, 255]]]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 7]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_one_bit_becomes_grey(tmp_path: Path, kind: str) -> None:
    bits = random_pixels(9, 13) > 127
    picture = read_picture(saved(tmp_path / "in", encoded(Image.fromarray(bits), kind)))
    np.testing.assert_array_equal(picture.pixels, bits * np.uint8(255))


@pytest.mark.parametrize(
    ("bits", "row", "key", "pixels"),
    [
        (1, b"\x40", 1, [0, 255, 0, 0]),
        (2, b"\x1b", 1, [0, 85, 170, 255]),
        (4, b"\x01\x23", 1, [0, 17, 34, 51]),
        (8, b"\0\1\2\3", 1, [0, 1, 2, 3]),
        (8, b"\0\1\2\3", 0x0701, [0, 1, 2, 3]),  # bits beyond the depth do not count
    ],
)
def test_a_grey_value_that_means_transparent(
    tmp_path: Path, bits: int, row: bytes, key: int, pixels: list[int]
) -> None:
    chunk = png_chunk(b"tRNS", struct.pack(">H", key))
    file = png([row], width=4, bits=bits, colour=PNG_GREY, before=chunk)
    picture = read_picture(saved(tmp_path / "in.png", file))
    assert picture.pixels.tolist() == [pixels]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 0, 255, 255]]


def test_a_colour_that_means_transparent(tmp_path: Path) -> None:
    chunk = png_chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    file = png([b"\1\2\3\1\2\4"], width=2, bits=8, colour=PNG_RGB, before=chunk)
    picture = read_picture(saved(tmp_path / "in.png", file))
    assert picture.pixels.tolist() == [[[1, 2, 3], [1, 2, 4]]]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0, 255]]


@pytest.mark.parametrize("channels", [1, 3])
def test_premultiplied_tiff_is_divided_by_its_alpha(tmp_path: Path, channels: int) -> None:
    premultiplied = np.full((2, 2, channels + 1), 50, np.uint8)
    premultiplied[..., -1] = 100
    straight = encoded(premultiplied, "TIFF")
    # ExtraSamples (338), SHORT, one value: 2 is unassociated alpha, 1 associated.
    before, after = struct.pack("<HHIHH", 338, 3, 1, 2, 0), struct.pack("<HHIHH", 338, 3, 1, 1, 0)
    assert straight.count(before) == 1
    picture = read_picture(saved(tmp_path / "in.tif", straight.replace(before, after)))
    assert np.abs(picture.pixels.astype(int) - 127).max() <= 1  # 50 * 255 / 100
    assert picture.grey == (channels == 1)
    assert picture.alpha is not None
    assert (picture.alpha == 100).all()


def test_a_gif_with_one_frame_is_read(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette(COLOURS)
    image.putdata([0, 1, 2])
    picture = read_picture(saved(tmp_path / "in.gif", encoded(image, "GIF", transparency=1)))
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 0, 255]]
    assert picture.pixels[0, ::2].tolist() == [[255, 0, 0], [0, 0, 255]]


def test_a_ycbcr_tiff_is_read_as_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((8, 8, 3), (200, 100, 50), np.uint8))
    for name, file in (
        ("plain", encoded(image.convert("YCbCr"), "TIFF")),
        ("jpeg", encoded(image.convert("YCbCr"), "TIFF", compression="jpeg", quality=100)),
    ):
        picture = read_picture(saved(tmp_path / name, file))
        assert np.abs(picture.pixels.astype(int) - (200, 100, 50)).max() <= 3


def test_pictures_behind_the_first_in_a_camera_jpeg_do_not_matter(tmp_path: Path) -> None:
    first, second = np.full((16, 16, 3), 200, np.uint8), np.zeros((8, 8, 3), np.uint8)
    image = Image.fromarray(first)
    image.encoderinfo = {}
    file = encoded(image, "MPO", save_all=True, append_images=[Image.fromarray(second)])
    assert Image.open(BytesIO(file)).n_frames == 2  # type: ignore[attr-defined]
    assert np.abs(read_picture(saved(tmp_path / "in.jpg", file)).pixels.astype(int) - 200).max() <= 1


# Orientation. EXIF 2.32, section 4.6.4: where the 0th row and the 0th column of the file belong.
# Each function says which pixel of the upright H x W picture is stored at row r, column c.

STORED: dict[int, Callable[[int, int, int, int], tuple[int, int]]] = {
    1: lambda r, c, h, w: (r, c),  # top, left
    2: lambda r, c, h, w: (r, w - 1 - c),  # top, right
    3: lambda r, c, h, w: (h - 1 - r, w - 1 - c),  # bottom, right
    4: lambda r, c, h, w: (h - 1 - r, c),  # bottom, left
    5: lambda r, c, h, w: (c, r),  # left, top
    6: lambda r, c, h, w: (c, w - 1 - r),  # right, top
    7: lambda r, c, h, w: (h - 1 - c, w - 1 - r),  # right, bottom
    8: lambda r, c, h, w: (h - 1 - c, r),  # left, bottom
}


def stored(upright: Pixels, orientation: int) -> Pixels:
    height, width = upright.shape[:2]
    shape = (width, height) if orientation >= 5 else (height, width)
    result = np.empty((*shape, *upright.shape[2:]), np.uint8)
    for row, column in np.ndindex(*shape):
        result[row, column] = upright[STORED[orientation](row, column, height, width)]
    return result


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True, "exact": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
    ],
)
def test_orientation_is_applied_once_and_reset(
    tmp_path: Path, kind: str, arguments: dict[str, object], orientation: int
) -> None:
    upright = random_pixels(3, 5, 3)
    if kind == "JPEG":  # each value as a block, which survives
        upright = upright.repeat(8, 0).repeat(8, 1)
    if kind == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[0x0112] = orientation
        arguments = {**arguments, "tiffinfo": tags}
    else:
        arguments = {**arguments, "exif": exif_block(orientation)}
    picture = read_picture(saved(tmp_path / "in", encoded(stored(upright, orientation), kind, **arguments)))
    assert picture.pixels.shape == upright.shape
    assert np.abs(picture.pixels.astype(int) - upright).max() <= (3 if kind == "JPEG" else 0)
    assert picture.pixels.flags.c_contiguous
    for suffix in (".png", ".webp", ".tif", ".jpg") if kind == "PNG" else ():
        write_picture(tmp_path / f"out{suffix}", picture)
        with Image.open(tmp_path / f"out{suffix}") as image:
            assert image.getexif().get(0x0112, 1) == 1
            assert image.size == (picture.width, picture.height)


@pytest.mark.parametrize("orientation", STORED)
def test_alpha_is_turned_with_the_pixels(tmp_path: Path, orientation: int) -> None:
    upright = random_pixels(3, 5, 4)
    file = encoded(stored(upright, orientation), "PNG", exif=exif_block(orientation))
    picture = read_picture(saved(tmp_path / "in.png", file))
    np.testing.assert_array_equal(picture.pixels, upright[..., :3])
    np.testing.assert_array_equal(picture.alpha, upright[..., 3])


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_in_exif_and_in_xmp_is_applied_once(tmp_path: Path, order: str) -> None:
    upright = random_pixels(3, 5)
    file = encoded(
        stored(upright, 6), "WEBP", lossless=True, exif=exif_block(6, order=order), xmp=xmp_packet(6)
    )
    picture = read_picture(saved(tmp_path / "in.webp", file))
    np.testing.assert_array_equal(picture.pixels[..., 0], upright)
    assert picture.metadata.xmp == xmp_packet(1)
    assert picture.metadata.exif is not None
    assert len(picture.metadata.exif) < len(exif_block(6))


@pytest.mark.parametrize(
    "packet",
    [xmp_packet(8), xmp_packet(8).replace(b'="8"', b"='8'"), b"<tiff:Orientation>8</tiff:Orientation>"],
)
def test_orientation_in_xmp_alone_counts(tmp_path: Path, packet: bytes) -> None:
    chunk = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
    upright = random_pixels(2, 4)
    rows = [row.tobytes() for row in stored(upright, 8)]
    for place in ("before", "after"):  # of the image data
        file = png(rows, width=2, bits=8, colour=PNG_GREY, **{place: chunk})
        picture = read_picture(saved(tmp_path / "in.png", file))
        np.testing.assert_array_equal(picture.pixels, upright)
        assert picture.metadata.xmp is not None
        assert b"8" not in re.sub(rb"utf-8|SzNTczkc9d|rdf-syntax|W5M0.*?\"", b"", picture.metadata.xmp)


@pytest.mark.parametrize("orientation", [None, 1, 6])
def test_orientation_in_the_xmp_data_of_a_tiff_is_applied_once(
    tmp_path: Path, orientation: int | None
) -> None:
    upright = random_pixels(2, 4)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x02BC] = xmp_packet(6)
    if orientation is not None:
        tags[0x0112] = orientation
    file = encoded(stored(upright, orientation or 6), "TIFF", tiffinfo=tags)
    picture = read_picture(saved(tmp_path / "in", file))
    np.testing.assert_array_equal(picture.pixels, upright)


def test_an_impossible_orientation_is_none(tmp_path: Path) -> None:
    pixels = random_pixels(3, 5)
    picture = read_picture(saved(tmp_path / "in.png", encoded(pixels, "PNG", exif=exif_block(9))))
    np.testing.assert_array_equal(picture.pixels, pixels)


# Metadata


RGB_PROFILE, GREY_PROFILE, CMYK_PROFILE = (icc_profile(space) for space in (b"RGB ", b"GRAY", b"CMYK"))


def exif_facts(path: Path) -> dict[str, object]:
    """Read with Pillow's own reader what `exif_block` holds, from any format."""
    with Image.open(path) as image:
        image.load()
        exif = image.getexif()
        photo, gps = exif.get_ifd(EXIF_IFD), exif.get_ifd(GPS_IFD)
        return {
            "make": exif.get(0x010F),
            "artist": exif[0x013B].encode("latin-1") if 0x013B in exif else None,
            "date": photo.get(0x9003),
            "exposure": photo.get(0x829A),
            "maker note": photo.get(0x927C),
            "size": (photo.get(0xA002), photo.get(0xA003)),
            "latitude": gps.get(2),
            "hemisphere": gps.get(1),
            "thumbnail": bool(exif.get_ifd(-1)),
        }


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("target", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_metadata_goes_from_each_format_to_each(tmp_path: Path, source: str, target: str, order: str) -> None:
    arguments: dict[str, object] = {
        "icc_profile": RGB_PROFILE,
        "exif": exif_block(1, order=order, size=(7, 5)),
    }
    if source == "TIFF":
        # Pillow would turn the artist's name into question marks; bytes pass.
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        loaded = Image.Exif()
        loaded.load(exif_block(1, order=order, size=(7, 5)))
        tags[0x010F], tags[0x013B], tags[0x02BC] = "Maker", ARTIST, xmp_packet(1)
        tags[EXIF_IFD], tags[GPS_IFD] = loaded.get_ifd(EXIF_IFD), loaded.get_ifd(GPS_IFD)
        arguments |= {"tiffinfo": tags}
        del arguments["exif"]
    if source != "PNG":
        arguments["xmp"] = xmp_packet(1)
    if source != "WEBP":
        arguments["dpi"] = (300, 150)
    path = saved(tmp_path / "in", encoded(random_pixels(5, 7, 3), source, **arguments))

    picture = read_picture(path)
    enlarged = Picture(random_pixels(15, 21, 3), None, picture.metadata)
    write_picture(tmp_path / f"out{target}", enlarged)
    assert exif_facts(tmp_path / f"out{target}") == {
        "make": "Maker",
        "artist": ARTIST,
        "date": "2024:02:29 12:34:56",
        "exposure": 0.004,
        "maker note": MAKER_NOTE,
        "size": (21, 15),
        "latitude": (48, 12, 30),
        "hemisphere": "N",
        "thumbnail": False,
    }
    again = read_picture(tmp_path / f"out{target}").metadata
    assert again.icc_profile == RGB_PROFILE
    assert again.xmp == (None if source == "PNG" else xmp_packet(1))
    if source == "WEBP":
        assert picture.metadata.dpi is None
    elif target != ".webp":
        assert again.dpi == pytest.approx((300, 150), abs=0.02)


@pytest.mark.parametrize("target", [".png", ".jpg", ".webp", ".tif"])
def test_xmp_is_kept_byte_for_byte(tmp_path: Path, target: str) -> None:
    packet = xmp_packet() + b" " * 3000
    write_picture(tmp_path / f"out{target}", Picture(random_pixels(4, 4, 3), None, Metadata(xmp=packet)))
    assert read_picture(tmp_path / f"out{target}").metadata.xmp == packet


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_is_patched_in_place(tmp_path: Path, order: str) -> None:
    """Maker notes hold absolute offsets, so nothing may move."""
    before = exif_block(6, order=order, size=(7, 5))
    metadata = read_picture(
        saved(tmp_path / "in.jpg", encoded(random_pixels(5, 7), "JPEG", exif=before))
    ).metadata
    assert metadata.exif is not None
    assert metadata.exif.index(MAKER_NOTE) == before.index(MAKER_NOTE)
    changed = [at for at in range(len(metadata.exif)) if metadata.exif[at] != before[at]]
    assert len(changed) <= 1 + 4  # the orientation and the link to the thumbnail
    assert b"THUMBNAIL" not in metadata.exif
    write_picture(tmp_path / "out.jpg", Picture(random_pixels(70_001, 1)[:60_000], None, metadata))
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.info["exif"].index(MAKER_NOTE) == before.index(MAKER_NOTE)
        assert image.getexif().get_ifd(EXIF_IFD)[0xA003] == 60_000


def test_a_size_beyond_16_bits_fits_into_a_16_bit_tag(tmp_path: Path) -> None:
    file = encoded(random_pixels(5, 7), "PNG", exif=exif_block(1, size=(7, 5)))
    metadata = read_picture(saved(tmp_path / "in.png", file)).metadata
    write_picture(tmp_path / "out.png", Picture(np.zeros((1, 70_000), np.uint8), None, metadata))
    assert exif_facts(tmp_path / "out.png")["size"] == (70_000, 1)


def test_exif_that_imagemagick_hides_in_a_text_chunk_is_read(tmp_path: Path) -> None:
    upright, block = random_pixels(3, 5), exif_block(6)
    text = b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(block), block.hex().encode())
    rows = [row.tobytes() for row in stored(upright, 6)]
    file = png(rows, width=3, bits=8, colour=PNG_GREY, before=png_chunk(b"tEXt", text))
    picture = read_picture(saved(tmp_path / "in.png", file))
    np.testing.assert_array_equal(picture.pixels, upright)
    write_picture(tmp_path / "out.png", picture)
    assert exif_facts(tmp_path / "out.png")["artist"] == ARTIST


@pytest.mark.parametrize("length", range(0, 120, 7))
def test_damaged_exif_is_dropped_and_the_picture_read(tmp_path: Path, length: int) -> None:
    pixels = random_pixels(3, 5)
    file = encoded(pixels, "WEBP", lossless=True, exif=exif_block(1)[6 : 6 + length] or b"\0")
    picture = read_picture(saved(tmp_path / "in.webp", file))
    np.testing.assert_array_equal(picture.pixels[..., 0], pixels)
    write_picture(tmp_path / "out.tif", picture)
    assert read_picture(tmp_path / "out.tif").height == 3


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_with_any_wrong_byte_never_fails(order: str) -> None:
    block = exif_block(1, order=order, size=(7, 5))
    tiff = encoded(np.zeros((2, 3), np.uint8), "TIFF")
    for position in range(order == ">", block.index(b"THUMBNAIL"), 2):
        for value in (255, block[position] ^ 8):
            damaged = bytearray(block)
            damaged[position] = value
            upright, _ = upright_exif(bytes(damaged))
            if upright is None:
                continue
            resized = resized_exif(upright, height=6, width=4)
            file = BytesIO(tiff)
            add_to_tiff(file, exif=resized, xmp=None)
            exif_from_tiff(file)
            assert Image.open(file).size == (3, 2)


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_whose_directory_is_its_header_is_dropped(order: str) -> None:
    for first in range(8):
        header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", first)
        assert upright_exif(b"Exif\0\0" + header + exif_block(6, order=order)[14:] * 2000) == (None, 0)


def test_exif_whose_directories_overlap_is_left_alone() -> None:
    version = struct.pack("<HHI4s", 0x9000, 7, 4, b"0230")
    width = struct.pack("<HHI", 0xA002, 3, 1)  # its value is the number of entries of the first directory
    first = struct.pack("<HHHIII", 1, EXIF_IFD, 4, 1, 8, 0)
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 30, 2) + version + width + first
    assert upright_exif(block) == (block, 0)
    assert resized_exif(block, height=5000, width=5000) == block


def test_exif_with_directories_in_directories_is_read_in_no_time() -> None:
    many = 65_535  # each of which is the whole directory again
    entries = struct.pack("<HHII", EXIF_IFD, 4, 1, 8) * many
    block = b"II*\0" + struct.pack("<IH", 8, many) + entries + bytes(4)
    assert upright_exif(block) == (b"Exif\0\0" + block, 0)


def test_metadata_too_large_for_a_jpeg_is_left_out(tmp_path: Path) -> None:
    metadata = Metadata(exif=exif_block(1) + bytes(70_000), xmp=xmp_packet() + b" " * 70_000)
    write_picture(tmp_path / "out.jpg", Picture(random_pixels(4, 4), None, metadata))
    write_picture(tmp_path / "out.png", Picture(random_pixels(4, 4), None, metadata))
    assert read_picture(tmp_path / "out.jpg").metadata.xmp is None
    assert read_picture(tmp_path / "out.png").metadata.xmp == metadata.xmp


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_grey_with_a_grey_profile_stays_so(tmp_path: Path, suffix: str) -> None:
    write_picture(tmp_path / f"in{suffix}", Picture(random_pixels(8, 8), None, Metadata(GREY_PROFILE)))
    picture = read_picture(tmp_path / f"in{suffix}")
    assert picture.grey
    assert picture.metadata.icc_profile == GREY_PROFILE


def test_a_grey_profile_cannot_go_into_webp(tmp_path: Path) -> None:
    write_picture(tmp_path / "out.webp", Picture(random_pixels(8, 8), None, Metadata(GREY_PROFILE)))
    assert read_picture(tmp_path / "out.webp").metadata.icc_profile is None


@pytest.mark.parametrize("alpha", [None, random_pixels(8, 8, seed=2)])
def test_grey_with_an_rgb_profile_is_written_as_rgb(tmp_path: Path, alpha: Pixels | None) -> None:
    grey = random_pixels(8, 8)
    picture = read_picture(saved(tmp_path / "in.jpg", encoded(grey, "JPEG", icc_profile=RGB_PROFILE)))
    assert picture.grey
    write_picture(tmp_path / "out.png", Picture(grey, alpha, picture.metadata))
    written = read_picture(tmp_path / "out.png")
    np.testing.assert_array_equal(written.pixels, np.dstack([grey] * 3))
    assert written.metadata.icc_profile == RGB_PROFILE
    write_picture(tmp_path / "out.bmp", Picture(grey, None, picture.metadata))  # which has no profiles
    assert read_picture(tmp_path / "out.bmp").grey


@pytest.mark.parametrize("profile", [GREY_PROFILE, CMYK_PROFILE, b"no profile", RGB_PROFILE[:100]])
def test_a_profile_that_cannot_describe_the_pixels_is_dropped(tmp_path: Path, profile: bytes) -> None:
    file = encoded(random_pixels(8, 8, 3), "PNG", icc_profile=profile)
    assert read_picture(saved(tmp_path / "in.png", file)).metadata.icc_profile is None


def test_no_resolution_is_made_up(tmp_path: Path) -> None:
    for kind in ("PNG", "TIFF", "WEBP", "JPEG"):
        for exif in (b"", exif_block(1), exif_block(1)[:20]):
            file = encoded(random_pixels(4, 4), kind, **({"exif": exif} if exif and kind != "TIFF" else {}))
            assert read_picture(saved(tmp_path / "in", file)).metadata.dpi is None


def test_resolution_in_the_exif_data_of_a_jpeg_counts(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0128], exif[0x011A], exif[0x011B] = 3, 100.0, 100.0  # per centimetre
    file = encoded(random_pixels(4, 4), "JPEG", exif=exif)
    assert read_picture(saved(tmp_path / "in.jpg", file)).metadata.dpi == (254, 254)


def test_resolution_is_turned_with_the_picture(tmp_path: Path) -> None:
    file = encoded(random_pixels(4, 6), "PNG", dpi=(300, 150), exif=exif_block(6))
    assert read_picture(saved(tmp_path / "in.png", file)).metadata.dpi == pytest.approx((150, 300), abs=0.02)


def test_resolution_goes_into_bmp(tmp_path: Path) -> None:
    write_picture(tmp_path / "out.bmp", Picture(random_pixels(4, 6), None, Metadata(dpi=(300, 150))))
    assert read_picture(tmp_path / "out.bmp").metadata.dpi == pytest.approx((300, 150), abs=0.02)


# Refusals to read


WIDE = random_pixels(4, 6).astype(np.uint16) * 257


def planar_tiff_16() -> bytes:
    """Return a 16-bit RGB TIFF, which Pillow can read but not write."""
    tags = {
        256: (3, 2),
        257: (3, 1),
        258: (3, None),
        259: (3, 1),
        262: (3, 2),
        273: (4, 200),
        277: (3, 3),
        278: (3, 1),
        279: (4, 12),
    }
    records = b""
    for tag, (kind, value) in tags.items():
        count = 3 if value is None else 1
        records += struct.pack("<HHII", tag, kind, count, 180 if value is None else value)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + records + struct.pack("<I", 0)
    return head.ljust(180, b"\0") + struct.pack("<HHH", 16, 16, 16).ljust(20, b"\0") + bytes(range(12))


def tiff_with(tag: int, value: int) -> bytes:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[tag] = value
    return encoded(random_pixels(4, 6), "TIFF", tiffinfo=tags)


def rgbx_tiff() -> bytes:
    return encoded(Image.new("RGBX", (4, 4)), "TIFF")


def frames(kind: str, count: int) -> bytes:
    pictures = [Image.fromarray(random_pixels(4, 4, 3, seed=seed)) for seed in range(count)]
    return encoded(pictures[0], kind, save_all=True, append_images=pictures[1:])


def png_16(colour: int, channels: int) -> bytes:
    return png([bytes(range(2 * channels))], width=1, bits=16, colour=colour)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (encoded(WIDE.astype(np.int32), "TIFF"), "32 bits per channel"),
        (encoded(WIDE.astype(np.float32), "TIFF"), "32 bits per channel"),
        (tiff_with(339, 2), "signed"),
        (rgbx_tiff(), "extra channels"),
        (encoded(Image.new("LAB", (4, 4)), "TIFF"), "LAB pixels, need RGB or grey; convert it to sRGB"),
        (frames("GIF", 3), "a GIF with 3 frames"),
        (frames("WEBP", 4), "a WebP with 4 frames"),
        (apng(5), "a PNG with 5 frames"),
        (frames("TIFF", 2), "a TIFF with 2 pages"),
        (b"", "the file is empty"),
        (b"This is no picture.\n", "convert it to one of PNG, JPEG"),
        (encoded(random_pixels(4, 4), "PPM"), "convert it to one of"),
        (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IDAT", b""), "convert it to one of"),
        (b"\xff\xd8\xff\xc0\0\x0b\x0c\0\x08\0\x08\1\1\x11\0\xff\xd9", "variant of JPEG"),
        (b"BM" + bytes(30), "BMP"),
    ],
)
def test_what_would_be_reduced_or_is_no_picture_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    assert says in read_refusal(saved(tmp_path / "in.png", content))


@pytest.mark.parametrize("kind", header_bombs())
def test_a_header_that_claims_too_much_is_refused_before_decoding(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / "bomb", header_bombs()[kind])
    limit = 200_000_000
    message = refusal(lambda: read_picture(path, max_pixels=limit))
    size = "16383x16383" if kind == "WebP" else "60000x60000"
    assert message.startswith(f"{path}: {size} ")
    assert "200,000,000; " in message
    assert "--max-pixels " in message


def test_max_pixels_is_the_largest_allowed(tmp_path: Path) -> None:
    path = saved(tmp_path / "in.png", encoded(random_pixels(10, 20), "PNG"))
    assert read_picture(path, max_pixels=200).width == 20
    assert "--max-pixels 200" in refusal(lambda: read_picture(path, max_pixels=199))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_pillows_own_limit_neither_interferes_nor_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = saved(tmp_path / "in", encoded(random_pixels(10, 20), kind))
    for limit in (150, 10):  # Pillow warns of the first, which is an error in tests, and refuses the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert read_picture(path).width == 20
        assert limit == Image.MAX_IMAGE_PIXELS


def test_the_last_of_several_readers_puts_limit_and_warnings_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path, filters = saved(tmp_path / "in.png", encoded(random_pixels(10, 20), "PNG")), list(warnings.filters)
    with PILLOW_LIMITS_LIFTED:  # as another thread has it
        read_picture(path)
        assert Image.MAX_IMAGE_PIXELS is None
        assert warnings.filters != filters
    assert Image.MAX_IMAGE_PIXELS == 10
    assert warnings.filters == filters


def test_reading_in_threads_puts_limit_and_warnings_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    noisy = bytearray(encoded(random_pixels(200, 300), "PNG", exif=exif_block(1)))
    paths = [saved(tmp_path / f"{number}.png", bytes(noisy)) for number in range(4)]
    paths += [saved(tmp_path / "damaged.png", bytes(noisy[:5000]))]
    filters = list(warnings.filters)
    shapes = []

    def read_all() -> None:
        for path in paths:
            try:
                shapes.append(read_picture(path).pixels.shape)
            except ImageError:
                shapes.append(())

    threads = [threading.Thread(target=read_all) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(shapes) == [()] * 6 + [(200, 300)] * 24
    assert Image.MAX_IMAGE_PIXELS == 10
    assert filters == warnings.filters


def test_what_pillow_warns_of_does_not_leak(tmp_path: Path) -> None:
    file = bytearray(tiff_with(0x0112, 1))
    entry = file.index(struct.pack("<HHI", 0x0112, 3, 1))
    struct.pack_into("<I", file, entry + 4, 2)  # two orientations
    with pytest.warns(UserWarning, match="too many entries"):
        Image.open(BytesIO(file)).load()
    assert read_picture(saved(tmp_path / "in.tif", bytes(file))).width == 6


def test_no_file_a_folder_and_odd_names(tmp_path: Path) -> None:
    assert "No such file" in read_refusal(tmp_path / "missing.png")
    assert "directory" in read_refusal(tmp_path)
    assert "cannot be read" in read_refusal(saved(tmp_path / "file", b"") / "in.png")
    assert "cannot be read" in refusal(lambda: read_picture(tmp_path / "nul\0.png"))
    message = refusal(lambda: read_picture(tmp_path / "two\nlines\udcff.png"))
    assert "two\\nlines\\udcff.png" in message
    message.encode()  # can be printed


WHOLE: dict[str, bytes] = {
    "PNG": encoded(random_pixels(40, 50, 3), "PNG", icc_profile=RGB_PROFILE, exif=exif_block(6)),
    "JPEG": encoded(random_pixels(40, 50, 3), "JPEG", icc_profile=RGB_PROFILE, exif=exif_block(6)),
    "progressive JPEG": encoded(random_pixels(40, 50, 3), "JPEG", progressive=True),
    "WebP": encoded(random_pixels(40, 50, 3), "WEBP", icc_profile=RGB_PROFILE, exif=exif_block(6)),
    "lossless WebP": encoded(random_pixels(40, 50, 4), "WEBP", lossless=True),
    "TIFF": encoded(random_pixels(40, 50, 3), "TIFF", exif=exif_block(6)),
    "LZW TIFF": encoded(random_pixels(40, 50, 3), "TIFF", compression="tiff_lzw"),
    "BMP": encoded(random_pixels(40, 50, 3), "BMP"),
    "GIF": encoded(random_pixels(40, 50), "GIF"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    whole = WHOLE[kind]
    assert read_picture(saved(tmp_path / "in", whole)).pixels.size
    for tenths in range(1, 10):
        read_refusal(saved(tmp_path / "in", whole[: len(whole) * tenths // 10]))
    if kind in ("PNG", "JPEG", "BMP", "TIFF"):
        assert f"ends before the picture does (truncated {kind})" in read_refusal(tmp_path / "in")


@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_with_wrong_bytes_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    whole, random = WHOLE[kind], np.random.default_rng(0)
    refusals = []
    for _ in range(60):
        damaged = bytearray(whole)
        # Half of the time within the header, where it matters most.
        end = len(whole) if random.random() < 0.5 else 200
        for _ in range(random.integers(1, 4)):
            damaged[random.integers(2, end)] = random.integers(256)
        try:
            picture = read_picture(saved(tmp_path / "in", bytes(damaged)), max_pixels=10_000_000)
        except ImageError as error:
            refusals.append(str(error))
        else:
            assert picture.pixels.dtype == np.uint8
    assert refusals
    assert not any("\n" in message for message in refusals)


def test_a_wrong_byte_in_png_data_does_not_pass(tmp_path: Path) -> None:
    whole = encoded(random_pixels(40, 50, 3), "PNG")
    for position in range(whole.index(b"IDAT") + 10, len(whole) - 20, 500):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        assert "damaged" in read_refusal(saved(tmp_path / "in.png", bytes(damaged)))


# Refusals to write


@pytest.mark.parametrize(
    ("name", "height", "width", "says"),
    [
        ("out.jpg", 65_501, 1, "JPEG has at most 65,500 pixels a side"),
        ("out.JPEG", 1, 65_501, "JPEG has at most 65,500 pixels a side"),
        ("out.webp", 16_384, 1, "WebP has at most 16,383 pixels a side"),
        ("out.tif", 40_000, 40_000, "4 GiB; use .png"),
        ("out.bmp", 40_000, 40_000, "4 GiB; use .png"),
        ("out.png", 1, 1 << 31, "PNG has at most"),
        ("out.avif", 32_769, 1, "AVIF has at most 32,768 pixels a side"),
        ("out.avif", 20_000, 20_000, "AVIF has at most 268,435,456 pixels"),
        ("out.gif", 65_536, 1, "GIF has at most 65,535 pixels a side"),
        ("out", 1, 1, "suffix ''; use one of .png .jpg"),
        ("out.xyz", 1, 1, "suffix '.xyz'; use one of .png .jpg"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_before_the_work(
    tmp_path: Path, name: str, height: int, width: int, says: str
) -> None:
    path = tmp_path / name
    message = refusal(lambda: check_output(path, height=height, width=width, alpha=False))
    assert message.startswith(f"{path}: ")
    assert says in message


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("a.jpg", 65_500, 2),
        ("a.jpg", 2, 65_500),
        ("a.webp", 16_383, 2),
        ("a.webp", 2, 16_383),
        ("a.png", 70_000, 2),
    ],
)
def test_the_largest_that_is_allowed_can_be_written(
    tmp_path: Path, name: str, height: int, width: int
) -> None:
    check_output(tmp_path / name, height=height, width=width, alpha=False)
    write_picture(tmp_path / name, Picture(np.full((height, width), 200, np.uint8)))
    assert read_picture(tmp_path / name).pixels.shape[:2] == (height, width)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_transparency_is_never_dropped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    pixels, alpha = random_pixels(8, 8, 3), np.full((8, 8), 255, np.uint8)
    write_picture(path, Picture(pixels, alpha))  # opaque, so nothing is lost
    path.unlink()
    alpha[3, 4] = 254
    assert Picture(pixels, alpha).transparent
    message = refusal(lambda: write_picture(path, Picture(pixels, alpha)))
    assert ".png, .webp, .avif or .tif" in message
    assert message == refusal(lambda: check_output(path, height=8, width=8, alpha=True))
    assert not list(tmp_path.iterdir())


def test_check_output_wants_a_folder_that_is_or_can_be_made(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "deeper" / "out.png", height=1, width=1, alpha=True)
    assert not list(tmp_path.iterdir())
    saved(tmp_path / "file", b"")
    for path in (tmp_path / "file" / "out.png", tmp_path / "file" / "sub" / "out.png"):
        message = refusal(lambda path=path: check_output(path, height=1, width=1, alpha=False))
        assert str(tmp_path / "file") in message
    (tmp_path / "folder.png").mkdir()
    message = refusal(lambda: check_output(tmp_path / "folder.png", height=1, width=1, alpha=False))
    assert "file name" in message


@pytest.mark.parametrize("suffix", write_suffixes())
def test_a_missing_folder_and_a_folder_in_the_way(tmp_path: Path, suffix: str) -> None:
    picture = Picture(random_pixels(8, 8, 3))
    message = refusal(lambda: write_picture(tmp_path / "no" / f"out{suffix}", picture))
    assert "create the folder" in message
    (tmp_path / f"out{suffix}").mkdir()
    assert f"out{suffix}" in refusal(lambda: write_picture(tmp_path / f"out{suffix}", picture))
    long_name = "x" * 300 + suffix
    assert "shorter" in refusal(lambda: write_picture(tmp_path / long_name, picture))
    assert [path.name for path in tmp_path.iterdir()] == [f"out{suffix}"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.webp"
    write_picture(path, Picture(random_pixels(8, 8)))
    before = path.read_bytes()
    refusal(lambda: write_picture(path, Picture(np.zeros((1, 20_000), np.uint8))))
    with pytest.raises(TypeError):  # a programming mistake stays one
        write_picture(path, Picture(np.zeros((8, 8, 5), np.uint8)))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.webp"]


def in_subprocess(script: str, *arguments: object) -> str:
    """Run a script that limits itself in ways that cannot be taken back."""
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from sr.errors import ImageError
from sr.image import Picture, write_picture, write_suffixes

folder = Path(sys.argv[1])
picture = Picture(np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8))
for suffix in write_suffixes():
    path = folder / f"out{suffix}"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    write_picture(path, picture)
    size = path.stat().st_size
    path.unlink()
    for limit in (0, 10, size // 2, size - 1):  # the last one is a short write at the very end
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            write_picture(path, picture)
        except ImageError as error:
            assert str(error).startswith(f"{path}: cannot be written (File too large); choose"), error
        else:
            raise SystemExit(f"{path} with {limit} of {size} bytes passed for written")
        assert not list(folder.iterdir()), list(folder.iterdir())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_a_file_that_cannot_be_written_to_its_end_leaves_nothing(tmp_path: Path) -> None:
    in_subprocess(FULL_DISK, tmp_path)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path]
    if (
        not hasattr(os, "geteuid")
        or os.geteuid() != 0
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("may not mount a small file system")
    try:
        message = refusal(lambda: write_picture(tmp_path / "out.png", Picture(random_pixels(300, 300, 3))))
        assert f"({os.strerror(errno.ENOSPC)}); free some space" in message
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", tmp_path], check=True)


READ_ONLY = """
import os, sys
from pathlib import Path
import numpy as np
from sr.errors import ImageError
from sr.image import Picture, check_output, read_picture, write_picture

folder = Path(sys.argv[1])
secret = folder.parent / "secret.png"
write_picture(secret, Picture(np.zeros((2, 2), np.uint8)))
secret.chmod(0)
if os.geteuid() == 0:
    os.setuid(65534)  # root may write anywhere
for call in (
    lambda: check_output(folder / "out.png", height=2, width=2, alpha=False),
    lambda: write_picture(folder / "out.png", Picture(np.zeros((2, 2), np.uint8))),
    lambda: read_picture(secret),
):
    try:
        call()
    except ImageError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file modes")
def test_a_read_only_folder_and_an_unreadable_file(tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    for parent in (tmp_path, *tmp_path.parents):  # pytest makes its folders for the owner alone
        if parent.stat().st_uid == os.getuid() and parent.is_relative_to(tempfile.gettempdir()):
            parent.chmod(parent.stat().st_mode | 0o011)
    check, write, read = in_subprocess(READ_ONLY, folder).splitlines()
    path = folder / "out.png"
    assert check == f"{path}: the folder {folder} cannot be written; choose another folder"
    assert write.startswith(f"{path}: cannot be written (Permission denied); choose another folder")
    assert read == f"{tmp_path / 'secret.png'}: cannot be read (Permission denied); check its permissions"


# Colour under transparency


@given(
    st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(
        lambda size: st.tuples(
            arrays(np.uint8, st.sampled_from([size, (*size, 3)])),
            arrays(np.uint8, size, elements=st.sampled_from([0, 0, 0, 1, 128, 255])),
        )
    )
)
def test_bleed_changes_only_what_is_transparent_and_invents_no_colour(
    arguments: tuple[Pixels, Pixels],
) -> None:
    pixels, alpha = arguments
    before = pixels.copy()
    result = bleed_under_transparency(pixels, alpha)
    assert result.shape == pixels.shape
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(pixels, before)
    visible = alpha > 0
    np.testing.assert_array_equal(result[visible], pixels[visible])
    if visible.all() or not visible.any():
        assert result is pixels
    else:
        least, most = pixels[visible].min(axis=0), pixels[visible].max(axis=0)
        assert (result >= least).all()
        assert (result <= most).all()
        garbage = np.where(visible if pixels.ndim == 2 else visible[..., None], pixels, 255 - pixels)
        np.testing.assert_array_equal(bleed_under_transparency(garbage, alpha), result)


def test_bleed_continues_the_nearest_colour() -> None:
    pixels, alpha = np.zeros((64, 96, 3), np.uint8), np.zeros((64, 96), np.uint8)
    pixels[20:40, 8:24], alpha[20:40, 8:24] = (200, 30, 30), 255
    pixels[20:40, 72:88], alpha[20:40, 72:88] = (30, 30, 200), 255
    result = bleed_under_transparency(pixels, alpha)
    assert np.abs(result[16:44, 4:28].astype(int) - (200, 30, 30)).max() < 60
    assert np.abs(result[16:44, 68:92].astype(int) - (30, 30, 200)).max() < 60
    assert np.abs(np.diff(result.astype(int), axis=1)).max() < 40  # no edge between the two


def test_bleed_weighs_by_alpha() -> None:
    pixels = np.array([[100, 0, 0, 200]], np.uint8)
    result = bleed_under_transparency(pixels, np.array([[255, 0, 0, 1]], np.uint8))
    assert result[0, 1] < 150
