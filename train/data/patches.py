"""The patches of a training run: all pictures decoded once, and which patch is drawn when.

What is drawn depends on nothing but seed, epoch and position. So resuming a run needs no sampler
state, and several processes can each cut their share of the same batches.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sr.errors import DataError, ImageError
from train.data.pairs import Pair, read_rgb
from train.distributed import Group

Image = NDArray[np.uint8]
T = TypeVar("T")

# Batches that each worker prepares ahead of the step that needs them.
_AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """Patches of one step, uint8 RGB: lr (N, P, P, 3) and hr (N, scale*P, scale*P, 3)."""

    lr: Image
    hr: Image


class PatchSource:
    """All pictures of a pair list, decoded, and the batches drawn from them."""

    def __init__(self, pictures: list[tuple[Image, Image]], names: list[str], *, scale: int) -> None:
        """Take pictures that were decoded and checked: hr and lr of each, uint8 RGB (H, W, 3)."""
        self._pictures, self._names, self.scale = pictures, names, scale

    @staticmethod
    def decoded(pairs: list[Pair], *, scale: int, patch_size: int) -> PatchSource:
        """Decode every picture, and check that patches of up to `patch_size` lr pixels fit in it.

        Raises:
            DataError: pictures cannot be read or do not fit; all of them are named at once.
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            loaded = list(pool.map(lambda pair: _load(pair, scale, patch_size), pairs))
        if problems := [item for item in loaded if isinstance(item, str)]:
            raise DataError("; ".join(problems))
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
            group.barrier()  # the file goes once all have mapped it; where it cannot, the system removes it
        return PatchSource(pictures, [p.hr.name for p in pairs], scale=scale)

    def _write(self, path: Path) -> tuple[Path, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
        with path.open("wb") as file:
            for images in self._pictures:
                for image in images:
                    file.write(np.ascontiguousarray(image).data)
        return path, [(hr.shape, lr.shape) for hr, lr in self._pictures]

    def __len__(self) -> int:
        return len(self._pictures)

    def epoch(
        self, *, seed: int, epoch: int, batch_size: int, patch_size: int, patches_per_picture: int
    ) -> Epoch:
        """Return the plan of an epoch: `patches_per_picture` patches of every picture, shuffled."""
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(np.repeat(np.arange(len(self)), patches_per_picture))
        return Epoch(
            source=self,
            batch_size=batch_size,
            patch_size=patch_size,
            order=order,
            places=rng.random((len(order), 2)),
            symmetries=rng.integers(8, size=len(order)),
        )

    def patch(
        self, index: int, place: NDArray[np.float64], symmetry: int, *, side: int
    ) -> tuple[Image, Image]:
        """Cut `side` lr pixels and their hr pixels of picture `index` at `place`, in [0, 1); views."""
        (hr, lr), scale = self._pictures[index], self.scale
        top, left = (int(p * (n - side + 1)) for p, n in zip(place, lr.shape[:2], strict=True))
        lr_patch = lr[top : top + side, left : left + side]
        hr_patch = hr[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        return _turned(lr_patch, symmetry), _turned(hr_patch, symmetry)

    def name(self, index: int) -> str:
        """Return the file name of the hr picture `index`."""
        return self._names[index]


@dataclass(frozen=True)
class Epoch:
    """Every patch of one epoch, each drawn once; the last batch may be shorter than the others.

    Attributes:
        source: where the pixels are.
        batch_size: patches a step.
        patch_size: side of an lr patch in pixels.
        order: picture of each patch, (patches,).
        places: where in the picture, (patches, 2) in [0, 1).
        symmetries: which of the eight symmetries of the square, (patches,).
    """

    source: PatchSource
    batch_size: int
    patch_size: int
    order: NDArray[np.intp]
    places: NDArray[np.float64]
    symmetries: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.order) // self.batch_size)

    def size(self, step: int) -> int:
        """Return the number of patches in batch `step`."""
        return min(self.batch_size, len(self.order) - step * self.batch_size)

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """Cut batch `step`, or every `world`-th patch of it from the `rank`-th on.

        A process for which a short batch holds nothing gets the batch's first patch.
        """
        start = step * self.batch_size
        mine = range(start + rank, start + self.size(step), world) or range(start, start + 1)
        patches = [
            self.source.patch(self.order[i], self.places[i], self.symmetries[i], side=self.patch_size)
            for i in mine
        ]
        return Batch(np.stack([lr for lr, _ in patches]), np.stack([hr for _, hr in patches]))

    def pictures(self, step: int) -> list[str]:
        """Return the names of the pictures in batch `step`."""
        start = step * self.batch_size
        return sorted({self.source.name(i) for i in self.order[start : start + self.batch_size]})


def pair_problems(pairs: list[Pair], *, scale: int) -> list[str]:
    """Decode every picture of a list and return what is wrong, one text for each pair that does not fit."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda pair: _problem(pair, scale), pairs)
        return [problem for problem in found if problem is not None]


def _problem(pair: Pair, scale: int) -> str | None:
    loaded = _load(pair, scale, patch_size=1)
    return loaded if isinstance(loaded, str) else None


def _load(pair: Pair, scale: int, patch_size: int) -> tuple[Image, Image] | str:
    try:
        return _checked(pair, read_rgb(pair.hr), read_rgb(pair.lr), scale, patch_size)
    except (DataError, ImageError) as error:
        return str(error)


def _checked(pair: Pair, hr: Image, lr: Image, scale: int, patch_size: int) -> tuple[Image, Image] | str:
    """Return the pictures, or what is wrong with their sizes."""
    expected = (lr.shape[0] * scale, lr.shape[1] * scale)
    if hr.shape[:2] != expected:
        got = f"{hr.shape[1]}x{hr.shape[0]}"
        return f"{pair.hr}: is {got}, need {expected[1]}x{expected[0]} for scale {scale}"
    if min(lr.shape[:2]) < patch_size:
        return f"{pair.lr}: smaller than the patch size {patch_size}"
    return hr, lr


def _turned(patch: Image, symmetry: int) -> Image:
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
