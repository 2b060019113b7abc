"""Sound files of uncommon variants: read right, or refused as a variant, never called damaged."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sr.errors import ImageError
from sr.image import (
    FORMATS,
    Frame,
    Picture,
    PictureSequence,
    WriteOptions,
    identify,
    read_picture,
    write_picture,
    write_sequence,
)
from sr.image.encode import save_with_pillow
from tests.pictures import PNG_GREY, PNG_PALETTE, avif_with_aperture, encoded, png, png_chunk, tiff

RANDOM = np.random.default_rng(0)
RGB: NDArray[np.uint8] = RANDOM.integers(0, 256, (32, 48, 3), np.uint8)
GREY, ALPHA = RGB[..., 0], RGB[..., 1]
RGB16 = RANDOM.integers(0, 1 << 16, (32, 48, 3), np.uint16)
TAGS = {
    256: (4, [48]),
    257: (4, [32]),
    258: (3, [8, 8, 8]),
    259: (3, [1]),
    262: (3, [2]),
    277: (3, [3]),
    278: (4, [32]),
}
TILED = {tag: value for tag, value in TAGS.items() if tag != 278} | {322: (4, [16]), 323: (4, [16])}
GREY_TAGS = TAGS | {258: (3, [8]), 262: (3, [1]), 277: (3, [1])}


def planes(samples: NDArray, order: str = ">") -> list[bytes]:
    """Return each channel as the bytes of one strip."""
    kind = f"{order}u{samples.itemsize}"
    return [np.ascontiguousarray(samples[..., n]).astype(kind).tobytes() for n in range(samples.shape[2])]


def tiles(samples: NDArray, order: str = ">") -> list[bytes]:
    kind = f"{order}u{samples.itemsize}"
    return [
        samples[top : top + 16, left : left + 16].astype(kind).tobytes()
        for top in (0, 16)
        for left in (0, 16, 32)
    ]


def packed(samples: NDArray, bits: int) -> bytes:
    """Pack (H, n) samples, the highest bit first, each row to whole bytes."""
    spread = (samples[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(spread.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


def read(folder: Path, content: bytes) -> Picture:
    (folder / "in.tif").write_bytes(content)
    return read_picture(folder / "in.tif")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_either_byte_order_and_size_of_file(tmp_path: Path, order: str, big: bool) -> None:
    np.testing.assert_array_equal(
        read(tmp_path, tiff(TAGS, [RGB.tobytes()], order=order, big=big)).pixels, RGB
    )
    sixteen = TAGS | {258: (3, [16] * 3)}
    content = tiff(sixteen, [RGB16.astype(f"{order}u2").tobytes()], order=order, big=big)
    np.testing.assert_array_equal(read(tmp_path, content).pixels, RGB16)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("samples", [RGB, RGB16], ids=["8", "16"])
def test_separate_planes(tmp_path: Path, samples: NDArray, order: str) -> None:
    tags = TAGS | {284: (3, [2]), 258: (3, [8 * samples.itemsize] * 3)}
    strips = tiff(tags, planes(samples, order), order=order)
    np.testing.assert_array_equal(read(tmp_path, strips).pixels, samples)
    tags = TILED | {284: (3, [2]), 258: (3, [8 * samples.itemsize] * 3)}
    parts = [tile for n in range(3) for tile in tiles(samples[..., n], order)]
    np.testing.assert_array_equal(read(tmp_path, tiff(tags, parts, order=order, offsets=324)).pixels, samples)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("samples", [RGB, RGB16], ids=["8", "16"])
def test_planes_of_several_strips(tmp_path: Path, samples: NDArray, channels: int, photometric: int) -> None:
    bits, limit = 8 * samples.itemsize, int(np.iinfo(samples.dtype).max)
    tags = TAGS | {258: (3, [bits] * channels), 262: (3, [photometric]), 277: (3, [channels])}
    tags |= {278: (4, [7]), 284: (3, [2])} | ({338: (3, [2])} if channels == 2 else {})
    parts = [
        np.ascontiguousarray(samples[top : top + 7, :, n]).astype(f">u{samples.itemsize}").tobytes()
        for n in range(channels)
        for top in range(0, 32, 7)
    ]
    picture = read(tmp_path, tiff(tags, parts))
    expected = limit - samples[..., 0] if photometric == 0 else samples[..., 0]
    np.testing.assert_array_equal(picture.pixels, expected)
    if channels == 2:
        np.testing.assert_array_equal(picture.alpha, samples[..., 1])


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("samples", [RGB[..., :2], RGB16[..., :2]], ids=["8", "16"])
def test_grey_and_alpha_in_separate_planes(tmp_path: Path, samples: NDArray, photometric: int) -> None:
    bits, limit = 8 * samples.itemsize, int(np.iinfo(samples.dtype).max)
    tags = TAGS | {258: (3, [bits] * 2), 262: (3, [photometric]), 277: (3, [2]), 284: (3, [2]), 338: (3, [2])}
    picture = read(tmp_path, tiff(tags, planes(samples)))
    grey = limit - samples[..., 0] if photometric == 0 else samples[..., 0]
    np.testing.assert_array_equal(picture.pixels, grey)
    np.testing.assert_array_equal(picture.alpha, samples[..., 1])


def test_premultiplied_planes_are_divided(tmp_path: Path) -> None:
    premultiplied = np.stack([np.full((32, 48), 50), np.full((32, 48), 100)], axis=2).astype(np.uint8)
    tags = GREY_TAGS | {258: (3, [8] * 2), 277: (3, [2]), 284: (3, [2]), 338: (3, [1])}
    picture = read(tmp_path, tiff(tags, planes(premultiplied)))
    assert np.abs(picture.pixels.astype(int) - 127).max() <= 1  # 50 * 255 / 100


@pytest.mark.parametrize("bits", [2, 4, 6, 9, 10, 12, 14, 15])
@pytest.mark.parametrize("channels", [1, 3])
def test_odd_depths_fill_the_whole_range(tmp_path: Path, bits: int, channels: int) -> None:
    samples = RANDOM.integers(0, 1 << bits, (32, 48 * channels), np.uint16)
    tags = (GREY_TAGS if channels == 1 else TAGS) | {258: (3, [bits] * channels)}
    picture = read(tmp_path, tiff(tags, [packed(samples, bits)]))
    limit = 255 if bits < 8 else 65535
    expected = np.rint(samples.astype(float) * limit / ((1 << bits) - 1)).reshape(picture.pixels.shape)
    assert picture.sixteen_bit == (bits > 8)
    np.testing.assert_array_equal(picture.pixels, expected)


def test_tiles_that_are_listed_as_strips(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, tiff(TILED, tiles(RGB), offsets=273)).pixels, RGB)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd"])
def test_compressed_planes(tmp_path: Path, compression: str) -> None:
    """Each plane as Pillow compresses a grey picture, put together by hand."""
    parts, number = [], 0
    for plane in range(3):
        file = encoded(np.ascontiguousarray(RGB[..., plane]), "TIFF", compression=compression)
        with Image.open(BytesIO(file)) as image:
            tags = image.tag_v2  # type: ignore[attr-defined]
            number = tags[259]
            assert len(tags[273]) == 1
            parts.append(file[tags[273][0] : tags[273][0] + tags[279][0]])
    content = tiff(TAGS | {259: (3, [number]), 284: (3, [2])}, parts)
    np.testing.assert_array_equal(read(tmp_path, content).pixels, RGB)


@pytest.mark.parametrize("samples", [RGB, RGB16], ids=["8", "16"])
def test_planes_of_differences(tmp_path: Path, samples: NDArray) -> None:
    differences = np.diff(samples, axis=1, prepend=np.zeros_like(samples[:, :1]))
    tags = TAGS | {258: (3, [8 * samples.itemsize] * 3), 259: (3, [8]), 284: (3, [2]), 317: (3, [2])}
    content = tiff(tags, [zlib.compress(plane) for plane in planes(differences)])
    np.testing.assert_array_equal(read(tmp_path, content).pixels, samples)


VARIANTS: dict[str, tuple[bytes, str]] = {
    "LERC": (tiff(TAGS | {259: (3, [34887])}, [bytes(400)]), "LERC"),
    "JPEG XL": (tiff(TAGS | {259: (3, [50002])}, [bytes(400)]), "JPEG XL"),
    "unknown compression": (tiff(TAGS | {259: (3, [60123])}, [bytes(400)]), "60123"),
    "subsampled YCbCr": (tiff(TAGS | {262: (3, [6]), 530: (3, [2, 1])}, [bytes(3072)]), "subsampled"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_that_is_not_supported_is_called_so(tmp_path: Path, name: str) -> None:
    pytest.importorskip("pyvips")
    content, says = VARIANTS[name]
    with pytest.raises(ImageError) as caught:
        read(tmp_path, content)
    message = str(caught.value)
    assert "not supported" in message
    assert says in message
    assert "damaged" not in message
    assert not any(text in message for text in ("tiff2vips", "decoder error", "tempfile", "Vips"))


def bmp(size: int, *, bits: int, compression: int, rows: bytes, width: int = 4, height: int = 2) -> bytes:
    """Assemble a BMP with a header of `size` bytes."""
    fields = struct.pack("<iiHHIIiiII", width, height, 1, bits, compression, len(rows), 0, 0, 0, 0)
    header = (struct.pack("<I", size) + fields).ljust(size, b"\0")
    palette = bytes(4 << bits) if bits <= 8 else b""
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + palette + rows


def oversized_palette() -> bytes:
    content = bytearray(bmp(40, bits=8, compression=0, rows=bytes(8)))
    content[46:50] = struct.pack("<I", 300)
    content[10:14] = struct.pack("<I", 54 + 1200)
    return bytes(content).ljust(54 + 1200 + 8, b"\0")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("JPEG in it", bmp(40, bits=0, compression=4, rows=b"\xff\xd8\xff\xd9")),
        ("PNG in it", bmp(40, bits=0, compression=5, rows=b"\x89PNG")),
        ("CMYK", bmp(40, bits=32, compression=11, rows=bytes(32))),
        ("2 bits", bmp(40, bits=2, compression=0, rows=bytes(8))),
        ("64 bits", bmp(40, bits=64, compression=0, rows=bytes(64))),
        ("more colours than 256", oversized_palette()),
        ("Huffman of OS/2", bmp(64, bits=1, compression=3, rows=bytes(8))),
        ("RLE24 of OS/2", bmp(64, bits=24, compression=4, rows=bytes(24))),
    ],
)
def test_uncommon_bmps_are_variants(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "in.bmp").write_bytes(content)
    assert identify(tmp_path / "in.bmp") is not None
    with pytest.raises(ImageError, match="not supported"):
        read_picture(tmp_path / "in.bmp")


def test_a_mistake_of_ours_stays_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what decoders raise is said of the file."""
    (tmp_path / "in.png").write_bytes(encoded(RGB, "PNG"))

    def mistaken(*_: object, **__: object) -> None:
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr("sr.image.pillow.arrays", mistaken)
    with pytest.raises(ValueError, match="broadcast"):
        read_picture(tmp_path / "in.png")


