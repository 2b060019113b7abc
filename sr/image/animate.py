"""Animations -> files, frame by frame: WebP and AVIF here, PNG and GIF in `sr.image.formats`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from sr.image.encode import avif_arguments, save_arguments, webp_arguments
from sr.image.formats import AVIF, GIF, WEBP, OutputFormat, WriteOptions
from sr.image.formats.gif import write_gif
from sr.image.formats.png import rgba, write_apng
from sr.image.picture import Frame, Picture


def write_animation(
    file: BinaryIO,
    frames: Iterable[Frame],
    *,
    count: int,
    plays: int,
    kind: OutputFormat,
    options: WriteOptions,
) -> None:
    """Write an animation; `frames` is read one by one.

    Args:
        file: where to.
        frames: of one size; metadata are those of the first.
        count: of the frames.
        plays: how often it is shown, 0 means without end. AVIF is always shown without end.
        kind: PNG, GIF, WEBP or AVIF.
        options: of the encoder.
    """
    if kind is GIF:
        write_gif(file, frames, plays=plays)
    elif kind in (WEBP, AVIF):
        _write_with_pillow(file, frames, count=count, plays=plays, kind=kind, options=options)
    else:
        write_apng(file, frames, count=count, plays=plays, compress_level=options.png_level)


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


def _write_with_pillow(
    file: BinaryIO,
    frames: Iterable[Frame],
    *,
    count: int,
    plays: int,
    kind: OutputFormat,
    options: WriteOptions,
) -> None:
    lazy = _Lazy(iter(frames), count)
    arguments: dict[str, Any] = save_arguments(kind, lazy.first.picture, options)[0]
    if kind is WEBP:
        arguments |= {**webp_arguments(options), "loop": plays}
    else:
        arguments |= avif_arguments(options, grey=False)
    lazy.save(file, kind.name, save_all=True, duration=lazy.durations, **arguments)
