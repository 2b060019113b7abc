"""The page of a report: one HTML file that loads nothing and runs nothing.

Owns how results look. `report.html.jinja` is its frame. Each section has a function that makes blocks
of a result; a result of another shape, such as one of an older version, is shown as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from benchmarks.plane import gap_in_words
from benchmarks.report import plots as plots

TEMPLATE = Path(__file__).with_name("report.html.jinja")
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings; `bad` are the numbers of rows that do not reach what they must."""

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


def page(report: Result, sections: Sequence[Any], changed: Sequence[Any] | None, crops: Sequence[Any]) -> str:
    """Return the page.

    Args:
        report: as in report.json.
        sections: of `benchmarks.report`, in order.
        changed: figures that changed since an earlier report; None if none was given.
        crops: see `benchmarks.report.crops`.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = number
    shown = []
    for section in sections:
        entry = report["sections"].get(section.name, {"missing": "not measured in this run"})
        result = entry.get("result")
        shown.append(
            {
                "name": section.name,
                "title": section.title,
                "about": section.about,
                "headline": headline(section.name, entry),
                "state": _state(entry),
                "source": _source(entry, report),
                "blocks": [] if result is None else blocks(section.name, result),
            }
        )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        report=report,
        machine=machine_words(report),
        sections=shown,
        changed=None if changed is None else list(changed),
        crops=list(crops),
        facts=dict(facts(report)),
    )


def machine_words(report: Result) -> str:
    """Return processor, cores, GPUs and driver in words."""
    machine = report.get("machine") or {}
    if isinstance(machine, str):  # as early results had it
        return machine
    words = [f"{machine.get('processor', 'unknown')}, {machine.get('cores', '?')} cores"]
    words += report.get("gpus") or ["no NVIDIA GPU"]
    if report.get("driver"):
        words.append(f"driver {report['driver']}")
    return "; ".join(words)


def facts(report: Result) -> Iterator[tuple[str, str]]:
    """Yield what is needed to repeat the report."""
    yield "date", report["date"]
    yield "machine", machine_words(report)
    yield "versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    yield "Python", f"{report['machine']['python']} on {report['machine']['system']}"
    yield "revision", report.get("revision") or "not a git checkout"
    yield "command", report["command"]


def headline(name: str, entry: Result) -> str:
    """Return what a section says, in a sentence."""
    for kind in ("missing", "failed"):
        if kind in entry:
            return f"{'No measurement' if kind == 'missing' else 'Failed'}: {entry[kind]}"
    try:
        return HEADLINES[name](entry["result"]) if name in HEADLINES else ""
    except (KeyError, TypeError, ValueError, IndexError):  # of another version
        return ""


def _state(entry: Result) -> str:
    if "missing" in entry:
        return "missing"
    bad = "failed" in entry or entry.get("result", {}).get("passed", True) is False
    return "bad" if bad else "good"


def _source(entry: Result, report: Result) -> str:
    """Say where and when a result was measured, if that is not where the report was made."""
    source = entry.get("from")
    if not source:
        return ""
    return f"Measured {source.get('date', 'at an unknown date')} on {machine_words(source)}" + (
        f", revision {source['revision']}" if source.get("revision") else ""
    )


def blocks(name: str, result: Result) -> list[Block]:
    """Return a result as blocks: as its section shows it, else as it is."""
    if name in RENDERERS:
        try:
            return list(RENDERERS[name](result))
        except (KeyError, TypeError, ValueError, IndexError):  # of another version
            pass
    return list(as_it_is(result))


def as_it_is(result: Result) -> Iterator[Block]:
    """Yield all of a result: single values in one table, each list of rows in one."""
    single = {key: value for key, value in result.items() if not _is_rows(value)}
    flat = dict(_flat(single))
    if flat:
        yield Table(("", ""), tuple((_words(key), number(value)) for key, value in flat.items()))
    for key, value in result.items():
        if _is_rows(value):
            yield table(value, caption="" if key == "rows" else _words(key))


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
        rows: of one kind; what is nested is laid out flat.
        caption: above it.
        columns: to show, in order; empty is all that occur.
    """
    flat = [dict(_flat(row)) for row in rows]
    names = list(columns) or list(dict.fromkeys(name for row in flat for name in row if name != "passed"))
    return Table(
        tuple(map(_words, names)),
        tuple(tuple(number(row.get(name)) for name in names) for row in flat),
        caption,
        frozenset(at for at, row in enumerate(flat) if row.get("passed") is False),
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def number(value: Any) -> str:
    """Return a value for the reader: four digits of a fraction, thousands apart."""
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
    """Return a share in percent, with three digits."""
    return f"{float(f'{100 * share:.3g}'):f}".rstrip("0").rstrip(".") + " %"


# --- sections -----------------------------------------------------------------------------------


def _throughput(result: Result) -> Iterator[Block]:
    peaks = result["peaks"]
    yield Note(
        f"Peaks measured here: {peaks['gflops']:,.0f} GFLOPS ({peaks['gflops_by']}), copy "
        f"{peaks['copy_gb_per_s']:.1f} GB/s ({peaks['copy_by']}). {result['rounds']} rounds, in turn."
    )
    for case in result["cases"]:
        title = f"x{case['scale']}, {case['batch']} of {case['size']}, {case['precision']}, {case['device']}"
        rows = case["rows"]
        rates = [row["megapixels_per_s"] for row in rows]
        caption = f"{title}: {case['gmacs']:.1f} G multiply-adds, {case['megabytes']:.0f} MB."
        yield Plot(
            plots.bars([row["backend"] for row in rows], rates, "megapixels of output a second"), caption
        )
        yield table(
            [
                {
                    "backend": row["backend"],
                    **{f"{name}, ms": value for name, value in row["latency_ms"].items()},
                    f"times {case['against']}": row["time_ratio"]["median"],
                    "from": row["time_ratio"]["p10"],
                    "to": row["time_ratio"]["p90"],
                    "of the peak": percent(row["share_of_flops"]),
                    "variation": percent(row["variation"]),
                    **({"device MiB": row["device_memory_mib"]} if "device_memory_mib" in row else {}),
                    **{f"{part}, ms": found["median"] for part, found in row.get("split_ms", {}).items()},
                }
                for row in rows
            ]
        )
        if case["missing"]:
            yield table(case["missing"], caption="What could not be run")
        for warning in case["warnings"]:
            yield Note(f"Warning: {warning}")


def _parity(result: Result) -> Iterator[Block]:
    limits = ", ".join(f"{name} {value:g} dB" for name, value in result["min_psnr_db"].items())
    yield Note(f"Reference: {result['reference']}. PSNR of the uint8 outputs must be at least: {limits}.")
    yield table(
        [
            {
                **{name: row[name] for name in ("scale", "backend", "device", "precision", "tiling")},
                "PSNR, dB": "equal" if row["psnr_db"] is None else row["psnr_db"],
                "levels at most": row["max_levels"],
                "values that differ": percent(row["share"]),
                "worst picture": row["worst"],
                "passed": row["passed"],
            }
            for row in result["rows"]
        ]
    )
    if result["sets"]:
        yield table(result["sets"], caption="Y-PSNR against the truth")
    if result["not_run"]:
        yield table(result["not_run"], caption="What could not be run")


def _quality(result: Result) -> Iterator[Block]:
    columns = (
        "set",
        "scale",
        "method",
        "psnr_y",
        "ssim_y",
        "psnr_rgb",
        "params",
        "macs_720p_g",
        "s_per_megapixel",
    )
    if result["rows"]:
        yield table(result["rows"], columns=columns, caption="Measured here")
    if result.get("published"):
        yield table(result["published"], caption="As published")


def _plane(result: Result) -> Iterator[Block]:
    for found in result["planes"]:
        title = f"x{found['scale']}, {found['size']} whole, {found['engine']}, {found['rounds']} rounds"
        yield Plot(plots.plane(found), f"{title}. Bars span the 10th to the 90th percentile of rounds.")
        for entry in found["gaps"]:
            yield Note(gap_in_words(entry) + ".")
        columns = ("name", "ms_per_megapixel", "set14", "set5", "params", "macs_per_output_px", "source")
        yield table(sorted(found["points"], key=lambda point: point["ms_per_megapixel"]), columns=columns)
        if found["missing"]:
            yield table(found["missing"], caption="What could not be run")
        for warning in found["warnings"]:
            yield Note(f"Warning: {warning}")


def _predict(result: Result) -> Iterator[Block]:
    yield Note(
        f"Pictures of {result['size']}, {result['batch']} tiles at once; megapixels of output a second. "
        "At most: if arithmetic, memory or bus alone counted. Step by step: if each layer takes what the "
        "slower of them takes."
    )
    yield table(
        {
            "GPU": row["device"],
            "scale": row["scale"],
            "precision": row["precision"],
            "at most": row["bound"],
            "by": row["bound_by"],
            "step by step": row["roofline"],
            "measured": "not measured" if row["measured"] is None else row["measured"],
            "of the bound": "" if row["measured"] is None else percent(row["share_of_bound"]),
        }
        for row in result["rows"]
    )
    yield table(result["devices"], caption="Peaks, as published or measured")


def _pipeline(result: Result) -> Iterator[Block]:
    yield Note(
        f"{result['count']} pictures ({result['photographs']}), {result['megapixels_in']} megapixels, "
        f"x{result['scale']}, {result['backend']}."
    )
    rows = result["rows"]
    yield Plot(plots.pipeline(rows), "Seconds for all pictures; the mark is the bound of the whole.")
    yield table(
        [
            {
                "format": row["format"],
                "bottleneck": row["bottleneck"],
                "bound by": row["bound_by"],
                **{f"{stage}, core-s": value for stage, value in row["core_seconds"].items()},
                "bound, s": row["bound_seconds"],
                "reached": percent(row["share_of_bound"]),
                "pictures a second": row["pictures_per_second"],
            }
            for row in rows
        ]
    )


def _gpu(result: Result) -> Iterator[Block]:
    yield Note(f"{', '.join(result['gpus'])}; a picture of {result['size']}.")
    labels = [f"x{row['scale']} {row['ran']}" for row in result["rows"]]
    rates = [row["megapixels_out_per_second"] for row in result["rows"]]
    yield Plot(plots.bars(labels, rates, "megapixels of output a second"), "Pixels to pixels.")
    yield table(result["rows"])


def _guard(result: Result) -> Iterator[Block]:
    for name, things in result.items():
        rows = [{"": thing, **values} for thing, values in things.items()]
        yield table(rows, caption=_words(name))


RENDERERS: dict[str, Callable[[Result], Iterator[Block]]] = {
    "throughput": _throughput,
    "parity": _parity,
    "quality": _quality,
    "plane": _plane,
    "pipeline": _pipeline,
    "predict": _predict,
    "gpu": _gpu,
    "guard": _guard,
}


def _throughput_line(result: Result) -> str:
    said = []
    for case in result["cases"]:
        best = max(case["rows"], key=lambda row: row["megapixels_per_s"])
        said.append(f"x{case['scale']} {best['backend']} {best['megapixels_per_s']:.3g} megapixels a second")
    return "Fastest: " + ", ".join(said) + "."


def _parity_line(result: Result) -> str:
    rows = [*result["rows"], *result["sets"]]
    bad = sum(row.get("passed") is False for row in rows)
    apart = [row["psnr_db"] for row in result["rows"] if row["psnr_db"] is not None]
    what = f"{bad} of {len(rows)} comparisons fail" if bad else f"All {len(rows)} comparisons pass"
    least = f"; the least is {min(apart):.1f} dB" if apart else ""
    absent = f"; {len(result['not_run'])} could not be run here" if result["not_run"] else ""
    return f"{what}{least}{absent}."


def _quality_line(result: Result) -> str:
    if not result["rows"]:
        return "No test set was given; published figures only."
    ours = [row for row in result["rows"] if row.get("precision") == "fp32"]
    return ", ".join(f"{row['set']} x{row['scale']} {row['psnr_y']:.2f} dB" for row in ours) + "."


def _plane_line(result: Result) -> str:
    said = (
        f"x{found['scale']} {gap['name']} "
        + (
            "is the fastest"
            if gap["interpolated_db"] is None
            else f"{gap['interpolated_db']:+.2f} dB from the front at equal time"
        )
        for found in result["planes"]
        for gap in found["gaps"]
    )
    return ", ".join(said) + "."


def _predict_line(result: Result) -> str:
    measured = sum(row["measured"] is not None for row in result["rows"])
    return f"{len(result['rows'])} predictions, {measured} with a measurement beside."


def _pipeline_line(result: Result) -> str:
    reached = (
        f"{row['format']} {100 * row['share_of_bound']:.0f} % (bottleneck {row['bottleneck']})"
        for row in result["rows"]
    )
    return f"Of the bound are reached: {', '.join(reached)}."


def _engines_line(result: Result) -> str:
    return (
        f"{result['builder']}: built in {result['slowest_build_s']:.1f} s at most, "
        f"found in {result['slowest_lookup_ms']:.0f} ms at most."
    )


def _gpu_line(result: Result) -> str:
    best = max(result["rows"], key=lambda row: row["megapixels_out_per_second"])
    rate = best["megapixels_out_per_second"]
    return f"Fastest: {best['ran']} at x{best['scale']}, {rate:.0f} megapixels a second."


HEADLINES: dict[str, Callable[[Result], str]] = {
    "throughput": _throughput_line,
    "parity": _parity_line,
    "quality": _quality_line,
    "plane": _plane_line,
    "predict": _predict_line,
    "pipeline": _pipeline_line,
    "engines": _engines_line,
    "gpu": _gpu_line,
    "guard": lambda result: f"{len(result['models'])} model files, {len(result.get('engines', ()))} engines.",
}
