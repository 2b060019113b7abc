"""How crops of a picture differ from the whole of it, by the distance from their edge. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The tiling contract: no value is off by more than a level, and at most this share of them is off at all.
MAX_LEVELS, MAX_SHARE = 1, 1e-4

# Of two depths that leave the same levels, the deeper one must leave less than this part of the values off.
_MUCH_LESS = 0.5


@dataclass(frozen=True)
class Depth:
    """How a crop differs from the whole picture at a depth and deeper.

    Attributes:
        levels: largest difference of a value, in levels of 255.
        differing: number of values that differ.
        values: number of values.
    """

    levels: int
    differing: int
    values: int

    @property
    def share(self) -> float:
        """Share of the values that differ."""
        return self.differing / max(1, self.values)

    @property
    def fits(self) -> bool:
        """Whether this meets the tiling contract; a single value may always differ by a rounding."""
        return self.levels <= MAX_LEVELS and self.differing <= max(1, MAX_SHARE * self.values)

    @property
    def fits_but_for_chance(self) -> bool:
        """Whether no more differ than chance explains where the contract is met (three deviations)."""
        expected = MAX_SHARE * self.values
        return self.levels <= MAX_LEVELS and self.differing <= 1 + expected + 3 * math.sqrt(expected)


def differences(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return by how many levels two pictures differ, (H, W, 3)."""
    return np.abs(first.astype(np.int16) - second.astype(np.int16))


def by_depth(found: Sequence[NDArray[np.int16]], scale: int) -> list[Depth]:
    """Return what differs at each depth, in lr pixels from the edge, and deeper."""
    side = min(found[0].shape[:2])
    profile = []
    for depth in range(side // scale // 2):
        rim = depth * scale
        deeper = [each[rim : each.shape[0] - rim, rim : each.shape[1] - rim] for each in found]
        profile.append(
            Depth(
                levels=max(int(each.max()) for each in deeper),
                differing=sum(int(np.count_nonzero(each)) for each in deeper),
                values=sum(each.size for each in deeper),
            )
        )
    return profile


def smallest_fitting(profile: Sequence[Depth]) -> int | None:
    """Return the smallest depth that meets the contract; None if there is none.

    All deeper ones must meet it too, but for chance: among few values one or two roundings count much.
    """
    fitting = None
    for depth in range(len(profile) - 1, -1, -1):
        if not profile[depth].fits_but_for_chance:
            break
        fitting = depth if profile[depth].fits else fitting
    return fitting


def least_seen(profile: Sequence[Depth], *, least: int) -> int:
    """Return the smallest depth, from `least` on, that leaves about as little as the best one."""
    levels = min(each.levels for each in profile)
    as_good = [depth for depth, each in enumerate(profile) if each.levels == levels]
    share = min(profile[depth].share for depth in as_good)
    return max(least, next(depth for depth in as_good if profile[depth].share * _MUCH_LESS <= share))