def test_an_avif_is_cut_to_its_clean_aperture(tmp_path: Path) -> None:
    ramp = np.dstack(
        [np.add.outer(np.arange(32) * a, np.arange(48) * b) for a, b in ((3, 2), (5, 1), (1, 4))]
    )
    content = encoded(ramp.astype(np.uint8), "AVIF", quality=100, subsampling="4:4:4")
    part = {"left": 6, "top": 3, "height": 20, "width": 30}
    (tmp_path / "in.avif").write_bytes(avif_with_aperture(content, **part, size=(32, 48)))
    picture = read_picture(tmp_path / "in.avif")
    assert picture.pixels.shape == (20, 30, 3)
    assert np.abs(picture.pixels.astype(int) - ramp[3:23, 6:36]).max() <= 4
    part["height"] = 60
    (tmp_path / "in.avif").write_bytes(avif_with_aperture(content, **part, size=(32, 48)))
    with pytest.raises(ImageError, match="damaged"):
        read_picture(tmp_path / "in.avif")


@pytest.mark.parametrize(("kind", "code"), [(1, "B"), (3, "H"), (4, "I"), (6, "b"), (8, "h"), (9, "i")])
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_orientation_of_any_whole_number_turns(tmp_path: Path, kind: int, code: str, order: str) -> None:
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1)
    value = struct.pack(order + code, 6).ljust(4, b"\0")
    exif = b"Exif\0\0" + header + struct.pack(order + "HHI", 0x0112, kind, 1) + value + bytes(4)
    (tmp_path / "in.webp").write_bytes(encoded(RGB, "WEBP", lossless=True, exif=exif))
    picture = read_picture(tmp_path / "in.webp")
    np.testing.assert_array_equal(picture.pixels, np.rot90(RGB, -1))


