"""Points on the quality-speed plane, their front, and the gap of a point from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BICUBIC = "bicubic"
# Loss of Set14's PSNR if its one grey file is compared as luma: see `benchmarks.plane`.
GREY_AS_LUMA_DB = 20 * math.log10(255 / 219) / 14


@dataclass(frozen=True)
class Point:
    """One method on the plane.

    Attributes:
        name: of the method.
        ms_per_megapixel: of output: the median share of a round times the median round.
        set14: Y-PSNR in dB; None if none is published.
        set5: the same on Set5.
        params: parameters; 0 for a filter.
        macs_per_output_px: multiply-adds counted in the graph.
        ours: one of srup's networks.
        spread: p10 and p90 of the time over the median, over rounds.
        source: of the PSNR.
    """

    name: str
    ms_per_megapixel: float
    set14: float | None
    set5: float | None
    params: int = 0
    macs_per_output_px: int = 0
    ours: bool = False
    spread: tuple[float, float] = (1.0, 1.0)
    source: str = "measured"


@dataclass(frozen=True)
class Gap:
    """Distance of one of our networks from the peers' front, in dB at equal time; positive is above.

    Attributes:
        name: of our network.
        interpolated_db: against the front, interpolated between its neighbouring points on a logarithmic time
            axis; beyond its slowest point the front is level. None if ours is faster than the whole front.
        best_no_slower_db: against the best peer that is no slower; None without one.
        best_no_slower: that peer.
        on_front: no peer is both as fast and as good.
        interpolated_db_grey_as_luma: as `interpolated_db`, with our PSNR by the other protocol.
    """

    name: str
    interpolated_db: float | None
    best_no_slower_db: float | None
    best_no_slower: str
    on_front: bool
    interpolated_db_grey_as_luma: float | None = None


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other point beats in both time and Set14 PSNR, fastest first."""
    kept: list[Point] = []
    rated = [point for point in points if point.set14 is not None]
    for point in sorted(rated, key=lambda point: (point.ms_per_megapixel, -decibels(point))):
        if not kept or decibels(point) > decibels(kept[-1]):
            kept.append(point)
    return kept


def gap(point: Point, others: Sequence[Point]) -> Gap:
    """Return the gap of `point` from the front of `others` at equal time."""
    edge, time, quality = front(others), point.ms_per_megapixel, decibels(point)
    faster = [other for other in edge if other.ms_per_megapixel <= time]
    if not faster:
        return Gap(point.name, None, None, "", on_front=True)
    best = faster[-1]
    after = edge[len(faster)] if len(faster) < len(edge) else None
    line = decibels(best)
    if after is not None:
        way = math.log(time / best.ms_per_megapixel) / math.log(
            after.ms_per_megapixel / best.ms_per_megapixel
        )
        line += way * (decibels(after) - decibels(best))
    ahead = quality - decibels(best)
    return Gap(
        point.name,
        interpolated_db=round(quality - line, 3),
        best_no_slower_db=round(ahead, 3),
        best_no_slower=best.name,
        on_front=ahead > 0,
        interpolated_db_grey_as_luma=round(quality - GREY_AS_LUMA_DB - line, 3),
    )


def decibels(point: Point) -> float:
    """Return the Set14 PSNR of a point; minus infinity without a figure."""
    return -math.inf if point.set14 is None else point.set14


def gap_in_words(entry: Mapping[str, Any]) -> str:
    """Return a gap as a sentence."""
    if entry["interpolated_db"] is None:
        return f"{entry['name']}: faster than all peers"
    return (
        f"{entry['name']}: {entry['interpolated_db']:+.2f} dB from the front at equal time "
        f"({entry['interpolated_db_grey_as_luma']:+.2f} dB with Set14's grey file as luma); "
        f"{entry['best_no_slower_db']:+.2f} dB from {entry['best_no_slower']}, the best peer no slower"
    )
