"""Pictures in Python programs: numpy arrays and PIL images, upscaled to the same kind of object.

PIL is imported only when a PIL image is given.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, overload

import numpy as np

from sr.errors import ImageError
from sr.image.picture import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST_CHANNELS = 4  # RGB and alpha


class ImageUpscaler(ABC):
    """Upscales an array or a PIL image when called; subclasses upscale the channels."""

    @abstractmethod
    def upscale(self, pixels: Pixels, alpha: Pixels | None = None) -> tuple[Pixels, Pixels | None]:
        """Upscale RGB (H, W, 3) or grey (H, W), uint8 or uint16, and alpha (H, W) of the same type."""

    @overload
    def __call__(self, image: Pixels) -> Pixels: ...

    @overload
    def __call__(self, image: Image) -> Image: ...

    def __call__(self, image: Pixels | Image) -> Pixels | Image:
        """Upscale an array or a PIL image; the result is of the same kind.

        Args:
            image: an array, uint8 or uint16, (H, W) grey or (H, W, C), where C is 1 grey, 2 grey and
                alpha, 3 RGB, 4 RGB and alpha, alpha not premultiplied; the output has the same C. Or a PIL
                image of mode 1, L, LA, P, PA, RGB, RGBA, CMYK, YCbCr or I;16: the output is L, LA, RGB,
                RGBA or I;16 and keeps `info`. EXIF orientation is not applied; of an animation the
                current frame is upscaled.

        Raises:
            ImageError: another shape, dtype or mode.
            BackendError: the device failed, or the upscaler is closed.
        """
        if isinstance(image, np.ndarray):
            return self._array(image)
        pil = sys.modules.get("PIL.Image")
        if pil is not None and isinstance(image, pil.Image):
            return self._pil(image)
        raise ImageError(f"cannot upscale a {type(image).__name__}; need a numpy array or a PIL image")

    def _array(self, array: Pixels) -> Pixels:
        dtype = array.dtype.newbyteorder("=")
        channels = array.shape[2] if array.ndim == 3 else 1
        known = dtype in (np.uint8, np.uint16) and array.ndim in (2, 3) and 1 <= channels <= _MOST_CHANNELS
        if not known or array.size == 0:
            raise ImageError(
                f"cannot upscale an array of shape {array.shape} and dtype {array.dtype}; need uint8 or "
                "uint16, (H, W) or (H, W, C) with C from 1 to 4: grey, grey and alpha, RGB, RGB and alpha"
            )
        array = array.astype(dtype, copy=False)
        colours = array if array.ndim == 2 else array[..., 0] if channels < 3 else array[..., :3]
        alpha = np.ascontiguousarray(array[..., -1]) if array.ndim == 3 and channels in (2, 4) else None
        pixels, alpha = self.upscale(colours, alpha)
        if alpha is not None:
            return np.dstack((pixels, alpha))
        return pixels[..., None] if array.ndim == 3 and channels == 1 else pixels

    def _pil(self, image: Image) -> Image:
        from PIL import Image

        from sr.image.arrays import MODES, arrays
        from sr.image.metadata import fitting_icc_profile

        image.load()
        alpha: Pixels | None = None
        if image.mode.startswith("I;16"):
            pixels: Pixels = np.asarray(image).astype(np.uint16, copy=False)
        elif image.mode in MODES:
            pixels, alpha, _ = arrays(image, png_bits=None)
        else:
            raise ImageError(
                f"cannot upscale a PIL image of mode {image.mode}; convert it to L, LA, RGB or RGBA first"
            )
        pixels, alpha = self.upscale(pixels, alpha)
        result = Image.fromarray(pixels if alpha is None else np.dstack((pixels, alpha)))
        result.info = {name: value for name, value in image.info.items() if name != "transparency"}
        profile = image.info.get("icc_profile")  # a CMYK profile has been applied
        if isinstance(profile, bytes) and fitting_icc_profile(profile, grey=pixels.ndim == 2) is None:
            del result.info["icc_profile"]
        return result
