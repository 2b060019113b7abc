"""GIF. GIF89a (CompuServe, 1990)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO

from sr.image.formats.options import WriteOptions
from sr.image.formats.spec import ANY_SIZE, FormatSpec, SequenceInfo

if TYPE_CHECKING:
    from sr.image.picture import Frame, Picture
    from sr.image.source import OpenedFile, Source


def _recognises(head: bytes) -> bool:
    return head.startswith((b"GIF87a", b"GIF89a"))


def _holds_multi_image(file: BinaryIO, _: bytes) -> bool:
    from sr.image.formats.gif_frames import parsed_gif

    return len(parsed_gif(file, at_most=2).frames) > 1


def _read(opened: OpenedFile) -> Source:
    from sr.image.formats.gif_frames import parsed_gif
    from sr.image.formats.gif_source import GifSource, GifStill
    from sr.image.refusals import decoding

    with decoding(opened.name, opened.format, by_library=False):
        gif = parsed_gif(opened.file)
    # Where no frame covers it, the canvas is transparent; Pillow gives it a colour.
    return GifStill(opened, gif) if len(gif.frames) <= 1 and gif.is_covered else GifSource(opened, gif)


def _write(file: BinaryIO, picture: Picture, _: WriteOptions) -> None:
    from dataclasses import replace
    from io import BytesIO

    from sr.image.encode import quantised, save_with_pillow
    from sr.image.formats.gif_extensions import with_extensions
    from sr.image.metadata import Metadata

    if not picture.metadata.text and not picture.metadata.xmp:
        save_with_pillow(file, picture, GIF, prepare=quantised)
        return
    buffer = BytesIO()
    save_with_pillow(buffer, replace(picture, metadata=Metadata()), GIF, prepare=quantised)
    file.write(with_extensions(buffer.getvalue(), picture.metadata))


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
    encoder_copies=17,
    sequence_writer=_write_sequence,
    multi_image="frames",
    holds_multi_image=_holds_multi_image,
    colours=256,
    capacity={"comment": ANY_SIZE, "xmp": ANY_SIZE},
)
