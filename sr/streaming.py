"""Pictures through tiles and a backend: those that are waiting, those under way, those that are finished.

A GPU has tiles of several pictures at once, so that it need not wait at the end of each.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from sr.errors import OutOfDeviceMemoryError
from sr.stitching import Batching, Cut, Pixels, RowsOf, TileBatch, batches, cuts, owned, owned_shape
from sr.tiling import Span, Tile, TileGrid

T = TypeVar("T")
Progress = Callable[[int, int], None]  # tiles done, tiles in all


class Writer(Protocol):
    """What `sr.backends.base.Backend` is here."""

    def write(self, batches: Iterable[TileBatch | None]) -> Iterator[TileBatch]:
        """Upscale batches in order and write the results to their places."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Pixels:
        """Return an array for an output."""


class Tiler(Protocol):
    """Chooses backends and tiles: `sr.upscale.Upscaler`."""

    @property
    def scale(self) -> int:
        """Upscaling factor."""

    def backend_for(self, samples: Pixels, strength: float | None = None) -> Writer:
        """Return the backend for this sample type and strength of restoration."""

    def batching(self) -> Batching:
        """Return how many tiles run together."""

    def grid(self, height: int, width: int) -> TileGrid:
        """Return the tiles for a picture of this size."""

    def shrink_to_limits(self) -> bool:
        """Lower tile and batch to what the backends take; return whether that changed them."""


class Work(Generic[T]):
    """A picture to be upscaled: arrays (H, W, 3) or (H, W) that run together, and what becomes of them."""

    def __init__(
        self,
        items: list[Pixels],
        finish: Callable[[list[Pixels]], T],
        progress: Progress | None,
        strength: float | None = None,
    ) -> None:
        self.items, self.finish, self._progress = items, finish, progress
        self.strength = strength  # of restoration; None is that of the first backend
        self._outputs: list[Pixels] = []
        self._done = self._tiles = 0

    def cuts(self, grid: TileGrid, backend: Writer, *, scale: int) -> Iterator[Cut]:
        """Begin, or begin again: cut the tiles of all arrays."""
        if not self._outputs:
            self._outputs = [
                backend.empty((item.shape[0] * scale, item.shape[1] * scale, *item.shape[2:]), item.dtype)
                for item in self.items
            ]
        self._done, self._tiles = 0, len(grid) * len(self.items)

        def rows_of(rows: Span) -> list[Pixels]:
            return [item[rows.start : rows.start + rows.length] for item in self.items]

        def pixels_at(tile: Tile, item: int, _: tuple[int, ...]) -> Pixels:
            return owned(tile, self._outputs[item], scale)

        return cuts(self, grid, rows_of, pixels_at, scale=scale)

    def wrote(self, number: int) -> bool:
        """Note that so many more tiles are written; return whether these are all."""
        self._done += number
        if self._progress is not None:
            self._progress(self._done, self._tiles)
        return self._done == self._tiles

    def result(self) -> T:
        """Return what becomes of the outputs."""
        return self.finish(self._outputs)


def finished(works: Iterable[Work[T] | None], tiler: Tiler) -> Generator[Work[T], None, None]:
    """Upscale pictures in order; yield each when all of its tiles are written.

    Where the next item is None, no picture is ready yet: those under way may be finished first. Where memory
    of a GPU runs out, those under way begin again with the smaller tiles or batches that it has room for.

    Raises:
        BackendError: for one of those under way.
    """
    waiting = _Waiting(works)
    while not waiting.ended:
        under_way: deque[Work[T]] = deque()
        try:
            yield from _on_one_backend(waiting, under_way, tiler)
        except OutOfDeviceMemoryError:
            if not tiler.shrink_to_limits():
                raise
            waiting.put_back(under_way)


def _on_one_backend(
    waiting: _Waiting[T], under_way: deque[Work[T]], tiler: Tiler
) -> Generator[Work[T], None, None]:
    """Upscale until there is none left, or the next one needs another backend."""
    first = next((work for work in waiting if work is not None), None)
    if first is None:
        return
    waiting.put_back([first])
    backend = tiler.backend_for(first.items[0], first.strength)

    def of_all() -> Iterator[Cut | None]:
        for work in waiting:
            if work is None:
                yield None
            elif tiler.backend_for(work.items[0], work.strength) is backend:
                under_way.append(work)
                grid = tiler.grid(*work.items[0].shape[:2])
                yield from work.cuts(grid, backend, scale=tiler.scale)
            else:
                waiting.put_back([work])
                return

    with closing(_written(of_all(), backend, tiler)) as written:
        for batch in written:
            for work, number in Counter(cut.owner for cut in batch).items():
                if work.wrote(number):
                    yield under_way.popleft()


def finished_rows(
    grid: TileGrid,
    like: Pixels,
    rows_of: RowsOf,
    tiler: Tiler,
    *,
    first: int = 0,
    strength: float | None = None,
) -> Generator[list[tuple[Tile, int, Pixels]], None, None]:
    """Upscale rows of tiles; see `sr.upscale.Upscaler.upscale_rows`."""
    backend, scale = tiler.backend_for(like, strength), tiler.scale

    def pixels_at(tile: Tile, _: int, channels: tuple[int, ...]) -> Pixels:
        return np.empty((*owned_shape(tile, scale), *channels), like.dtype)

    made = cuts(None, grid, rows_of, pixels_at, scale=scale, first=first)
    with closing(_written(made, backend, tiler)) as written:
        for batch in written:
            yield [(cut.tile, cut.item, cut.place.pixels) for cut in batch]


def _written(
    sources: Iterable[Cut | None], backend: Writer, tiler: Tiler
) -> Generator[list[Cut], None, None]:
    """Run tiles in batches; yield those of each batch when their results are written."""
    running: deque[list[Cut]] = deque()

    def tile_batches() -> Iterator[Any]:
        for made in batches(sources, tiler.batching()):
            if made is not None:
                running.append(made[0])
            yield made and made[1]

    written = backend.write(tile_batches())
    # However this ends, batches in flight must end with it.
    with closing(written) if isinstance(written, Generator) else nullcontext():
        for _ in written:
            yield running.popleft()


class _Waiting(Generic[T]):
    """An iterator that takes things back."""

    def __init__(self, works: Iterable[Work[T] | None]) -> None:
        self._works, self._back = iter(works), deque[Work[T]]()
        self.ended = False

    def __iter__(self) -> Iterator[Work[T] | None]:
        return self

    def __next__(self) -> Work[T] | None:
        if self._back:
            return self._back.popleft()
        try:
            return next(self._works)
        except StopIteration:
            self.ended = True
            raise

    def put_back(self, works: Iterable[Work[T]]) -> None:
        self._back.extendleft(reversed([*works]))
        self.ended = self.ended and not self._back
