"""Output sizes that are asked for, and how networks of a few integer scales reach them.

Pure arithmetic: a size is reached by networks, one after the other, up to at least that size, and
then one resampling down to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

from sr.errors import ImageError

MAX_FACTOR = 16  # beyond it nothing is left of the picture but what networks invent
# How far a size may be from the picture's own proportions, in pixels of the input: its sides are rounded.
_ROUNDING_PX = 1.0


@dataclass(frozen=True)
class SizeRequest:
    """What was asked for: exactly one of a factor, a box and the longer side.

    Attributes:
        factor: e.g. 1.5.
        width, height: of the output in pixels; None for one of them follows from the other.
        long_side: of the output in pixels.
    """

    factor: float | None = None
    width: int | None = None
    height: int | None = None
    long_side: int | None = None

    @staticmethod
    def parse_size(text: str) -> SizeRequest:
        """Read WIDTHxHEIGHT, WIDTHx or xHEIGHT.

        Raises:
            ImageError: it does not parse.
        """
        match = re.fullmatch(r"(\d*)[xX](\d*)", text.strip())
        width, height = (int(part) if part else None for part in match.groups()) if match else (None, None)
        if (width is None and height is None) or 0 in (width, height):
            raise ImageError(
                f"size {text!r} does not read as WIDTHxHEIGHT, WIDTHx or xHEIGHT, e.g. 3840x2160"
            )
        return SizeRequest(width=width, height=height)

    @property
    def label(self) -> str:
        """A short name, for those of files: "x1.5", "3840x2160", "long2000"."""
        if self.factor is not None:
            return f"x{self.factor:g}"
        if self.long_side is not None:
            return f"long{self.long_side}"
        return f"{self.width or ''}x{self.height or ''}"

    def target(self, *, height: int, width: int) -> tuple[int, int]:
        """Return the output's height and width for a picture of `height` by `width`.

        Raises:
            ImageError: the picture would be distorted, or enlarged by more than `MAX_FACTOR`.
        """
        if self.factor is not None:
            wanted = (height * self.factor, width * self.factor)
        elif self.long_side is not None:
            wanted = tuple(side * self.long_side / max(height, width) for side in (height, width))  # type: ignore[assignment]
        else:
            factor = self.height / height if self.height else (self.width or 0) / width
            wanted = (height * factor, width * factor)
            if self.width and abs(wanted[1] - self.width) > _ROUNDING_PX * max(1.0, factor):
                fits = min(self.width / width, (self.height or 0) / height)
                raise ImageError(
                    f"{self.width}x{self.height} would distort a {width}x{height} picture; its proportions "
                    f"give {max(1, round(width * fits))}x{max(1, round(height * fits))} in that box, "
                    f"or name one side: {self.width}x"
                )
            wanted = (self.height or wanted[0], self.width or wanted[1])
        result = (max(1, round(wanted[0])), max(1, round(wanted[1])))
        if max(result[0] / height, result[1] / width) > MAX_FACTOR + 0.5 / min(height, width):
            raise ImageError(
                f"{result[1]}x{result[0]} is more than {MAX_FACTOR} times {width}x{height}; ask for less"
            )
        return result


def chain(factor: float, scales: Sequence[int]) -> tuple[int, ...]:
    """Return the scales of the networks to run, one after the other, for a factor.

    Their product is the smallest that is at least `factor`; of equal ones the shortest chain wins,
    and the smallest scale comes first, which leaves the least work. Up to factor 1 none is run.
    """
    if factor <= 1:
        return ()
    usable = sorted(scale for scale in set(scales) if scale > 1)
    longest = math.ceil(math.log(factor) / math.log(usable[0]) - 1e-9)
    candidates = [
        scales for length in range(1, longest + 1) for scales in combinations_with_replacement(usable, length)
    ]
    fitting = [scales for scales in candidates if math.prod(scales) >= factor - 1e-9]
    return min(fitting, key=lambda scales: (math.prod(scales), len(scales), scales))
