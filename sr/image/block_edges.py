"""Block edges that a JPEG left in pixels, where its blocks begin, and about how fine it was.

Each jump between two columns is measured against those around it, so that smooth parts, where blocks show,
count as much as rough ones. What it was chosen by is in benchmarks/README.md, "Pictures that were JPEGs".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK = 8
_FEWEST = 6  # blocks along a side; fewer do not tell
_MOST_LINES = 512  # that are looked at across the edges; neighbours say the same
_PARTS = 4  # along each side: the edges are all over the picture, unlike a fence or lines of text
_SMOOTHEST = 1.0  # levels, added to the roughness: what is nearly flat has no edges to compare
_BEFORE = _BLOCK // 2 + 2  # columns before the first whose jump is measured
_INNER = slice(2, 7)  # px from an edge that it does not reach
# Blocks of equal pixels (mosaics, enlarged pixel art) are smooth inside, those of a JPEG hardly ever.
_REPEATED = 0.01
# A step is half as rough one px beside it (99 % of JPEGs to quality 90 stay below), a thin line as rough.
_LINE = 0.85

# In smaller pictures the measure varies more. So decided, 3 of 11,850 clean crops of 48 to 256 px are
# mistaken, all of them of drawings and of 48 px.
_CLEAN = 0.06
_SURE_SIDE = 128  # px
# Medians of JPEGs of photographs, and their qualities.
_MEASURES = (0.10, 0.18, 0.25, 0.33, 0.39, 0.45, 0.55, 0.63, 0.74, 0.86, 1.00, 1.30)
_QUALITIES = (95, 90, 85, 80, 75, 70, 60, 50, 40, 30, 20, 10)


@dataclass(frozen=True)
class BlockEdges:
    """How much rougher a picture is across one line in eight than across others.

    Attributes:
        lead: 0 for pictures without them, for lines and most other patterns of this period, and for pixels
            that were repeated eight times.
        corner: top and left, in px, at which the first block begins.
        quality: about that of the JPEG that left them; None if there are none.
    """

    lead: float = 0.0
    corner: tuple[int, int] = (0, 0)
    quality: float | None = None


def block_edges(pixels: NDArray) -> BlockEdges:
    """Return the edges of blocks, which may begin anywhere.

    Args:
        pixels: uint8 or uint16, (H, W) or (H, W, 3).
    """
    shortest = min(pixels.shape[:2])
    if shortest < _FEWEST * _BLOCK:
        return BlockEdges()
    luma = (pixels if pixels.ndim == 2 else pixels[..., 1]).astype(np.float32)  # green is nearly luma
    luma *= 255 / np.iinfo(pixels.dtype).max
    (across, left), (down, top) = (_lead(each) for each in (luma, np.ascontiguousarray(luma.T)))
    lead = max(0.0, min(across, down))
    found = lead > _CLEAN * max(1.0, _SURE_SIDE / shortest) ** 2
    return BlockEdges(lead, (top, left), float(np.interp(lead, _MEASURES, _QUALITIES)) if found else None)


def _lead(luma: NDArray[np.float32]) -> tuple[float, int]:
    """Return by how much columns one block apart are rougher than others, and the first of them.

    What the others differ by is taken off: JPEGs differ at their edges alone, stripes and traces of
    resampling also between them.
    """
    step = -(-len(luma) // _MOST_LINES)
    parts = _by_phase(_relative_jumps(luma[::step]))
    at = int(parts.mean(0).argmax())
    first = (at + _BEFORE) % _BLOCK
    from_edge = np.roll(parts, -at, axis=1)
    edge, before, after = from_edge.mean(0)[[0, -1, 1]]
    inner = from_edge.mean(0)[_INNER]
    floor = inner.mean()
    if floor < _REPEATED * edge or max(before, after) - floor > _LINE * (edge - floor):
        return 0.0, first
    leads = from_edge[:, 0] - from_edge[:, 1:].mean(1)
    return float(np.median(leads) - np.ptp(inner)), first


def _relative_jumps(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the jump before each column as a multiple of the mean within half a block: (H, W - 11)."""
    jump = np.abs(3 * (luma[:, 2:-1] - luma[:, 1:-2]) - (luma[:, 3:] - luma[:, :-3]))  # 0 for parabolas
    twos = jump[:, :-1] + jump[:, 1:]
    fours = twos[:, :-2] + twos[:, 2:]
    eights = fours[:, :-4] + fours[:, 4:]
    near = (eights[:, :-1] + eights[:, 1:]) / (2 * _BLOCK)
    relative: NDArray[np.float32] = jump[:, _BLOCK // 2 : -(_BLOCK // 2)] / (near + _SMOOTHEST)
    return relative


def _by_phase(relative: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the means over the columns of equal remainder modulo eight in each part: (16, 8)."""
    bands = np.stack([band.mean(0) for band in np.array_split(relative, _PARTS)])
    blocks = bands[:, : bands.shape[1] // _BLOCK * _BLOCK].reshape(_PARTS, -1, _BLOCK)
    return np.concatenate([part.mean(1) for part in np.array_split(blocks, _PARTS, axis=1)])
