"""PNG chunks: those that Pillow does not carry over, and those round the pixels that it did not encode.

Owns the layout of PNG and of its animations. PNG specification, third edition (W3C, 2025).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from typing import BinaryIO, cast

import numpy as np
from PIL import Image

from sr.image.deflate import compressed_pixels
from sr.image.formats.png_text import (
    MOST_TEXT_BYTES,
    decoded_text,
    iptc_chunk,
    joined_texts,
    raw_profile,
    readable_chunk,
    text_chunk,
)
from sr.image.metadata import EXIF_PREFIX, Metadata, resized_exif, whole_ratio
from sr.image.picture import Frame, Pixels, to_8_bits
from sr.image.refusals import encoding

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_BYTES = 33  # the signature and IHDR
_HEADER_TYPE, _END_TYPE = b"IHDR", b"IEND"
_COLOUR_TYPES = (b"cHRM", b"cICP", b"gAMA", b"sRGB")
_TEXT_TYPES = (b"tEXt", b"zTXt", b"iTXt")
_XMP_KEYWORD = b"XML:com.adobe.xmp\0"
_COLOUR_TYPES_OF_CHANNELS = {1: 0, 2: 4, 3: 2, 4: 6}
FAST_LEVEL = 1  # of 0 to 9: no search but the shortest
_METRES_PER_INCH = 0.0254
_MOST_UNITS = (1 << 31) - 1  # of a number, section 7.1


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@dataclass(frozen=True)
class PngChunks:
    """What stands beside the pixels of a PNG, before or behind them, as far as the file is whole."""

    kept: tuple[tuple[bytes, bytes], ...]  # of colour description and text, to be written again
    profiles: dict[str, bytes]  # "exif", "iptc", "xmp", "icc", from chunks or hidden in text
    lost_text: bool  # whether some was too long

    @property
    def text(self) -> tuple[tuple[str, str], ...]:
        """Keywords and texts."""
        return joined_texts(chunk for chunk in self.kept if chunk[0] in _TEXT_TYPES)


def read_chunks(file: BinaryIO) -> PngChunks:
    """Read the chunks of colour description, text, EXIF and XMP data, wherever they stand."""
    kept: list[tuple[bytes, bytes]] = []
    hidden: dict[str, bytes] = {}
    profiles: dict[str, bytes] = {}
    room, lost = MOST_TEXT_BYTES, False
    for kind, data in _wanted_chunks(file):
        if kind == b"eXIf":
            profiles.setdefault("exif", data)
            continue
        if kind in _COLOUR_TYPES:
            kept.append((kind, data))
            continue
        decoded = None if len(data) > room else decoded_text(kind, data)
        if decoded is None or len(decoded[1]) > room:
            lost = True
        elif data.startswith(_XMP_KEYWORD):
            profiles.setdefault("xmp", decoded[1].encode("utf-8"))
        elif profile := raw_profile(*decoded):
            if profile[1]:
                hidden.setdefault(*profile)
            else:
                lost = True
        else:
            kept.append(readable_chunk(kind, data, decoded[1]))
            room -= len(decoded[1])
    return PngChunks(tuple(kept), hidden | profiles, lost)


def _wanted_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield chunks, not those longer than all that is read of text together."""
    file.seek(len(SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == _END_TYPE:
            break
        wanted = kind in (*_COLOUR_TYPES, *_TEXT_TYPES, b"eXIf")
        if wanted and length <= MOST_TEXT_BYTES:
            yield kind, file.read(length)
            file.seek(4, 1)
        else:
            if kind in _TEXT_TYPES:
                yield kind, bytes(MOST_TEXT_BYTES + 1)  # too long, whatever it says
            file.seek(length + 4, 1)


def metadata_chunks(metadata: Metadata, *, height: int, width: int) -> bytes:
    """Return the chunks that stand between IHDR and the pixels of a picture of this size."""
    result = b""
    if metadata.icc_profile is not None:
        result += chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc_profile))
    for kind, data in metadata.png_chunks:
        if kind != b"sRGB" or metadata.icc_profile is None:  # section 11.3.2.3: never both
            result += chunk(kind, data)
    if not any(kind in _TEXT_TYPES for kind, _ in metadata.png_chunks):  # from another format
        result += b"".join(chunk(*text_chunk(*text)) for text in metadata.text)
    if metadata.iptc:
        result += chunk(*iptc_chunk(metadata.iptc))
    if metadata.aspect is not None and metadata.dpi is None:
        result += chunk(b"pHYs", struct.pack(">IIB", *whole_ratio(metadata.aspect, most=_MOST_UNITS), 0))
    if metadata.dpi is not None:
        x, y = (round(value / _METRES_PER_INCH) for value in metadata.dpi)
        result += chunk(b"pHYs", struct.pack(">IIB", x, y, 1))
    if metadata.exif:
        exif = resized_exif(metadata.exif, height=height, width=width)
        result += chunk(b"eXIf", exif.removeprefix(EXIF_PREFIX))
    if metadata.xmp:
        result += chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp)
    return result


