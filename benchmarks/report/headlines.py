"""One sentence for each section."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.report.blocks import Result


def headline(name: str, entry: Result) -> str:
    """Return a section's result as a sentence."""
    for kind in ("missing", "failed"):
        if kind in entry:
            return f"{'No measurement' if kind == 'missing' else 'Failed'}: {entry[kind]}"
    try:
        return HEADLINES[name](entry["result"]) if name in HEADLINES else ""
    except (KeyError, TypeError, ValueError, IndexError):  # of another version
        return ""


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
    least = f"; the lowest PSNR is {min(apart):.1f} dB" if apart else ""
    absent = f"; {len(result['not_run'])} could not run here" if result["not_run"] else ""
    return f"{what}{least}{absent}."


def _quality_line(result: Result) -> str:
    if not result["rows"]:
        return "No test set given; published figures only."
    ours = [row for row in result["rows"] if row.get("precision") == "fp32"]
    return ", ".join(f"{row['set']} x{row['scale']} {row['psnr_y']:.2f} dB" for row in ours) + "."


def _real_line(result: Result) -> str:
    said = (
        f"{row['set']} x{row['scale']} {row['methods']['auto']['psnr_y']:.2f} dB "
        f"(bicubic {row['methods']['bicubic']['psnr_y']:.2f})"
        for row in result["rows"]
        if row["condition"] == "JPEG 75"
    )
    return f"JPEGs of quality 75: {', '.join(said)}."


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
    return f"{len(result['rows'])} predictions, {measured} with a measured rate."


def _pipeline_line(result: Result) -> str:
    reached = (
        f"{row['format']} {100 * row['share_of_bound']:.0f} % (bottleneck {row['bottleneck']})"
        for row in result["rows"]
    )
    return f"Share of the bound: {', '.join(reached)}."


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
    "real": _real_line,
    "plane": _plane_line,
    "predict": _predict_line,
    "pipeline": _pipeline_line,
    "engines": _engines_line,
    "gpu": _gpu_line,
    "guard": lambda result: f"{len(result['models'])} model files, {len(result.get('engines', ()))} engines.",
}
