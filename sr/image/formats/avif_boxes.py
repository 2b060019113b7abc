"""What an AVIF file says of its samples, which Pillow reads as 8-bit RGB whatever they are.

Boxes: ISO 14496-12; av1C: AV1 Codec ISO Media File Format Binding, section 2.3; nclx: ITU-T H.273.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from sr.errors import ImageError

_MOST_HEADER_BYTES = 1 << 20
_HIGH_BIT_DEPTH, _TWELVE_BIT = 0x40, 0x20  # flags of the third byte of av1C
_PQ, _HLG = 16, 18  # transfer characteristics
_SRGB_PRIMARIES = (1, 2)  # BT.709, and unspecified


def avif_notes(file: BinaryIO, name: str) -> tuple[str, ...]:
    """Say what of a file is reduced.

    Raises:
        ImageError: it has a high dynamic range, of which 8 bits show nothing sensible.
    """
    file.seek(0)
    header = file.read(_MOST_HEADER_BYTES).partition(b"mdat")[0]
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
