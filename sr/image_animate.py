"""Animations -> GIF, WebP and AVIF files, frame by frame. PNG is `sr.image_png`'s.

GIF is put together here, because Pillow keeps all frames in memory before it writes the first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from sr.image_encode import avif_arguments, quantised, save_arguments, webp_arguments
from sr.image_formats import AVIF, GIF, WEBP, OutputFormat, WriteOptions
from sr.image_picture import Frame, Picture, Samples
from sr.image_png import changes, rgba, write_apng

_GIF_HEADER = struct.Struct("<6sHHBBB")
_LOOP = b"!\xff\x0bNETSCAPE2.0\x03\x01"
_KEEP, _CLEAR = 1, 2  # disposal methods, GIF89a section 23
_LONGEST_CENTISECONDS = 0xFFFF


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
        _write_gif(file, frames, plays=plays)
    elif kind in (WEBP, AVIF):
        _write_with_pillow(file, frames, count=count, plays=plays, kind=kind, options=options)
    else:
        write_apng(file, frames, count=count, plays=plays, compress_level=options.png_level)


def _write_gif(file: BinaryIO, frames: Iterable[Frame], *, plays: int) -> None:
    written_ms, written_cs = 0.0, 0  # durations are rounded so that their sums are right
    cleared = True
    for number, ((frame, box, pixels), following) in enumerate(_with_next(changes(frames))):
        height, width = pixels.shape[:2]
        if number == 0:
            file.write(_GIF_HEADER.pack(b"GIF89a", width, height, 0x70, 0, 0))
            if plays != 1:
                file.write(_LOOP + struct.pack("<HB", max(0, plays - 1), 0))
        # What becomes transparent can only be cleared, and clearing is of the whole frame.
        clear = following is not None and bool(((pixels[..., 3] >= 128) & (following[..., 3] < 128)).any())
        left, top, right, bottom = (0, 0, width, height) if clear or cleared else box
        written_ms += frame.duration_ms
        delay = min(max(0, round(written_ms / 10) - written_cs), _LONGEST_CENTISECONDS)
        written_cs += delay
        part = Image.fromarray(pixels[top:bottom, left:right])
        file.write(_gif_frame(part, left, top, delay=delay, disposal=_CLEAR if clear else _KEEP))
        cleared = clear
    file.write(b";")


def _with_next(
    items: Iterator[tuple[Frame, tuple[int, int, int, int], Samples]],
) -> Iterator[tuple[tuple[Frame, tuple[int, int, int, int], Samples], Samples | None]]:
    """Pair each frame with the pixels of the one behind it."""
    current = next(items, None)
    while current is not None:
        following = next(items, None)
        yield current, None if following is None else following[2]
        current = following


def _gif_frame(image: Image.Image, left: int, top: int, *, delay: int, disposal: int) -> bytes:
    """Return graphic control, descriptor, palette and data of a frame, as Pillow compresses them."""
    reduced = quantised(image)
    key = reduced.info.get("transparency")
    buffer = BytesIO()
    reduced.save(buffer, "GIF", optimize=False)
    data = buffer.getvalue()
    flags = data[10]
    palette_end = _GIF_HEADER.size + 3 * (2 << (flags & 7)) * (flags >> 7)
    at = palette_end
    while data[at] == ord("!"):  # extensions, of which ours takes the place
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    control = struct.pack("<BBHBB", 4, disposal << 2 | (key is not None), delay, key or 0, 0)
    _, _, _, width, height, own = struct.unpack_from("<BHHHHB", data, at)
    interlaced = own & 0x40
    descriptor = struct.pack("<BHHHHB", ord(","), left, top, width, height, 0x80 | interlaced | flags & 7)
    return b"!\xf9" + control + descriptor + data[_GIF_HEADER.size : palette_end] + data[at + 10 : -1]


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
