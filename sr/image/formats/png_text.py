"""Text chunks of a PNG: keywords and texts, and the profiles that programs hide in them.

PNG specification, third edition (W3C, 2025), section 11.3.3; ImageMagick's "Raw profile type".
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable

MOST_TEXT_BYTES = 16 << 20  # of all texts of a file; the largest known, of workflows, are a few MiB
# Pillow, and programs built on it, open no PNG with a compressed text that is longer.
_MOST_COMPRESSED = 1 << 20
_RAW_PROFILE = "Raw profile type "
_IPTC_RESOURCE = 0x0404


def decoded_text(kind: bytes, data: bytes) -> tuple[str, str] | None:
    """Return the keyword and the text of a tEXt, zTXt or iTXt chunk; None if it is damaged or too long."""
    keyword, _, rest = data.partition(b"\0")
    try:
        if kind == b"tEXt":
            text = rest.decode("latin-1")
        elif kind == b"zTXt":
            text = _inflated(rest[1:]).decode("latin-1")
        else:
            compressed = rest[:1] == b"\1"
            body = rest[2:].split(b"\0", 2)[2]
            text = (_inflated(body) if compressed else body).decode("utf-8")
        return keyword.decode("latin-1"), text
    except (ValueError, IndexError, zlib.error):
        return None


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    result = inflater.decompress(data, MOST_TEXT_BYTES)
    if inflater.unconsumed_tail:
        raise ValueError("too long")
    return result


def readable_chunk(kind: bytes, data: bytes, text: str) -> tuple[bytes, bytes]:
    """Return a text chunk as it is, or not compressed if programs would refuse it."""
    if kind == b"tEXt" or len(text) <= _MOST_COMPRESSED:
        return kind, data
    keyword, _, rest = data.partition(b"\0")
    if kind == b"zTXt":
        return b"tEXt", keyword + b"\0" + text.encode("latin-1")
    language, translated, _ = rest[2:].split(b"\0", 2)
    return b"iTXt", b"\0".join((keyword, b"\0\0" + language, translated, text.encode("utf-8")))


def text_chunk(keyword: str, text: str) -> tuple[bytes, bytes]:
    """Return a chunk that holds a text."""
    name = keyword.encode("latin-1", "replace")[:79] or b"Comment"
    try:
        return b"tEXt", name + b"\0" + text.replace("\0", " ").encode("latin-1")
    except UnicodeEncodeError:
        return b"iTXt", name + b"\0\0\0\0\0" + text.replace("\0", " ").encode("utf-8", "replace")


def raw_profile(keyword: str, text: str) -> tuple[str, bytes] | None:
    """Return the kind ("exif", "iptc", "xmp", "icc") and content of a profile hidden in text.

    The content is empty if it is damaged. None if the text is no such profile.
    """
    kind = keyword.removeprefix(_RAW_PROFILE).lower()
    if kind == keyword.lower() or kind not in ("app1", "iptc", "8bim", "exif", "xmp", "icc", "icm"):
        return None
    try:
        data = bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        data = b""
    if kind == "app1":
        kind = "exif" if data.startswith(b"Exif\0") else "xmp"
        data = data.partition(b"http://ns.adobe.com/xap/1.0/\0")[2] or data if kind == "xmp" else data
    if kind in ("iptc", "8bim"):
        return "iptc", iptc_in_resources(data) or b""
    return {"icm": "icc"}.get(kind, kind), data


def iptc_chunk(iptc: bytes) -> tuple[bytes, bytes]:
    """Return a chunk with IPTC data as ImageMagick writes them, which exiftool reads too."""
    resource = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    lines = re.findall(".{1,72}", resource.hex())
    text = "\n".join(("", "iptc", f"{len(resource):8}", *lines, ""))
    data = text.encode()
    if len(data) > _MOST_COMPRESSED:
        return b"tEXt", b"Raw profile type iptc\0" + data
    return b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(data)


def iptc_in_resources(data: bytes) -> bytes | None:
    """Return the IPTC data among Photoshop's image resources, or data that are IPTC as they stand."""
    if data.startswith(b"\x1c"):
        return data
    at = data.find(b"8BIM")
    while 0 <= at <= len(data) - 12:
        (number,) = struct.unpack_from(">H", data, at + 4)
        name = data[at + 6] + 1
        start = at + 6 + name + name % 2
        if start + 4 > len(data):
            break
        (size,) = struct.unpack_from(">I", data, start)
        if number == _IPTC_RESOURCE:
            return data[start + 4 : start + 4 + size] or None
        at = data.find(b"8BIM", start + 4 + size)
    return None


def joined_texts(chunks: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """Return keywords and texts of text chunks, in order."""
    found = (decoded_text(kind, data) for kind, data in chunks)
    return tuple(text for text in found if text is not None)
