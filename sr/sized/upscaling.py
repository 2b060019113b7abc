"""What pictures are upscaled to, and with which models.

Says how outputs are named and what they depend on before anything is opened: opening may build an
engine, for minutes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sr.backends import model_scale
from sr.network.ends import Conventions
from sr.network.modelfile import files_digest, shipped_scales, shipped_weights, ships
from sr.restoring import Restore, pair_for
from sr.sizing import SizeRequest


@dataclass(frozen=True)
class Upscaling:
    """Which size pictures are upscaled to: at most one of `scale`, `size` and `long_side`.

    Attributes:
        scale: a factor; None is the model's own, or 2.
        size: exact size of the output.
        long_side: of the output in pixels.
        linear: resample in linear light, where networks alone do not reach the size.
        models: model files in place of the shipped networks, one after the other.
        conventions: of a model file that is not ours, as the user states them.
        restore: strength of restoration, as of `Upscaler`.
    """

    scale: float | None = None
    size: SizeRequest | None = None
    long_side: int | None = None
    linear: bool = False
    models: tuple[Path, ...] = ()
    conventions: Conventions | None = None
    restore: Restore | None = None

    @property
    def request(self) -> SizeRequest | None:
        """The size, if one network alone does not make it; else None."""
        one = self.scale is None or (isinstance(self.scale, int) and (bool(self.models) or ships(self.scale)))
        if self.size is None and self.long_side is None and one:
            return None
        return self.size or SizeRequest(factor=self.scale, long_side=self.long_side)

    @property
    def label(self) -> str:
        """What is done, in a word that goes into file names: "x3", "3840x2160".

        Raises:
            ModelError: the scale is that of the model file, and it does not say.
        """
        if self.request is not None:
            return self.request.label
        if self.scale is None and self.models:
            return f"x{math.prod(model_scale(each, stated=self.conventions) for each in self.models)}"
        return f"x{2 if self.scale is None else self.scale}"

    @property
    def identity(self) -> str:
        """What the pixels of an output depend on besides the input: size and weights.

        Not the backend: what has been upscaled on one machine need not be done again on another.

        Raises:
            ModelError: the model file cannot be read, or no weights ship for the scale.
        """
        scale = 2 if self.scale is None else self.scale
        used = [int(scale)] if self.request is None else shipped_scales()
        files = self.models or [shipped_weights(scale=each) for each in used]
        light = " linear" if self.request is not None and self.linear else ""
        stated = "" if self.conventions is None else f" {self.conventions}"
        return f"{self.label}{light} {files_digest(files)[:16]}{stated}{self._restoring(files)}"

    def _restoring(self, files: Sequence[Path]) -> str:
        """Say what restores, in the words of `identity`; empty if nothing does.

        Raises:
            ModelError: restoration is asked for, and a file has no partner.
        """
        pairs = [pair for file in files if (pair := pair_for(file, self.restore)) is not None]
        if not pairs:
            return ""
        digest = files_digest([pair.path for pair in pairs])[:16]
        return f" restore {'auto' if self.restore is None else self.restore} {digest}"
