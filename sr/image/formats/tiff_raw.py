"""Samples of TIFF pages as they are stored, for layouts that neither Pillow nor libvips reads right.

Pillow only decompresses: strips or tiles are handed to it as those of a grey picture of 8 bits, one pixel
for each byte. What the bytes mean is worked out here: depths from 2 to 16 bits, separate planes,
differences. TIFF 6.0, sections 8, 14, 15 and 18.
"""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from sr.image.formats.tiff_pages import StoredParts, TiffPage
from sr.image.metadata import Entry, Tags, directory
from sr.image.picture import Pixels

_SHORT, _LONG = 3, 4
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1
_PREMULTIPLIED = 1  # of ExtraSamples
_BAND_BITS = 1 << 24  # are unpacked at once


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
