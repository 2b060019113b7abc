"""Pages of TIFF files: what each holds, and how several are put into one file.

Layout: TIFF 6.0. Reads and writes directories only; pixels are Pillow's and libvips'.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Literal

from sr.image.directories import Entry, Tags, TiffReader, directory
from sr.image.geo import GEO_TAGS, geo_reference
from sr.image.metadata import Metadata, exif_from_tiff
from sr.image.refusals import EncoderError

X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, ICC_PROFILE = 282, 283, 296, 34675
_SUBFILE, _WIDTH, _LENGTH, _BITS, _PHOTOMETRIC, _ORIENTATION = 254, 256, 257, 258, 262, 274
_SAMPLES, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _XMP, _IPTC = 277, 338, 339, 700, 0x83BB
_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES, _PLANAR = 273, 279, 324, 325, 284
_COMPRESSION, _FILL_ORDER, _ROWS_PER_STRIP, _PREDICTOR, _SUBSAMPLING = 259, 266, 278, 317, 530
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_MOST_CHANNELS = 64  # of a TIFF that is not hostile; more than 4 are refused in any case
_REDUCED = 1  # of NewSubfileType: another page at a lower resolution
_RGB, _YCBCR = 2, 6  # photometric interpretation
# Number -> name: of libtiff's tiff.h. The first make the same of bytes whatever these mean.
_BYTEWISE = {
    1: "none",
    5: "LZW",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
    34925: "LZMA",
    50000: "Zstandard",
}
_COMPRESSION_NAMES = _BYTEWISE | {
    **{2: "CCITT", 3: "CCITT fax 3", 4: "CCITT fax 4", 6: "JPEG of TIFF 6.0", 7: "JPEG", 9: "JBIG"},
    **{34661: "JBIG", 34676: "SGI Log", 34677: "SGI Log", 34712: "JPEG 2000", 34887: "LERC"},
    **{50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL"},
}
_KNOWN_TO_VIPS = frozenset({1, 5, 8, 32773, 32946})  # in all its builds
_KNOWN_TO_PILLOW = frozenset({*_BYTEWISE, 2, 3, 4, 6, 7, 32771, 32809, 34676, 34677})
_CENTIMETRES_PER_INCH = 2.54
_LONG, _RATIONAL = 4, 5
_OF_PIXELS = frozenset(
    {_SUBFILE, _WIDTH, _LENGTH, _BITS, _PHOTOMETRIC, _ORIENTATION, _PLANAR, _EXTRA_SAMPLES, _SAMPLE_FORMAT}
    | {_COMPRESSION, _SUBSAMPLING, _TILE_WIDTH, _STRIP_OFFSETS, _SAMPLES}
)
_OF_METADATA = GEO_TAGS | {_XMP, _IPTC, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, ICC_PROFILE}


@dataclass(frozen=True)
class TiffPage:
    """One page, before its pixels are decoded."""

    index: int  # of the directory in the file
    offset: int
    height: int
    width: int
    bits: tuple[int, ...]
    formats: tuple[int, ...]
    extra: tuple[int, ...]
    photometric: int
    orientation: int
    separate: bool  # one plane for each channel
    reduced: bool

    compression: int = 1
    subsampling: tuple[int, ...] = ()  # of the chroma of YCbCr
    odd_order: bool = False  # a BigTIFF with the highest byte first, which Pillow does not read
    odd_tiles: bool = False  # tiles that are listed as if they were strips, which libtiff permits

    @property
    def sixteen_bit(self) -> bool:
        """Whether it is grey or RGB of more than 8 bits per channel."""
        return max(self.bits) > 8 and self.photometric <= _RGB and self.problem is None

    @property
    def decoder(self) -> Literal["Pillow", "libvips", "raw"]:
        """What reads its pixels right: see `sr.image.formats.tiff_raw` for the last."""
        bits = max(self.bits)
        odd_bits = bits not in (1, 8, 16) and (bits not in (2, 4) or len(self.bits) > 1)
        unknown_to_vips = self.sixteen_bit and self.compression not in _KNOWN_TO_VIPS
        odd = odd_bits or self.separate or unknown_to_vips or self.odd_order or self.odd_tiles
        if self.bytewise and odd:
            return "raw"
        if self.sixteen_bit or self.odd_order or self.compression not in _KNOWN_TO_PILLOW:
            return "libvips"
        return "Pillow"

    @property
    def bytewise(self) -> bool:
        """Whether `sr.image.formats.tiff_raw` can read it."""
        return self.photometric <= _RGB and self.compression in _BYTEWISE

    @property
    def problem(self) -> str | None:
        """What of the samples cannot be kept, or None."""
        if any(value > 16 for value in self.bits):
            return f"{max(self.bits)} bits per channel"
        if len(set(self.bits)) > 1:
            return "channels of different depth"
        if any(value not in (1, 4) for value in self.formats):  # unsigned, undefined
            return "signed or floating-point channels"
        if 0 in self.extra or len(self.extra) > 1:
            return "extra channels that are neither colour nor transparency"
        if max(self.bits) > 8 and self.photometric > _RGB:
            return f"{max(self.bits)} bits per channel that are neither grey nor RGB"
        return None

    @property
    def variant(self) -> str | None:
        """What no decoder here knows, or None if one should."""
        if self.compression == 1 and self.photometric == _YCBCR and self.subsampling not in ((), (1, 1)):
            return "subsampled colour that is not compressed"
        if self.compression not in _BYTEWISE and max(self.bits) not in (1, 2, 4, 8, 16):
            return f"{max(self.bits)} bits per channel in this compression"
        return None

    @property
    def compression_name(self) -> str:
        """How the compression is called, or its number."""
        return _COMPRESSION_NAMES.get(self.compression, f"the unknown number {self.compression}")


def tiff_pages(file: BinaryIO) -> list[TiffPage]:
    """List the pages of a file, without their copies at lower resolutions.

    Raises:
        ValueError: the first directory is damaged.
    """
    reader = TiffReader(file)
    pages = [_page(reader, index, at) for index, at in enumerate(reader.directories())]
    return [page for page in pages if page.index == 0 or not page.reduced]


def _page(reader: TiffReader, index: int, offset: int) -> TiffPage:
    tags = reader.tags(offset, wanted=_OF_PIXELS)[0]

    def number(tag: int, default: int) -> int:
        return next(iter(reader.numbers(tags.get(tag))), default)

    bits = reader.numbers(tags.get(_BITS)) or (1,)
    channels = min(number(_SAMPLES, 0), _MOST_CHANNELS) or len(bits)
    return TiffPage(
        index=index,
        offset=offset,
        height=number(_LENGTH, 0),
        width=number(_WIDTH, 0),
        # As libtiff takes them: one value may stand for all channels, and surplus ones say nothing.
        bits=bits * channels if len(bits) == 1 else bits[:channels],
        formats=reader.numbers(tags.get(_SAMPLE_FORMAT))[:channels],
        extra=reader.numbers(tags.get(_EXTRA_SAMPLES)),
        photometric=number(_PHOTOMETRIC, 1),
        orientation=number(_ORIENTATION, 0),
        separate=number(_PLANAR, 1) == 2,
        reduced=bool(number(_SUBFILE, 0) & _REDUCED),
        compression=number(_COMPRESSION, 1),
        subsampling=reader.numbers(tags.get(_SUBSAMPLING)),
        odd_order=reader.big and reader.order == ">",
        odd_tiles=_TILE_WIDTH in tags and _STRIP_OFFSETS in tags,
    )


def page_metadata(file: BinaryIO, page: TiffPage) -> Metadata:
    """Read what stands beside the pixels, as stored: not fitted to the pixels, not turned upright."""
    reader = TiffReader(file)
    tags = reader.tags(page.offset, wanted=_OF_METADATA)[0]

    def data(tag: int) -> bytes | None:
        entry = tags.get(tag)
        return entry.data if isinstance(entry, Entry) else None

    return Metadata(
        icc_profile=data(ICC_PROFILE),
        exif=exif_from_tiff(file, page.offset),
        xmp=data(_XMP),
        dpi=_dpi(reader, tags),
        iptc=data(_IPTC),
        aspect=_aspect(reader, tags),
        geo=geo_reference(reader, tags, height=page.height, width=page.width),
    )


def _dpi(reader: TiffReader, tags: Tags) -> tuple[float, float] | None:
    """Return the resolution if it is stated and sane; JPEG holds at most 16 bits of it."""
    x, y = reader.numbers(tags.get(X_RESOLUTION)), reader.numbers(tags.get(Y_RESOLUTION))
    unit = next(iter(reader.numbers(tags.get(RESOLUTION_UNIT))), 2)
    if len(x) != 2 or len(y) != 2 or 0 in (x[1], y[1]) or unit not in (2, 3):  # inch, centimetre
        return None
    factor = 1 if unit == 2 else _CENTIMETRES_PER_INCH
    dpi = factor * x[0] / x[1], factor * y[0] / y[1]
    return dpi if all(0 < value < 1 << 16 for value in dpi) else None


def _aspect(reader: TiffReader, tags: Tags) -> tuple[float, float] | None:
    """Return the resolution without unit if pixels are not square."""
    x, y = reader.numbers(tags.get(X_RESOLUTION)), reader.numbers(tags.get(Y_RESOLUTION))
    unit = next(iter(reader.numbers(tags.get(RESOLUTION_UNIT))), 2)
    if unit != 1 or len(x) != 2 or len(y) != 2 or 0 in (*x, *y) or x[0] * y[1] == y[0] * x[1]:
        return None
    return x[0] / x[1], y[0] / y[1]


def resolution_tags(dpi: tuple[float, float] | None, *, order: str) -> Tags:
    """Return the tags that state a resolution, in the byte order of the file."""
    if dpi is None:
        return {}
    x, y = (Entry(_RATIONAL, struct.pack(order + "II", round(value * 1000), 1000)) for value in dpi)
    return {X_RESOLUTION: x, Y_RESOLUTION: y, RESOLUTION_UNIT: Entry(3, struct.pack(order + "H", 2))}


class TiffAppender:
    """Puts classic TIFF files of one page each behind one another, in one file.

    Pillow's own does not move what EXIF directories point to.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._link = 0  # where the next directory's place is to be written
        self._order = ""

    def add(self, page: bytes) -> None:
        """Add the page of a file.

        Raises:
            ValueError: it is no TIFF file, or one of another byte order than the first.
            EncoderError: the file would exceed 4 GiB.
        """
        reader = TiffReader(BytesIO(page))
        start = self._file.seek(0, 2)
        if start == 0:
            self._order, self._link = reader.order, 4
        elif reader.order != self._order:
            raise ValueError("pages of different byte order")
        start += self._file.write(b"\0" * (-start % 2))
        tags = {
            tag: self._moved(reader, entry, start) if tag in (_STRIP_OFFSETS, _TILE_OFFSETS) else entry
            for tag, entry in reader.tags(reader.first)[0].items()
        }
        end = start + len(page) + len(page) % 2
        data = directory(tags, order=self._order, offset=end)
        if end + len(data) >= 1 << 32:
            raise EncoderError("a TIFF of several pages holds at most 4 GiB")
        self._file.write(page + b"\0" * (len(page) % 2) + data)
        self._file.seek(self._link)
        self._file.write(struct.pack(self._order + "I", end))
        self._link = end + 2 + 12 * len(tags)

    def _moved(self, reader: TiffReader, entry: Entry | Tags, by: int) -> Entry:
        offsets = [number + by for number in reader.numbers(entry)]
        return Entry(_LONG, struct.pack(f"{self._order}{len(offsets)}I", *offsets))
