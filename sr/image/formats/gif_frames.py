"""GIF animations: frames composited as browsers do, and written one by one.

Owns the layout of GIF (GIF89a, CompuServe 1990); compression is Pillow's. Pillow's own compositing
takes disposal methods over from earlier frames and clears to a colour, where browsers show what is
below.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from sr.image.encode import quantised
from sr.image.formats.gif_extensions import XMP_APPLICATION, extensions, joined_xmp
from sr.image.formats.png_chunks import changes
from sr.image.picture import Frame, Pixels, Pixels8

_HEADER = struct.Struct("<6sHHBBB")
_DESCRIPTOR = struct.Struct("<HHHHB")
_LOOP = b"!\xff\x0bNETSCAPE2.0\x03\x01"
_KEEP, _CLEAR, _RESTORE = 1, 2, 3  # disposal methods, section 23
_LONGEST_CENTISECONDS = 0xFFFF
_INTERLACED, _HAS_PALETTE = 0x40, 0x80  # of a descriptor
_ANY_PALETTE = bytes(range(255, -1, -1)) * 3  # not that of greys, with which Pillow gives no indices


@dataclass(frozen=True)
class GifFrame:
    """One image of the file, not decoded."""

    offset: int  # of the compressed data
    left: int
    top: int
    width: int
    height: int
    interlaced: bool
    palette: bytes | None  # its own
    key: int | None  # the index that means transparent
    disposal: int
    duration_ms: int


@dataclass(frozen=True)
class GifFile:
    """What a file says of itself."""

    height: int
    width: int
    palette: bytes | None
    plays: int  # 0 is without end; browsers take a count of n for n repeats
    frames: tuple[GifFrame, ...]
    comments: tuple[bytes, ...] = ()
    xmp: bytes | None = None

    @property
    def is_covered(self) -> bool:
        """Whether the first frame, if there is one, covers the canvas."""
        return all(
            not (frame.left or frame.top) and frame.width >= self.width and frame.height >= self.height
            for frame in self.frames[:1]
        )


def parsed_gif(file: BinaryIO, *, at_most: int | None = None) -> GifFile:
    """Read everything but the compressed data; with `at_most`, up to that many frames.

    Raises:
        ValueError: the file ends too early or is damaged.
    """
    file.seek(0)
    _, width, height, flags, _, _ = _HEADER.unpack(_read(file, _HEADER.size))
    palette = _read(file, 3 * (2 << (flags & 7))) if flags & _HAS_PALETTE else None
    plays = 1
    frames: list[GifFrame] = []
    comments: list[bytes] = []
    xmp: bytes | None = None
    control = (0, 0, 0)  # flags, centiseconds, key
    while len(frames) != at_most and (introducer := file.read(1)) not in (b";", b""):
        if introducer == b"!":
            label = _read(file, 1)
            blocks = [*_blocks(file), b"", b""]
            if label == b"\xf9" and len(blocks[0]) >= 4:
                control = struct.unpack_from("<BHB", blocks[0])
            elif label == b"\xff" and blocks[0] == b"NETSCAPE2.0" and blocks[1][:1] == b"\x01":
                loop = int.from_bytes(blocks[1][1:3], "little")
                plays = loop + 1 if loop else 0
            elif label == b"\xff" and blocks[0] == XMP_APPLICATION:
                xmp = joined_xmp(blocks[1:-2])
            elif label == b"\xfe":
                comments.append(b"".join(blocks))
        elif introducer == b",":
            frames.append(_parsed_frame(file, control))
            control = (0, 0, 0)
        elif introducer != b"\0":  # which some programs leave between blocks
            raise ValueError("neither a picture nor an extension where one should be")
    if frames:  # browsers go by the first frame if it is larger than the screen that the file states
        width = max(width, frames[0].left + frames[0].width)
        height = max(height, frames[0].top + frames[0].height)
    return GifFile(height, width, palette, plays, tuple(frames), tuple(comments), xmp)


def _parsed_frame(file: BinaryIO, control: tuple[int, int, int]) -> GifFrame:
    """Read an image descriptor and its palette, and go past the compressed data.

    `control` is what the extension before it says: flags, centiseconds, the index that means transparent.
    """
    left, top, width, height, own = _DESCRIPTOR.unpack(_read(file, _DESCRIPTOR.size))
    palette = _read(file, 3 * (2 << (own & 7))) if own & _HAS_PALETTE else None
    offset = file.tell()
    _read(file, 1)
    for _ in _blocks(file):
        pass
    flags, centiseconds, key = control
    return GifFrame(
        offset=offset,
        left=left,
        top=top,
        width=width,
        height=height,
        interlaced=bool(own & _INTERLACED),
        palette=palette,
        key=key if flags & 1 else None,
        disposal=flags >> 2 & 7,
        duration_ms=10 * centiseconds,
    )


def _read(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ValueError("truncated")
    return data


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while size := _read(file, 1)[0]:
        yield _read(file, size)


class GifCanvas:
    """Composites the frames of a file, in order."""

    def __init__(self, file: BinaryIO, gif: GifFile) -> None:
        self._file, self._gif = file, gif
        self._canvas = np.zeros((gif.height, gif.width, 4), np.uint8)
        self._before: tuple[GifFrame, Pixels8] | None = None  # the last frame, and what was below it

    def shown(self, frame: GifFrame) -> Pixels8:
        """Dispose of the last frame, draw the next and return the canvas, RGBA (H, W, 4)."""
        if self._before is not None:
            last, below = self._before
            if last.disposal == _CLEAR:
                self._place(last)[:] = 0
            elif last.disposal == _RESTORE:
                self._place(last)[:] = below
        place = self._place(frame)
        self._before = frame, place.copy() if frame.disposal == _RESTORE else place[:0]
        indices = self._indices(frame)[: place.shape[0], : place.shape[1]]
        colours = _table(frame.palette or self._gif.palette)
        drawn = np.ones(indices.shape, bool) if frame.key is None else indices != frame.key
        place[drawn] = colours[indices[drawn]]
        return self._canvas.copy()

    def _place(self, frame: GifFrame) -> Pixels8:
        """Return the part of the canvas that a frame covers; what lies outside is not seen."""
        return self._canvas[frame.top : frame.top + frame.height, frame.left : frame.left + frame.width]

    def _indices(self, frame: GifFrame) -> Pixels8:
        """Decompress a frame, as a file of its own."""
        self._file.seek(frame.offset)
        size = _read(self._file, 1)
        data = b"".join(bytes([len(block)]) + block for block in _blocks(self._file))
        whole = _HEADER.pack(b"GIF89a", frame.width, frame.height, 0xF7, 0, 0) + _ANY_PALETTE + b","
        whole += _DESCRIPTOR.pack(0, 0, frame.width, frame.height, _INTERLACED * frame.interlaced)
        with GifImageFile(BytesIO(whole + size + data + b"\0;")) as image:
            return np.asarray(image)


def _table(palette: bytes | None) -> Pixels8:
    """Return a palette as (256, 4) RGBA; missing colours are black, of a missing one all are greys."""
    table = np.zeros((256, 4), np.uint8)
    table[:, 3] = 255
    if palette is None:
        table[:, :3] = np.arange(256)[:, None]
    else:
        table[: len(palette) // 3, :3] = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    return table


def write_gif(file: BinaryIO, frames: Iterable[Frame], *, plays: int) -> None:
    """Write an animation frame by frame, each with a palette of its own; `plays` 0 means without end.

    Pillow keeps all frames in memory before it writes the first.
    """
    written_ms, written_cs = 0.0, 0  # durations are rounded so that their sums are right
    cleared = True
    for number, ((frame, box, pixels), following) in enumerate(_with_next(changes(frames))):
        height, width = pixels.shape[:2]
        if number == 0:
            file.write(_HEADER.pack(b"GIF89a", width, height, 0x70, 0, 0))
            if plays != 1:
                file.write(_LOOP + struct.pack("<HB", max(0, plays - 1), 0))
            file.write(extensions(frame.picture.metadata))
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
    items: Iterator[tuple[Frame, tuple[int, int, int, int], Pixels]],
) -> Iterator[tuple[tuple[Frame, tuple[int, int, int, int], Pixels], Pixels | None]]:
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
    palette_end = _HEADER.size + 3 * (2 << (flags & 7)) * (flags >> 7)
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
    return b"!\xf9" + control + descriptor + data[_HEADER.size : palette_end] + data[at + 10 : -1]
