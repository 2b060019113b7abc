"""How far tiles of a foreign network must overlap: measured, whole pictures against crops of them.

A crop differs from the whole picture near its edges, where context is missing. That margin is the halo.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sr.errors import ModelError
from sr.network.content import contents
from sr.network.foreign.probe import Probed
from sr.network.foreign.session import PictureSession
from sr.tiling import MIN_HALOS_PER_TILE

# The tiling contract: no value is off by more than a level, and at most this share of them is off at all.
MAX_LEVELS, MAX_SHARE = 1, 1e-4

# Sides of whole picture and crop in lr pixels, tried in turn: they find halos up to 24, 64 and 112. Most
# networks need less than 24, Real-ESRGAN x4plus more than 48.
_STAGES = ((96, 64), (192, 144), (320, 240))
_INNERMOST = 8  # lr pixels in the middle of a crop that must be inside the halo

# Positions of crops that suit every network that takes pixels in groups of up to 16.
_COARSEST = 16

# On top of what was measured, for contents that were not.
_MARGIN = 1.25
# Where no halo makes tiles exact: what other tools overlap by at most.
_WITHOUT_HALO = 32

# What all stages may take with a picture for each kind of content, by the time of a picture of this side.
_PATIENCE_SECONDS, _TIMED_PX = 60.0, 32

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Halo:
    """What was measured.

    Attributes:
        halo: lr pixels.
        exact: tiles equal the whole picture with this halo.
        multiple: positions and sizes of tiles are multiples of this.
        levels: largest difference of a value that is left with this halo, in levels of 255.
        largest: lr pixels of the largest picture that was run.
    """

    halo: int
    exact: bool
    multiple: int
    levels: int
    largest: int


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
    def fits(self) -> bool:
        """Whether this meets the tiling contract; a single value may always differ by a rounding."""
        return self.levels <= MAX_LEVELS and self.differing <= max(1, MAX_SHARE * self.values)


def measure_halo(session: PictureSession, probed: Probed, progress: Progress) -> Halo:
    """Measure the halo of a network.

    Raises:
        ModelError: the network failed.
    """
    if probed.ends.size is not None:
        return _of_fixed_size(session, probed, progress)
    depth, levels, largest = _WITHOUT_HALO, 0, 0
    costly = _costly(session, probed)
    for stage, (side, crop) in enumerate(_STAGES):
        if crop < probed.minimum:
            continue

        def shown(part: float, phase: str = f"pictures of {side} px", stage: int = stage) -> None:
            progress(f"measuring how far tiles must overlap, {phase}", (stage + part) / len(_STAGES))

        pictures = _Pictures(session, probed, side=side, crop=crop, joined=costly, progress=shown)
        largest = side**2
        for multiple in _multiples(probed.multiple):
            profile = pictures.profile(multiple)
            halo = _smallest(profile)
            if halo is not None and halo <= crop // 2 - _INNERMOST:
                if multiple == _COARSEST and multiple != probed.multiple:
                    multiple, profile = _finest(pictures, probed.multiple, profile)
                    halo = _smallest(profile) or 0
                return Halo(_rounded(halo, multiple), True, multiple, profile[halo].levels, largest)
            depth = _least_seen(profile[: crop // 2 - _INNERMOST])
            levels = profile[min(depth, len(profile) - 1)].levels
    if not largest:
        raise ModelError(f"needs pictures of {probed.minimum} px and more, which are too large to measure it")
    return Halo(-(-depth // probed.multiple) * probed.multiple, False, probed.multiple, levels, largest)


def _least_seen(profile: list[Depth]) -> int:
    """Return the smallest depth, from the usual overlap on, that leaves the least difference."""
    return max(_WITHOUT_HALO, min(range(len(profile)), key=lambda depth: profile[depth].levels))


def _multiples(least: int) -> list[int]:
    """Return at which positions crops begin: anywhere, and, if tiles do not match there, on a coarse grid."""
    return list(dict.fromkeys([least, max(_COARSEST, least)]))


def _costly(session: PictureSession, probed: Probed) -> bool:
    """Say whether four pictures of each size would take too long: then one has a quarter of each kind."""
    side = -(-max(_TIMED_PX, probed.minimum) // probed.multiple) * probed.multiple
    picture = np.zeros((side, side, 3), np.uint8)
    session.upscaled(probed.ends, picture)  # the first run of a shape takes longer
    start = time.perf_counter()
    session.upscaled(probed.ends, picture)
    px = sum(len(contents(height=8, width=8)) * (whole**2 + crop**2) for whole, crop in _STAGES)
    return (time.perf_counter() - start) / side**2 * px > _PATIENCE_SECONDS


def _finest(pictures: _Pictures, least: int, coarse: list[Depth]) -> tuple[int, list[Depth]]:
    """Return the smallest multiple at which tiles may begin, and its profile.

    Where a network takes pixels of its input in groups, tiles must begin where a group begins.
    """
    for multiple in (2, 4, 8):
        if multiple <= least:
            continue
        profile = pictures.profile(multiple)
        halo = _smallest(profile)
        if halo is not None and halo <= pictures.crop // 2 - _INNERMOST:
            return multiple, profile
    return max(_COARSEST, least), coarse


def _rounded(halo: int, multiple: int) -> int:
    """Return a halo with its margin, in whole multiples."""
    return -(-math.ceil(halo * _MARGIN) // multiple) * multiple


class _Pictures:
    """Pictures of each kind of content, and what the network makes of them as a whole."""

    def __init__(
        self,
        session: PictureSession,
        probed: Probed,
        *,
        side: int,
        crop: int,
        joined: bool,
        progress: Callable[[float], None],
    ) -> None:
        self._session, self._probed, self.crop = session, probed, crop
        kinds = list(contents(height=side, width=side).values())
        self._pictures = [_quarters(kinds)] if joined else kinds
        self._wholes = []
        for done, picture in enumerate(self._pictures):
            progress(done / (len(self._pictures) + 1))
            self._wholes.append(session.upscaled(probed.ends, picture))
        progress(len(self._pictures) / (len(self._pictures) + 1))

    def profile(self, multiple: int) -> list[Depth]:
        """Compare crops that begin at an odd number of multiples, or at a multiple of 16, with the whole."""
        start = _COARSEST if multiple >= _COARSEST else _COARSEST + multiple
        inside, scale = slice(start, start + self.crop), self._probed.scale
        place = slice(start * scale, (start + self.crop) * scale)
        found = [
            _levels(whole[place, place], self._session.upscaled(self._probed.ends, picture[inside, inside]))
            for picture, whole in zip(self._pictures, self._wholes, strict=True)
        ]
        return _by_depth(found, scale)


def _quarters(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return one picture, each quarter of which is from another one."""
    height, width = (side // 2 for side in pictures[0].shape[:2])
    joined = pictures[0].copy()
    joined[:height, width:] = pictures[1][:height, width:]
    joined[height:, :width] = pictures[2][height:, :width]
    joined[height:, width:] = pictures[3][height:, width:]
    return joined


def _of_fixed_size(session: PictureSession, probed: Probed, progress: Progress) -> Halo:
    """Compare two crops that overlap: the network takes no larger picture."""
    assert probed.ends.size is not None
    height, width = probed.ends.size
    step = max(1, min(height, width) // 4)
    progress("measuring how far tiles must overlap", 0.0)
    found: list[NDArray[np.int16]] = []
    for picture in contents(height=height + step, width=width + step).values():
        first = session.upscaled(probed.ends, picture[:height, :width])
        second = session.upscaled(probed.ends, picture[step:, step:])
        lost = step * probed.scale
        found.append(_levels(first[lost:, lost:], second[:-lost, :-lost]))
    profile = _by_depth(found, probed.scale)
    halo, most = _smallest(profile), min(height, width) // MIN_HALOS_PER_TILE
    if halo is None or _rounded(halo, 1) > most:
        depth = min(most, len(profile) - 1)
        return Halo(depth, False, 1, profile[depth].levels, height * width)
    return Halo(_rounded(halo, 1), True, 1, profile[halo].levels, height * width)


def _levels(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return the differences, (H, W, 3)."""
    return np.abs(first.astype(np.int16) - second.astype(np.int16))


def _by_depth(differences: list[NDArray[np.int16]], scale: int) -> list[Depth]:
    """Return what differs at each depth, in lr pixels from the edge, and deeper."""
    side = min(differences[0].shape[:2])
    profile = []
    for depth in range(side // scale // 2):
        rim = depth * scale
        deeper = [each[rim : each.shape[0] - rim, rim : each.shape[1] - rim] for each in differences]
        profile.append(
            Depth(
                levels=max(int(each.max()) for each in deeper),
                differing=sum(int(np.count_nonzero(each)) for each in deeper),
                values=sum(each.size for each in deeper),
            )
        )
    return profile


def _smallest(profile: list[Depth]) -> int | None:
    """Return the smallest depth from which on all depths meet the contract."""
    fitting = None
    for depth in range(len(profile) - 1, -1, -1):
        if not profile[depth].fits:
            break
        fitting = depth
    return fitting
