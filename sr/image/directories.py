"""Directories of a TIFF file, and of an EXIF block, which is built like one. TIFF 6.0, section 2."""

from __future__ import annotations

import struct
from collections.abc import Container
from typing import BinaryIO, NamedTuple, Union

import numpy as np

_EXIF_IFD, _GPS_IFD, _INTEROP_IFD = 0x8769, 0x8825, 0xA005
_CHILDREN = {0: (_EXIF_IFD, _GPS_IFD), _EXIF_IFD: (_INTEROP_IFD,)}
# Field type -> bytes of one value, and of the numbers that it consists of (a rational is two).
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_NUMBER_BYTES = _TYPE_BYTES | {5: 4, 10: 4}
_LONG, _LONG8 = 4, 16
# EXIF in a JPEG is at most 64 KiB; what exceeds this in one directory is no EXIF, damaged or hostile.
_MOST_TAG_BYTES = 1 << 24
# In all directories of a chain together: 10,000 pages have some 200,000.
_MOST_RECORDS = 1 << 20


class Entry(NamedTuple):
    """One value of a directory."""

    kind: int  # field type
    data: bytes  # in the byte order of the file
    record: int = 0  # position of its 12-byte record


Tags = dict[int, Union[Entry, "Tags"]]  # a nested dictionary is a directory that the tag points to


class TiffReader:
    """Directories of a TIFF file or of an EXIF block, which is built like one.

    Raises ValueError where the data ends too early; single values that lie outside are skipped.
    """

    def __init__(self, source: bytes | bytearray | BinaryIO) -> None:
        self._source = source
        order = {b"II": "<", b"MM": ">"}.get(self._read(0, 2))
        if order is None:
            raise ValueError("neither II nor MM")
        self.order = order
        self.big = self._number("H", 2) == 43  # BigTIFF
        self.first = self._number("Q", 8) if self.big else self._number("I", 4)
        if self.first < 8:
            raise ValueError("the first directory is within the header")
        self.end = 8  # behind the last byte that a directory seen so far refers to

    def _read(self, offset: int, size: int) -> bytes:
        if isinstance(self._source, bytes | bytearray):
            data = bytes(self._source[offset : offset + size])
        else:
            try:
                self._source.seek(offset)
            except (OSError, OverflowError) as error:  # more than a position in a file can be
                raise ValueError("the data ends too early") from error
            data = self._source.read(size)
        if len(data) != size:
            raise ValueError("the data ends too early")
        return data

    def _number(self, code: str, offset: int) -> int:
        value: int = struct.unpack(self.order + code, self._read(offset, struct.calcsize(code)))[0]
        return value

    def directories(self) -> list[int]:
        """Return where the directories of a chain lie, as far as it is whole and of sane size."""
        count_code, record, link_code = ("Q", 20, "Q") if self.big else ("H", 12, "I")
        found: list[int] = []
        seen: set[int] = set()
        offset, records = self.first, 0
        while offset >= 8 and offset not in seen and records < _MOST_RECORDS:
            found.append(offset)
            seen.add(offset)
            try:
                count = self._number(count_code, offset)
                link = offset + struct.calcsize(count_code) + record * count
                offset = self._number(link_code, link)
            except ValueError:
                break
            records += count + 1
        return found

    def numbers(self, entry: Entry | Tags | None) -> tuple[int, ...]:
        """Return the values of an entry of unsigned numbers; of rationals numerator and denominator."""
        if not isinstance(entry, Entry):
            return ()
        unit = _NUMBER_BYTES[entry.kind]
        return tuple(np.frombuffer(entry.data, dtype=f"{self.order}u{unit}").tolist())

    def tags(self, offset: int, parent: int = 0, *, wanted: Container[int] | None = None) -> tuple[Tags, int]:
        """Read the directory at `offset` with its children; also return where its next link is.

        If a tag occurs twice, the first counts. `wanted` names the tags to read; None reads all.
        """
        code, count_code, link_bytes = ("HHQ8s", "Q", 8) if self.big else ("HHI4s", "H", 4)
        step, start = struct.calcsize(self.order + code), offset + struct.calcsize(count_code)
        records = self._read(start, step * min(self._number(count_code, offset), 1 << 16))
        tags: Tags = {}
        seen: set[int] = set()
        total = 0
        for position in range(0, len(records), step):
            tag, kind, count, value = struct.unpack_from(self.order + code, records, position)
            size = _TYPE_BYTES.get(kind, 0) * count
            if tag in seen or total + size > _MOST_TAG_BYTES or (wanted is not None and tag not in wanted):
                continue
            seen.add(tag)
            total += size
            place: int = struct.unpack(self.order + ("Q" if self.big else "I"), value)[0]
            try:
                if tag in _CHILDREN.get(parent, ()):
                    tags[tag] = self.tags(place, parent=tag)[0]
                elif size > link_bytes:
                    tags[tag] = Entry(kind, self._read(place, size), start + position)
                    self.end = max(self.end, place + size)
                elif size:
                    tags[tag] = Entry(kind, value[:size], start + position)
            except ValueError:
                continue
        link = start + len(records)
        self.end = max(self.end, link + link_bytes)
        return tags, link


def swapped(tags: Tags, *, source: str, order: str) -> Tags:
    """Change the byte order of every value."""
    result: Tags = {}
    for tag, entry in tags.items():
        if isinstance(entry, dict):
            result[tag] = swapped(entry, source=source, order=order)
        else:
            unit = _NUMBER_BYTES[entry.kind]
            numbers = np.frombuffer(entry.data, dtype=f"{source}u{unit}")
            result[tag] = Entry(entry.kind, numbers.astype(f"{order}u{unit}").tobytes())
    return result


def directory(tags: Tags, *, order: str, offset: int, big: bool = False) -> bytes:
    """Lay out a directory, its children and their values for the position `offset`; `big` is BigTIFF."""
    count_code, place_code, pointer = ("Q", "Q", _LONG8) if big else ("H", "I", _LONG)
    room = struct.calcsize(place_code)  # values up to this size are in the record itself
    records = bytearray(struct.pack(order + count_code, len(tags)))
    values = bytearray()
    behind = offset + len(records) + (4 + 2 * room) * len(tags) + room
    for tag in sorted(tags):
        entry, place = tags[tag], struct.pack(order + place_code, behind + len(values))
        if isinstance(entry, dict):
            records += struct.pack(f"{order}HH{place_code}", tag, pointer, 1) + place
            values += directory(entry, order=order, offset=behind + len(values), big=big)
        else:
            count = len(entry.data) // _TYPE_BYTES[entry.kind]
            inline = len(entry.data) <= room
            records += struct.pack(f"{order}HH{place_code}", tag, entry.kind, count)
            records += entry.data.ljust(room, b"\x00") if inline else place
            values += b"" if inline else entry.data
        values += b"\x00" * (len(values) % 2)
    return bytes(records + struct.pack(order + place_code, 0) + values)
