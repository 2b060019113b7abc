"""PNG. PNG specification, third edition (W3C, 2025)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO

from sr.image.formats.options import WriteOptions
from sr.image.formats.spec import ANY_SIZE, FormatSpec, SequenceInfo

if TYPE_CHECKING:
    from sr.image.picture import Frame, Picture
    from sr.image.source import OpenedFile, Source


def _recognises(head: bytes) -> bool:
    return head.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")


def _read(opened: OpenedFile) -> Source:
    from sr.image.formats.png_source import PngSource

    return PngSource(opened)


def _write(file: BinaryIO, picture: Picture, options: WriteOptions) -> None:
    from sr.image.encode import joined_samples
    from sr.image.formats.png_chunks import metadata_chunks, write_png

    chunks = metadata_chunks(picture.metadata, height=picture.height, width=picture.width)
    write_png(file, joined_samples(picture, PNG), chunks, compress_level=options.png_level)


def _write_sixteen_bit(file: BinaryIO, picture: Picture, options: WriteOptions) -> None:
    from sr.image.sixteen_bit import write_sixteen_bit_png

    write_sixteen_bit_png(file, picture, options)


def _write_sequence(
    file: BinaryIO, frames: Iterable[Frame], info: SequenceInfo, options: WriteOptions
) -> None:
    from sr.image.formats.png_chunks import write_apng

    write_apng(file, frames, count=info.count, plays=info.plays, compress_level=options.png_level)


# Pillow opens no PNG with a larger one (PngImagePlugin.MAX_TEXT_CHUNK), nor do many programs built on it.
_MOST_PROFILE_BYTES = 1 << 20

PNG = FormatSpec(
    name="PNG",
    pillow_name="PNG",
    read_suffixes=(".png", ".apng"),
    write_suffixes=(".png",),
    recognises=_recognises,
    reader=_read,
    writer=_write,
    longest_side_px=(1 << 31) - 1,  # section 11.2.1
    encoder_copies=0.5,
    sixteen_bit_writer=_write_sixteen_bit,
    sequence_writer=_write_sequence,
    multi_image="frames",
    vips_loader="pngload_source",
    options=("png_level",),
    capacity=dict.fromkeys(("exif", "xmp", "iptc", "text", "png", "aspect", "dpi"), ANY_SIZE)
    | {"icc": _MOST_PROFILE_BYTES},
)
