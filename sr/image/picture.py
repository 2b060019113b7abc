"""What a picture is: arrays, the metadata beside them, and notes for the user."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sr.image.compression import Compression
from sr.image.metadata import Metadata

Pixels = NDArray[Any]  # uint8 or uint16
Pixels8 = NDArray[np.uint8]
MultiImage = Literal["", "frames", "pages"]  # what several pictures in one file are; empty if there is one


@dataclass(frozen=True)
class Restoration:
    """How strongly damage was undone, from 0 to 1, and why so."""

    strength: float
    why: str


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture the right way up, 8 or 16 bits per channel. Arrays may be read-only."""

    pixels: Pixels  # uint8 or uint16, (H, W, 3) RGB or (H, W) grey
    alpha: Pixels | None = None  # as the pixels, (H, W), 0 is transparent; not premultiplied
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()  # what had to change on the way in, for the user to read
    compression: Compression | None = None  # what its file says; None if it comes from no file
    restored: Restoration | None = None  # what was done to it; None if nothing could be

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])

    @property
    def grey(self) -> bool:
        """Whether there is one channel."""
        return self.pixels.ndim == 2

    @property
    def sixteen_bit(self) -> bool:
        """Whether there are 16 bits per channel."""
        return self.pixels.dtype == np.uint16

    @property
    def bytes(self) -> int:
        """Bytes of all samples."""
        return self.pixels.nbytes + (0 if self.alpha is None else self.alpha.nbytes)

    @property
    def transparent(self) -> bool:
        """Whether any pixel is not opaque; what `check_output` wants to know as `alpha`."""
        return self.alpha is not None and bool((self.alpha < np.iinfo(self.alpha.dtype).max).any())


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of several: a frame of an animation, whole and composited, or a page."""

    picture: Picture
    duration_ms: float = 0.0  # how long it is shown


def to_8_bits(samples: Pixels) -> NDArray[np.uint8]:
    """Round 16 bits to 8 bits, 0 to 0 and 65,535 to 255; 8 bits are returned as they are."""
    if samples.dtype == np.uint8:
        return samples
    result = np.empty(samples.shape, np.uint8)
    step = max(1, (1 << 22) // max(1, samples[0].size))  # rows at once: a few MiB
    for top in range(0, len(samples), step):
        result[top : top + step] = (samples[top : top + step].astype(np.uint32) + 128) // 257
    return result
