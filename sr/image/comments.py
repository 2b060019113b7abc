"""Text that a picture carries, in formats that have no place for text: the UserComment of EXIF data.

EXIF 2.32 (CIPA DC-008), section 4.6.5. Nothing in an existing block moves, because maker notes hold
absolute offsets: directories that get a record are written again behind the rest.
"""

from __future__ import annotations

import struct

from sr.image.directories import Entry, Tags, TiffReader, directory
from sr.image.metadata import EXIF_PREFIX

_EXIF_IFD, _VERSION, _USER_COMMENT = 0x8769, 0x9000, 0x9286
_LONG, _UNDEFINED = 4, 7
_CODE_BYTES = 8  # of the name of the character set before a comment


def with_user_comment(exif: bytes | None, text: str) -> bytes | None:
    """Put a comment into an EXIF block, or into a new one; None if the block has a comment or is damaged."""
    if exif is None:
        tags: Tags = {
            _EXIF_IFD: {
                _VERSION: Entry(_UNDEFINED, b"0232"),
                _USER_COMMENT: Entry(_UNDEFINED, _encoded(text)),
            }
        }
        return EXIF_PREFIX + b"II*\0" + struct.pack("<I", 8) + directory(tags, order="<", offset=8)
    body = bytearray(exif.removeprefix(EXIF_PREFIX))
    try:
        reader = TiffReader(body)
        photo = reader.tags(reader.first)[0].get(_EXIF_IFD)
        if isinstance(photo, dict):
            old = photo.get(_USER_COMMENT)
            if old is not None:
                return None if _has_text(old) else exif  # an empty one has no room
    except ValueError:
        return None
    comment = _encoded(text)
    place = _append(body, comment)
    record = struct.pack(f"{reader.order}HHII", _USER_COMMENT, _UNDEFINED, len(comment), place)
    at = _record_of(body, reader, reader.first, _EXIF_IFD)
    if at is None:
        photo_at = _append(body, struct.pack(f"{reader.order}H", 1) + record + bytes(4))
        pointer = struct.pack(f"{reader.order}HHII", _EXIF_IFD, _LONG, 1, photo_at)
        first = _append(body, _with_record(body, reader, reader.first, pointer))
        struct.pack_into(f"{reader.order}I", body, 4, first)
    else:
        (photo_at,) = struct.unpack_from(f"{reader.order}I", body, at + 8)
        struct.pack_into(
            f"{reader.order}I", body, at + 8, _append(body, _with_record(body, reader, photo_at, record))
        )
    return EXIF_PREFIX + bytes(body)


def _has_text(entry: Entry | Tags) -> bool:
    return not isinstance(entry, Entry) or bool(entry.data[_CODE_BYTES:].strip(b"\0 "))


def _encoded(text: str) -> bytes:
    if text.isascii():
        return b"ASCII\0\0\0" + text.encode()
    # The byte order of the block would go wrong when a block is put into a TIFF of the other order; what
    # programs that generate pictures write, and read, is this one.
    return b"UNICODE\0" + text.encode("utf-16-be", "replace")


def _append(body: bytearray, data: bytes) -> int:
    """Put data behind all else, at an even position; return that."""
    body += bytes(len(body) % 2)
    place = len(body)
    body += data
    return place


def _record_of(body: bytearray, reader: TiffReader, offset: int, tag: int) -> int | None:
    """Return where the record of a tag is in the directory at `offset`."""
    (count,) = struct.unpack_from(f"{reader.order}H", body, offset)
    for at in range(offset + 2, min(offset + 2 + 12 * count, len(body) - 11), 12):
        if struct.unpack_from(f"{reader.order}H", body, at)[0] == tag:
            return at
    return None


def _with_record(body: bytearray, reader: TiffReader, offset: int, record: bytes) -> bytes:
    """Return the directory at `offset` with one more record, in the order of tags."""
    (count,) = struct.unpack_from(f"{reader.order}H", body, offset)
    end = offset + 2 + 12 * count
    records = [bytes(body[at : at + 12]) for at in range(offset + 2, end, 12)] + [record]
    records.sort(key=lambda each: struct.unpack_from(f"{reader.order}H", each)[0])
    return struct.pack(f"{reader.order}H", count + 1) + b"".join(records) + bytes(body[end : end + 4])
