"""`FormatSpec`: what one picture file format is called, can hold, and is read and written by.

Imports nothing heavy: the command line makes its choices from these records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from sr.image.formats.options import WriteOptions

if TYPE_CHECKING:
    from sr.image.picture import Frame, MultiImage, Picture
    from sr.image.source import OpenedFile, Source

ANY_SIZE = (1 << 31) - 1  # bytes: as long as an array may be

HEAD_BYTES = 32  # of a file tell its format


@dataclass(frozen=True)
class FormatSpec:
    """One file format.

    Attributes:
        name: for people, e.g. "WebP".
        pillow_name: what Pillow calls the encoder, e.g. "WEBP".
        read_suffixes: names of such files usually end so; the content decides.
        write_suffixes: outputs named so are in this format; the first is given to outputs without a name.
        recognises: whether a file that begins with these `HEAD_BYTES` bytes is in this format.
        reader: opens such a file.
        writer: writes a picture of 8 bits per channel.
        longest_side_px: an output may have.
        largest_px: an output may have; None if only its sides are limited.
        largest_bytes: of uncompressed pixels that an output may have, where file positions have 32 bits.
        encoder_copies: memory that the encoder takes besides, in bytes per byte of pixels.
        sixteen_bit_writer: writes a picture of 16 bits per channel; None if 8 bits are all.
        sequence_writer: writes several pictures; None if a file holds one.
        multi_image: what several pictures in a file of this format are.
        states_plays: whether an animation says how often it is shown; else it is shown without end.
        holds_multi_image: says, from an opened file and its first bytes, whether it holds several pictures;
            outputs of such files keep the format. None if they do not. It may raise on damaged files.
        vips_loader: libvips' function that reads such a file row by row; empty if there is none.
        alpha: whether pixels can be transparent.
        grey: whether one channel can be written.
        colours: how many a picture can have; None if any number.
        options: encoding options of the command line that concern it.
        capacity: kind of metadata -> the most bytes that the format holds; a missing kind is not held. Kinds
            are icc, exif, xmp, iptc, text (with keywords), comment (without), png (chunks of colour), geo,
            aspect and dpi.
        exif_orientation: whether EXIF data may state an orientation; else the file has its own place for it.
    """

    name: str
    pillow_name: str
    read_suffixes: tuple[str, ...]
    write_suffixes: tuple[str, ...]
    recognises: Callable[[bytes], bool]
    reader: Callable[[OpenedFile], Source]
    writer: Callable[[BinaryIO, Picture, WriteOptions], None]
    longest_side_px: int
    largest_px: int | None = None
    largest_bytes: int | None = None
    encoder_copies: float = 1.5  # as of JPEG; measured, like all, with up to 9 megapixels
    sixteen_bit_writer: Callable[[BinaryIO, Picture, WriteOptions], None] | None = None
    sequence_writer: Callable[[BinaryIO, Iterable[Frame], SequenceInfo, WriteOptions], None] | None = None
    multi_image: MultiImage = ""
    states_plays: bool = True
    holds_multi_image: Callable[[BinaryIO, bytes], bool] | None = None
    vips_loader: str = ""
    alpha: bool = True
    grey: bool = True
    colours: int | None = None
    options: tuple[str, ...] = ()
    capacity: Mapping[str, int] = field(default_factory=dict)
    exif_orientation: bool = True

    @property
    def sixteen_bit(self) -> bool:
        """Whether it is written with 16 bits per channel."""
        return self.sixteen_bit_writer is not None


@dataclass(frozen=True)
class SequenceInfo:
    """What a file of several pictures says of all of them.

    Attributes:
        count: of pictures.
        plays: how often an animation is shown; 0 is without end.
    """

    count: int
    plays: int = 0
