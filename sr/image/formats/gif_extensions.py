"""Comments and XMP data in a GIF. GIF89a, section 24; XMP part 3, section 1.1.2."""

from __future__ import annotations

from sr.image.metadata import Metadata

_COMMENT = b"!\xfe"
XMP_APPLICATION = b"XMP DataXMP"
# Read as the sizes of blocks, the bytes of the packet lead somewhere into this, which leads to the end.
_XMP_TRAILER = b"\1" + bytes(range(255, -1, -1)) + b"\0"
_LONGEST_BLOCK = 255


def extensions(metadata: Metadata) -> bytes:
    """Return the extensions that hold comments and XMP data."""
    result = b""
    for _, text in metadata.text:
        data = text.encode("utf-8", "replace")
        blocks = (data[at : at + _LONGEST_BLOCK] for at in range(0, len(data), _LONGEST_BLOCK))
        result += _COMMENT + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    if metadata.xmp:
        result += b"!\xff" + bytes([len(XMP_APPLICATION)]) + XMP_APPLICATION + metadata.xmp + _XMP_TRAILER
    return result


def with_extensions(gif: bytes, metadata: Metadata) -> bytes:
    """Put extensions into a GIF file, behind its header and palette."""
    flags = gif[10]
    at = 13 + (3 * (2 << (flags & 7)) if flags & 0x80 else 0)
    return b"GIF89a" + gif[6:at] + extensions(metadata) + gif[at:]


def joined_xmp(blocks: list[bytes]) -> bytes | None:
    """Return the XMP packet from the sub-blocks of its extension as a parser of blocks finds them."""
    data = b"".join(bytes([len(block)]) + block for block in blocks)
    end = data.rfind(_XMP_TRAILER[:8])
    return data[:end] if end > 0 else None
