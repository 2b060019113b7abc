"""Blocks of a page: tables, plots, notes; and the format of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings; `bad` are the indices of rows that miss their requirement."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    bad: frozenset[int] = frozenset()
    kind: str = "table"


@dataclass(frozen=True)
class Plot:
    """An SVG."""

    svg: str
    caption: str
    kind: str = "plot"


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: str
    kind: str = "note"


Block = Table | Plot | Note


def as_it_is(result: Result) -> Iterator[Block]:
    """Yield a whole result: single values in one table, each list of rows in another."""
    single = {key: value for key, value in result.items() if not _is_rows(value)}
    flat = dict(_flat(single))
    if flat:
        yield Table(("", ""), tuple((words(key), number(value)) for key, value in flat.items()))
    for key, value in result.items():
        if _is_rows(value):
            yield table(value, caption="" if key == "rows" else words(key))


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", item


def table(rows: Iterable[Mapping[str, Any]], *, caption: str = "", columns: Sequence[str] = ()) -> Table:
    """Return rows as a table.

    Args:
        rows: of one kind; nested values become columns of their own.
        caption: above the table.
        columns: to show, in order; empty means all.
    """
    flat = [dict(_flat(row)) for row in rows]
    names = list(columns) or list(dict.fromkeys(name for row in flat for name in row if name != "passed"))
    return Table(
        tuple(map(words, names)),
        tuple(tuple(number(row.get(name)) for name in names) for row in flat),
        caption,
        frozenset(at for at, row in enumerate(flat) if row.get("passed") is False),
    )


def words(name: str) -> str:
    return name.replace("_", " ")


def number(value: Any) -> str:
    """Return a value as text: fractions with four digits, thousands separated."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
        return f"{value:,.{min(digits, 8)}f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(number, value))
    return str(value)


def percent(share: float) -> str:
    """Return a share as text in percent, with three digits."""
    return f"{float(f'{100 * share:.3g}'):f}".rstrip("0").rstrip(".") + " %"
