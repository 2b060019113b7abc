"""Networks one after the other: `--model 1x_dejpeg.onnx --model 4x_foo.onnx`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypedDict, Unpack

from sr.backends import Backend, Workload
from sr.errors import TilingError
from sr.network.descriptor import Precision
from sr.network.ends import Conventions
from sr.objects import ImageUpscaler
from sr.restoring import Restore
from sr.streaming import Progress
from sr.upscale import Upscaler

if TYPE_CHECKING:
    from sr.backends.tensorrt.request import EngineBuilder
    from sr.image import Picture, Pixels


class UpscalerSettings(TypedDict, total=False):
    """Settings of `sr.upscale.Upscaler` but for scale and model."""

    backend: str
    device: str
    tile: int | None
    halo: int | None
    batch: int | None
    build_progress: Callable[[str, float], None] | None
    engine_dir: Path | None
    builder: EngineBuilder | None
    precision: Precision | None
    conventions: Conventions | None
    work: Workload | None
    restore: Restore | None


class ChainedUpscaler(ImageUpscaler):
    """Upscales pictures with one network after the other; a context manager, and threads may share it.

    Between networks a picture is rounded to the bits per channel that it has.
    """

    def __init__(
        self,
        models: Sequence[str | PathLike[str]],
        *,
        scale: int | None = None,
        **settings: Unpack[UpscalerSettings],
    ) -> None:
        """Open the networks.

        Args:
            models: model files, in the order in which a picture goes through them.
            scale: of all of them together, to be checked; None is any.
            settings: of each `Upscaler`.

        Raises:
            BackendError, ModelError, TilingError: as `Upscaler`.
        """
        with ExitStack() as opened:
            self._stages = [opened.enter_context(Upscaler(model=model, **settings)) for model in models]
            self.scale = math.prod(stage.scale for stage in self._stages)
            if scale is not None and scale != self.scale:
                raise TilingError(
                    f"the models upscale by {self.scale} together, not by {scale}; drop --scale"
                )
            self._open = opened.pop_all()

    @property
    def label(self) -> str:
        """The upscaling as a word for file names: "x4"."""
        return f"x{self.scale}"

    @property
    def backend(self) -> Backend:
        """The backend of the first network."""
        return self._stages[0].backend

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The open backends, in the order of the networks."""
        return tuple(backend for stage in self._stages for backend in stage.backends)

    @property
    def warning(self) -> str | None:
        """What the user should know about the models, or None."""
        said = [
            f"{stage.backend.info.model.name}: {stage.warning}" for stage in self._stages if stage.warning
        ]
        return "; ".join(said) or None

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the output for a picture of this size."""
        return height * self.scale, width * self.scale

    def tile_count(self, height: int, width: int) -> int:
        """Return how many tiles a picture of this size is cut into, in all networks."""
        tiles = 0
        for stage in self._stages:
            tiles += stage.tile_count(height, width)
            height, width = stage.output_size(height, width)
        return tiles

    def working_bytes(self, height: int, width: int, pixel_bytes: int) -> int:
        """Return the most bytes that the arrays of a picture take: input and output of one network."""
        pixels, most = height * width, 0
        for stage in self._stages:
            most = max(most, pixels * (1 + stage.scale**2) * pixel_bytes)
            pixels *= stage.scale**2
        return most

    def picture(self, picture: Picture, *, progress: Progress | None = None) -> Picture:
        """Upscale a picture with its alpha.

        Raises:
            BackendError: the device failed, or a backend does not compute 16 bits per channel.
        """
        total, before = self.tile_count(picture.height, picture.width), 0
        for stage in self._stages:
            tiles = stage.tile_count(picture.height, picture.width)
            picture = stage.picture(picture, progress=later_tiles(before, tiles, total, progress))
            before += tiles
        return picture

    def upscale(self, pixels: Pixels, alpha: Pixels | None = None) -> tuple[Pixels, Pixels | None]:
        """Upscale RGB (H, W, 3) or grey (H, W), uint8 or uint16, and alpha (H, W) of the same type.

        Raises:
            BackendError: as `picture`.
        """
        for stage in self._stages:
            pixels, alpha = stage.upscale(pixels, alpha)
        return pixels, alpha

    def close(self) -> None:
        """Free the backends; twice does nothing."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def later_tiles(
    before: int, tiles: int, total: int, progress: Progress | None
) -> Callable[[int, int], None] | None:
    """Count the tiles of one network among those of all; alpha doubles what a network itself counts."""
    if progress is None:
        return None
    return lambda done, of: progress(before + tiles * done // of, total)


def opened(
    models: Sequence[str | PathLike[str]], *, scale: int | None = None, **settings: Unpack[UpscalerSettings]
) -> Upscaler | ChainedUpscaler:
    """Open the networks of model files; without any the shipped one of `scale`.

    Raises:
        BackendError, ModelError, TilingError: as `Upscaler`.
    """
    if len(models) > 1:
        return ChainedUpscaler(models, scale=scale, **settings)
    return Upscaler(scale=scale, model=models[0] if models else None, **settings)
