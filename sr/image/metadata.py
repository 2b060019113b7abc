"""What travels with a picture beside its pixels: EXIF, XMP, ICC profile.

Owns the few things that must change in them when a picture is turned upright and enlarged, and
touches nothing else. EXIF is patched in place, because maker notes hold absolute offsets and text
may be UTF-8: Pillow's `Exif.tobytes` moves the one and replaces the other by question marks. For
the same reason, and because Pillow 13 cannot put EXIF into a compressed TIFF at all, tags go from
and to TIFF files here. Layout: TIFF 6.0, section 2; EXIF 2.32 (CIPA DC-008), section 4.6.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Container
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, NamedTuple

from sr.image.directories import Entry, Tags, TiffReader, directory, swapped


class GeoReference(NamedTuple):
    """Where on Earth the pixels of a picture lie, see `sr.image.geo`."""

    order: str  # of the bytes of values
    tags: dict[int, Entry]
    height: int  # of the picture that it describes
    width: int


@dataclass(frozen=True)
class Metadata:
    """What is kept beside the pixels, each None if the file had none or it was damaged."""

    icc_profile: bytes | None = None  # RGB, or grey with grey pixels
    exif: bytes | None = None  # begins with Exif\0\0; orientation 1, no thumbnail
    xmp: bytes | None = None  # orientation 1
    dpi: tuple[float, float] | None = None  # along x, along y
    iptc: bytes | None = None  # IPTC-IIM data sets
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()  # text and colour description, for PNG alone
    text: tuple[tuple[str, str], ...] = ()  # keywords and texts, also those of `png_chunks`
    aspect: tuple[float, float] | None = None  # pixels per length along x and y, if only their ratio counts
    geo: GeoReference | None = None  # of a GeoTIFF


EXIF_PREFIX = b"Exif\x00\x00"  # of the APP1 segment; Pillow expects and gives it for JPEG

_ORIENTATION, _XMP, _IPTC = 0x0112, 0x02BC, 0x83BB
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_BYTE, _SHORT, _LONG, _UNDEFINED = 1, 3, 4, 7  # field types
_WHOLE_NUMBERS = (_BYTE, _SHORT, _LONG, 6, 8, 9)  # with the signed ones, which some programs write
_WIDTH_TAGS = frozenset({0x0100, 0xA002, 0x1001})  # ImageWidth, PixelXDimension, RelatedImageWidth
_HEIGHT_TAGS = frozenset({0x0101, 0xA003, 0x1002})  # ImageLength, PixelYDimension, RelatedImageLength
# What a TIFF's first directory says about the photograph rather than about how its pixels are stored:
# description, make, model, resolution (3), software, date, artist, host, rating (2), copyright,
# Exif and GPS directories, and Windows' title, comment, author, keywords, subject.
_DESCRIPTIVE_TAGS = frozenset(
    {0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x013C}
    | {0x4746, 0x4749, 0x8298, _EXIF_IFD, _GPS_IFD, *range(0x9C9B, 0x9CA0)}
)


def upright_exif(exif: bytes) -> tuple[bytes | None, int]:
    """Set the orientation to 1 and cut off the thumbnail; also return the orientation as it was.

    Args:
        exif: with or without the prefix that it has in a JPEG.

    Returns:
        The block with its prefix, or None if it is damaged; and 1 to 8, or 0 if it does not say.
    """
    body = bytearray(exif)
    while body.startswith(EXIF_PREFIX):
        del body[: len(EXIF_PREFIX)]
    orientation = 0
    try:
        reader = TiffReader(body)
        tags, link = reader.tags(reader.first)
        if reader.big:
            return None, 0
        entry = tags.get(_ORIENTATION)
        if isinstance(entry, Entry) and entry.kind in _WHOLE_NUMBERS:
            orientation = reader.numbers(entry)[0]
            _set_number(body, reader.order, _ORIENTATION, entry.record, 1)
        if any(body[link : link + 4]):
            body[link : link + 4] = bytes(4)  # the second directory is the thumbnail's
            del body[reader.end :]
    except ValueError:
        return None, 0
    return EXIF_PREFIX + bytes(body), orientation if 1 <= orientation <= 8 else 0


def resized_exif(exif: bytes, *, height: int, width: int) -> bytes:
    """Update the picture's size where the EXIF block states it; `exif` comes from `upright_exif`."""
    body = bytearray(exif[len(EXIF_PREFIX) :])
    reader = TiffReader(body)

    def update(tags: Tags) -> None:
        for tag, entry in tags.items():
            if isinstance(entry, dict):
                update(entry)
            elif tag in _WIDTH_TAGS:
                _set_number(body, reader.order, tag, entry.record, width)
            elif tag in _HEIGHT_TAGS:
                _set_number(body, reader.order, tag, entry.record, height)

    try:
        update(reader.tags(reader.first)[0])
        TiffReader(body).tags(reader.first)  # in a damaged block, directories may overlap
    except ValueError:
        return exif
    return EXIF_PREFIX + bytes(body)


