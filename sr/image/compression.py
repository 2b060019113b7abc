"""How strongly a picture was compressed, or is noisy, as far as its file or its pixels say.

A JPEG holds its quantisation tables, a lossy WebP and an AVIF their quantiser. All are read from the first
bytes, and nothing here raises on damaged files: what cannot be read is unknown.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from sr.image.block_edges import block_edges
from sr.image.dct_steps import stepped_quality
from sr.image.formats.avif_boxes import primary_item
from sr.image.formats.avif_quantiser import avif_quantiser
from sr.image.formats.jpeg_segments import segments
from sr.image.jpeg_tables import libjpeg_quality
from sr.image.noise import colour_noise

Kind = Literal["lossless", "jpeg", "webp", "avif", "blocks", "noise"]

_QUANTISATION, _FRAMES = 0xDB, (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # DQT; SOF of sequential and progressive DCT
_SUBSAMPLINGS = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}

# Positions in the order in which files hold a table: along the diagonals, to and fro (figure 5).
_ZIGZAG = [8 * y + x for y, x in sorted(np.ndindex(8, 8), key=lambda at: (sum(at), at[sum(at) % 2 ^ 1]))]


@dataclass(frozen=True)
class Compression:
    """What a file says of its compression.

    Attributes:
        kind: what compressed it; "blocks" is a lossless file whose pixels come from a JPEG, "noise" one whose
            pixels are noisy.
        quality: of a JPEG as libjpeg counts it, 1 to 100, for "blocks" about that; of a WebP its quantiser,
            0 (fine) to 127; of an AVIF its own, 0 (fine) to 255; of noise its deviation in levels of 255;
            None if unknown.
        detail: in words, e.g. the chroma subsampling.
    """

    kind: Kind = "lossless"
    quality: float | None = None
    detail: str = ""

    def __str__(self) -> str:
        if self.kind == "lossless":
            return ", ".join(filter(None, ("lossless", self.detail)))
        if self.kind == "blocks":
            about = "" if self.quality is None else f" of about quality {self.quality:.0f}"
            return f"lossless, made from a JPEG{about}"
        if self.kind == "noise":
            return f"lossless, with noise of about {self.quality:.0f} levels"
        name = {"jpeg": "JPEG", "webp": "WebP", "avif": "AVIF"}[self.kind]
        unit = "quality" if self.kind == "jpeg" else "quantiser"
        said = "unknown quality" if self.quality is None else f"{unit} {self.quality:.0f}"
        return ", ".join(filter(None, (f"{name} {said}", self.detail)))


LOSSLESS = Compression()

# Levels of 255. Of 621 clean photographs and parts of them none has more than 0.7, of 150 drawings one has.
_LEAST_NOISE = 2.5

_LARGEST_SIDE = 1024  # px of a lossless picture whose pixels are looked at, from the middle

_AVIF_HEADER_BYTES = 4096  # of the coded picture; its headers take some tens, metadata before them more


def compression_of(file: BinaryIO, format_name: str) -> Compression:
    """Return what a file says of its compression; its position is left anywhere.

    Args:
        file: seekable.
        format_name: the name of its `FormatSpec`.
    """
    match format_name:
        case "JPEG":
            return _of_jpeg(file)
        case "WebP":
            return _of_webp(file)
        case "AVIF":
            return Compression("avif", avif_quantiser(primary_item(file, _AVIF_HEADER_BYTES)))
        case _:
            return LOSSLESS


def traces_in(pixels: NDArray) -> Compression:
    """Return what the pixels of a lossless file tell: an earlier JPEG, else noise, else nothing.

    The steps of their DCT coefficients tell the quality of a JPEG. After small changes, e.g. of brightness,
    the edges of its blocks are left.

    Args:
        pixels: uint8 or uint16, (H, W) or (H, W, 3).
    """
    top, left = (max(0, side - _LARGEST_SIDE) // 16 * 8 for side in pixels.shape[:2])  # whole blocks
    part = pixels[top : top + _LARGEST_SIDE, left : left + _LARGEST_SIDE]
    edges = block_edges(part)
    quality = stepped_quality(part, [(0, 0), edges.corner]) or edges.quality
    if quality is not None:
        return Compression("blocks", quality)
    noise = colour_noise(part)
    return Compression("noise", noise) if noise > _LEAST_NOISE else LOSSLESS


# --- JPEG ---------------------------------------------------------------------------------------


def _of_jpeg(file: BinaryIO) -> Compression:
    tables: dict[int, NDArray[np.int64]] = {}
    luma, detail = 0, ""
    for marker, data in segments(file):
        if marker == _QUANTISATION:
            tables |= dict(_tables(data))
        elif marker in _FRAMES and len(data) >= 9:
            factors = [(data[at] >> 4, data[at] & 15) for at in range(7, len(data), 3)]
            luma = data[8]
            if len(factors) > 1:  # the first component has the finest samples
                detail = _SUBSAMPLINGS.get(factors[0], "")
    if luma not in tables:
        return Compression("jpeg", None, detail)
    quality, fits = libjpeg_quality(tables[luma])
    own = "" if fits else "taken from tables that are not libjpeg's"
    return Compression("jpeg", quality, ", ".join(filter(None, (detail, own))))


def _tables(data: bytes) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield number and values, in rows, of the tables in a segment, as far as they are whole."""
    at = 0
    while at < len(data):
        size, number = 1 + (data[at] >> 4 > 0), data[at] & 15
        stored = data[at + 1 : at + 1 + 64 * size]
        if len(stored) < 64 * size:
            return
        table = np.empty(64, np.int64)
        table[_ZIGZAG] = np.frombuffer(stored, ">u1" if size == 1 else ">u2")
        yield number, table
        at += 1 + 64 * size


