"""The interface of upscalers: three methods that each has, and capabilities that only some have."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sr.backends.base import Backend
from sr.image import Picture, Pixels
from sr.image.picture import Restoration
from sr.tiling import Span, Tile, TileGrid, TileSpec

Progress = Callable[[int, int], None]  # tiles done, tiles in all
Stream = Callable[[Iterable[tuple[Picture, Progress | None] | None]], Generator[Picture, None, None]]


class PictureUpscaler(Protocol):
    """Turns a picture into a larger one: `sr.upscale.Upscaler`, `sr.sized.SizedUpscaler`, and others."""

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the result for a picture of this size."""

    def tile_count(self, height: int, width: int) -> int:
        """Return how many tiles a picture of this size is cut into."""

    def picture(self, picture: Picture, *, progress: Progress | None = None) -> Picture:
        """Upscale a picture."""


class BandUpscaler(Protocol):
    """Upscales a picture band by band: `sr.upscale.Upscaler` with a network whose tiles match."""

    @property
    def scale(self) -> int:
        """Upscaling factor."""

    @property
    def spec(self) -> TileSpec:
        """Largest tile and halo."""

    @property
    def backend(self) -> Backend:
        """The backend of 8 bits per channel."""

    def grid(self, height: int, width: int) -> TileGrid:
        """Return how a picture of this size will be cut into tiles."""

    def restoration(self, picture: Picture) -> Restoration | None:
        """Return how strongly a picture will be restored; None if the network cannot."""

    def upscale_rows(
        self,
        grid: TileGrid,
        like: Pixels,
        rows_of: Callable[[Span], Sequence[Pixels]],
        *,
        first: int = 0,
        restore: float | None = None,
    ) -> Generator[list[tuple[Tile, int, Pixels]], None, None]:
        """Upscale one row of tiles after the other; see `sr.upscale.Upscaler.upscale_rows`."""

    def shrink_to_limits(self) -> bool:
        """Shrink tile and batch to what the backend takes; say whether that changed anything."""


@dataclass(frozen=True)
class Capabilities:
    """Optional abilities of an upscaler; the code that composes a run hands them in.

    Attributes:
        bands: upscales pictures that do not fit into memory, or None.
        without_bands: remedy that error messages name if `bands` is None.
        pictures: upscales pictures in order, a few at once; see `sr.upscale.Upscaler.pictures`.
        working_bytes: returns, from height, width and bytes per pixel of a picture, how much memory its
            arrays take at most during upscaling; None if only input and output are in memory.
    """

    bands: BandUpscaler | None = None
    pictures: Stream | None = None
    without_bands: str = "use a smaller picture, or free some memory"
    working_bytes: Callable[[int, int, int], int] | None = None
