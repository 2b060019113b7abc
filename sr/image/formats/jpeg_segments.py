"""Segments of a JPEG that Pillow does not write. ISO 10918-1, annex B; Photoshop's image resources."""

from __future__ import annotations

import struct

LARGEST_SEGMENT = 65_533  # bytes
_APP13 = b"\xff\xed"
_PHOTOSHOP, _IPTC_RESOURCE = b"Photoshop 3.0\0", 0x0404


def iptc_segment(iptc: bytes) -> bytes:
    """Return a segment with IPTC data, as Photoshop writes it; empty if it is too large."""
    padded = iptc + b"\0" * (len(iptc) % 2)
    resource = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + padded
    data = _PHOTOSHOP + resource
    return b"" if len(data) > LARGEST_SEGMENT else _APP13 + struct.pack(">H", len(data) + 2) + data
