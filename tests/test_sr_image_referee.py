"""libvips as a referee: every format, depth and layout that is read has the pixels that it finds.

Documented differences are left out: CMYK, of which the conversion is ours, and what libvips does not read.
"""

import struct
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sr.image import Picture, read_picture
from tests.pictures import (
    PNG_GREY,
    PNG_GREY_ALPHA,
    PNG_PALETTE,
    PNG_RGB,
    PNG_RGBA,
    avif_with_aperture,
    encoded,
    exif_block,
    png,
    png_chunk,
    tiff,
)

pyvips = pytest.importorskip("pyvips")

RANDOM = np.random.default_rng(7)
HEIGHT, WIDTH = 20, 32
RGBA: NDArray[np.uint8] = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
SMOOTH = np.dstack(
    [np.add.outer(np.arange(HEIGHT) * a, np.arange(WIDTH) * b) for a, b in ((3, 2), (5, 1), (1, 4))]
).astype(np.uint8)
CHANNELS = {PNG_GREY: 1, PNG_GREY_ALPHA: 2, PNG_RGB: 3, PNG_RGBA: 4, PNG_PALETTE: 1}


def pngs() -> Iterator[tuple[str, bytes]]:
    for colour, bits in [
        *product((PNG_GREY,), (1, 2, 4, 8, 16)),
        *product((PNG_PALETTE,), (1, 2, 4, 8)),
        *product((PNG_RGB, PNG_GREY_ALPHA, PNG_RGBA), (8, 16)),
    ]:
        rows = [RANDOM.bytes(WIDTH * CHANNELS[colour] * bits // 8) for _ in range(HEIGHT)]
        before = png_chunk(b"PLTE", RANDOM.bytes(3 << bits)) if colour == PNG_PALETTE else b""
        yield f"PNG {colour} of {bits} bits", png(rows, width=WIDTH, bits=bits, colour=colour, before=before)
    rows = [RANDOM.bytes(WIDTH * 3) for _ in range(HEIGHT)]
    key = png_chunk(b"tRNS", struct.pack(">HHH", *rows[0][:3]))
    yield "PNG with a key colour", png(rows, width=WIDTH, bits=8, colour=PNG_RGB, before=key)
    yield "interlaced palette", encoded(Image.fromarray(SMOOTH).quantize(16), "GIF", interlace=1)


def others() -> Iterator[tuple[str, bytes]]:
    for mode, quality in product(("L", "RGB"), (60, 95)):
        image = Image.fromarray(SMOOTH).convert(mode)
        for progressive in (False, True):
            yield (
                f"JPEG {mode} {quality} progressive {progressive}",
                encoded(image, "JPEG", quality=quality, progressive=progressive, subsampling="4:4:4"),
            )
        yield f"AVIF {mode} {quality}", encoded(image, "AVIF", quality=quality, subsampling="4:4:4")
    for mode in ("RGB", "RGBA"):
        pixels = RGBA if mode == "RGBA" else RGBA[..., :3]
        yield f"WebP {mode} lossless", encoded(pixels, "WEBP", lossless=True, exact=True)
        yield f"WebP {mode} lossy", encoded(np.ascontiguousarray(pixels), "WEBP", quality=90)
    for kind, orientation in product(("JPEG", "WEBP", "AVIF"), range(1, 9)):
        content = encoded(SMOOTH, kind, exif=exif_block(orientation), quality=100)
        yield f"{kind} orientation {orientation}", content
    yield "GIF", encoded(Image.fromarray(SMOOTH).quantize(200), "GIF")
    yield "GIF with a key", encoded(Image.fromarray(SMOOTH).quantize(200), "GIF", transparency=3)
    whole = encoded(SMOOTH, "AVIF", quality=100, subsampling="4:4:4")
    yield (
        "AVIF with a clean aperture",
        avif_with_aperture(whole, left=5, top=3, height=10, width=16, size=(HEIGHT, WIDTH)),
    )


def tiffs() -> Iterator[tuple[str, bytes]]:
    for order, big, (bits, channels, photometric) in product(
        "<>", (False, True), product((8, 16), (1, 2, 3, 4), (0, 1, 2))
    ):
        if (photometric == 2) != (channels > 2) or (photometric == 0 and channels == 2):
            continue  # WhiteIsZero with alpha: libvips leaves it as it is
        samples = RANDOM.integers(0, 1 << bits, (HEIGHT, WIDTH, channels), np.uint16)
        tags: dict[int, tuple[int, list[int]]] = {
            256: (4, [WIDTH]),
            257: (4, [HEIGHT]),
            258: (3, [bits] * channels),
            259: (3, [1]),
            262: (3, [photometric]),
            277: (3, [channels]),
            278: (4, [7]),
        }
        if channels in (2, 4):
            tags[338] = (3, [2])
        stored = samples.astype(f"{order}u{bits // 8}")
        strips = [stored[top : top + 7].tobytes() for top in range(0, HEIGHT, 7)]
        name = f"TIFF {order} big {big} {bits} bits {channels} channels photometric {photometric}"
        yield name, tiff(tags, strips, order=order, big=big)
        tiled = {tag: value for tag, value in tags.items() if tag != 278}
        padded = np.pad(stored, ((0, 32 - HEIGHT), (0, 0), (0, 0)))
        tiles = [
            padded[top : top + 16, left : left + 16].tobytes()
            for top in (0, 16)
            for left in range(0, WIDTH, 16)
        ]
        tiled |= {322: (4, [16]), 323: (4, [16])}
        yield f"{name} in tiles", tiff(tiled, tiles, order=order, big=big, offsets=324)
        if channels == 2:
            continue  # libvips 8.18 reads separate planes of grey and alpha wrong
        planes = [
            np.ascontiguousarray(stored[top : top + 7, :, n]).tobytes()
            for n in range(channels)
            for top in range(0, HEIGHT, 7)
        ]
        yield f"{name} in planes", tiff(tags | {284: (3, [2])}, planes, order=order, big=big)
    for compression, mode in product(
        ("tiff_lzw", "tiff_adobe_deflate", "packbits"), ("1", "L", "LA", "P", "RGB", "RGBA")
    ):
        image = Image.fromarray(RGBA).convert(mode)
        yield f"TIFF {mode} by {compression}", encoded(image, "TIFF", compression=compression)
    for orientation in range(1, 9):
        yield f"TIFF orientation {orientation}", encoded(SMOOTH, "TIFF", tiffinfo={274: orientation})


FILES = {name: content for source in (pngs, others, tiffs) for name, content in source()}


def rgba(pixels: NDArray[Any], alpha: NDArray[Any] | None) -> NDArray[Any]:
    """Join to (H, W, 4) of one depth."""
    if pixels.ndim == 2:
        pixels = np.dstack([pixels] * 3)
    full = np.full(pixels.shape[:2], np.iinfo(pixels.dtype).max, pixels.dtype)
    return np.dstack([pixels, full if alpha is None else alpha])


def as_libvips_reads(content: bytes) -> NDArray[Any]:
    samples = pyvips.Image.new_from_buffer(content, "", fail_on="error").autorot().numpy()
    samples = samples.reshape(*samples.shape[:2], -1)
    colours = samples[..., 0] if samples.shape[2] < 3 else samples[..., :3]
    return rgba(colours, samples[..., -1] if samples.shape[2] in (2, 4) else None)


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_that_libvips_finds(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").write_bytes(FILES[name])
    picture = read_picture(tmp_path / "in")
    assert isinstance(picture, Picture)
    found, expected = rgba(picture.pixels, picture.alpha), as_libvips_reads(FILES[name])
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    seen = expected[..., 3] > 0  # GIF and palettes: what nobody sees may differ
    difference = np.abs(found.astype(int) - expected.astype(int))
    lossy = name.startswith(("JPEG", "AVIF", "WEBP")) or "lossy" in name
    # Decoders round the inverse transform and the colours differently.
    assert difference[seen].max(initial=0) <= (4 if lossy else 0)
    assert difference[..., 3].max() <= (4 if lossy else 0)
