"""Upscaling to any size: networks one after the other, then one resampling."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Self

from sr.backends import Backend
from sr.errors import TilingError
from sr.image import Picture
from sr.modelfile import shipped_scales
from sr.resample import resample
from sr.sizing import SizeRequest, chain
from sr.upscale import Progress, Upscaler


class SizedUpscaler:
    """Upscales pictures to the size of a `SizeRequest`; a context manager.

    Each picture runs through the networks whose scales multiply to the smallest factor that
    suffices, and is then brought to the size exactly. Networks are opened when they are needed.

    >>> import numpy as np
    >>> from sr.image import Picture
    >>> with SizedUpscaler(SizeRequest(long_side=50)) as upscaler:
    ...     upscaler.picture(Picture(np.zeros((20, 30, 3), np.uint8))).pixels.shape
    (33, 50, 3)
    """

    def __init__(self, request: SizeRequest, *, linear_light: bool = False, **settings: Any) -> None:
        """Open the first network.

        Args:
            request: the size.
            linear_light: resample in linear light.
            settings: of each `Upscaler`; with `model`, its scale is the only one.

        Raises:
            BackendError, ModelError, TilingError: as `Upscaler`.
        """
        self._request, self._linear_light, self._settings = request, linear_light, settings
        self._upscalers: dict[int, Upscaler] = {}
        self._open = ExitStack()
        first = self._open.enter_context(Upscaler(**settings))
        self._upscalers[first.scale] = first
        self._scales = (first.scale,) if settings.get("model") else tuple(shipped_scales())
        if max(self._scales) < 2:
            self.close()
            raise TilingError(f"a model that upscales by {first.scale} reaches no larger size")

    @property
    def label(self) -> str:
        """What is done to a picture, in a word that goes into file names: "x1.5", "3840x2160"."""
        return self._request.label

    @property
    def backend(self) -> Backend:
        """The backend that was opened first."""
        return next(iter(self._upscalers.values())).backend

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The backends that are open, the one that was opened first before the others."""
        return tuple(backend for upscaler in self._upscalers.values() for backend in upscaler.backends)

    @property
    def identity(self) -> str:
        """What the pixels of an output depend on besides the input."""
        light = " linear" if self._linear_light else ""
        return f"{self.label}{light} {next(iter(self._upscalers.values())).identity}"

    @property
    def warning(self) -> str | None:
        """What the user should know about the models, or None."""
        return next(iter(self._upscalers.values())).warning

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of what becomes of a picture of this size.

        Raises:
            ImageError: the request does not fit the picture.
        """
        return self._request.target(height=height, width=width)

    def tile_count(self, height: int, width: int) -> int:
        """Return how many tiles a picture of this size is cut into, in all networks."""
        tiles = 0
        for scale in self._chain(height, width):
            tiles += self._upscaler(scale).tile_count(height, width)
            height, width = height * scale, width * scale
        return tiles

    def picture(self, picture: Picture, *, progress: Progress | None = None) -> Picture:
        """Upscale a picture; alpha goes the same way as the colours.

        Raises:
            ImageError: the request does not fit the picture.
            BackendError: the device failed.
        """
        height, width = self.output_size(picture.height, picture.width)
        total, before = self.tile_count(picture.height, picture.width), 0
        for scale in self._chain(picture.height, picture.width):
            upscaler = self._upscaler(scale)
            tiles = upscaler.tile_count(picture.height, picture.width)
            picture = upscaler.picture(picture, progress=_after(before, total, progress))
            before += tiles
        pixels = resample(picture.pixels, height=height, width=width, linear_light=self._linear_light)
        alpha = None if picture.alpha is None else resample(picture.alpha, height=height, width=width)
        return replace(picture, pixels=pixels, alpha=alpha)

    def _chain(self, height: int, width: int) -> tuple[int, ...]:
        target_height, target_width = self.output_size(height, width)
        return chain(max(target_height / height, target_width / width), self._scales)

    def _upscaler(self, scale: int) -> Upscaler:
        if scale not in self._upscalers:
            upscaler = Upscaler(**{**self._settings, "scale": scale})
            self._upscalers[scale] = self._open.enter_context(upscaler)
        return self._upscalers[scale]

    def close(self) -> None:
        """Free the backends."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_upscaler(
    *,
    scale: float | None = None,
    size: SizeRequest | None = None,
    long_side: int | None = None,
    linear: bool = False,
    **settings: Any,
) -> Upscaler | SizedUpscaler:
    """Open what the options of `srup upscale` ask for; one network if it reaches the size alone.

    At most one of `scale`, `size` and `long_side` is given.

    Raises:
        BackendError, ModelError, TilingError: as `Upscaler`.
    """
    whole = scale is None or (isinstance(scale, int) and (settings.get("model") or scale in shipped_scales()))
    if size is None and long_side is None and whole:
        return Upscaler(scale=None if scale is None else int(scale), **settings)
    request = size or SizeRequest(factor=scale, long_side=long_side)
    return SizedUpscaler(request, linear_light=linear, **settings)


def _after(before: int, total: int, progress: Progress | None) -> Callable[[int, int], None] | None:
    """Count the tiles of one network among those of all."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)
