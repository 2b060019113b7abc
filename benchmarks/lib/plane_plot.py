"""The plot of quality-speed planes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lib.front import BICUBIC, Point, decibels, front
from sr.errors import require_extra
from sr.files import atomic_write

OURS, THEIRS = "#c0392b", "#2c3e50"  # colours of points


def draw(planes: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot planes side by side as one SVG.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    require_extra("train", "matplotlib", purpose="the plot of the plane")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(planes), 4.8), layout="constrained")
    for axes, plane in zip(figure.subplots(1, len(planes), squeeze=False)[0], planes, strict=True):
        draw_plane(axes, plane)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    with atomic_write(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def draw_plane(axes: Any, plane: Mapping[str, Any]) -> None:
    """Plot one plane on matplotlib's `axes`."""
    points = [Point(**{**point, "spread": tuple(point["spread"])}) for point in plane["points"]]
    networks = [point for point in points if point.set14 is not None and point.name != BICUBIC]
    edge = front(points)
    steps = [*(point.ms_per_megapixel for point in edge), 3 * max(p.ms_per_megapixel for p in points)]
    axes.step(steps, [*map(decibels, edge), decibels(edge[-1])], where="post", color="#999", lw=1, zorder=1)
    for point in networks:
        low, high = point.spread
        time = point.ms_per_megapixel
        error = [[time * max(0.0, 1 - low)], [time * max(0.0, high - 1)]]
        axes.errorbar(time, point.set14, xerr=error, fmt="o", ms=5, color=_colour(point), lw=1)
    fastest = min(point.ms_per_megapixel for point in networks)
    slowest = max(point.ms_per_megapixel for point in networks)
    lowest, highest = min(map(decibels, networks)), max(map(decibels, networks))
    axes.set(
        xscale="log",
        xlim=(fastest / 1.6, slowest * 5),
        ylim=(lowest - 0.3, highest + 0.3),
        xlabel="milliseconds per megapixel of output",
        ylabel="Set14 Y-PSNR in dB",
        title=f"x{plane['scale']}, {plane['engine']}",
    )
    _label(axes, networks)
    notes = [
        f"{p.name}: {decibels(p):.2f} dB, {p.ms_per_megapixel:.0f} ms" for p in points if p.name == BICUBIC
    ]
    if plane["no_figure"]:
        timed = (p for p in points if p.set14 is None)
        notes.append(
            "no published figure: " + ", ".join(f"{p.name} {p.ms_per_megapixel:.0f} ms" for p in timed)
        )
    axes.text(0.98, 0.02, "\n".join(notes), fontsize=7, ha="right", va="bottom", transform=axes.transAxes)
    axes.grid(alpha=0.2, which="both")


def _label(axes: Any, points: Sequence[Point]) -> None:
    """Write names to the right of the points, moved down where they would overlap."""
    bottom, top = axes.get_ylim()
    height = (top - bottom) / 28  # of a line of text
    placed: list[tuple[float, float]] = []
    for point in sorted(points, key=decibels, reverse=True):
        time, at = point.ms_per_megapixel, decibels(point)
        near = [y for other, y in placed if 1 / 4 < other / time < 4]
        at = min([at - 0.7 * height, *(y - height for y in near)])
        placed.append((time, at))
        axes.annotate(
            f"{point.name}, {point.params / 1e3:.0f} K",
            (time, decibels(point)),
            xytext=(time * 1.25, at),
            fontsize=8,
            color=_colour(point),
            va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "#999"},
        )


def _colour(point: Point) -> str:
    return OURS if point.ours else THEIRS
