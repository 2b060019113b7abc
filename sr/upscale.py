"""Upscaling a picture on a backend: which tiles, how many at once, how memory limits both."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Self

import numpy as np

from sr.backends import open_backend, open_sixteen_bit_backend
from sr.backends.base import Backend, BackendRequest, Workload, tile_memory
from sr.errors import BackendError, ModelError, TilingError
from sr.fitting import fitted, fitted_grid
from sr.image.picture import Pixels, Restoration
from sr.memory import available_memory
from sr.network.descriptor import Precision
from sr.network.ends import Conventions
from sr.network.modelfile import DEFAULT_SCALE, shipped_onnx, ships
from sr.network.pair import Partner
from sr.objects import ImageUpscaler
from sr.restoring import Restore, chosen, pair_for
from sr.stitching import Batching, RowsOf
from sr.streaming import Progress, Work, finished, finished_rows
from sr.tiling import MIN_HALOS_PER_TILE, Tile, TileGrid, TileSpec, constant_grid

if TYPE_CHECKING:
    from sr.backends.tensorrt.request import EngineBuilder
    from sr.image import Picture

# Share of available memory that inference on a whole picture may take.
WHOLE_PICTURE_MEMORY_SHARE = 0.5

# Backends besides the first that stay open on a CPU, where opening one takes tens of milliseconds. At least
# 2: one may be in use while the next is opened.
_MOST_OTHERS = 2


class Upscaler(ImageUpscaler):
    """Upscales pictures with one model on one backend; a context manager.

    Threads may share an upscaler: it computes one picture at a time.

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
        model: str | PathLike[str] | None = None,
        tile: int | None = None,
        halo: int | None = None,
        batch: int | None = None,
        build_progress: Callable[[str, float], None] | None = None,
        engine_dir: str | PathLike[str] | None = None,
        precision: Precision | None = None,
        builder: EngineBuilder | None = None,
        conventions: Conventions | None = None,
        work: Workload | None = None,
        restore: Restore | None = None,
    ) -> None:
        """Open the backend.

        Args:
            scale: upscaling factor; None takes that of `model`, or 2 without a model.
            backend: a name of `sr.backends.BACKENDS`, or an open backend, which `close` closes.
            device: "auto", "cpu", "cuda", the number of a GPU, or several: "0,1".
            model: path of a model file; None takes a shipped one.
            tile: largest side of a tile in lr pixels, halo included; None lets the backend choose.
            halo: overlap of tiles in lr pixels; None takes that of the model, -1 the receptive-field radius.
            batch: tiles run at once; None lets the backend choose.
            build_progress: called with phase and share done while an engine is being built.
            engine_dir: folder of TensorRT engines; None takes a folder in the user's cache folder.
            precision: "fp32", "fp16", "bf16" or "int8"; None lets the backend and the model decide.
            builder: builds TensorRT engines that the folder lacks, e.g. `deploy.engines.build.build_engine`;
                without one a missing engine is an error that says how to build it.
            conventions: of a model file that is not ours, where its small runs do not tell them.
            work: pictures to come, if known; on a CPU, backend "auto" counts its start-up against them.
            restore: how strongly damage such as JPEG's is undone, 0 to 1, with a model that has a partner for
                it (`sr.network.pair`); "auto" tells by each picture; None is "auto" with such a model or 0.

        Raises:
            BackendError: the backend or device is not available.
            ModelError: the model file is missing, damaged or unsupported.
            TilingError: tile, halo and batch contradict each other, or `scale` and `model`.
        """
        if batch is not None and batch < 1:
            raise TilingError(f"batch is {batch}, need at least 1 (--batch)")
        request = BackendRequest(
            scale=DEFAULT_SCALE if scale is None else scale,
            device=device,
            model=None if model is None else Path(model),
            tile=tile,
            batch=batch,
            build_progress=build_progress,
            engine_dir=None if engine_dir is None else Path(engine_dir),
            precision=precision,
            builder=builder,
            conventions=conventions,
            work=work,
            restore=restore if isinstance(restore, float | int) else 0.0,
        )
        self._pair = self._pair_of(request, backend, restore)
        self._request, self._auto = request, restore in (None, "auto")
        # One picture at a time: a device is no faster with two, engines run batches one after the other, and
        # tiling changes where memory runs out. Reentrant, because `progress` may call the upscaler.
        self._lock, self._closed = RLock(), False
        self._limits: list[tuple[int | None, int | None]] = []  # of tile and batch, those last heeded
        self._named = backend if isinstance(backend, str) else backend.info.name
        self._others: dict[tuple[bool, float], Backend] = {}  # for 16 bits, and for other strengths
        self.backend = open_backend(backend, request) if isinstance(backend, str) else backend
        try:
            self._plan(scale, tile, halo, batch)
        except BaseException:
            self.backend.close()
            raise

    @staticmethod
    def _pair_of(request: BackendRequest, backend: str | Backend, restore: Restore | None) -> Partner | None:
        if isinstance(backend, Backend):  # which model it runs, only its opener knows
            if restore:
                raise ModelError("restore goes with the name of a backend, not with an open one")
            return None
        if request.model is None and not ships(request.scale):
            return None  # opening will say so
        return pair_for(request.model or shipped_onnx(scale=request.scale), restore)

    def _plan(self, scale: int | None, tile: int | None, halo: int | None, batch: int | None) -> None:
        info = self.backend.info
        self.scale = info.model.scale
        if scale is not None and scale != self.scale:
            raise TilingError(f"the model upscales by {self.scale}, not by {scale}; drop --scale or --model")
        model, self._cut = info.model, False
        if halo is None:  # the halo of another network does not make tiles larger than what fits
            given = tile is not None or model.ends.size is not None
            kept = model.ours or (model.tiles_exact and given)
            halo = model.halo if kept else min(model.halo, info.default_tile // MIN_HALOS_PER_TILE)
            self._cut = model.tiles_exact and halo < model.halo
        halo = model.receptive_field_radius if halo < 0 else halo
        if model.ends.size is not None:  # the network takes tiles of one size
            side = min(model.ends.size)
            self.spec = TileSpec(tile=side, halo=min(halo, side // MIN_HALOS_PER_TILE))
        else:
            default_tile = max(info.default_tile, MIN_HALOS_PER_TILE * halo)
            self.spec = TileSpec(tile=default_tile if tile is None else tile, halo=halo)
        self.batch = info.default_batch if batch is None else batch
        self.shrink_to_limits()

    def shrink_to_limits(self) -> bool:
        """Lower tile and batch to what the opened backends take; return whether that changed them."""
        before = (self.spec, self.batch, self._limits)
        self._limits = [(each.info.max_tile, each.info.max_batch) for each in self.backends]
        for info in (backend.info for backend in self.backends):
            if info.max_tile is not None:
                self.spec = replace(self.spec, tile=min(self.spec.tile, info.max_tile))
            if info.max_batch is not None:
                self.batch = min(self.batch, info.max_batch)
        return (self.spec, self.batch, self._limits) != before

    @property
    def warning(self) -> str | None:
        """A warning about this model for the user, or None."""
        model = self.backend.info.model
        if self._cut:
            return (
                f"tiles equal the whole picture with a halo of {model.halo} px, which needs tiles of "
                f"{MIN_HALOS_PER_TILE * model.halo} px; available memory allows {self.spec.tile} px, so the "
                f"halo is {self.spec.halo} px, and seams may show"
            )
        if model.notes:
            return "; ".join(model.notes)
        if not model.tiles_exact:
            return (
                "each output pixel of this model depends on the whole picture, so tiles do not match; "
                "pictures are upscaled whole where memory allows"
            )
        return None

    @property
    def label(self) -> str:
        """The upscaling as a word for file names: "x3"."""
        return f"x{self.scale}"

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The open backends; the first one computes 8 bits per channel."""
        return (self.backend, *self._others.values())

    def picture(self, picture: Picture, *, progress: Progress | None = None) -> Picture:
        """Upscale a picture with its alpha.

        Raises:
            BackendError: the device failed, or the backend does not compute 16 bits per channel.
        """
        (upscaled,) = self.pictures([(picture, progress)])
        return upscaled

    def pictures(
        self, pictures: Iterable[tuple[Picture, Progress | None] | None]
    ) -> Generator[Picture, None, None]:
        """Upscale pictures in order, each with its progress; a GPU has tiles of several at once.

        Where the next item is None, no picture is ready yet: those under way may be finished first.

        Raises:
            BackendError: as `picture`, for one of those under way; these are lost.
        """
        whole = (each and self._picture_work(*each) for each in pictures)
        with self._lock, closing(finished(whole, self)) as works:
            for work in works:
                yield work.result()

    def _picture_work(self, picture: Picture, progress: Progress | None) -> Work[Picture]:
        restored = self.restoration(picture)
        strength = None if restored is None else restored.strength
        info, used = self.backend.info, self.backend_for(picture.pixels, strength).info
        if used.name != info.name:
            note = f"16 bits per channel: computed by {used.name} on {used.device}, not by {info.name}"
            picture = replace(picture, notes=(*picture.notes, note))
        work = self._work(picture.pixels, picture.alpha, progress, strength)

        def finish(outputs: list[Pixels]) -> Picture:
            pixels, alpha = work.finish(outputs)
            return replace(picture, pixels=pixels, alpha=alpha, restored=picture.restored or restored)

        return Work(work.items, finish, progress, strength)

    def restoration(self, picture: Picture) -> Restoration | None:
        """Return how strongly a picture will be restored; None if the model has no partner for that."""
        if self._pair is None:
            return None
        if picture.restored is not None:
            return Restoration(0.0, "restored before")
        if not self._auto:
            return Restoration(self._request.restore, "asked for")
        return chosen(self._pair.restores, picture.compression, picture.pixels)

    def upscale(
        self, pixels: Pixels, alpha: Pixels | None = None, *, progress: Progress | None = None
    ) -> tuple[Pixels, Pixels | None]:
        """Upscale RGB (H, W, 3) or grey (H, W), uint8 or uint16, and alpha (H, W) of the same type.

        Colours are continued under transparent pixels first. Opaque alpha costs nothing.

        Raises:
            BackendError: as `picture`, or the upscaler is closed.
        """
        from sr.image import Picture

        restored = self.restoration(Picture(pixels, alpha))
        strength = None if restored is None else restored.strength
        with self._lock:
            (work,) = finished([self._work(pixels, alpha, progress, strength)], self)
        return work.result()

    def _work(
        self, pixels: Pixels, alpha: Pixels | None, progress: Progress | None, strength: float | None
    ) -> Work[tuple[Pixels, Pixels | None]]:
        from sr.image import bleed_under_transparency, within_neighbours

        opaque, model = np.iinfo(pixels.dtype).max, self.backend.info.model
        height, width = self.output_size(*pixels.shape[:2])
        covered = None if alpha is None or bool((alpha == opaque).all()) else alpha

        def finish(outputs: list[Pixels]) -> tuple[Pixels, Pixels | None]:
            upscaled, *others = (output[:height, :width] for output in outputs)
            if covered is not None:
                return upscaled, within_neighbours(others[0], covered, scale=self.scale)
            return upscaled, None if alpha is None else np.full((height, width), opaque, pixels.dtype)

        items = [pixels] if covered is None else [bleed_under_transparency(pixels, covered), covered]
        return Work([fitted(item, model) for item in items], finish, progress, strength)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the output for a picture of this size."""
        return height * self.scale, width * self.scale

    def tile_count(self, height: int, width: int) -> int:
        """Return the number of tiles for a picture of this size."""
        return len(self.grid(height, width))

    def grid(self, height: int, width: int) -> TileGrid:
        """Return the tiles for a picture of this size."""
        model = self.backend.info.model
        whole = not model.tiles_exact and self._fits_whole(height, width)
        spec = replace(self.spec, tile=max(height, width, self.spec.tile)) if whole else self.spec
        constant = self.backend.info.constant_tiles and not whole
        if constant and model.any_size and (grid := constant_grid(height, width, spec)):
            return grid
        return fitted_grid(height, width, replace(spec, equalise=not constant or model.any_size), model)

    def batching(self) -> Batching:
        """Return how many tiles run together: `batch` of the largest, or as many smaller ones instead."""
        info, most = self.backend.info, self.spec.tile**2 * self.batch
        if not info.constant_tiles:
            return Batching(lambda height, width: self.batch, constant=False)
        limit = max(info.max_small_batch or self.batch, self.batch)
        return Batching(
            lambda height, width: max(self.batch, min(limit, most // (height * width))), constant=True
        )

    def _fits_whole(self, height: int, width: int) -> bool:
        info = self.backend.info
        if info.model.ends.size is not None or max(height, width) > (info.max_tile or max(height, width)):
            return False
        needed = tile_memory(info.model, height * width)
        return needed <= WHOLE_PICTURE_MEMORY_SHARE * available_memory()

    def backend_for(self, samples: Pixels, strength: float | None = None) -> Backend:
        """Return the backend for this sample type and strength (None: of the first), opened when needed."""
        with self._lock:
            if self._closed:
                raise BackendError("this upscaler is closed; open a new one")
            sixteen = samples.dtype != np.uint8 and not self.backend.info.sixteen_bit
            key = (sixteen, self._request.restore if strength is None else strength)
            if key == (False, self._request.restore):
                return self.backend
            if key not in self._others:
                self._make_room()
                self._others[key] = self._opened(*key)
            self._others[key] = other = self._others.pop(key)  # the one that was used last stands last
            return other

    def _make_room(self) -> None:
        """Close what was not used for longest, so that not the memory of five networks is held on a CPU."""
        if self._on_cpu:
            while len(self._others) >= _MOST_OTHERS:
                self._others.pop(next(iter(self._others))).close()

    @property
    def _on_cpu(self) -> bool:
        return self.backend.info.device.startswith("CPU")

    def _opened(self, sixteen: bool, strength: float) -> Backend:
        request = replace(self._request, scale=self.scale, restore=strength)
        if sixteen:
            return open_sixteen_bit_backend(self._named, request)
        device = "cpu" if self._on_cpu else request.device
        return open_backend(self.backend.info.name, replace(request, device=device))

    def upscale_rows(
        self,
        grid: TileGrid,
        like: Pixels,
        rows_of: RowsOf,
        *,
        first: int = 0,
        restore: float | None = None,
    ) -> Generator[list[tuple[Tile, int, Pixels]], None, None]:
        """Upscale a picture that is read row of tiles by row of tiles; the pixels are those of `upscale`.

        Args:
            grid: the tiles, from `grid`.
            like: an array with the dtype of the samples.
            rows_of: called for each row of tiles in turn; returns arrays (length, W, 3) or (length, W),
                which are upscaled together.
            first: row of tiles to begin with.
            restore: strength, as `restoration` gives it; None is that of the first backend.

        Yields:
            For each batch a list of (tile, index of its array, its part of the output, (h, w, 3) or (h, w)).

        Raises:
            OutOfDeviceMemoryError: start again with a new grid if `shrink_to_limits` returns True.
            BackendError: as `picture`.
        """
        with (
            self._lock,
            closing(finished_rows(grid, like, rows_of, self, first=first, strength=restore)) as parts,
        ):
            yield from parts

    def close(self) -> None:
        """Free the backend once the current picture is done; closing twice does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for other in self._others.values():
                other.close()
            self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An error while freeing must not hide the one that ended the work.
        with nullcontext() if kind is None else suppress(BackendError):
            self.close()
