"""Upscaling a picture: from pixels to pixels through tiles, batches, one backend, and stitching."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Self

import numpy as np

from sr.backends import open_backend, open_deep_backend
from sr.backends.base import Backend, BackendRequest, Batch
from sr.errors import BackendError, OutOfDeviceMemoryError, TilingError
from sr.image.picture import Pixels
from sr.memory import available_memory
from sr.network.modelfile import Precision
from sr.objects import TakesImages
from sr.tiling import MIN_HALOS_PER_TILE, Span, Tile, TileGrid, TileSpec, tile_grid

if TYPE_CHECKING:
    from sr.image import Picture

Progress = Callable[[int, int], None]  # tiles done, tiles in all
RowsOf = Callable[[Span], Sequence[Pixels]]

# Whole-picture inference may take this part of the free memory.
WHOLE_PICTURE_MEMORY_SHARE = 0.5

# How much more work tiles of a backend's own fixed shape may be than equal ones, for what that shape
# saves: kernels tuned for it, and a CUDA graph. An assumption until it is measured on a GPU.
FIXED_TILES_WORK = 1.1


class Upscaler(TakesImages):
    """Upscales pictures with one model on one backend; a context manager.

    Threads may share one: pictures are computed one after the other, each as if it were alone.

    >>> import numpy as np
    >>> from PIL import Image
    >>> with Upscaler(scale=3) as upscaler:
    ...     upscaler(np.zeros((20, 30, 3), np.uint8)).shape
    ...     upscaler(Image.new("LA", (30, 20))).size
    (60, 90, 3)
    (90, 60)
    """

    def __init__(
        self,
        *,
        scale: int | None = None,
        backend: str | Backend = "auto",
        device: str = "auto",
        model: Path | None = None,
        tile: int | None = None,
        halo: int | None = None,
        batch: int | None = None,
        build_progress: Callable[[str, float], None] | None = None,
        engine_dir: Path | None = None,
        precision: Precision | None = None,
    ) -> None:
        """Open the backend.

        Args:
            scale: 2, 3 or 4 with the shipped weights; None takes the scale of `model`, else 2.
            backend: a name of `sr.backends.BACKENDS`, or one that is open; it is closed in the end.
            device: "auto", "cpu", "cuda", the number of a GPU, or several: "0,1".
            model: a model file in place of the shipped one.
            tile: largest side of a tile in lr pixels, halo included; None lets the backend choose.
            halo: lr pixels; None takes the model's own, -1 the receptive-field radius.
            batch: tiles run at once; None lets the backend choose.
            build_progress: called with phase and share done while an engine is being built.
            engine_dir: folder of TensorRT engines; None takes the one in the user's cache folder.
            precision: "fp32", "fp16", "bf16" or "int8"; None leaves it to the backend and the model.

        Raises:
            BackendError: the backend or device cannot be had.
            ModelError: the model file does not fit.
            TilingError: tile, halo and batch do not fit together.
        """
        if batch is not None and batch < 1:
            raise TilingError(f"batch is {batch}, need at least 1 (--batch)")
        request = BackendRequest(
            2 if scale is None else scale, device, model, tile, batch, build_progress, engine_dir, precision
        )
        self._request = request
        # One picture at a time is computed: a device is no faster with two, engines run one batch after the
        # other, and where memory runs out the tiling changes. Reentrant, for what `progress` may call.
        self._lock, self._closed = RLock(), False
        self._named = backend if isinstance(backend, str) else backend.info.name
        self._deep_backend: Backend | None = None
        self.backend = open_backend(backend, request) if isinstance(backend, str) else backend
        try:
            self._plan(scale, tile, halo, batch)
        except BaseException:
            self.backend.close()
            raise

    def _plan(self, scale: int | None, tile: int | None, halo: int | None, batch: int | None) -> None:
        info = self.backend.info
        self.scale = info.model.scale
        if scale is not None and scale != self.scale:
            raise TilingError(f"the model upscales by {self.scale}, not by {scale}; drop --scale or --model")
        radius = info.model.receptive_field_radius
        halo = info.model.halo if halo is None else radius if halo < 0 else halo
        default_tile = max(info.default_tile, MIN_HALOS_PER_TILE * halo)
        self.spec = TileSpec(tile=default_tile if tile is None else tile, halo=halo)
        self.batch = info.default_batch if batch is None else batch
        self.respect_limits()

    def respect_limits(self) -> bool:
        """Go down to the largest tile and batch that the backend takes; say whether that is less."""
        info, before = self.backend.info, (self.spec, self.batch)
        if info.max_tile is not None:
            self.spec = replace(self.spec, tile=min(self.spec.tile, info.max_tile))
        if info.max_batch is not None:
            self.batch = min(self.batch, info.max_batch)
        return (self.spec, self.batch) != before

    @property
    def warning(self) -> str | None:
        """What the user should know about this model, or None."""
        if not self.backend.info.model.tiles_exact:
            return (
                "each output pixel of this model depends on the whole picture, so tiles do not match; "
                "pictures are upscaled whole where memory allows"
            )
        return None

    @property
    def label(self) -> str:
        """What is done to a picture, in a word that goes into file names: "x3"."""
        return f"x{self.scale}"

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The backends that are open, the one that computes first."""
        return (self.backend,) if self._deep_backend is None else (self.backend, self._deep_backend)

    def picture(self, picture: Picture, *, progress: Progress | None = None) -> Picture:
        """Upscale a picture; alpha goes the same way as the colours.

        Raises:
            BackendError: the device failed, or the backend cannot compute 16 bits per channel.
        """
        info, used = self.backend.info, self._backend_for(picture.pixels).info
        if used.name != info.name:
            note = f"16 bits per channel: computed by {used.name} on {used.device}, not by {info.name}"
            picture = replace(picture, notes=(*picture.notes, note))
        pixels, alpha = self.upscale(picture.pixels, picture.alpha, progress=progress)
        return replace(picture, pixels=pixels, alpha=alpha)

    def upscale(
        self, pixels: Pixels, alpha: Pixels | None = None, *, progress: Progress | None = None
    ) -> tuple[Pixels, Pixels | None]:
        """Upscale RGB (H, W, 3) or grey (H, W), uint8 or uint16, and alpha (H, W) of the same type.

        What is not opaque has its colours continued under it first. Opaque alpha costs nothing.

        Raises:
            BackendError: as `picture`, or the upscaler is closed.
        """
        opaque = np.iinfo(pixels.dtype).max
        if alpha is None or bool((alpha == opaque).all()):
            (upscaled,) = self._upscale_items([pixels], progress)
            return upscaled, None if alpha is None else np.full(upscaled.shape[:2], opaque, pixels.dtype)
        from sr.image import bleed_under_transparency, within_neighbours

        colours = bleed_under_transparency(pixels, alpha)
        upscaled, covered = self._upscale_items([colours, alpha], progress)
        return upscaled, within_neighbours(covered, alpha, scale=self.scale)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of what becomes of a picture of this size."""
        return height * self.scale, width * self.scale

    def tile_count(self, height: int, width: int) -> int:
        """Return how many tiles a picture of this size is cut into."""
        return len(self.grid(height, width))

    def grid(self, height: int, width: int) -> TileGrid:
        """Return how a picture of this size will be cut."""
        whole = not self.backend.info.model.tiles_exact and self._fits_whole(height, width)
        spec = replace(self.spec, tile=max(height, width, self.spec.tile)) if whole else self.spec
        grid = tile_grid(height, width, spec)
        if self.backend.info.fixed_tiles:
            fixed = tile_grid(height, width, replace(spec, equalise=False))
            return fixed if fixed.work <= FIXED_TILES_WORK * grid.work else grid
        return grid

    def _fits_whole(self, height: int, width: int) -> bool:
        needed = height * width * self.backend.info.model.activation_bytes_per_lr_px
        return needed <= WHOLE_PICTURE_MEMORY_SHARE * available_memory()

    def _upscale_items(self, items: Sequence[Pixels], progress: Progress | None = None) -> list[Pixels]:
        """Upscale equal-sized (H, W) and (H, W, 3) arrays together.

        Where a GPU's memory runs out it begins again with what the backend says is left to try.
        """
        with self._lock:
            while True:
                try:
                    return self._run_items(items, progress)
                except OutOfDeviceMemoryError:
                    if not self.respect_limits():
                        raise

    def _backend_for(self, samples: Pixels) -> Backend:
        """Return what computes 8 bits, or 16, for which a float32 model is opened when first needed."""
        with self._lock:
            if self._closed:
                raise BackendError("this upscaler is closed; make another one")
            if samples.dtype == np.uint8 or self.backend.info.deep:
                return self.backend
            if self._deep_backend is None:
                request = replace(self._request, scale=self.scale)
                self._deep_backend = open_deep_backend(self._named, request)
            return self._deep_backend

    def by_rows(
        self, grid: TileGrid, like: Pixels, rows_of: RowsOf, *, first: int = 0
    ) -> Generator[list[tuple[Tile, int, Pixels]], None, None]:
        """Upscale a picture that is read by and by; what comes out is what `upscale` makes.

        Args:
            grid: how it is cut, from `grid`.
            like: of the dtype of its samples.
            rows_of: called for one row of tiles after the other, gives arrays (length, W, 3) or
                (length, W) that are upscaled together.
            first: row of tiles to begin with.

        Yields:
            For each batch its tiles in order, each with the number of its array, and what it owns of
            the result, (h, w, 3) or (h, w).

        Raises:
            OutOfDeviceMemoryError: begin again with a new grid if `respect_limits` says so.
            BackendError: as `picture`.
        """
        channels: dict[int, tuple[int, ...]] = {}

        def noted(rows: Span) -> Sequence[Pixels]:
            items = rows_of(rows)
            channels.update(enumerate(item.shape[2:] for item in items))
            return items

        with self._lock:
            for batch in self._results(grid, like, noted, first=first):
                parts = []
                for tile, index, upscaled in batch:
                    height, width = (
                        (span.keep_stop - span.keep_start) * self.scale for span in (tile.rows, tile.columns)
                    )
                    part = np.empty((height, width, *channels[index]), like.dtype)
                    _keep(upscaled, part, tile, self.scale)
                    parts.append((tile, index, part))
                yield parts

    def _results(
        self, grid: TileGrid, like: Pixels, rows_of: RowsOf, *, first: int = 0
    ) -> Generator[list[tuple[Tile, int, Pixels]], None, None]:
        """Run the tiles of the rows from `first` on; yield for each batch tile, array and (sH, sW, 3)."""
        started: deque[tuple[Tile, int]] = deque()

        def jobs() -> Iterator[tuple[Tile, int, Pixels]]:
            for rows in grid.rows[first:]:
                items = rows_of(rows)
                for columns in grid.columns:
                    yield from ((Tile(rows, columns), index, item) for index, item in enumerate(items))

        def batches() -> Iterator[Batch]:
            remaining = jobs()
            while batch := list(islice(remaining, self.batch)):
                started.extend((tile, index) for tile, index, _ in batch)
                yield _cut(batch, grid)

        results = self._backend_for(like).run(batches())
        # Whatever ends this, batches in flight are to end with it.
        with closing(results) if isinstance(results, Generator) else nullcontext():
            for result in results:
                yield [(*started.popleft(), upscaled) for upscaled in result]

    def _run_items(self, items: Sequence[Pixels], progress: Progress | None) -> list[Pixels]:
        height, width = items[0].shape[:2]
        grid = self.grid(height, width)
        outputs = [
            np.empty((height * self.scale, width * self.scale, *item.shape[2:]), item.dtype) for item in items
        ]
        done = 0
        with closing(
            self._results(grid, items[0], lambda rows: [_rows(each, rows) for each in items])
        ) as results:
            for batch in results:
                for tile, index, upscaled in batch:
                    _keep(upscaled, _owned(outputs[index], tile, self.scale), tile, self.scale)
                done += len(batch)
                if progress is not None:
                    progress(done, len(grid) * len(items))
        return outputs

    def close(self) -> None:
        """Free the backend, after the picture that is being computed; closing twice does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._deep_backend is not None:
                self._deep_backend.close()
            self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A failure to free matters less than the one that ended the work.
        with nullcontext() if kind is None else suppress(BackendError):
            self.close()


