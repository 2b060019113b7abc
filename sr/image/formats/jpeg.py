"""JPEG. ISO 10918-1."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from sr.image.formats.options import WriteOptions
from sr.image.formats.spec import ANY_SIZE, FormatSpec

if TYPE_CHECKING:
    from sr.image.picture import Picture
    from sr.image.source import OpenedFile, Source


def _recognises(head: bytes) -> bool:
    return head.startswith(b"\xff\xd8\xff")


def _read(opened: OpenedFile) -> Source:
    from PIL.JpegImagePlugin import JpegImageFile

    from sr.image.formats.jpeg_segments import left_out
    from sr.image.pillow import PillowSource

    # Not Pillow's factory: the previews that cameras append are no animation.
    return PillowSource(opened, JpegImageFile, notes=left_out(opened.file), rows_problem="")


def _write(file: BinaryIO, picture: Picture, options: WriteOptions) -> None:
    from sr.image.encode import save_with_pillow
    from sr.image.formats.jpeg_segments import iptc_segment, state_aspect

    metadata = picture.metadata
    comment = "\n".join(text for _, text in metadata.text).encode("utf-8", "replace")
    save_with_pillow(
        file,
        picture,
        JPEG,
        quality=options.jpeg_quality,
        subsampling="4:4:4" if picture.grey else options.subsampling,
        extra=iptc_segment(metadata.iptc) if metadata.iptc else b"",
        comment=comment,
    )
    if metadata.aspect is not None and metadata.dpi is None:
        state_aspect(file, metadata.aspect)


_LARGEST_SEGMENT = 65_533  # bytes
_MOST_PROFILE_BYTES = 255 * (_LARGEST_SEGMENT - 14)  # in as many segments (ICC.1:2022, annex B.4)
_XMP_NAME_BYTES = 29  # XMP part 3, section 1.1.3
_RESOURCE_BYTES = 14 + 12 + 1  # names of Photoshop's segment and resource, padding

# The longest side is libjpeg's JPEG_MAX_DIMENSION, though the format has 16 bits: Pillow 13 writes 65,500
# and fails at 65,501.
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
    capacity={
        "icc": _MOST_PROFILE_BYTES,
        "exif": _LARGEST_SEGMENT,
        "xmp": _LARGEST_SEGMENT - _XMP_NAME_BYTES,
        "iptc": _LARGEST_SEGMENT - _RESOURCE_BYTES,
        "comment": _LARGEST_SEGMENT,
        "aspect": ANY_SIZE,
        "dpi": ANY_SIZE,
    },
)
