"""Upscaling to any size: networks one after the other, then one resampling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Condition, get_ident
from typing import Self, Unpack

from sr.backends import Backend
from sr.errors import BackendError, TilingError
from sr.image import Picture, Pixels
from sr.network.modelfile import shipped_scales
from sr.objects import ImageUpscaler
from sr.resample import resample
from sr.sized.chained import ChainedUpscaler, UpscalerSettings, later_tiles, opened
from sr.sizing import SizeRequest, chain
from sr.streaming import Progress
from sr.upscale import Upscaler

# `resample` works channel by channel in float32: in bytes per pixel of its input and of its output.
_RESAMPLED_IN_BYTES, _RESAMPLED_OUT_BYTES = 12, 8


class SizedUpscaler(ImageUpscaler):
    """Upscales pictures to the size of a `SizeRequest`; a context manager, and threads may share it.

    Each picture runs through the networks whose scales multiply to the smallest factor that
    suffices, and is then brought to the size exactly. Networks are opened when they are needed.

    >>> import numpy as np
    >>> with SizedUpscaler(SizeRequest(long_side=50)) as upscaler:
    ...     upscaler(np.zeros((20, 30, 3), np.uint8)).shape
    (33, 50, 3)
    """

    def __init__(
        self,
        request: SizeRequest,
        *,
        linear_light: bool = False,
        models: Sequence[Path] = (),
        **settings: Unpack[UpscalerSettings],
    ) -> None:
        """Open the first network.

        Args:
            request: the size.
            linear_light: resample in linear light.
            models: model files in place of the shipped networks, one after the other; the scale of all of
                them together is the only one.
            settings: of each `Upscaler`.

        Raises:
            BackendError, ModelError, TilingError: as `Upscaler`.
        """
        self._request, self._linear_light, self._settings = request, linear_light, settings
        self._upscalers: dict[int, Upscaler | ChainedUpscaler] = {}
        self._open, self._closed = ExitStack(), False
        self._change = Condition()  # guards the upscalers, and tells of pictures that are finished
        self._in_hand: Counter[int] = Counter()  # pictures by thread
        first = opened(models, **settings)
        self._open.callback(first.close)
        self._upscalers[first.scale] = first
        self._scales = (first.scale,) if models else tuple(shipped_scales())
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
        return tuple(backend for upscaler in [*self._upscalers.values()] for backend in upscaler.backends)

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
        """Return how many tiles a picture of this size is cut into, in all networks.

        Raises:
            ImageError, BackendError: as `picture`.
        """
        with self._picture_in_hand():
            tiles = 0
            for scale in self._chain(height, width):
                tiles += self._upscaler(scale).tile_count(height, width)
                height, width = height * scale, width * scale
            return tiles

    def working_bytes(self, height: int, width: int, pixel_bytes: int) -> int:
        """Return the most bytes that the arrays of a picture of this size take while it is upscaled.

        Each stage holds its input and its output. Networks need not be open.

        Raises:
            ImageError: the request does not fit the picture.
        """
        target_height, target_width = self.output_size(height, width)
        pixels, most = height * width, 0
        for scale in self._chain(height, width):
            most = max(most, pixels * (1 + scale**2) * pixel_bytes)
            pixels *= scale**2
        out = target_height * target_width
        if pixels == out:  # nothing to resample
            return max(most, pixels * pixel_bytes)
        resampled = pixels * (pixel_bytes + _RESAMPLED_IN_BYTES) + out * (pixel_bytes + _RESAMPLED_OUT_BYTES)
        return max(most, resampled)

    def picture(self, picture: Picture, *, progress: Progress | None = None) -> Picture:
        """Upscale a picture; alpha goes the same way as the colours.

        Raises:
            ImageError: the request does not fit the picture.
            BackendError: the device failed.
        """
        height, width = self.output_size(picture.height, picture.width)
        with self._picture_in_hand():
            total, before = self.tile_count(picture.height, picture.width), 0
            for scale in self._chain(picture.height, picture.width):
                upscaler = self._upscaler(scale)
                tiles = upscaler.tile_count(picture.height, picture.width)
                picture = upscaler.picture(picture, progress=later_tiles(before, tiles, total, progress))
                before += tiles
        pixels = resample(picture.pixels, height=height, width=width, linear_light=self._linear_light)
        alpha = None if picture.alpha is None else resample(picture.alpha, height=height, width=width)
        return replace(picture, pixels=pixels, alpha=alpha)

    def upscale(self, pixels: Pixels, alpha: Pixels | None = None) -> tuple[Pixels, Pixels | None]:
        """Upscale RGB (H, W, 3) or grey (H, W), uint8 or uint16, and alpha (H, W) of the same type.

        Raises:
            ImageError, BackendError: as `picture`.
        """
        result = self.picture(Picture(pixels, alpha))
        return result.pixels, result.alpha

    def _chain(self, height: int, width: int) -> tuple[int, ...]:
        target_height, target_width = self.output_size(height, width)
        return chain(max(target_height / height, target_width / width), self._scales)

    @contextmanager
    def _picture_in_hand(self) -> Iterator[None]:
        """Keep the networks open until the block ends.

        Raises:
            BackendError: the upscaler is closed; not if this thread has a picture in hand already.
        """
        thread = get_ident()
        with self._change:
            if self._closed and not self._in_hand[thread]:
                raise BackendError("this upscaler is closed; make another one")
            self._in_hand[thread] += 1
        try:
            yield
        finally:
            with self._change:
                self._in_hand[thread] -= 1
                if not self._in_hand[thread]:
                    del self._in_hand[thread]
                self._change.notify_all()

    def _upscaler(self, scale: int) -> Upscaler | ChainedUpscaler:
        with self._change:
            if scale not in self._upscalers:
                upscaler = Upscaler(scale=scale, **self._settings)
                self._upscalers[scale] = self._open.enter_context(upscaler)
            return self._upscalers[scale]

    def close(self) -> None:
        """Free the backends, after the pictures that other threads have in hand; twice does nothing."""
        with self._change:
            self._closed = True
            self._change.wait_for(lambda: not self._in_hand.keys() - {get_ident()})
            self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
