"""How large batches are: what suits a GPU, and what follows where its memory does not suffice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sr.network.descriptor import ModelDescriptor
from sr.tiling import MIN_HALOS_PER_TILE

_SMALLEST_TILE = 64  # below, a tile is mostly halo


@dataclass(frozen=True)
class Capacity:
    """The largest batch that can run: `batch` tiles of `tile` x `tile` lr pixels, or more smaller ones."""

    batch: int
    tile: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the whole batch, (N, T, T, 3)."""
        return (self.batch, self.tile, self.tile, 3)

    def holds(self, shape: tuple[int, ...]) -> bool:
        """Say whether a batch of this shape (N, H, W, 3) has no more pixels, and no larger tiles."""
        return math.prod(shape) <= math.prod(self.shape) and max(shape[1:3]) <= self.tile

    def __str__(self) -> str:
        return f"{self.batch} {'tile' if self.batch == 1 else 'tiles'} of {self.tile} px"


def suitable_batch(model: ModelDescriptor, tile: int, *, l2_bytes: int) -> int:
    """Return how many tiles of this side, in lr pixels, to run at once on a GPU with this L2 cache.

    A layer that finds what the layer before wrote in the cache reads no memory, and our networks are bound by
    memory (`benchmarks.predict`). So a batch holds as many tiles as have their activations in the cache at
    once, and at least one; one tile of 384 or 512 px is enough for all multiprocessors. Tiles are not made
    smaller to fit: halos would cost more. A rule from these figures; `benchmarks.gpu` measures it.
    """
    in_use = model.activation_bytes_per_lr_px * (1 if model.precision == "fp32" else 1 / 2) * tile**2
    return max(1, int(l2_bytes / in_use))


def smaller(capacity: Capacity, model: ModelDescriptor) -> Iterator[Capacity]:
    """Yield ever smaller capacities: the batch halves down to 1, then the tile."""
    while capacity.batch > 1:
        capacity = replace(capacity, batch=capacity.batch // 2)
        yield capacity
    # A tile of four radii can be cut with any halo up to `--halo exact`.
    smallest = model.side_within(max(_SMALLEST_TILE, MIN_HALOS_PER_TILE * model.receptive_field_radius))
    while capacity.tile > smallest:
        capacity = replace(capacity, tile=max(smallest, model.side_within(capacity.tile // 2)))
        yield capacity
