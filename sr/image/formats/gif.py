"""GIF. GIF89a (CompuServe, 1990)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO

from sr.image.formats.options import WriteOptions
from sr.image.formats.spec import FormatSpec, SequenceInfo

if TYPE_CHECKING:
    from sr.image.picture import Frame, Picture
    from sr.image.source import OpenedFile, Source


def _recognises(head: bytes) -> bool:
    return head.startswith((b"GIF87a", b"GIF89a"))


def _holds_several(file: BinaryIO, _: bytes) -> bool:
    from sr.image.formats.gif_frames import parsed_gif

    return len(parsed_gif(file, at_most=2).frames) > 1


def _read(opened: OpenedFile) -> Source:
    from PIL.GifImagePlugin import GifImageFile

    from sr.image.formats.gif_frames import parsed_gif
    from sr.image.formats.gif_source import GifSource
    from sr.image.pillow import PillowSource
    from sr.image.refusals import decoding

    with decoding(opened.name, opened.format, by_library=False):
        gif = parsed_gif(opened.file)
    return GifSource(opened, gif) if len(gif.frames) > 1 else PillowSource(opened, GifImageFile)


def _write(file: BinaryIO, picture: Picture, _: WriteOptions) -> None:
    from sr.image.encode import quantised, save_with_pillow

    save_with_pillow(file, picture, GIF, prepare=quantised)


def _write_sequence(file: BinaryIO, frames: Iterable[Frame], info: SequenceInfo, _: WriteOptions) -> None:
    from sr.image.formats.gif_frames import write_gif

    write_gif(file, frames, plays=info.plays)


GIF = FormatSpec(
    name="GIF",
    pillow_name="GIF",
    read_suffixes=(".gif",),
    write_suffixes=(".gif",),
    recognises=_recognises,
    reader=_read,
    writer=_write,
    longest_side_px=65_535,  # section 18
    sequence_writer=_write_sequence,
    multi_image="frames",
    holds_several=_holds_several,
    colours=256,
    icc=False,
    largest_exif=0,
    largest_xmp=0,
)
