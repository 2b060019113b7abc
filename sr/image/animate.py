"""Animations -> Pillow's encoders, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from sr.image.encode import metadata_arguments
from sr.image.formats.png_chunks import rgba
from sr.image.formats.spec import FormatSpec, SequenceInfo
from sr.image.picture import Frame, Picture
from sr.image.refusals import encoding


def save_frames_with_pillow(
    file: BinaryIO, frames: Iterable[Frame], info: SequenceInfo, spec: FormatSpec, **arguments: Any
) -> None:
    """Encode an animation; `frames` is read one by one.

    Args:
        file: where to.
        frames: of one size; metadata are those of the first.
        info: how many there are.
        spec: the format.
        arguments: of Pillow's encoder.
    """
    lazy = _Lazy(iter(frames), info.count)
    arguments = metadata_arguments(lazy.first.picture, spec) | arguments
    with encoding(spec.name):
        lazy.save(file, spec.pillow_name, save_all=True, duration=lazy.durations, **arguments)


class _Lazy(Image.Image):
    """Frames that come into being when Pillow seeks them, one at a time."""

    def __init__(self, frames: Iterator[Frame], count: int) -> None:
        super().__init__()
        self.n_frames, self.is_animated = count, True
        self.durations: list[int] = []  # ms; grows with the frames, rounded so that its sums are right
        self.first = Frame(Picture(np.zeros((1, 1), np.uint8)))
        self._frames, self._at, self._elapsed = frames, -1, 0.0
        self.seek(0)

    def seek(self, frame: int) -> None:
        """Go to the frame behind the current one; others cannot be had, and are not asked for."""
        if frame != self._at + 1:
            return
        following = next(self._frames, None)
        if following is None:
            raise EOFError("no more frames")
        self.first = following if frame == 0 else self.first
        image = Image.fromarray(rgba(following))
        self._mode, self._size, self.im = image.mode, image.size, image.im
        self._elapsed += following.duration_ms
        self.durations.append(round(self._elapsed) - sum(self.durations))
        self._at = frame

    def tell(self) -> int:
        """Return the current frame."""
        return self._at
