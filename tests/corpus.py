"""Small picture files of every kind that is read, and damage to them."""

from collections.abc import Iterator
from itertools import product

import numpy as np
from PIL import Image

from tests.pictures import (
    PNG_RGB,
    apng,
    encoded,
    exif_block,
    gif,
    icc_profile,
    png,
    tiff_16,
    xmp_packet,
)

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
DEEP_MODES = ("I", "F", "I;16", "I;16B")


def picture(mode: str, width: int, height: int) -> Image.Image:
    colours = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(colours)
    if mode in ("PA", "La", "RGBa"):
        return image.convert({"PA": "P", "La": "LA", "RGBa": "RGBA"}[mode]).convert(mode)
    if mode == "LAB":
        return Image.new("LAB", (width, height))
    return image.convert("I").convert(mode) if mode in DEEP_MODES else image.convert(mode)


def good_files() -> Iterator[tuple[str, bytes]]:
    """Yield names and files: all that Pillow can write, and others that we read."""
    for mode, kind in product((*MODES, *DEEP_MODES), FORMATS):
        try:
            yield f"{kind} {mode}", encoded(picture(mode, 7, 5), kind)
        except (OSError, KeyError, ValueError):
            continue  # Pillow cannot write this mode in this format
    for (width, height), kind in product([(1, 1), (1, 9), (9, 1), (3, 2), (17, 33)], FORMATS):
        yield f"{kind} {width}x{height}", encoded(picture("RGB", width, height), kind)
    yield from variants(picture("RGB", 40, 30), picture("P", 40, 30), picture("1", 40, 30))
    for orientation, kind in product(range(1, 9), ("PNG", "JPEG", "WEBP", "AVIF", "TIFF")):
        exif = {274: orientation} if kind == "TIFF" else exif_block(orientation)
        if kind == "TIFF":
            yield f"{kind} orientation {orientation}", encoded(picture("RGB", 7, 5), kind, tiffinfo=exif)
            continue
        yield f"{kind} orientation {orientation}", encoded(picture("RGB", 7, 5), kind, exif=exif)
    for (width, height), bits in product([(1, 1), (5, 3)], (1, 2, 4, 8, 16)):
        rows = [bytes(range(width * bits // 8 + 1))] * height
        yield (
            f"grey of {bits} bits {width}x{height}",
            png(rows_of(rows, width, bits), width=width, bits=bits, colour=0),
        )
    deep = np.arange(60, dtype=np.uint16).reshape(4, 5, 3) * 1000
    yield "16-bit TIFF", tiff_16(deep, photometric=2)
    row = deep[0].astype(">u2").tobytes()
    yield "16-bit PNG", png([row] * 3, width=5, bits=16, colour=PNG_RGB)
    yield "APNG", apng(3)
    frame = (np.ones((3, 4), np.uint8), (0, 0), 2, 1, 4)
    yield "animated GIF", gif([frame, frame, frame], size=(5, 5), palette=bytes(range(24)), loop=2)
    frames = [picture("RGBA", 6, 5), Image.new("RGBA", (6, 5), (9, 99, 200, 100))]
    yield "animated WebP", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    yield "animated AVIF", encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:])
    yield "pages", encoded(picture("L", 4, 3), "TIFF", save_all=True, append_images=[picture("RGB", 2, 6)])
    about = {"exif": exif_block(6), "icc_profile": icc_profile(b"RGB "), "xmp": xmp_packet(6)}
    for kind in ("JPEG", "WEBP", "AVIF"):
        yield f"{kind} with metadata", encoded(picture("RGB", 40, 30), kind, **about)
    yield "PNG with metadata", encoded(picture("RGB", 40, 30), "PNG", exif=exif_block(6))


def variants(colour: Image.Image, palette: Image.Image, bilevel: Image.Image) -> Iterator[tuple[str, bytes]]:
    """Yield codings and layouts of each format."""
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"):
        yield f"TIFF by {compression}", encoded(colour, "TIFF", compression=compression)
    for compression in ("group3", "group4", "packbits"):
        yield f"bilevel TIFF by {compression}", encoded(bilevel, "TIFF", compression=compression)
    yield "TIFF of strips", encoded(colour, "TIFF", strip_size=360)
    yield "BigTIFF", encoded(colour, "TIFF", big_tiff=True)
    yield "progressive JPEG", encoded(colour, "JPEG", progressive=True)
    yield "JPEG with restarts", encoded(colour, "JPEG", restart_marker_blocks=1, subsampling="4:4:4")
    yield "arithmetically small JPEG", encoded(colour, "JPEG", optimize=True, quality=5)
    yield "lossless WebP", encoded(colour, "WEBP", lossless=True)
    yield "WebP with alpha", encoded(colour.convert("RGBA"), "WEBP", exact=True)
    yield "AVIF 4:4:4", encoded(colour, "AVIF", subsampling="4:4:4")
    yield "interlaced GIF", encoded(palette, "GIF", interlace=1)
    yield "GIF with a key", encoded(palette, "GIF", transparency=0)
    yield "PNG of 4 bits", encoded(palette.quantize(16), "PNG", bits=4)
    yield "PNG with a key", encoded(palette, "PNG", transparency=bytes(range(200)))
    yield "PNG with a key colour", encoded(colour, "PNG", transparency=colour.getpixel((0, 0)))


def rows_of(rows: list[bytes], width: int, bits: int) -> list[bytes]:
    return [row[: (width * bits + 7) // 8] for row in rows]


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Change, overwrite, remove or repeat bytes at 1 to 5 places, in half of the files near the beginning."""
    changed = bytearray(content)
    end = len(changed) if random.random() < 0.5 else min(200, len(changed))
    for _ in range(random.integers(1, 6)):
        at = int(random.integers(end))
        match random.integers(5):
            case 0 | 1:
                changed[at : at + 1] = bytes([random.integers(256)])
            case 2:
                changed[at : at + 4] = random.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])
            case 3:
                changed[at:at] = changed[at : at + int(random.integers(1, 40))]
            case 4:
                del changed[at : at + int(random.integers(1, 40))]
    return bytes(changed)
