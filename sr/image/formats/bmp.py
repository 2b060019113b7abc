"""BMP. BITMAPINFOHEADER and its relatives (Microsoft, [MS-WMF] 2.2.2.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from sr.image.formats.options import WriteOptions
from sr.image.formats.spec import ANY_SIZE, FormatSpec

if TYPE_CHECKING:
    from sr.image.picture import Picture
    from sr.image.source import OpenedFile, Source

_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})  # the second header states which it is
_HEADER_SIZE_AT = 14
_UINT32_MAX = (1 << 32) - 1
_ROOM_FOR_HEADER = 1 << 24


def _recognises(head: bytes) -> bool:
    size = int.from_bytes(head[_HEADER_SIZE_AT : _HEADER_SIZE_AT + 4], "little")
    return head.startswith(b"BM") and size in _HEADER_SIZES  # texts can begin with BM too


def _read(opened: OpenedFile) -> Source:
    from PIL.BmpImagePlugin import BmpImageFile

    from sr.image.pillow import PillowSource

    return PillowSource(opened, BmpImageFile)


def _write(file: BinaryIO, picture: Picture, _: WriteOptions) -> None:
    from sr.image.encode import save_with_pillow

    save_with_pillow(file, picture, BMP)


BMP = FormatSpec(
    name="BMP",
    pillow_name="BMP",
    read_suffixes=(".bmp", ".dib"),
    write_suffixes=(".bmp",),
    recognises=_recognises,
    reader=_read,
    writer=_write,
    longest_side_px=_UINT32_MAX >> 1,
    largest_bytes=_UINT32_MAX - _ROOM_FOR_HEADER,
    alpha=False,
    capacity={"dpi": ANY_SIZE},
)
