"""AVIF. AV1 Image File Format 1.2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, BinaryIO

from sr.image.formats.options import WriteOptions
from sr.image.formats.spec import ANY_SIZE, FormatSpec, SequenceInfo

if TYPE_CHECKING:
    from sr.image.picture import Frame, Picture
    from sr.image.source import OpenedFile, Source

_SPEED = 8  # see DEFAULT_AVIF_QUALITY


def _recognises(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and (head[8:12] in (b"avif", b"avis") or b"avif" in head[16:])


def _holds_multi_image(_: BinaryIO, head: bytes) -> bool:
    return head[8:12] == b"avis"


def _read(opened: OpenedFile) -> Source:
    from sr.image.formats.avif_source import AvifSource

    return AvifSource(opened)


def _arguments(options: WriteOptions, *, grey: bool) -> dict[str, Any]:
    subsampling = "4:0:0" if grey else options.subsampling
    return {"quality": options.avif_quality, "subsampling": subsampling, "speed": _SPEED}


def _write(file: BinaryIO, picture: Picture, options: WriteOptions) -> None:
    from sr.image.encode import save_with_pillow

    save_with_pillow(file, picture, AVIF, **_arguments(options, grey=picture.grey))


def _write_sequence(
    file: BinaryIO, frames: Iterable[Frame], info: SequenceInfo, options: WriteOptions
) -> None:
    from sr.image.animate import save_frames_with_pillow

    save_frames_with_pillow(file, frames, info, AVIF, **_arguments(options, grey=False))


AVIF = FormatSpec(
    name="AVIF",
    pillow_name="AVIF",
    read_suffixes=(".avif", ".avifs"),
    write_suffixes=(".avif",),
    recognises=_recognises,
    reader=_read,
    writer=_write,
    # What libavif decodes unless told otherwise (avif.h, AVIF_DEFAULT_IMAGE_DIMENSION_LIMIT and _SIZE_LIMIT).
    longest_side_px=32_768,
    largest_px=16_384 * 16_384,
    encoder_copies=15,
    sequence_writer=_write_sequence,
    multi_image="frames",
    states_plays=False,
    holds_multi_image=_holds_multi_image,
    options=("quality", "subsampling"),
    # Pillow would rewrite a block that states the orientation, which moves what maker notes point to.
    exif_orientation=False,
    capacity=dict.fromkeys(("icc", "exif", "xmp"), ANY_SIZE),
)