def write_png(file: BinaryIO, pixels: Pixels, chunks: bytes, *, compress_level: int) -> None:
    """Write a PNG.

    Args:
        file: where to.
        pixels: uint8 (H, W), or (H, W, C): grey and alpha, RGB, RGBA.
        chunks: what stands between IHDR and the pixels.
        compress_level: 0 to 9; `FAST_LEVEL` is done here, the others by Pillow.
    """
    if compress_level != FAST_LEVEL:
        splicer = cast(BinaryIO, ChunkSplicer(file.write, chunks))
        with encoding("PNG"):
            Image.fromarray(pixels).save(splicer, "PNG", compress_level=compress_level)
        return
    file.write(SIGNATURE + _header(pixels) + chunks)
    for data in compressed_pixels(pixels):
        file.write(chunk(b"IDAT", data))
    file.write(chunk(_END_TYPE, b""))


def _header(pixels: Pixels) -> bytes:
    height, width = pixels.shape[:2]
    colour_type = _COLOUR_TYPES_OF_CHANNELS[1 if pixels.ndim == 2 else pixels.shape[2]]
    return chunk(_HEADER_TYPE, struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0))


class ChunkSplicer:
    """Passes a PNG on to `write` with its own metadata replaced by `chunks`."""

    def __init__(self, write: Callable[[bytes], object], chunks: bytes) -> None:
        self._write, self._chunks = write, chunks
        self._head: bytearray | None = bytearray()

    def write(self, data: bytes) -> None:
        """Take the next bytes of the PNG."""
        if self._head is None:
            self._write(data)
            return
        self._head += data
        pixels = self._head.find(b"IDAT", HEADER_BYTES)
        if pixels >= 0:
            self._write(bytes(self._head[:HEADER_BYTES]) + self._chunks)
            self._write(bytes(self._head[pixels - 4 :]))
            self._head = None


def write_apng(
    file: BinaryIO, frames: Iterable[Frame], *, count: int, plays: int, compress_level: int
) -> None:
    """Write an animation frame by frame, each as the rectangle in which it differs from the last one.

    Args:
        file: where to.
        frames: all of one size; metadata are those of the first.
        count: of the frames.
        plays: how often it is shown, 0 means without end.
        compress_level: 0 to 9.

    Raises:
        ValueError: there are not `count` frames.
    """
    number, done = 0, 0  # of the next fcTL or fdAT chunk; frames written
    for frame, (left, top, right, bottom), pixels in changes(frames):
        height, width = pixels.shape[:2]
        if done == 0:
            control = chunk(b"acTL", struct.pack(">II", count, plays))
            about = metadata_chunks(frame.picture.metadata, height=height, width=width)
            file.write(SIGNATURE + _header(pixels) + about + control)
        place = right - left, bottom - top, left, top
        delay = _delay(frame.duration_ms)
        file.write(chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, *place, *delay, 0, 0)))
        number += 1
        for data in _compressed(pixels[top:bottom, left:right], compress_level):
            if done == 0:
                file.write(chunk(b"IDAT", data))
            else:
                file.write(chunk(b"fdAT", struct.pack(">I", number) + data))
                number += 1
        done += 1
    if done != count:
        raise ValueError(f"{done} frames in place of {count}")
    file.write(chunk(_END_TYPE, b""))


def changes(frames: Iterable[Frame]) -> Iterator[tuple[Frame, tuple[int, int, int, int], Pixels]]:
    """Yield each frame with where it differs from the last one (left, top, right, bottom), and as RGBA."""
    previous: Pixels | None = None
    for frame in frames:
        pixels = rgba(frame)
        box = (0, 0, pixels.shape[1], pixels.shape[0])
        if previous is not None:
            different = (pixels != previous).any(axis=2)
            rows, columns = different.any(axis=1).nonzero()[0], different.any(axis=0).nonzero()[0]
            box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else (0, 0, 1, 1)
        yield frame, (int(box[0]), int(box[1]), int(box[2]), int(box[3])), pixels
        previous = pixels


def rgba(frame: Frame) -> Pixels:
    """Return a frame as uint8 RGBA (H, W, 4)."""
    picture = frame.picture
    pixels = to_8_bits(picture.pixels)
    if pixels.ndim == 2:
        pixels = np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
    alpha = np.full(pixels.shape[:2], 255, np.uint8) if picture.alpha is None else to_8_bits(picture.alpha)
    result = np.dstack((pixels, alpha))
    result[alpha == 0] = 0  # what nobody sees costs bytes
    return result


def _delay(duration_ms: float) -> tuple[int, int]:
    """Return a duration in seconds as the nearest fraction of two 16-bit numbers."""
    seconds = Fraction(duration_ms / 1000).limit_denominator(1000)
    if seconds.numerator > 0xFFFF:
        seconds = Fraction(min(round(seconds), 0xFFFF))
    return seconds.numerator, seconds.denominator


def _compressed(pixels: Pixels, compress_level: int) -> Iterable[bytes]:
    """Return the contents of the IDAT chunks of RGBA pixels; see `write_png`."""
    if compress_level == FAST_LEVEL:
        return compressed_pixels(pixels)
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=compress_level)
    data, at, parts = buffer.getbuffer(), len(SIGNATURE), []
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            parts.append(bytes(data[at + 8 : at + 8 + length]))
        at += length + 12
    return parts
