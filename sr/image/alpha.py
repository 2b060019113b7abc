"""Transparency: what a network sees under it, and what it may make of it.

Files hold any colour where they are fully transparent, mostly black, which would draw a dark halo
round every cut-out. And a network rings beside the hard edges that alpha has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from sr.image.picture import Pixels

_Float32 = NDArray[np.float32]
_ALL = slice(None)


def within_neighbours(
    upscaled: Pixels, alpha: Pixels, *, scale: int, rows: slice = _ALL, columns: slice = _ALL
) -> Pixels:
    """Clip upscaled alpha to what the 3x3 neighbourhood of each lr pixel spans.

    So areas that are wholly transparent, or wholly opaque, stay exactly so.

    Args:
        upscaled: uint8 or uint16, (scale*h, scale*w), contiguous.
        alpha: of the dtype of `upscaled`, (H, W); its `rows` and `columns` (h, w) were upscaled.
        scale: upscaling factor.
        rows: of a part that has its neighbours in `alpha`; else all are meant.
        columns: likewise.
    """
    low = _over_neighbours(np.minimum, alpha)[rows, columns]
    high = _over_neighbours(np.maximum, alpha)[rows, columns]
    blocks = upscaled.reshape(low.shape[0], scale, low.shape[1], scale)
    return np.clip(blocks, low[:, None, :, None], high[:, None, :, None]).reshape(upscaled.shape)


def _over_neighbours(pick: np.ufunc, alpha: Pixels) -> Pixels:
    """Return the extreme of each 3x3 neighbourhood, picture borders repeated, (H, W)."""
    rows = np.pad(alpha, ((1, 1), (0, 0)), mode="edge")
    rows = pick(pick(rows[:-2], rows[1:-1]), rows[2:])
    columns = np.pad(rows, ((0, 0), (1, 1)), mode="edge")
    return pick(pick(columns[:, :-2], columns[:, 1:-1]), columns[:, 2:])


def bleed_under_transparency(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Give fully transparent pixels a colour that continues the visible ones.

    Pull-push over an image pyramid (Gortler et al., "The Lumigraph", SIGGRAPH 1996, section 3.6.2),
    weighted by alpha. Needs about 12 bytes per pixel in all.

    Args:
        pixels: uint8 or uint16, (H, W, 3) or (H, W).
        alpha: as the pixels, (H, W).

    Returns:
        An array like `pixels`, equal to it wherever alpha > 0; `pixels` itself where nothing, or
        everything, is transparent.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    result = pixels.copy()
    _fill(_channels(result), hidden, _filled(*_halved(_channels(pixels), alpha)))
    return result


# Below this many halvings the pyramid of a whole picture is held, a thousandth of its pixels.
_COARSE = 5
BLEED_ROWS = 1 << _COARSE


class BleedByBands:
    """`bleed_under_transparency` for a picture that is seen in bands of rows, bit for bit the same."""

    def __init__(self, bands: Iterable[tuple[Pixels, Pixels]]) -> None:
        """Look at all of the picture.

        Args:
            bands: pixels and alpha of `BLEED_ROWS` rows or a multiple, the last may have fewer.
        """
        levels, hidden, visible, self.transparent = [], False, False, False
        for pixels, alpha in bands:
            hidden, visible = hidden or not alpha.all(), visible or bool(alpha.any())
            self.transparent = self.transparent or bool((alpha < np.iinfo(alpha.dtype).max).any())
            level = _channels(pixels), alpha
            for _ in range(_COARSE):
                level = _halved(*level)
            levels.append(level)
        self._needed = hidden and visible
        if self._needed:
            colour, weight = (np.concatenate(parts) for parts in zip(*levels, strict=True))
            self._coarse = _filled(colour, weight)

    @staticmethod
    def around(start: int, stop: int, *, height: int) -> tuple[int, int]:
        """Return which rows `rows` must be given for the rows from `start` to `stop`.

        Halvings begin at multiples of `BLEED_ROWS`. What is missing beyond a border changes one row
        there at each halving and twice those of the next: 31 rows in all.
        """
        first, last = start // BLEED_ROWS - 1, -(-stop // BLEED_ROWS) + 1
        return max(0, first * BLEED_ROWS), min(height, last * BLEED_ROWS)

    def rows(self, pixels: Pixels, alpha: Pixels, *, first: int) -> Pixels:
        """Return pixels (h, W, 3) or (h, W) from row `first` on as those of the whole picture.

        They hold inside of what `around` was asked for.
        """
        if not self._needed:
            return pixels
        top = first // BLEED_ROWS
        coarse = self._coarse[top : top + -(-len(pixels) // BLEED_ROWS)]
        result = pixels.copy()
        below = _filled(*_halved(_channels(pixels), alpha), levels=_COARSE - 1, coarse=coarse)
        _fill(_channels(result), alpha == 0, below)
        return result


def _channels(pixels: Pixels) -> Pixels:
    return pixels.reshape(*pixels.shape[:2], -1)  # (H, W, C), a view


def _filled(
    colour: _Float32, weight: _Float32, *, levels: int = -1, coarse: _Float32 | None = None
) -> _Float32:
    """Fill in the colour where the weight is 0, from coarser and coarser copies.

    After `levels` halvings `coarse` is taken, where that is given.
    """
    if levels == 0 and coarse is not None:
        return coarse
    empty = weight == 0
    if not empty.any():
        return colour
    result = colour.copy()
    _fill(result, empty, _filled(*_halved(colour, weight), levels=levels - 1, coarse=coarse))
    return result


def _fill(colour: Pixels, empty: NDArray[np.bool_], below: _Float32) -> None:
    """Fill empty pixels of (H, W, C) by interpolation from half the size, rounded for integers."""
    for rows, columns, part in _doubled(below, *empty.shape):
        found = part if colour.dtype == np.float32 else np.rint(part).astype(colour.dtype)
        np.copyto(colour[rows, columns], found, where=empty[rows, columns, None])


def _halved(colour: Pixels, weight: Pixels) -> tuple[_Float32, _Float32]:
    """Average 2x2 blocks: (H, W, C) and (H, W) to half the size, rounded up."""
    height, width = (weight.shape[0] + 1) // 2, (weight.shape[1] + 1) // 2
    sums = np.zeros((height, width, colour.shape[2]), np.float32)
    total = np.zeros((height, width), np.float32)
    for phase in np.ndindex(2, 2):
        part = weight[phase[0] :: 2, phase[1] :: 2].astype(np.float32)
        rows, columns = part.shape
        total[:rows, :columns] += part
        sums[:rows, :columns] += colour[phase[0] :: 2, phase[1] :: 2] * part[..., None]
    sums /= np.where(total == 0, 1, total)[..., None]
    total /= 4
    return sums, total


def _doubled(colour: _Float32, height: int, width: int) -> Iterator[tuple[slice, slice, _Float32]]:
    """Interpolate bilinearly to `height` x `width`, in four parts, each with the place it belongs to."""
    for row in (0, 1):
        half = _shifted(colour, axis=0, phase=row, length=height)
        for column in (0, 1):
            part = _shifted(half, axis=1, phase=column, length=width)
            yield slice(row, None, 2), slice(column, None, 2), part


def _shifted(colour: _Float32, *, axis: int, phase: int, length: int) -> _Float32:
    """Interpolate every second position of an axis of `length`: a quarter before or after its source."""
    index = np.arange((length - phase + 1) // 2)
    beside = np.clip(index + (2 * phase - 1), 0, colour.shape[axis] - 1)
    part = colour.take(index, axis) * np.float32(0.75)
    part += colour.take(beside, axis) * np.float32(0.25)
    return part
