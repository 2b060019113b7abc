"""Samples of TIFF pages as they are stored, for layouts that neither Pillow nor libvips reads right.

Pillow only decompresses: strips or tiles are handed to it as those of a grey picture of 8 bits, one pixel
for each byte. What the bytes mean is worked out here: depths from 2 to 16 bits, separate planes,
differences. TIFF 6.0, sections 8, 14, 15 and 18.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from sr.image.directories import Entry, Tags, TiffReader, directory
from sr.image.formats.tiff_pages import TiffPage
from sr.image.picture import Pixels

_SHORT, _LONG = 3, 4
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1
_PREMULTIPLIED = 1  # of ExtraSamples
_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES = 273, 279, 324, 325
_FILL_ORDER, _ROWS_PER_STRIP, _PREDICTOR, _TILE_WIDTH, _TILE_LENGTH = 266, 278, 317, 322, 323
_OF_LAYOUT = frozenset(
    {_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES, _FILL_ORDER, _ROWS_PER_STRIP, _PREDICTOR}
    | {_TILE_WIDTH, _TILE_LENGTH}
)
_BAND_BITS = 1 << 24  # are unpacked at once


@dataclass(frozen=True)
class StoredParts:
    """The strips or tiles of a page, and how they lie."""

    parts: list[bytes]
    tiled: bool
    part_height: int
    part_width: int
    across: int  # parts in a row of them
    down: int  # rows of parts
    row_bytes: int  # of a row of a part
    compression: int
    fill_order: int
    differences: bool  # samples are differences to those on their left
    order: str  # "<" or ">"


def stored_parts(file: BinaryIO, page: TiffPage) -> StoredParts:
    """Read the strips or tiles of a page; not decompressed.

    Raises:
        ValueError: the file ends too early, or its directory contradicts itself.
    """
    reader = TiffReader(file)
    tags = reader.tags(page.offset, wanted=_OF_LAYOUT)[0]

    def numbers(*names: int) -> tuple[int, ...]:
        return next((found for name in names if (found := reader.numbers(tags.get(name)))), ())

    tiled = _TILE_WIDTH in tags
    rows = next(iter(numbers(_ROWS_PER_STRIP)), page.height)
    part_height = next(iter(numbers(_TILE_LENGTH)), 0) if tiled else max(1, min(rows, page.height))
    part_width = next(iter(numbers(_TILE_WIDTH)), 0) if tiled else page.width
    predictor = next(iter(numbers(_PREDICTOR)), 1)
    if not part_height or not part_width or predictor not in (1, 2):
        raise ValueError("a layout of strips or tiles that cannot be")
    if predictor == 2 and page.bits[0] not in (8, 16):
        raise ValueError("differences of odd bits are not supported")
    per_pixel = 1 if page.separate else len(page.bits)
    places = zip(numbers(_TILE_OFFSETS, _STRIP_OFFSETS), numbers(_TILE_BYTES, _STRIP_BYTES), strict=False)
    parts = []
    for offset, size in places:
        file.seek(offset)
        parts.append(file.read(size))
        if len(parts[-1]) != size:
            raise ValueError("the data ends too early")
    return StoredParts(
        parts,
        tiled,
        part_height,
        part_width,
        across=-(-page.width // part_width),
        down=-(-page.height // part_height),
        row_bytes=-(-part_width * per_pixel * page.bits[0] // 8),
        compression=page.compression,
        fill_order=next(iter(numbers(_FILL_ORDER)), 1),
        differences=predictor == 2,
        order=reader.order,
    )


def stored_planes(layout: StoredParts, page: TiffPage) -> list[NDArray[np.uint8]]:
    """Decompress a page.

    Returns:
        For each plane, or one for all channels, the bytes of strips or tiles below one another: uint8
        (rows, bytes of a row of a strip or tile).

    Raises:
        ValueError: the file ends too early.
        Exception: whatever Pillow raises on damaged data.
    """
    planes = len(page.bits) if page.separate else 1
    per_plane = layout.across * layout.down
    if len(layout.parts) < planes * per_plane:
        raise ValueError("the file ends too early")
    rows = layout.part_height * per_plane if layout.tiled else page.height
    return [
        _decompressed(layout, layout.parts[plane * per_plane : (plane + 1) * per_plane], rows)
        for plane in range(planes)
    ]


def _decompressed(layout: StoredParts, parts: list[bytes], rows: int) -> NDArray[np.uint8]:
    """Decompress strips or tiles of one height as those of a grey picture."""
    starts = np.cumsum([8, *map(len, parts)])

    def longs(*numbers: int) -> Entry:
        return Entry(_LONG, struct.pack(f"<{len(numbers)}I", *numbers))

    tags: Tags = {
        256: longs(layout.row_bytes),
        257: longs(rows),
        258: Entry(_SHORT, struct.pack("<H", 8)),
        259: longs(layout.compression),
        262: Entry(_SHORT, struct.pack("<H", _BLACK_IS_ZERO)),
        266: Entry(_SHORT, struct.pack("<H", layout.fill_order)),
        273: longs(*starts[:-1].tolist()),
        277: Entry(_SHORT, struct.pack("<H", 1)),
        278: longs(layout.part_height),
        279: longs(*map(len, parts)),
    }
    end = int(starts[-1])
    pad = end % 2
    content = b"II*\0" + struct.pack("<I", end + pad) + b"".join(parts) + bytes(pad)
    with TiffImageFile(BytesIO(content + directory(tags, order="<", offset=end + pad))) as image:
        image.load()
        return np.asarray(image)


def page_samples(
    planes: list[NDArray[np.uint8]], layout: StoredParts, page: TiffPage
) -> tuple[Pixels, Pixels | None]:
    """Put decompressed bytes together to pixels (H, W, 3) or (H, W), and alpha (H, W) or None.

    8 bits per channel or less become uint8, more become uint16, each over the whole range.
    """
    channels = np.concatenate([_plane(plane, layout, page) for plane in planes], axis=2)
    highest = (1 << page.bits[0]) - 1
    depth = np.uint8 if highest < 1 << 8 else np.uint16
    limit = int(np.iinfo(depth).max)
    if highest != limit:  # to the nearest
        channels = ((channels.astype(np.uint32) * limit + highest // 2) // highest).astype(depth)
    colours = 1 if page.photometric <= _BLACK_IS_ZERO else 3
    pixels = channels[..., :3] if colours == 3 else channels[..., 0]
    if page.photometric == _WHITE_IS_ZERO:
        pixels = limit - pixels
    alpha = np.ascontiguousarray(channels[..., colours]) if channels.shape[2] > colours else None
    if alpha is not None and page.extra[:1] == (_PREMULTIPLIED,):
        pixels = _divided(pixels, alpha)
    return np.ascontiguousarray(pixels), alpha


def _plane(stored: NDArray[np.uint8], layout: StoredParts, page: TiffPage) -> Pixels:
    """Return the samples of a plane, (H, W, channels in it)."""
    samples = _unpacked(stored, layout, page)  # (rows, part width, channels)
    if layout.differences:
        np.cumsum(samples, axis=1, dtype=samples.dtype, out=samples)
    if layout.tiled:
        size = layout.down, layout.across, layout.part_height, layout.part_width, samples.shape[2]
        samples = samples.reshape(size).swapaxes(1, 2)
        samples = samples.reshape(size[0] * size[2], size[1] * size[3], size[4])
    return samples[: page.height, : page.width]


def _unpacked(stored: NDArray[np.uint8], layout: StoredParts, page: TiffPage) -> Pixels:
    """Turn bytes into samples: uint8 up to 8 bits, else uint16; the first bits are the highest."""
    bits, per_pixel = page.bits[0], 1 if page.separate else len(page.bits)
    number = layout.part_width * per_pixel
    shape = (len(stored), layout.part_width, per_pixel)
    if bits == 8:
        return stored[:, :number].reshape(shape).copy()
    if bits == 16:
        return stored.view(f"{layout.order}u2")[:, :number].reshape(shape).astype(np.uint16)
    result = np.empty((len(stored), number), np.uint8 if bits < 8 else np.uint16)
    weights = (1 << np.arange(bits)[::-1]).astype(np.uint16)
    step = max(1, _BAND_BITS // (8 * stored.shape[1]))
    for top in range(0, len(stored), step):
        band = np.unpackbits(stored[top : top + step], axis=1)[:, : number * bits]
        result[top : top + step] = band.reshape(-1, number, bits) @ weights
    return result.reshape(shape)


def _divided(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Undo the multiplication of colours by alpha; under full transparency all is black."""
    limit = int(np.iinfo(alpha.dtype).max)
    opacity = (alpha if pixels.ndim == 2 else alpha[..., None]).astype(np.uint64)
    divided = (pixels.astype(np.uint64) * limit + opacity // 2) // np.maximum(opacity, 1)
    return np.where(opacity > 0, np.minimum(divided, limit), 0).astype(alpha.dtype)
