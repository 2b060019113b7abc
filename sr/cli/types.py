"""Types of command-line values: what a user may write, and what a command receives."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from sr.errors import ImageError, SrupError
from sr.sizing import MAX_FACTOR

STREAM: Literal["-"] = "-"  # standard input or output; "./-" is a file of that name


@dataclass(frozen=True)
class OutputPath:
    """A path of `-o`; `folder` is set where it ends with a slash, which a `Path` forgets."""

    path: Path
    folder: bool = False


class IntOrWord(click.ParamType):
    """An integer of at least `minimum`, or a word that stands for another value."""

    def __init__(self, word: str, value: int | None, *, minimum: int) -> None:
        self.word, self.value, self.minimum = word, value, minimum
        self.name = f"{word}|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Return the number, or what the word stands for."""
        if value == self.word or value is self.value:
            return self.value
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is neither {self.word!r} nor a whole number", param, ctx)
        if number < self.minimum:
            self.fail(f"{number} is less than {self.minimum}", param, ctx)
        return number


class Strength(click.ParamType):
    """A strength from 0 to 1, or "auto"."""

    name = "auto|0..1"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | Literal["auto"]:
        """Return the number, or "auto"."""
        if value == "auto":
            return "auto"
        try:
            strength = float(value)
        except ValueError:
            strength = -1.0
        if not 0 <= strength <= 1:
            self.fail(f"{value!r} is neither auto nor a strength from 0 to 1", param, ctx)
        return strength


class InputPathOrStream(click.Path):
    """A path, or "-" for standard input."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, readable=False)  # one that may not be read is one failed picture

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # Path, or "-": the base class promises less
        """Return the path, or "-" as it is."""
        return value if value == STREAM else super().convert(value, param, ctx)


class OutputPathOrStream(click.Path):
    """An `OutputPath`, or "-" for standard output."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # OutputPath, or "-"
        """Return the path, or "-" as it is."""
        if value == STREAM or isinstance(value, OutputPath):
            return value
        text = os.fsdecode(super().convert(value, param, ctx))
        separators = tuple(filter(None, (os.sep, os.altsep)))
        return OutputPath(Path(text), folder=text.endswith(separators))


class DeviceName(click.ParamType):
    """A device: auto, cpu, cuda, or GPUs by number."""

    name = "auto|cpu|cuda|N[,N]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, checked."""
        if value in ("auto", "cpu", "cuda"):  # shell completion must be fast: load nothing for a default
            return value
        from sr.backends.base import gpu_indices

        try:
            gpu_indices(value)
        except SrupError as error:
            self.fail(str(error), param, ctx)
        return value


class ParsedText(click.ParamType):
    """A value of a type that reads it from text, and raises `ImageError` if it cannot."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what was read."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ImageError as error:
            self.fail(str(error), param, ctx)


class ValueRange(click.ParamType):
    """LOW..HIGH: the values that stand for black and white."""

    name = "LOW..HIGH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """Return both numbers."""
        if isinstance(value, tuple):
            return value
        low, _, high = value.partition("..")
        try:
            black, white = float(low), float(high)
        except ValueError:
            self.fail(f"{value!r} is not LOW..HIGH, e.g. 0..255", param, ctx)
        if not black < white < float("inf"):
            self.fail(f"{value!r}: the first number must be less than the second", param, ctx)
        return black, white


class Factor(click.ParamType):
    """A factor above 0 and at most `sr.sizing.MAX_FACTOR`; whole ones become integers."""

    name = "factor"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        """Return the number."""
        try:
            factor = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        if not 0 < factor <= MAX_FACTOR:
            self.fail(f"{value} is not above 0 and at most {MAX_FACTOR}", param, ctx)
        return int(factor) if factor == int(factor) else factor
