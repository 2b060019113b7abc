"""WebP. RFC 9649."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, BinaryIO

from sr.image.formats.options import WriteOptions
from sr.image.formats.spec import ANY_SIZE, FormatSpec, SequenceInfo

if TYPE_CHECKING:
    from sr.image.picture import Frame, Picture
    from sr.image.source import OpenedFile, Source

# A bicubic x3 of Kodak's kodim05 (1530x1017) as lossless WebP, Pillow 13, one core: method 0 at effort 0:
# 1.68 MB in 0.11 s, method 4 at 0: 1.28 MB in 0.35 s, method 4 at 80, Pillow's default: 1.27 MB in 1.4 s.
_LOSSLESS = {"lossless": True, "exact": True, "method": 0, "quality": 0}
_LOSSY_METHOD = 2  # at quality 95 half the time of method 4, for the same size
_ANIMATED = 0x02  # of the flags in VP8X, section 2.7


def _recognises(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def _holds_multi_image(_: BinaryIO, head: bytes) -> bool:
    return head[12:16] == b"VP8X" and bool(head[20] & _ANIMATED)


def _read(opened: OpenedFile) -> Source:
    from PIL.WebPImagePlugin import WebPImageFile

    from sr.image.pillow import PillowSource

    return PillowSource(opened, WebPImageFile)


def _arguments(options: WriteOptions) -> dict[str, Any]:
    lossy = {"quality": options.webp_quality, "method": _LOSSY_METHOD}
    return dict(_LOSSLESS if options.webp_lossless else lossy)


def _write(file: BinaryIO, picture: Picture, options: WriteOptions) -> None:
    from sr.image.encode import save_with_pillow

    save_with_pillow(file, picture, WEBP, **_arguments(options))


def _write_sequence(
    file: BinaryIO, frames: Iterable[Frame], info: SequenceInfo, options: WriteOptions
) -> None:
    from sr.image.animate import save_frames_with_pillow

    save_frames_with_pillow(file, frames, info, WEBP, **_arguments(options), loop=info.plays)


WEBP = FormatSpec(
    name="WebP",
    pillow_name="WEBP",
    read_suffixes=(".webp",),
    write_suffixes=(".webp",),
    recognises=_recognises,
    reader=_read,
    writer=_write,
    longest_side_px=16_383,  # section 2.6
    encoder_copies=10,
    sequence_writer=_write_sequence,
    multi_image="frames",
    holds_multi_image=_holds_multi_image,
    grey=False,
    options=("quality", "lossless"),
    capacity=dict.fromkeys(("icc", "exif", "xmp"), ANY_SIZE),
)
