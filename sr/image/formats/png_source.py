"""PNG files as they are read: 8 bits and animations through Pillow, 16 bits through libvips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from sr.image.formats.png_chunks import read_chunks
from sr.image.metadata import Metadata
from sr.image.picture import Frame, Picture
from sr.image.pillow import PillowSource
from sr.image.source import REDUCED, Header, OpenedFile, upright
from sr.image.vips import REDUCE, read_with_vips, vips_is_installed

_BITS_AT = 24  # in IHDR, which begins the file
_COLOUR_TYPE_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


class PngSource(PillowSource):
    """A PNG."""

    def __init__(self, opened: OpenedFile) -> None:
        """Read the header and the chunks that Pillow does not carry over."""
        # Before Pillow opens it, which goes on reading animations where it stopped.
        self._chunks = read_chunks(opened.file)
        notes = ("text of more than 16 MiB, or damaged text, is lost",) if self._chunks.lost_text else ()
        super().__init__(opened, PngImageFile, rows_problem="", notes=notes)
        with self.decoding():
            if self._image.mode == "P" and self._image.palette is None:
                raise ValueError("no palette")  # Pillow would take indices for greys

    @property
    def png_bits(self) -> int:
        """Bits per channel."""
        return self._head[_BITS_AT]

    def frame(self, index: int) -> Frame:
        """Decode one picture."""
        if self.png_bits != 16 or (self._depth == 8 and (self._frames > 1 or not vips_is_installed())):
            return self._by_pillow(index)
        if self._frames > 1:
            self.refuse("several frames of 16 bits per channel", f"convert it first, or {REDUCE}")
        with self.decoding():
            self._image.load()  # checks what libvips does not
        metadata = self.stored_metadata()
        self.reopen()  # what Pillow has made of the pixels is of no use
        pixels, alpha = read_with_vips(
            self._file,
            self._name,
            self.format,
            loader="pngload_source",
            subject="16 bits per channel",
            alternative=REDUCE,
        )
        return Frame(upright(Picture(pixels, alpha, metadata, self._notes), turn=True))

    def _by_pillow(self, index: int) -> Frame:
        """Decode a picture; of 16 bits per channel Pillow gives the higher 8, of grey alone all."""
        if self.png_bits != 16:
            return super().frame(index)
        if "transparency" in self._image.info:
            self.refuse("a colour of 16 bits per channel that means transparent")
        if self._image.mode.startswith("I"):
            with self.decoding():
                self._image.load()
            pixels = np.asarray(self._image).astype(np.uint16)
            return Frame(upright(Picture(pixels, None, self.stored_metadata(), self._notes), turn=True))
        frame = super().frame(index)
        return replace(frame, picture=replace(frame.picture, notes=(*frame.picture.notes, REDUCED)))

    def header(self) -> Header:
        """Describe the first picture."""
        if self.png_bits != 16:
            return super().header()
        colour_type = self._head[_BITS_AT + 1]
        channels = _COLOUR_TYPE_CHANNELS.get(colour_type, 1) + ("transparency" in self._image.info)
        return Header(
            self.format,
            self.count,
            *self.size(),
            channels=channels,
            sixteen_bit=True,
            metadata=self.stored_metadata(),
            notes=self._notes,
        )

    def stored_metadata(self) -> Metadata:
        """Return what stands beside the pixels, as stored."""
        stored, profiles = super().stored_metadata(), self._chunks.profiles
        return replace(
            stored,
            icc_profile=stored.icc_profile or profiles.get("icc"),
            exif=profiles.get("exif"),
            xmp=profiles.get("xmp"),
            iptc=profiles.get("iptc"),
            png_chunks=self._chunks.kept,
            text=self._chunks.text,
        )
