"""The plots of a report, as SVG inside HTML: text stays text, lines take the page's colours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.lib.plane_plot import OURS, THEIRS, draw_plane

# Placeholders for colours of the page; no plot uses them otherwise.
_INK, _FAINT = "#010203", "#040506"
_COLOURS_OF_THE_PAGE = {
    _INK: "currentColor",
    _FAINT: "currentColor",
    THEIRS: "currentColor",
    OURS: "var(--ours)",
}
COLOURS = ("#2f6fc4", "#c4682f", "#3d9a58", "#8a5bc0", "#b03a5b", "#7a7f87")

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "srup",  # gives equal plots equal internal names
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _FAINT,
    "grid.alpha": 0.25,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
}


def pipeline(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return bars of each stage alone and of the whole for each format, with the bound."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 0.7 + 0.9 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        names = list(rows[0]["seconds"])
        height = 0.8 / len(names)
        for at, name in enumerate(names):
            places = [index + at * height for index in range(len(rows))]
            axes.barh(places, [row["seconds"][name] for row in rows], height * 0.9, label=name)
        for index, row in enumerate(rows):
            place = index + (len(names) - 1) * height
            axes.plot([row["bound_seconds"]] * 2, [place - height / 2, place + height / 2], color=_INK, lw=2)
        axes.set_yticks([index + 0.4 - height / 2 for index in range(len(rows))])
        axes.set_yticklabels([row["format"] for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel("seconds")
        axes.legend(frameon=False, ncols=len(names), loc="lower left", bbox_to_anchor=(0, 1))
        return svg(figure)


def plane(found: Mapping[str, Any]) -> str:
    """Return a quality-speed plane, see `benchmarks.plane`."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 4.8), layout="constrained")
        draw_plane(figure.add_subplot(), found)
        return svg(figure)


def bars(labels: Sequence[str], values: Sequence[float], unit: str) -> str:
    """Return a bar for each label."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 0.8 + 0.28 * len(labels)), layout="constrained")
        axes = figure.add_subplot()
        drawn = axes.barh(range(len(labels)), values, 0.7)
        axes.bar_label(drawn, fmt="%.4g", padding=3)
        axes.set_yticks(range(len(labels)), labels)
        axes.margins(x=0.12)
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        return svg(figure)


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str) -> str:
    """Return a line for each name through its points (x, y)."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for name, points in lines.items():
            axes.plot(*zip(*sorted(points), strict=True), marker="o", markersize=3, label=name)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(visible=True)
        axes.legend(frameon=False)
        return svg(figure)


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element."""
    text = StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    element = text.getvalue()
    element = element[element.index("<svg") :]
    element = re.sub(
        r' id="[A-Za-z0-9]+_[0-9.]+"', "", element
    )  # nothing refers to these ids, and plots share them
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", element, count=1)
    element = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 role="img"', element, count=1)
    for colour, on_the_page in _COLOURS_OF_THE_PAGE.items():
        element = element.replace(colour, on_the_page)
    return element