def _set_number(body: bytearray, order: str, tag: int, record: int, value: int) -> None:
    """Overwrite a record with one SHORT or, if it needs one, LONG; both fit into the record."""
    if value < 1 << 16:
        struct.pack_into(order + "HHIHH", body, record, tag, _SHORT, 1, value, 0)
    else:
        struct.pack_into(order + "HHII", body, record, tag, _LONG, 1, value)


def exif_from_tiff(file: BinaryIO, offset: int | None = None) -> bytes | None:
    """Collect the descriptive tags of a TIFF directory (the first) as an EXIF block; None if it has none."""
    try:
        reader = TiffReader(file)
        tags = reader.tags(offset or reader.first, wanted=_DESCRIPTIVE_TAGS)[0]
    except ValueError:
        return None
    if not tags:
        return None
    header = (b"II*\x00" if reader.order == "<" else b"MM\x00*") + struct.pack(reader.order + "I", 8)
    return EXIF_PREFIX + header + directory(tags, order=reader.order, offset=8)


def add_to_tiff(
    file: BinaryIO,
    *,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    iptc: bytes | None = None,
    tags: Tags | None = None,
    dropped: Container[int] = (),
) -> None:
    """Add metadata to the classic TIFF file that an encoder has written.

    The first directory is written anew behind the pixels, where it has room.

    Args:
        file: with one directory.
        exif: a block whose descriptive tags are added.
        xmp: a packet.
        iptc: data sets.
        tags: further ones, in the byte order of the file.
        dropped: tags of the file that are left out.
    """
    reader = TiffReader(file)
    present = {tag: entry for tag, entry in reader.tags(reader.first)[0].items() if tag not in dropped}
    added = metadata_tags(exif=exif, xmp=xmp, iptc=iptc, order=reader.order, present=present)
    if not added and not tags and not dropped:
        return
    offset = file.seek(0, 2)
    offset += file.write(b"\x00" * (offset % 2))  # directories begin at even positions
    file.write(directory(present | added | (tags or {}), order=reader.order, offset=offset))
    file.seek(4)
    file.write(struct.pack(reader.order + "I", offset))


def metadata_tags(
    *, exif: bytes | None, xmp: bytes | None, iptc: bytes | None, order: str, present: Container[int]
) -> Tags:
    """Return metadata as tags of a TIFF directory, in its byte order, without `present` EXIF tags."""
    added: Tags = {_XMP: Entry(_BYTE, xmp)} if xmp else {}
    if iptc:
        added[_IPTC] = Entry(_UNDEFINED, iptc)
    if exif:
        block = TiffReader(exif[len(EXIF_PREFIX) :])
        described = block.tags(block.first, wanted=_DESCRIPTIVE_TAGS)[0]
        missing = {tag: entry for tag, entry in described.items() if tag not in present}
        added |= swapped(missing, source=block.order, order=order)
    return added


# `tiff:Orientation` as an attribute or as an element, XMP part 1 (ISO 16684-1), section 7.
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>)\s*)([0-9])""")


def without_orientation(exif: bytes) -> bytes:
    """Take the orientation out of the first directory; nothing that offsets point to moves."""
    body = bytearray(exif.removeprefix(EXIF_PREFIX))
    try:
        reader = TiffReader(body)
        tags, link = reader.tags(reader.first)
    except ValueError:
        return exif
    entry = tags.get(_ORIENTATION)
    if not isinstance(entry, Entry):
        return exif
    body[entry.record : link - 8] = body[entry.record + 12 : link + 4]  # one record of 12 bytes less
    count = struct.unpack_from(reader.order + "H", body, reader.first)[0]
    struct.pack_into(reader.order + "H", body, reader.first, count - 1)
    body[link - 8 : link + 4] = bytes(12)
    return EXIF_PREFIX + bytes(body)


def upright_xmp(xmp: bytes) -> tuple[bytes, int]:
    """Set the orientation to 1 if there is one; also return it as it was, 0 if there was none."""
    found = _XMP_ORIENTATION.search(xmp)
    orientation = int(found[2]) if found else 0
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp), orientation if 1 <= orientation <= 8 else 0


def fitting_icc_profile(profile: bytes, *, grey: bool) -> bytes | None:
    """Return the profile if it can describe the pixels, else None.

    An RGB profile can describe grey pixels too, written as equal channels; a grey or CMYK profile
    cannot describe colour (ICC.1:2022, section 7.2: signature at 36, colour space at 16).
    """
    is_profile = len(profile) >= 128 and profile[36:40] == b"acsp"
    spaces = (b"RGB ", b"GRAY") if grey else (b"RGB ",)
    return profile if is_profile and profile[16:20] in spaces else None


def whole_ratio(ratio: tuple[float, float], *, most: int) -> tuple[int, int]:
    """Return a ratio of two positive numbers as whole numbers from 1 to `most`, as nearly as they can be."""
    x, y = ratio
    nearest = Fraction(x / y).limit_denominator(1 << 10)
    return min(max(1, nearest.numerator), most), min(max(1, nearest.denominator), most)


def is_grey_profile(profile: bytes) -> bool:
    """Say whether an ICC profile is for one grey channel."""
    return profile[16:20] == b"GRAY"