# --- WebP ---------------------------------------------------------------------------------------


def _of_webp(file: BinaryIO) -> Compression:
    file.seek(12)
    while len(head := file.read(8)) == 8:
        name, length = head[:4], struct.unpack_from("<I", head, 4)[0]
        if name == b"VP8L":
            return LOSSLESS
        if name == b"VP8 ":
            return Compression("webp", _quantiser(file.read(min(length, _VP8_HEADER_BYTES))))
        if name == b"ANMF":
            file.seek(_FRAME_HEADER_BYTES, 1)  # the frame's own chunks follow
        else:
            file.seek(length + length % 2, 1)
    return Compression("webp")


_VP8_HEADER_BYTES = 128  # more than what stands before the quantiser
_FRAME_HEADER_BYTES = 16  # RFC 9649, section 2.7.1.1


class _Bits:
    """Bits of even probability from VP8's boolean coder, RFC 6386, section 7."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 2
        self._value = int.from_bytes(data[:2], "big")
        self._range, self._shifts = 255, 0

    def number(self, bits: int) -> int:
        """Return a number of so many bits, the highest first."""
        value = 0
        for _ in range(bits):
            value = 2 * value + self._bit()
        return value

    def signed(self, bits: int) -> int:
        """Return a number with its sign behind it, 0 if a flag before it says that there is none."""
        if not self._bit():
            return 0
        value = self.number(bits)
        return -value if self._bit() else value

    def _bit(self) -> int:
        split = 1 + ((self._range - 1) >> 1)
        bit = int(self._value >= split << 8)
        if bit:
            self._value -= split << 8
            self._range -= split
        else:
            self._range = split
        while self._range < 128:
            self._value, self._range = self._value << 1, self._range << 1
            self._shifts += 1
            if self._shifts == 8:
                self._shifts = 0
                self._value |= self._data[self._at]  # IndexError: the header is cut off
                self._at += 1
        return bit


def _quantiser(data: bytes) -> float | None:
    """Return the quantiser of a VP8 key frame, the mean over its segments; None if that cannot be read."""
    if len(data) < 12 or data[0] & 1 or data[3:6] != b"\x9d\x01\x2a":
        return None
    try:
        return _quantiser_in(_Bits(data[10:]))
    except IndexError:
        return None


def _quantiser_in(bits: _Bits) -> float:
    """Read a frame header up to its quantisers, RFC 6386, sections 9.3, 9.6 and 19.2."""
    bits.number(2)  # colour space, clamping
    absolute, steps = False, [0]
    if bits.number(1):
        new_map, new_data = bits.number(1), bits.number(1)
        if new_data:
            absolute = bool(bits.number(1))
            steps = [bits.signed(7) for _ in range(4)]
            for _ in range(4):
                bits.signed(6)
        for _ in range(3 * new_map):
            if bits.number(1):
                bits.number(8)
    bits.number(10)  # kind, level and sharpness of the loop filter
    if bits.number(1) and bits.number(1):
        for _ in range(8):
            bits.signed(6)
    bits.number(2)  # partitions
    base = bits.number(7)
    return float(np.mean([min(127, max(0, step if absolute else base + step)) for step in steps]))
