"""An open picture file, whatever its format: what it holds, and its pictures one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import BinaryIO

from sr.errors import ImageError, TooLargeError
from sr.image.arrays import TURNS, turned
from sr.image.claims import without_claims
from sr.image.compression import LOSSLESS, Compression, compression_of
from sr.image.metadata import Metadata, fitting_icc_profile, upright_exif, upright_xmp
from sr.image.picture import Frame, MultiImage, Picture
from sr.image.refusals import decoding, unsupported

REDUCED = "16 bits per channel, reduced to 8 (--depth 8)"


@dataclass(frozen=True)
class OpenedFile:
    """A file of a known format, before anything but its first bytes is read.

    Attributes:
        file: the content, at its beginning; seekable.
        head: its first bytes, `sr.image.formats.spec.HEAD_BYTES` of them.
        name: how messages call it.
        format: the name of its `FormatSpec`.
        max_pixels: a picture with more is refused before it is decoded.
        depth: 8 if pictures of 16 bits per channel may be read as such of 8, which need not be rounded.
    """

    file: BinaryIO
    head: bytes
    name: str
    format: str
    max_pixels: int
    depth: int | None = None


@dataclass(frozen=True)
class Header:
    """What a file says of its first picture, before any pixel is decoded."""

    format: str  # in words, e.g. "TIFF"
    count: int  # pictures in the file
    height: int  # as stored
    width: int
    channels: int  # with alpha
    sixteen_bit: bool
    metadata: Metadata  # as stored
    orientation: int = 0  # takes precedence over that of the metadata; 0 if there is none
    notes: tuple[str, ...] = ()  # what of the file is left out, for the user to read
    compression: Compression = LOSSLESS
    problem: str = ""  # why its rows cannot be read one after the other; empty if they can

    @property
    def pixels(self) -> int:
        """How many pixels the picture has."""
        return self.height * self.width

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width of the picture once its orientation is applied."""
        _, orientation = upright_metadata(self.metadata, grey=self.channels < 3, orientation=self.orientation)
        on_its_side = orientation in (5, 6, 7, 8)  # EXIF 2.32, 4.6.5: rows are columns
        return (self.width, self.height) if on_its_side else (self.height, self.width)


class Source(ABC):
    """An open picture file."""

    multi_image: MultiImage = "frames"
    plays = 0

    def __init__(self, opened: OpenedFile) -> None:
        self._file, self._head, self._name = opened.file, opened.head, opened.name
        self.format = opened.format
        self._max_pixels, self._depth = opened.max_pixels, opened.depth

    def close(self) -> None:  # noqa: B027  most have nothing to free
        """Free what was opened beside the file, which stays open."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many pictures there are."""

    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Return rows and columns of the first, before it is turned upright."""

    @abstractmethod
    def frame(self, index: int) -> Frame:
        """Decode one picture."""

    @abstractmethod
    def header(self) -> Header:
        """Describe the first picture."""

    def compression(self) -> Compression:
        """Return what the file says of its compression."""
        at = self._file.tell()
        try:
            return compression_of(self._file, self.format)
        finally:
            self._file.seek(at)

    def decoding(self, *, by_library: bool = True) -> AbstractContextManager[None]:
        """Turn what a decoder raises in a block into an `ImageError`, see `sr.image.refusals`."""
        return decoding(self._name, self.format, by_library=by_library)

    def refuse_large(self, height: int, width: int) -> None:
        """Refuse a picture that is too large, before it is decoded.

        Raises:
            TooLargeError: it is.
        """
        if width * height > self._max_pixels:
            raise TooLargeError(
                f"{self._name}: {width}x{height} are {width * height:,} pixels, the limit is "
                f"{self._max_pixels:,}; if you trust the file, allow them with --max-pixels {width * height}"
            )

    def refuse_variant(self, subject: str) -> None:
        """Refuse a sound file of a variant that no decoder here knows.

        Raises:
            ImageError: always.
        """
        raise ImageError(f"{self._name}: {unsupported(self.format, subject)}")

    def refuse(self, problem: str, remedy: str = "convert it first") -> None:
        """Refuse a sound file of a kind that cannot be kept.

        Raises:
            ImageError: always.
        """
        raise ImageError(f"{self._name}: a {self.format} with {problem}, need RGB or grey; {remedy}")


def upright(picture: Picture, *, turn: bool, orientation: int = 0) -> Picture:
    """Fit the metadata to upright pixels, and turn these unless that is done.

    Args:
        picture: with metadata as stored.
        turn: whether the pixels are still to be turned.
        orientation: takes precedence over that of the metadata; 0 if there is none.
    """
    stored = picture.metadata
    metadata, orientation = upright_metadata(stored, grey=picture.grey, orientation=orientation)
    picture = replace(picture, notes=picture.notes + losses(stored, metadata))
    if not turn:
        return replace(picture, metadata=metadata)
    alpha = None if picture.alpha is None else turned(picture.alpha, orientation)
    return replace(picture, pixels=turned(picture.pixels, orientation), alpha=alpha, metadata=metadata)


def losses(stored: Metadata, kept: Metadata) -> tuple[str, ...]:
    """Say what had to go from metadata because it is not true of the upright picture alone."""
    claims = without_claims(stored.xmp)[1] if stored.xmp else ()
    notes = [f"{claim}: not upscaled, and no longer named in the XMP data" for claim in claims]
    if stored.geo is not None and kept.geo is None:
        notes.append("the georeference is lost: the picture is stored turned")
    if stored.exif is not None and kept.exif is None:
        notes.append("damaged EXIF data are left out")
    profile = stored.icc_profile
    if profile is not None and kept.icc_profile is None and profile[16:20] != b"CMYK":  # which is applied
        notes.append("a colour profile (ICC) that is damaged or of other colours is left out")
    return tuple(notes)


def upright_metadata(stored: Metadata, *, grey: bool, orientation: int = 0) -> tuple[Metadata, int]:
    """Fit stored metadata to upright pixels, grey or RGB; also return the orientation that they had.

    `orientation` takes precedence over that of the metadata; 0 if there is none.
    """
    exif, xmp = stored.exif, stored.xmp
    if exif is not None:
        exif, of_exif = upright_exif(exif)
        orientation = orientation or of_exif
    if xmp is not None:
        xmp, of_xmp = upright_xmp(without_claims(xmp)[0])
        orientation = orientation or of_xmp
    swapped = TURNS.get(orientation, (False,))[0]
    profile = stored.icc_profile
    metadata = replace(
        stored,
        exif=exif,
        xmp=xmp,
        icc_profile=fitting_icc_profile(profile, grey=grey) if profile is not None else None,
        dpi=stored.dpi[::-1] if stored.dpi is not None and swapped else stored.dpi,
        aspect=stored.aspect[::-1] if stored.aspect is not None and swapped else stored.aspect,
        geo=stored.geo if orientation <= 1 else None,  # its axes are those of the pixels as stored
    )
    return metadata, orientation
