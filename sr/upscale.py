"""Upscaling a picture: from pixels to pixels through tiles, batches, one backend, and stitching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sr.backends import open_backend, open_deep_backend
from sr.backends.base import Backend, BackendRequest, Batch
from sr.errors import BackendError, ImageError, OutOfDeviceMemoryError, TilingError
from sr.image import (
    Picture,
    bleed_under_transparency,
    within_neighbours,
)
from sr.memory import available_memory
from sr.tiling import MIN_HALOS_PER_TILE, Tile, TileGrid, TileSpec, tile_grid

Pixels = NDArray[Any]  # uint8 or uint16
Progress = Callable[[int, int], None]  # tiles done, tiles in all

# Whole-picture inference may take this part of the free memory.
WHOLE_PICTURE_MEMORY_SHARE = 0.5

# How much more work tiles of a backend's own fixed shape may be than equal ones, for what that shape
# saves: kernels tuned for it, and a CUDA graph. An assumption until it is measured on a GPU.
FIXED_TILES_WORK = 1.1


class Upscaler:
    """Upscales pictures with one model on one backend; a context manager.

    >>> import numpy as np
    >>> with Upscaler(scale=3) as upscaler:
    ...     upscaler(np.zeros((20, 30, 3), np.uint8)).shape
    (60, 90, 3)
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

        Raises:
            BackendError: the backend or device cannot be had.
            ModelError: the model file does not fit.
            TilingError: tile, halo and batch do not fit together.
        """
        if batch is not None and batch < 1:
            raise TilingError(f"batch is {batch}, need at least 1 (--batch)")
        request = BackendRequest(
            2 if scale is None else scale, device, model, tile, batch, build_progress, engine_dir
        )
        self._request, self._opening = request, Lock()
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
        self._respect_limits()

    def _respect_limits(self) -> bool:
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
        if self.backend.info.model.attention == "dynamic":
            return (
                "this model's attention depends on the whole picture, so tiles would not match; "
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

    @property
    def identity(self) -> str:
        """What the pixels of an output depend on besides the input: scale, weights, precision."""
        model = self.backend.info.model
        return f"x{self.scale} {model.preset} {model.precision} {model.weights_sha256[:16]}"

    def __call__(self, image: Pixels) -> Pixels:
        """Upscale an array: uint8 or uint16, (H, W) grey or (H, W, 3) RGB, to scale * H by scale * W.

        Raises:
            ImageError: the array has another shape or dtype.
            BackendError: the device failed.
        """
        right_shape = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
        if image.dtype not in (np.uint8, np.uint16) or not right_shape:
            raise ImageError(
                f"cannot upscale an array of shape {image.shape} and dtype {image.dtype}; "
                "need uint8 or uint16, (H, W) or (H, W, 3)"
            )
        return self._upscale_items([image])[0]

    def picture(self, picture: Picture, *, progress: Progress | None = None) -> Picture:
        """Upscale a picture; alpha goes the same way as the colours.

        Raises:
            BackendError: the device failed, or the backend cannot compute 16 bits per channel.
        """
        info, used = self.backend.info, self._backend_for(picture.pixels).info
        if used.name != info.name:
            note = f"16 bits per channel: computed by {used.name} on {used.device}, not by {info.name}"
            picture = replace(picture, notes=(*picture.notes, note))
        if picture.alpha is None or not picture.transparent:
            (pixels,) = self._upscale_items([picture.pixels], progress)
            opaque = np.iinfo(pixels.dtype).max
            alpha = None if picture.alpha is None else np.full(pixels.shape[:2], opaque, pixels.dtype)
            return replace(picture, pixels=pixels, alpha=alpha)
        colours = bleed_under_transparency(picture.pixels, picture.alpha)
        pixels, alpha = self._upscale_items([colours, picture.alpha], progress)
        return replace(
            picture, pixels=pixels, alpha=within_neighbours(alpha, picture.alpha, scale=self.scale)
        )

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of what becomes of a picture of this size."""
        return height * self.scale, width * self.scale

    def tile_count(self, height: int, width: int) -> int:
        """Return how many tiles a picture of this size is cut into."""
        return len(self.grid(height, width))

    def grid(self, height: int, width: int) -> TileGrid:
        """Return how a picture of this size will be cut."""
        whole = self.backend.info.model.attention == "dynamic" and self._fits_whole(height, width)
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
        while True:
            try:
                return self._run_items(items, progress)
            except OutOfDeviceMemoryError:
                if not self._respect_limits():
                    raise

    def _backend_for(self, samples: Pixels) -> Backend:
        """Return what computes 8 bits, or 16, for which a float32 model is opened when first needed."""
        if samples.dtype == np.uint8 or self.backend.info.deep:
            return self.backend
        with self._opening:
            if self._deep_backend is None:
                request = replace(self._request, scale=self.scale)
                self._deep_backend = open_deep_backend(self._named, request)
            return self._deep_backend

    def _run_items(self, items: Sequence[Pixels], progress: Progress | None) -> list[Pixels]:
        height, width = items[0].shape[:2]
        grid = self.grid(height, width)
        outputs = [
            np.empty((height * self.scale, width * self.scale, *item.shape[2:]), item.dtype) for item in items
        ]
        jobs = [(tile, index) for tile in grid for index in range(len(items))]
        batches = (
            _cut(items, grid, part)
            for part in (jobs[at : at + self.batch] for at in range(0, len(jobs), self.batch))
        )
        remaining = iter(jobs)
        done = 0
        for result in self._backend_for(items[0]).run(batches):
            for upscaled, (tile, index) in zip(result, islice(remaining, len(result)), strict=True):
                _keep(upscaled, outputs[index], tile, self.scale)
            done += len(result)
            if progress is not None:
                progress(done, len(jobs))
        return outputs

    def close(self) -> None:
        """Free the backend."""
        if self._deep_backend is not None:
            self._deep_backend.close()
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A failure to free matters less than the one that ended the work.
        with nullcontext() if kind is None else suppress(BackendError):
            self.close()


def _cut(sources: Sequence[Pixels], grid: TileGrid, jobs: Sequence[tuple[Tile, int]]) -> Batch:
    """Copy tiles into a batch (N, tile_height, tile_width, 3); grey fills all channels."""
    batch = np.empty((len(jobs), grid.tile_height, grid.tile_width, 3), sources[0].dtype)
    for slot, (tile, index) in enumerate(jobs):
        rows, columns, source = tile.rows, tile.columns, sources[index]
        part = source[rows.start : rows.start + rows.length, columns.start : columns.start + columns.length]
        batch[slot] = part if part.ndim == 3 else part[:, :, None]
    return batch


def _keep(upscaled: Pixels, target: Pixels, tile: Tile, scale: int) -> None:
    """Write the part of an upscaled tile (sH, sW, 3) that it owns; grey targets get the mean."""
    rows, columns = tile.rows, tile.columns
    part = upscaled[
        (rows.keep_start - rows.start) * scale : (rows.keep_stop - rows.start) * scale,
        (columns.keep_start - columns.start) * scale : (columns.keep_stop - columns.start) * scale,
    ]
    place = target[
        rows.keep_start * scale : rows.keep_stop * scale,
        columns.keep_start * scale : columns.keep_stop * scale,
    ]
    if place.ndim == 3:
        place[:] = part
    else:
        wide = np.uint16 if part.dtype == np.uint8 else np.uint32
        place[:] = (part.sum(axis=2, dtype=wide) + 1) // 3  # the mean of three, rounded