@pytest.mark.parametrize("bits", [[8], [8, 8, 8, 1]])
def test_tiff_depths_that_are_not_one_for_each_channel(tmp_path: Path, bits: list[int]) -> None:
    """libtiff takes one for all, and no notice of surplus ones."""
    content = tiff(TAGS | {258: (3, bits)}, [RGB.tobytes()])
    np.testing.assert_array_equal(read(tmp_path, content).pixels, RGB)


def test_the_canvas_of_a_still_gif_is_transparent_where_its_frame_is_not(tmp_path: Path) -> None:
    """As in animations, and as browsers show it; Pillow gives it the colour of the background."""
    whole = bytearray(encoded(Image.fromarray(GREY), "GIF"))
    whole[6:10] = struct.pack("<HH", 50, 40)  # the screen; the frame has 48x32
    (tmp_path / "in.gif").write_bytes(whole)
    picture = read_picture(tmp_path / "in.gif")
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.pixels[:32, :48, 0], GREY)
    assert (picture.alpha[:32, :48] == 255).all()
    assert picture.alpha.sum() == 255 * 32 * 48


def test_what_is_damaged_in_a_png_is_not_its_end(tmp_path: Path) -> None:
    rows = [bytes(4)] * 4
    palette = png(rows, width=4, bits=8, colour=PNG_PALETTE, before=png_chunk(b"PLTE", bytes(3)))
    empty_chunk = png(rows, width=4, bits=8, colour=PNG_GREY, before=png_chunk(b"cHRM", b""))
    for content in (palette.replace(png_chunk(b"PLTE", bytes(3)), b""), empty_chunk):
        (tmp_path / "in.png").write_bytes(content)
        with pytest.raises(ImageError, match="damaged or truncated PNG"):
            read_picture(tmp_path / "in.png")