def _rows(source: Pixels, rows: Span) -> Pixels:
    return source[rows.start : rows.start + rows.length]


def _cut(jobs: Sequence[tuple[Tile, int, Pixels]], grid: TileGrid) -> Batch:
    """Copy tiles of rows into a batch (N, tile_height, tile_width, 3); grey fills all channels."""
    batch = np.empty((len(jobs), grid.tile_height, grid.tile_width, 3), jobs[0][2].dtype)
    for slot, (tile, _, rows) in enumerate(jobs):
        part = rows[:, tile.columns.start : tile.columns.start + tile.columns.length]
        batch[slot] = part if part.ndim == 3 else part[:, :, None]
    return batch


def _owned(target: Pixels, tile: Tile, scale: int) -> Pixels:
    """Return where a tile belongs in the result, a view."""
    rows, columns = tile.rows, tile.columns
    return target[
        rows.keep_start * scale : rows.keep_stop * scale,
        columns.keep_start * scale : columns.keep_stop * scale,
    ]


def _keep(upscaled: Pixels, place: Pixels, tile: Tile, scale: int) -> None:
    """Write the part of an upscaled tile (sH, sW, 3) that it owns to `place`; grey gets the mean."""
    rows, columns = tile.rows, tile.columns
    part = upscaled[
        (rows.keep_start - rows.start) * scale : (rows.keep_stop - rows.start) * scale,
        (columns.keep_start - columns.start) * scale : (columns.keep_stop - columns.start) * scale,
    ]
    if place.ndim == 3:
        place[:] = part
    else:
        wide = np.uint16 if part.dtype == np.uint8 else np.uint32
        place[:] = (part.sum(axis=2, dtype=wide) + 1) // 3  # the mean of three, rounded
