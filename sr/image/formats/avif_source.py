"""AVIF files as they are read: decoded by Pillow, cut to their clean aperture here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL.AvifImagePlugin import AvifImageFile

from sr.image.formats.avif_boxes import avif_notes, clean_aperture
from sr.image.picture import Picture
from sr.image.pillow import PillowSource
from sr.image.source import OpenedFile


class AvifSource(PillowSource):
    """An AVIF."""

    def __init__(self, opened: OpenedFile) -> None:
        super().__init__(opened, AvifImageFile, notes=avif_notes(opened.file, opened.name))
        height, width = super().size()
        with self.decoding(by_library=False):
            self._aperture = clean_aperture(opened.file, height=height, width=width)
        if self._aperture is not None and self.count > 1:
            self.refuse_variant("a clean aperture in an animation")

    def size(self) -> tuple[int, int]:
        """Return rows and columns of the picture, before it is turned upright."""
        return super().size() if self._aperture is None else (self._aperture.height, self._aperture.width)

    def shown(self, picture: Picture) -> Picture:
        """Cut to the clean aperture."""
        if self._aperture is None:
            return picture
        top, left, height, width = self._aperture
        part = slice(top, top + height), slice(left, left + width)
        alpha = None if picture.alpha is None else np.ascontiguousarray(picture.alpha[part])
        return replace(picture, pixels=np.ascontiguousarray(picture.pixels[part]), alpha=alpha)
