"""The patches of a training run: all pictures decoded once, and which patch is drawn when.

What is drawn depends on nothing but seed, epoch and position. So resuming a run needs no sampler
state, and several processes can each cut their share of the same batches.
"""

from __future__ import annotations

import math
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from sr.errors import DataError
from sr.processor import available_cores
from train.data.degrade import GRID, MARGIN, Degradation
from train.data.pairs import Pair, load_pair

if TYPE_CHECKING:
    from train.distributed import Group

Pixels = NDArray[np.uint8]
T = TypeVar("T")

# Bad pairs that an error names.
NAMED = 10

# Batches that each worker prepares ahead of the step that needs them.
_AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """Patches of one step, uint8 RGB: lr (N, P, P, 3) and hr (N, scale*P, scale*P, 3)."""

    lr: Pixels
    hr: Pixels


class PatchSource:
    """All pictures of a pair list, decoded, and the batches drawn from them."""

    def __init__(self, pictures: list[tuple[Pixels, Pixels]], names: list[str], *, scale: int) -> None:
        """Take pictures that were decoded and checked: hr and lr of each, uint8 RGB (H, W, 3)."""
        self._pictures, self._names, self.scale = pictures, names, scale

    @staticmethod
    def decoded(pairs: list[Pair], *, scale: int, patch_size: int) -> PatchSource:
        """Decode every picture, and check that patches of up to `patch_size` lr pixels fit in it.

        Raises:
            DataError: pictures cannot be read or do not fit; the first ten are named, and their count.
        """
        with ThreadPoolExecutor(available_cores()) as pool:
            loaded = list(pool.map(lambda pair: _load(pair, scale, patch_size), pairs))
        if problems := [item for item in loaded if isinstance(item, str)]:
            raise DataError(named(problems))
        pictures = [item for item in loaded if not isinstance(item, str)]
        return PatchSource(pictures, [p.hr.name for p in pairs], scale=scale)

    @staticmethod
    def shared(pairs: list[Pair], *, scale: int, patch_size: int, group: Group) -> PatchSource:
        """Like `decoded`, but the processes of one machine hold the pixels once, in a mapped file.

        Raises:
            DataError: in every process.
        """
        if group.world == 1:
            return PatchSource.decoded(pairs, scale=scale, patch_size=patch_size)
        with tempfile.TemporaryDirectory(prefix="srup-pixels-", ignore_cleanup_errors=True) as folder:
            found: tuple[Path, list[tuple[tuple[int, ...], tuple[int, ...]]]] | str = ""
            if group.local_rank == 0:
                try:
                    source = PatchSource.decoded(pairs, scale=scale, patch_size=patch_size)
                    found = source._write(Path(folder) / "pixels")
                except DataError as error:
                    found = str(error)
            found = group.from_machine_leader(found)
            if isinstance(found, str):
                raise DataError(found)
            pixels, shapes = np.memmap(found[0], np.uint8, "r"), iter(found[1])
            pictures, start = [], 0
            for hr_shape, lr_shape in shapes:
                middle, end = start + math.prod(hr_shape), start + math.prod(hr_shape) + math.prod(lr_shape)
                pictures.append(
                    (pixels[start:middle].reshape(hr_shape), pixels[middle:end].reshape(lr_shape))
                )
                start = end
            group.barrier()  # all have mapped the file, so it can be removed
        return PatchSource(pictures, [p.hr.name for p in pairs], scale=scale)

    def _write(self, path: Path) -> tuple[Path, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
        with path.open("wb") as file:
            for images in self._pictures:
                for image in images:
                    file.write(np.ascontiguousarray(image).data)
        return path, [(hr.shape, lr.shape) for hr, lr in self._pictures]

    def __len__(self) -> int:
        return len(self._pictures)

    def epoch(self, epoch: int, sampling: Sampling) -> Epoch:
        """Return the plan of an epoch: `patches_per_picture` patches of every picture, shuffled."""
        rng = np.random.default_rng([sampling.seed, epoch])
        order = rng.permutation(np.repeat(np.arange(len(self)), sampling.patches_per_picture))
        return Epoch(
            source=self,
            sampling=sampling,
            number=epoch,
            order=order,
            places=rng.random((len(order), 2)),
            symmetries=rng.integers(8, size=len(order)),
        )

    def place(self, index: int, place: NDArray[np.float64], *, side: int) -> tuple[int, int]:
        """Return top and left of the lr patch of picture `index` at `place`, two numbers in [0, 1)."""
        shape = self._pictures[index][1].shape[:2]
        top, left = (int(p * (n - side + 1)) for p, n in zip(place, shape, strict=True))
        return top, left

    def patch(self, index: int, top: int, left: int, *, side: int) -> tuple[Pixels, Pixels]:
        """Cut `side` lr pixels of picture `index`, and their hr pixels; views."""
        (hr, lr), scale = self._pictures[index], self.scale
        lr_patch = lr[top : top + side, left : left + side]
        hr_patch = hr[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        return lr_patch, hr_patch

    def degraded(
        self, index: int, top: int, left: int, *, side: int, how: Degradation, rng: np.random.Generator
    ) -> Pixels:
        """Return the lr patch that `patch` cuts, degraded together with its surroundings.

        They are cut so that a grid of blocks, which begins where they begin, may lie anywhere.
        """
        (hr, lr), scale = self._pictures[index], self.scale
        before = MARGIN + rng.integers(GRID, size=2)
        y, x = max(0, top - int(before[0])), max(0, left - int(before[1]))
        bottom, right = (
            min(n, end + side + MARGIN) for n, end in zip(lr.shape[:2], (top, left), strict=True)
        )
        around = how.degraded(
            hr[y * scale : bottom * scale, x * scale : right * scale],
            lr[y:bottom, x:right],
            scale=scale,
            rng=rng,
        )
        return around[top - y : top - y + side, left - x : left - x + side]

    def name(self, index: int) -> str:
        """Return the file name of the hr picture `index`."""
        return self._names[index]


@dataclass(frozen=True)
class Sampling:
    """How patches are drawn.

    Attributes:
        seed: of the run.
        batch_size: patches per step.
        patch_size: side of an lr patch in pixels.
        patches_per_picture: in an epoch.
        degradation: what happens to lr patches; None leaves them as they are.
    """

    seed: int
    batch_size: int
    patch_size: int
    patches_per_picture: int
    degradation: Degradation | None = None


@dataclass(frozen=True)
class Epoch:
    """Every patch of one epoch, each drawn once; the last batch may be shorter than the others.

    Attributes:
        source: where the pixels are.
        sampling: sizes and degradation.
        number: which epoch of the run.
        order: picture of each patch, (patches,).
        places: where in the picture, (patches, 2) in [0, 1).
        symmetries: which of the eight symmetries of the square, (patches,).
    """

    source: PatchSource
    sampling: Sampling
    number: int
    order: NDArray[np.intp]
    places: NDArray[np.float64]
    symmetries: NDArray[np.int64]

    def milder(self, strength: float) -> Epoch:
        """Return the same epoch with damage of a share, as `Degradation.milder` says."""
        how = self.sampling.degradation
        if how is None or strength == 1:
            return self
        return replace(self, sampling=replace(self.sampling, degradation=how.milder(strength)))

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.order) // self.sampling.batch_size)

    def size(self, step: int) -> int:
        """Return the number of patches in batch `step`."""
        return min(self.sampling.batch_size, len(self.order) - step * self.sampling.batch_size)

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """Cut batch `step`, or every `world`-th patch of it from the `rank`-th on.

        A process for which a short batch holds nothing gets the batch's first patch.
        """
        start = step * self.sampling.batch_size
        mine = range(start + rank, start + self.size(step), world) or range(start, start + 1)
        patches = [self.patch(i) for i in mine]
        return Batch(np.stack([lr for lr, _ in patches]), np.stack([hr for _, hr in patches]))

    def patch(self, i: int) -> tuple[Pixels, Pixels]:
        """Return lr and hr of the patch at place `i` of the order, (P, P, 3) and (scale*P, scale*P, 3)."""
        index, side = self.order[i], self.sampling.patch_size
        top, left = self.source.place(index, self.places[i], side=side)
        lr, hr = self.source.patch(index, top, left, side=side)
        if self.sampling.degradation is not None:
            # A generator for each patch: neither resuming nor sharing a batch changes what is drawn.
            rng = np.random.default_rng([self.sampling.seed, self.number, i])
            lr = self.source.degraded(index, top, left, side=side, how=self.sampling.degradation, rng=rng)
        return _turned(lr, self.symmetries[i]), _turned(hr, self.symmetries[i])

    def pictures(self, step: int) -> list[str]:
        """Return the names of the pictures in batch `step`."""
        start = step * self.sampling.batch_size
        return sorted({self.source.name(i) for i in self.order[start : start + self.size(step)]})


def pair_problems(pairs: list[Pair], *, scale: int) -> list[str]:
    """Decode every picture of a list and return what is wrong, one text for each pair that does not fit."""
    with ThreadPoolExecutor(available_cores()) as pool:
        found = pool.map(lambda pair: _load(pair, scale, patch_size=1), pairs)
        return [problem for problem in found if isinstance(problem, str)]


def named(problems: list[str]) -> str:
    """Return the first problems in one line, and how many there are more."""
    more = len(problems) - NAMED
    return "; ".join(problems[:NAMED]) + (f"; and {more} more, {len(problems)} in all" if more > 0 else "")


def left_out(problems: list[str]) -> str:
    """Say in one line how many pictures were left out, and name the first."""
    return f"left out {len(problems)} bad picture{'' if len(problems) == 1 else 's'}: {named(problems)}"


def _load(pair: Pair, scale: int, patch_size: int) -> tuple[Pixels, Pixels] | str:
    """Return hr and lr, or what is wrong with them."""
    try:
        hr, lr = load_pair(pair, scale=scale)
    except DataError as error:
        return str(error)
    if min(lr.shape[:2]) < patch_size:
        return f"{pair.lr or pair.hr}: smaller than the patch size {patch_size}"
    return hr, lr


def _turned(patch: Pixels, symmetry: int) -> Pixels:
    """Apply one of the eight symmetries of the square to (H, W, 3); a view."""
    if symmetry & 1:
        patch = patch[:, ::-1]
    if symmetry & 2:
        patch = patch[::-1]
    return patch.transpose(1, 0, 2) if symmetry & 4 else patch


def prepared_ahead(make: Callable[[int], T], steps: Iterable[int], *, workers: int) -> Iterator[T]:
    """Yield `make(step)` for each step in order; `workers` threads work ahead, 0 works in line."""
    if workers == 0:
        yield from map(make, steps)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque = deque()
        try:
            for step in steps:
                waiting.append(pool.submit(make, step))
                if len(waiting) > _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
