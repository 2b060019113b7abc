"""GIF files as they are read: animations composited here, single pictures by Pillow."""

from __future__ import annotations

import numpy as np
from PIL.GifImagePlugin import GifImageFile

from sr.image.formats.gif_frames import GifCanvas, GifFile
from sr.image.metadata import Metadata
from sr.image.picture import Frame, Picture
from sr.image.pillow import PillowSource, comment_text
from sr.image.source import Header, OpenedFile, Source, upright


class GifSource(Source):
    """A GIF with several frames, or one that does not cover all of the canvas."""

    def __init__(self, opened: OpenedFile, gif: GifFile) -> None:
        super().__init__(opened)
        self._gif = gif
        self.plays = gif.plays
        self.refuse_large(gif.height, gif.width)
        self._canvas: GifCanvas | None = None

    @property
    def count(self) -> int:
        """How many frames there are."""
        return len(self._gif.frames)

    def size(self) -> tuple[int, int]:
        """Return rows and columns."""
        return self._gif.height, self._gif.width

    def frame(self, index: int) -> Frame:
        """Composite the next frame, or the first."""
        if index == 0 or self._canvas is None:
            self._canvas = GifCanvas(self._file, self._gif)
        frame = self._gif.frames[index]
        self.refuse_large(frame.height, frame.width)  # it can exceed its visible part
        with self.decoding():
            pixels = self._canvas.shown(frame)
        alpha = None if (pixels[..., 3] == 255).all() else np.ascontiguousarray(pixels[..., 3])
        picture = Picture(np.ascontiguousarray(pixels[..., :3]), alpha, _metadata(self._gif))
        return Frame(upright(picture, turn=False), frame.duration_ms)

    def header(self) -> Header:
        """Describe the first frame."""
        return Header(
            self.format,
            self.count,
            *self.size(),
            4,
            False,
            _metadata(self._gif),
            problem="a GIF of frames",
        )


class GifStill(PillowSource):
    """A GIF with one picture; Pillow reads no XMP data."""

    def __init__(self, opened: OpenedFile, gif: GifFile) -> None:
        self._gif = gif
        super().__init__(opened, GifImageFile)

    def stored_metadata(self) -> Metadata:
        """Return what stands beside the pixels."""
        return _metadata(self._gif)


def _metadata(gif: GifFile) -> Metadata:
    text = tuple(pair for comment in gif.comments for pair in comment_text(comment))
    return Metadata(xmp=gif.xmp, text=text)
