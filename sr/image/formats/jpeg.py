"""JPEG. ISO 10918-1."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from sr.image.formats.options import WriteOptions
from sr.image.formats.spec import FormatSpec

if TYPE_CHECKING:
    from sr.image.picture import Picture
    from sr.image.source import OpenedFile, Source


def _recognises(head: bytes) -> bool:
    return head.startswith(b"\xff\xd8\xff")


def _read(opened: OpenedFile) -> Source:
    from PIL.JpegImagePlugin import JpegImageFile

    from sr.image.pillow import PillowSource

    # Not Pillow's factory: the previews that cameras append are no animation.
    return PillowSource(opened, JpegImageFile, rows_problem="")


def _write(file: BinaryIO, picture: Picture, options: WriteOptions) -> None:
    from sr.image.encode import save_with_pillow
    from sr.image.formats.jpeg_segments import iptc_segment

    iptc = picture.metadata.iptc
    save_with_pillow(
        file,
        picture,
        JPEG,
        quality=options.jpeg_quality,
        subsampling="4:4:4" if picture.grey else options.subsampling,
        extra=iptc_segment(iptc) if iptc else b"",
    )


# The longest side is libjpeg's JPEG_MAX_DIMENSION, though the format has 16 bits: Pillow 13 writes 65,500
# and fails at 65,501. A segment has 65,533 bytes, of which XMP's name takes 29 (XMP part 3).
JPEG = FormatSpec(
    name="JPEG",
    pillow_name="JPEG",
    read_suffixes=(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    write_suffixes=(".jpg", ".jpeg"),
    recognises=_recognises,
    reader=_read,
    writer=_write,
    longest_side_px=65_500,
    vips_loader="jpegload_source",
    alpha=False,
    options=("quality", "subsampling"),
    largest_exif=65_533,
    largest_xmp=65_504,
)
