"""What the boxes of an AVIF file say of its pixels and Pillow does not.

Pillow gives 8-bit RGB whatever the depth, and all stored pixels where only a part is the picture. Boxes:
ISO 14496-12, sections 8.11 and 12.1.4; av1C: AV1 Codec ISO Media File Format Binding, section 2.3; nclx:
ITU-T H.273.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO, NamedTuple

from sr.errors import ImageError

_MOST_HEADER_BYTES = 1 << 20
_HIGH_BIT_DEPTH, _TWELVE_BIT = 0x40, 0x20  # flags of the third byte of av1C
_PQ, _HLG = 16, 18  # transfer characteristics
_SRGB_PRIMARIES = (1, 2)  # BT.709, and unspecified


class CleanAperture(NamedTuple):
    """The part of the stored pixels that is the picture."""

    top: int
    left: int
    height: int
    width: int


def avif_notes(file: BinaryIO, name: str) -> tuple[str, ...]:
    """Return notes about what is reduced.

    Raises:
        ImageError: it has a high dynamic range, which 8 bits cannot show.
    """
    header = _header(file).partition(b"mdat")[0]
    notes: list[str] = []
    bits = 8
    for box in header.split(b"av1C")[1:]:
        if len(box) > 2 and box[2] & _HIGH_BIT_DEPTH:
            bits = max(bits, 12 if box[2] & _TWELVE_BIT else 10)
    if bits > 8:
        notes.append(f"{bits} bits per channel, read as 8")
    at = header.find(b"colrnclx")
    if at >= 0 and len(header) >= at + 12:
        primaries, transfer = struct.unpack_from(">HH", header, at + 8)
        if transfer in (_PQ, _HLG):
            raise ImageError(f"{name}: an AVIF of high dynamic range, need sRGB; convert it first")
        if primaries not in _SRGB_PRIMARIES and b"colrprof" not in header and b"colrrICC" not in header:
            notes.append(f"colours with the primaries {primaries} of H.273, taken for sRGB")
    return tuple(notes)


def clean_aperture(file: BinaryIO, *, height: int, width: int) -> CleanAperture | None:
    """Return the part of the primary picture that is meant; None if it is the whole.

    Args:
        file: the content.
        height: rows as stored.
        width: columns as stored.

    Raises:
        ValueError: it is not within the stored pixels, or boxes are damaged.
    """
    meta = _meta(file)
    properties = dict(_boxes(meta.get(b"iprp", b"")))
    found = list(_boxes(properties.get(b"ipco", b"")))
    wanted = [
        found[index - 1][1]
        for index in _properties_of(meta.get(b"pitm", b""), properties.get(b"ipma", b""))
        if 1 <= index <= len(found) and found[index - 1][0] == b"clap"
    ]
    if not wanted:
        return None
    try:
        numbers = struct.unpack_from(">IIIIiIiI", wanted[0])
        part_width, part_height, across, down = (Fraction(*numbers[at : at + 2]) for at in (0, 2, 4, 6))
    except (struct.error, ZeroDivisionError) as error:
        raise ValueError("the clean aperture is damaged") from error
    left, top = across + (width - part_width) / 2, down + (height - part_height) / 2
    aperture = CleanAperture(round(top), round(left), round(part_height), round(part_width))
    if min(aperture) < 0 or not aperture.height or not aperture.width:
        raise ValueError("the clean aperture is empty, or begins outside the picture")
    if aperture.top + aperture.height > height or aperture.left + aperture.width > width:
        raise ValueError("the clean aperture ends outside the picture")
    return None if (aperture.height, aperture.width) == (height, width) else aperture


def primary_item(file: BinaryIO, most_bytes: int) -> bytes:
    """Return the beginning of the primary picture as it is coded; empty if it cannot be found."""
    meta = _meta(file)
    item = _primary(meta.get(b"pitm", b""))
    try:
        start, length = _extent(meta.get(b"iloc", b""), item)
    except (IndexError, ValueError):  # cut off, or of a kind that no still picture has
        return b""
    if start >= file.seek(0, io.SEEK_END):
        return b""
    file.seek(start)
    return file.read(min(length or most_bytes, most_bytes))


def _meta(file: BinaryIO) -> dict[bytes, bytes]:
    """Return the boxes that describe the items of a file."""
    boxes = {kind: data for kind, data in _boxes(_header(file)) if kind == b"meta"}
    return dict(_boxes(boxes.get(b"meta", b"")[4:]))


def _primary(box: bytes) -> int | None:
    return int.from_bytes(box[4 : 6 if box[0] == 0 else 8], "big") if len(box) >= 6 else None


def _extent(box: bytes, wanted: int | None) -> tuple[int, int]:
    """Return where the first part of an item begins in the file, and its bytes, 0 for all: section 8.11.3."""
    version, at = box[0], 6
    offset_bytes, length_bytes = box[4] >> 4, box[4] & 15
    base_bytes, index_bytes = box[5] >> 4, box[5] & 15 if version else 0

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > len(box):
            raise IndexError
        return int.from_bytes(box[at - size : at], "big")

    id_bytes = 4 if version == 2 else 2
    for _ in range(number(id_bytes)):
        item, method = number(id_bytes), number(2) & 15 if version else 0
        elsewhere, base, parts = number(2), number(base_bytes), number(2)
        if item == wanted:
            if method or elsewhere or not parts:
                raise ValueError
            number(index_bytes)
            return base + number(offset_bytes), number(length_bytes)
        at += parts * (index_bytes + offset_bytes + length_bytes)
    raise IndexError


def _header(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(_MOST_HEADER_BYTES)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of boxes, as far as they are whole."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8 or at + size > len(data):  # 64-bit sizes, and up to the end: only of pixels
            return
        yield kind, data[at + 8 : at + size]
        at += size


def _properties_of(primary: bytes, associations: bytes) -> list[int]:
    """Return the numbers of the properties of the primary item, counted from 1."""
    item = _primary(primary)
    if item is None or len(associations) < 8:
        return []
    id_bytes = 2 if associations[0] == 0 else 4
    index_bytes = 2 if associations[3] & 1 else 1
    at = 8
    for _ in range(int.from_bytes(associations[4:8], "big")):
        if at + id_bytes >= len(associations):
            break
        found = int.from_bytes(associations[at : at + id_bytes], "big")
        count, at = associations[at + id_bytes], at + id_bytes + 1
        rest, at = associations[at : at + count * index_bytes], at + count * index_bytes
        if found == item:
            mask = (1 << (8 * index_bytes - 1)) - 1  # the highest bit says how important it is
            return [
                int.from_bytes(rest[n : n + index_bytes], "big") & mask
                for n in range(0, len(rest), index_bytes)
            ]
    return []
