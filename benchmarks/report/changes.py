"""Figures that changed between two reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """A figure that differs between two reports."""

    section: str
    row: str
    figure: str
    old: float
    new: float

    @property
    def percent(self) -> float | None:
        """The change in percent; None from zero."""
        return 100 * (self.new / self.old - 1) if self.old else None


# A row is identified by these numbers and by all words except these; everything else is a result.
_NUMBERS_OF_ROWS = {
    "scale",
    "batch",
    "tile",
    "count",
    "cores",
    "rounds",
    "pictures",
    "targets",
    "height",
    "width",
}
_RESULT_WORDS = {"worst", "bottleneck", "bound_by", "why"}
NOTABLE_PERCENT = 2.0  # less is noise even on an idle machine


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return the figures that differ by more than `NOTABLE_PERCENT`, in sections that both reports have."""
    found = []
    for name, entry in new.items():
        before = dict(figures(old.get(name, {}).get("result", {})))
        for (row, figure), value in figures(entry.get("result", {})):
            then = before.get((row, figure))
            if then is not None and abs(value - then) > NOTABLE_PERCENT / 100 * abs(then):
                found.append(Change(name, row, figure, then, value))
    return found


def figures(result: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], float]]:
    """Yield every number of a result with its row and its name as text."""
    for key, value in result.items():
        if key not in _NUMBERS_OF_ROWS:
            yield from _figures(value, "", key)


def _figures(value: Any, row: str, figure: str) -> Iterator[tuple[tuple[str, str], float]]:
    if isinstance(value, Mapping):
        identity = {key: item for key, item in value.items() if _identifies(key, item)}
        words = (item if isinstance(item, str) else f"{key} {item}" for key, item in identity.items())
        row = ", ".join(filter(None, (row, *words)))
        for key in value.keys() - identity.keys():
            yield from _figures(value[key], row, f"{figure} {key}".strip())
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _figures(item, row, "" if isinstance(item, Mapping) else f"{figure} {at}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield (row, figure), float(value)


def _identifies(key: str, value: Any) -> bool:
    return key in _NUMBERS_OF_ROWS or (isinstance(value, str) and key not in _RESULT_WORDS)
