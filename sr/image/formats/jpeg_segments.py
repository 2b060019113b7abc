"""Segments of a JPEG that Pillow does not read or write.

ISO 10918-1, annex B; JFIF 1.02; Photoshop's image resources; XMP part 3, section 1.1.3; CIPA DC-007 (MPO).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from sr.image.directories import TiffReader
from sr.image.metadata import whole_ratio

_APP1, _APP2, _APP13, _START_OF_SCAN = 0xE1, 0xE2, 0xED, 0xDA
_PHOTOSHOP, _IPTC_RESOURCE = b"Photoshop 3.0\0", 0x0404
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_MPF, _NUMBER_OF_IMAGES = b"MPF\0", 0xB001
_JFIF_UNIT_AT = 13  # in a file that begins with the JFIF segment


def iptc_segment(iptc: bytes) -> bytes:
    """Return a segment with IPTC data, as Photoshop writes it."""
    padded = iptc + b"\0" * (len(iptc) % 2)
    resource = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + padded
    data = _PHOTOSHOP + resource
    return struct.pack(">BBH", 0xFF, _APP13, len(data) + 2) + data


def left_out(file: BinaryIO) -> tuple[str, ...]:
    """Say what a file holds beside its first picture and is not upscaled."""
    notes: dict[str, None] = {}
    for marker, data in segments(file):
        if marker == _APP1 and data.startswith(_EXTENDED_XMP):
            notes["extended XMP data are left out"] = None
        elif marker == _APP2 and data.startswith(_MPF) and (further := _pictures(data) - 1) > 0:
            notes[f"{further} further picture{'s' * (further > 1)} in the file (MPO) left out"] = None
    return tuple(notes)


def _pictures(data: bytes) -> int:
    """Return how many pictures the index of an MPO names."""
    try:
        reader = TiffReader(data[len(_MPF) :])
        return next(iter(reader.numbers(reader.tags(reader.first)[0].get(_NUMBER_OF_IMAGES))), 1)
    except ValueError:
        return 1


def segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of the segments before the pixels, as far as the file is whole."""
    file.seek(2)
    while len(head := file.read(4)) == 4 and head[0] == 0xFF and head[1] != _START_OF_SCAN:
        length = struct.unpack_from(">H", head, 2)[0]
        if length < 2:
            return
        yield head[1], file.read(length - 2)


def state_aspect(file: BinaryIO, aspect: tuple[float, float]) -> None:
    """State in the JFIF segment of a written file that pixels are not square."""
    file.seek(_JFIF_UNIT_AT)
    file.write(struct.pack(">BHH", 0, *whole_ratio(aspect, most=0xFFFF)))
