"""TIFF and BigTIFF. TIFF 6.0 (Adobe, 1992); BigTIFF as libtiff has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO

from sr.image.formats.options import WriteOptions
from sr.image.formats.spec import ANY_SIZE, FormatSpec, SequenceInfo

if TYPE_CHECKING:
    from sr.image.picture import Frame, Picture
    from sr.image.source import OpenedFile, Source

_UINT32_MAX = (1 << 32) - 1
_ROOM_FOR_METADATA = 1 << 24

# Of a bicubic x3 of Kodak's kodim05 (1530x1017): uncompressed 4.67 MB, LZW with differences 2.47 MB in
# 0.08 s (5.09 MB without), deflate with differences 2.29 MB in 0.36 s.
_PREDICTOR, _DIFFERENCES = 317, 2
# libtiff's result is held in memory before it is written, and its size is not known beforehand.
_LARGEST_COMPRESSED = 1 << 30


def _recognises(head: bytes) -> bool:
    return head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))


def _holds_multi_image(file: BinaryIO, _: bytes) -> bool:
    from sr.image.formats.tiff_pages import tiff_pages

    return len(tiff_pages(file)) > 1


def _read(opened: OpenedFile) -> Source:
    from sr.image.formats.tiff_source import TiffSource

    return TiffSource(opened)


def _write(file: BinaryIO, picture: Picture, options: WriteOptions) -> None:
    from sr.image.directories import TiffReader
    from sr.image.encode import save_with_pillow, sized_exif
    from sr.image.formats.tiff_tags import descriptive_tags
    from sr.image.metadata import add_to_tiff

    compression = options.tiff_compression
    if compression and picture.pixels.nbytes <= _LARGEST_COMPRESSED:
        info = {_PREDICTOR: _DIFFERENCES}
        save_with_pillow(file, picture, TIFF, exif=b"", xmp=b"", compression=compression, tiffinfo=info)
    else:
        save_with_pillow(file, picture, TIFF, exif=b"", xmp=b"")
    metadata = picture.metadata
    tags = descriptive_tags(
        metadata, height=picture.height, width=picture.width, order=TiffReader(file).order
    )
    add_to_tiff(file, exif=sized_exif(picture, TIFF), xmp=metadata.xmp, iptc=metadata.iptc, tags=tags)


def _write_sixteen_bit(file: BinaryIO, picture: Picture, options: WriteOptions) -> None:
    from sr.image.sixteen_bit import write_sixteen_bit_tiff

    write_sixteen_bit_tiff(file, picture, options)


def _write_sequence(file: BinaryIO, frames: Iterable[Frame], _: SequenceInfo, options: WriteOptions) -> None:
    from io import BytesIO
    from tempfile import TemporaryFile

    from sr.image.formats.tiff_pages import TiffAppender

    appender = TiffAppender(file)
    for frame in frames:
        if frame.picture.sixteen_bit:
            with TemporaryFile() as page:
                _write_sixteen_bit(page, frame.picture, options)
                page.seek(0)
                appender.add(page.read())
        else:
            buffer = BytesIO()
            _write(buffer, frame.picture, options)
            appender.add(buffer.getvalue())


TIFF = FormatSpec(
    name="TIFF",
    pillow_name="TIFF",
    read_suffixes=(".tif", ".tiff", ".btf", ".tf8"),
    write_suffixes=(".tif", ".tiff"),
    recognises=_recognises,
    reader=_read,
    writer=_write,
    longest_side_px=_UINT32_MAX >> 1,
    largest_bytes=_UINT32_MAX - _ROOM_FOR_METADATA,
    encoder_copies=3,
    sixteen_bit_writer=_write_sixteen_bit,
    sequence_writer=_write_sequence,
    multi_image="pages",
    holds_multi_image=_holds_multi_image,
    vips_loader="tiffload_source",
    options=("tiff_compression",),
    capacity=dict.fromkeys(("icc", "exif", "xmp", "iptc", "geo", "aspect", "dpi"), ANY_SIZE),
)
