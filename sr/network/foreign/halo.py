"""How far tiles of a foreign network must overlap: measured, whole pictures against crops of them.

A crop differs from the whole picture near its edges, where context is missing. That margin is the halo.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sr.errors import ModelError
from sr.network.content import contents
from sr.network.foreign.depth import Depth, by_depth, differences, least_seen, smallest_fitting
from sr.network.foreign.probe import Probed
from sr.network.foreign.session import PictureSession
from sr.tiling import MIN_HALOS_PER_TILE

# Sides of whole picture and crop in lr pixels, tried in turn: they find halos up to 24, 64 and 112. Most
# networks need less than 24.
_STAGES = ((96, 64), (192, 144), (320, 240))
# Then this one, which finds up to 160: Real-ESRGAN x4plus differs up to 116. Not where operators may mix all
# pixels, or are not known: what they leave is the less, the larger the crops are, however much these overlap.
_FAR = (448, 336)
_INNERMOST = 8  # lr pixels in the middle of a crop that must be inside the halo

# Positions of crops that suit every network that takes pixels in groups of up to 16.
_COARSEST = 16

# On top of what was measured, for contents that were not.
_MARGIN = 1.25
# Where no halo makes tiles exact: what other tools overlap by at most.
_WITHOUT_HALO = 32

# The time for a pixel is first taken from a picture of this side.
_TIMED_PX = 32

_PHASE = "measuring how far tiles must overlap"

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Halo:
    """What was measured.

    Attributes:
        halo: lr pixels.
        exact: tiles equal the whole picture with this halo.
        multiple: positions and sizes of tiles are multiples of this.
        levels: largest difference of a value that is left with this halo, in levels of 255.
        share: of the values that differ with this halo.
        largest: lr pixels of the largest picture that was run.
        tried: largest halo in lr pixels that could have been found.
        cut_short: larger ones were not tried, which would have taken too long.
        needed: about how many seconds it would take to try the next larger ones, too.
    """

    halo: int
    exact: bool
    multiple: int
    levels: int
    share: float
    largest: int
    tried: int
    cut_short: bool = False
    needed: float = 0.0


def measure_halo(session: PictureSession, probed: Probed, progress: Progress, *, patience: float) -> Halo:
    """Measure the halo of a network.

    Args:
        session: of the network.
        probed: what is known of it.
        progress: called with phase and share done.
        patience: seconds that it may take; no stage begins that would take longer than what is left, but for
            the first, which is always run.

    Raises:
        ModelError: the network failed.
    """
    clock = _Clock(session, probed, patience)
    if probed.ends.size is not None:
        return _of_fixed_size(session, probed, progress, clock)
    local = bool(session.graph.operators) and not session.graph.global_operators
    stages = [each for each in ((*_STAGES, _FAR) if local else _STAGES) if each[1] >= probed.minimum]
    if not stages:
        raise ModelError(f"needs pictures of {probed.minimum} px and more, which are too large to measure it")
    kinds = clock.kinds(_pixels(_usual(stages)))
    for stage, (side, crop) in enumerate(stages):

        def shown(part: float, phase: str = f"pictures of {side} px", stage: int = stage) -> None:
            progress(f"{_PHASE}, {phase}", (stage + part) / len(stages))

        try:
            larger = _Pictures(session, probed, side=side, crop=crop, kinds=kinds, progress=shown)
            halo = _exact(larger, probed)
        except MemoryError:
            if not stage:
                raise
            following = []
            break
        pictures = larger
        clock.lap(kinds * _pixels([(side, crop)]))
        if halo is not None:
            return halo
        following = stages[stage + 1 :]
        kinds = min(kinds, clock.kinds(_pixels(_usual(following))))
        more = clock.predicted(kinds * _pixels(following[:1]))
        if not following or more > clock.left:
            break
    halo = _inexact(pictures, probed)
    return replace(halo, cut_short=True, needed=clock.spent + more) if following else halo


def _usual(stages: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """Return the stages for which time is kept: few networks need `_FAR`."""
    return [each for each in stages if each != _FAR]


def _pixels(stages: Sequence[tuple[int, int]]) -> int:
    """Return the lr pixels that stages run for each picture."""
    return sum(side**2 + crop**2 for side, crop in stages)


class _Clock:
    """How long pictures take, and what is left of the patience."""

    def __init__(self, session: PictureSession, probed: Probed, patience: float) -> None:
        side = -(-max(_TIMED_PX, probed.minimum) // probed.multiple) * probed.multiple
        picture = np.zeros((*(probed.ends.size or (side, side)), 3), np.uint8)
        session.upscaled(probed.ends, picture)  # the first run of a shape takes longer
        self._start = self._lap = time.perf_counter()
        self._end = self._start + patience
        session.upscaled(probed.ends, picture)
        self.lap(picture.shape[0] * picture.shape[1])

    def lap(self, pixels: int) -> None:
        """Take the time for so many lr pixels, since the last one, as that of pixels to come."""
        now = time.perf_counter()
        self._seconds_per_px, self._lap = (now - self._lap) / pixels, now

    @property
    def spent(self) -> float:
        """Seconds."""
        return time.perf_counter() - self._start

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.perf_counter()

    def predicted(self, pixels: int) -> float:
        """Return how many seconds so many lr pixels will take."""
        return self._seconds_per_px * pixels

    def kinds(self, pixels: int) -> int:
        """Return how many pictures of so many lr pixels to run: one of each kind, or one of all kinds."""
        count = len(contents(height=8, width=8))
        return count if self.predicted(count * pixels) <= self.left else 1


def _exact(pictures: _Pictures, probed: Probed) -> Halo | None:
    """Return the halo with which tiles are exact; None if there is none as small as the crops allow.

    Where a network takes pixels of its input in groups, tiles must begin where a group begins. A coarse grid
    suits all usual ones, so what fails there is not tried on finer ones.
    """
    least = probed.multiple
    coarse = max(_COARSEST, least)
    on_coarse_grid = _fitting(pictures, coarse)
    finer = [each for each in (least, 2, 4, 8) if least <= each < coarse]
    if on_coarse_grid is None:
        return None
    found = (_fitting(pictures, multiple) for multiple in dict.fromkeys(finer))
    return next((halo for halo in found if halo is not None), on_coarse_grid)


def _fitting(pictures: _Pictures, multiple: int) -> Halo | None:
    profile = pictures.profile(multiple)
    depth = smallest_fitting(profile)
    if depth is None or depth > pictures.most:
        return None
    return _halo(_rounded(depth, multiple), True, multiple, profile[depth], pictures)


def _inexact(pictures: _Pictures, probed: Probed) -> Halo:
    """Return the halo that leaves least; what it leaves is measured at most at the largest one tried."""
    profile = pictures.profile(probed.multiple)[: pictures.most + 1]
    depth = least_seen(profile, least=_WITHOUT_HALO)
    seen = profile[min(depth, pictures.most)]
    halo = -(-depth // probed.multiple) * probed.multiple
    return _halo(halo, False, probed.multiple, seen, pictures)


def _halo(halo: int, exact: bool, multiple: int, seen: Depth, pictures: _Pictures) -> Halo:
    left = (seen.levels, _two_digits(seen.share))
    return Halo(halo, exact, multiple, *left, pictures.side**2, pictures.most)


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
        kinds: int,
        progress: Callable[[float], None],
    ) -> None:
        """Run the pictures whole; if `kinds` is 1, one that has a quarter of each kind."""
        self._session, self._probed, self._crop = session, probed, crop
        self.side, self.most = side, crop // 2 - _INNERMOST
        every = list(contents(height=side, width=side).values())
        self._pictures = every if kinds > 1 else [_quarters(every)]
        self._wholes = []
        for done, picture in enumerate(self._pictures):
            progress(done / (len(self._pictures) + 1))
            self._wholes.append(session.upscaled(probed.ends, picture))
        progress(len(self._pictures) / (len(self._pictures) + 1))

    def profile(self, multiple: int) -> list[Depth]:
        """Compare crops that begin at an odd number of multiples, or at a multiple of 16, with the whole."""
        start = _COARSEST if multiple >= _COARSEST else _COARSEST + multiple
        inside, scale = slice(start, start + self._crop), self._probed.scale
        place = slice(start * scale, (start + self._crop) * scale)
        found = [
            differences(
                whole[place, place], self._session.upscaled(self._probed.ends, picture[inside, inside])
            )
            for picture, whole in zip(self._pictures, self._wholes, strict=True)
        ]
        return by_depth(found, scale)


def _quarters(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return one picture, each quarter of which is from another one."""
    height, width = (side // 2 for side in pictures[0].shape[:2])
    joined = pictures[0].copy()
    joined[:height, width:] = pictures[1][:height, width:]
    joined[height:, :width] = pictures[2][height:, :width]
    joined[height:, width:] = pictures[3][height:, width:]
    return joined


def _of_fixed_size(session: PictureSession, probed: Probed, progress: Progress, clock: _Clock) -> Halo:
    """Compare two crops that overlap: the network takes no larger picture."""
    assert probed.ends.size is not None
    height, width = probed.ends.size
    step = max(1, min(height, width) // 4)
    every = list(contents(height=height + step, width=width + step).values())
    found: list[NDArray[np.int16]] = []
    pictures = every if clock.kinds(2 * height * width) > 1 else [_quarters(every)]
    for done, picture in enumerate(pictures):
        progress(_PHASE, done / len(pictures))
        first = session.upscaled(probed.ends, picture[:height, :width])
        second = session.upscaled(probed.ends, picture[step:, step:])
        lost = step * probed.scale
        found.append(differences(first[lost:, lost:], second[:-lost, :-lost]))
    profile = by_depth(found, probed.scale)
    depth, most = smallest_fitting(profile), min(height, width) // MIN_HALOS_PER_TILE
    exact = depth is not None and _rounded(depth, 1) <= most
    if depth is None or not exact:
        depth = min(most, len(profile) - 1)
    seen = profile[depth]
    halo = _rounded(depth, 1) if exact else depth
    return Halo(halo, exact, 1, seen.levels, _two_digits(seen.share), height * width, most)


def _two_digits(share: float) -> float:
    return float(f"{share:.2g}")