def test_a_directory_where_no_file_can_have_one_is_damage(tmp_path: Path) -> None:
    for offset in (1 << 62, (1 << 64) - 1):
        with pytest.raises(ImageError, match=r"TIFF[);]"):
            read(tmp_path, b"II+\0" + struct.pack("<HHQ", 8, 0, offset))


def test_what_an_encoder_refuses_is_said_in_our_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow cannot write RGB as XBM."""
    monkeypatch.setitem(FORMATS, "BMP", replace(FORMATS["BMP"], writer=xbm))
    with pytest.raises(ImageError) as caught:
        write_picture(tmp_path / "out.bmp", Picture(RGB))
    assert str(caught.value).startswith(f"{tmp_path / 'out.bmp'}: the encoder of XBM refuses")
    assert "mode" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def xbm(file: BinaryIO, picture: Picture, _: WriteOptions) -> None:
    save_with_pillow(file, picture, replace(FORMATS["BMP"], name="XBM", pillow_name="XBM"))


@pytest.mark.parametrize("suffix", [".bmp", ".webp", ".png", ".tif"])
def test_a_mistake_of_ours_in_writing_stays_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    def mistaken(*_: object, **__: object) -> None:
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr("sr.image.encode.joined_samples", mistaken)
    with pytest.raises(ValueError, match="broadcast"):
        write_picture(tmp_path / f"out{suffix}", Picture(RGB))
    assert not list(tmp_path.iterdir())


def test_a_mistake_of_ours_between_frames_stays_a_traceback(tmp_path: Path) -> None:
    """Pillow's encoder asks for the frames."""

    def frames() -> Iterator[Frame]:
        yield Frame(Picture(RGB), 40)
        raise ValueError("operands could not be broadcast together")

    sequence = PictureSequence(tmp_path / "in", "GIF", "frames", 2, 32, 48, 1 << 20)
    with pytest.raises(ValueError, match="broadcast"):
        write_sequence(tmp_path / "out.webp", sequence, frames())
    assert not list(tmp_path.iterdir())
