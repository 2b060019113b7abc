"""The blocks of each section's result.

A result of another shape, such as one of an older version, is shown in plain tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from benchmarks.lib.front import gap_in_words
from benchmarks.report import plots
from benchmarks.report.blocks import Block, Note, Plot, Result, as_it_is, percent, table, words


def blocks(name: str, result: Result) -> list[Block]:
    """Return a result as blocks of its section's form, else in plain tables."""
    if name in RENDERERS:
        try:
            return list(RENDERERS[name](result))
        except (KeyError, TypeError, ValueError, IndexError):  # of another version
            pass
    return list(as_it_is(result))


def _throughput(result: Result) -> Iterator[Block]:
    peaks = result["peaks"]
    yield Note(
        f"Peaks measured here: {peaks['gflops']:,.0f} GFLOPS ({peaks['gflops_by']}), copy "
        f"{peaks['copy_gb_per_s']:.1f} GB/s ({peaks['copy_by']}). {result['rounds']} rounds in turn."
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
            yield table(case["missing"], caption="Not run")
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
        yield table(result["not_run"], caption="Not run")


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


def _real(result: Result) -> Iterator[Block]:
    titles = {"psnr_y": "Y-PSNR, dB", "psnr_b": "PSNR-B, dB", "ssimulacra2": "SSIMULACRA2"}
    measured = list(result["rows"])
    for name, scale in dict.fromkeys((row["set"], row["scale"]) for row in measured):
        rows = [row for row in measured if (row["set"], row["scale"]) == (name, scale)]
        title = f"{name} x{scale}, {rows[0]['pictures']} pictures"
        curves = jpeg_curves(rows)
        if len(curves["bicubic"]) > 1:
            yield Plot(plots.curves(curves, "JPEG quality", titles["psnr_y"]), title)
        for metric, said in titles.items():
            measured_by = [row for row in rows if metric in row["methods"]["bicubic"]]
            if measured_by:
                yield table(
                    [
                        {"": row["condition"]}
                        | {method: figures[metric] for method, figures in row["methods"].items()}
                        for row in measured_by
                    ],
                    caption=f"{title}: {said}",
                )


def jpeg_curves(rows: Sequence[Result]) -> dict[str, list[tuple[float, float]]]:
    """Return for the filters, the ends of the pair and its choice: JPEG quality and Y-PSNR."""
    kind = re.compile(r"JPEG (\d+)")
    found = [(int(match[1]), row["methods"]) for row in rows if (match := kind.fullmatch(row["condition"]))]
    return {
        method: [(quality, methods[method]["psnr_y"]) for quality, methods in found]
        for method in ("bicubic", "Lanczos", "0", "auto", "1")
        if method in rows[0]["methods"]
    }


def _plane(result: Result) -> Iterator[Block]:
    for found in result["planes"]:
        title = f"x{found['scale']}, {found['size']} whole, {found['engine']}, {found['rounds']} rounds"
        yield Plot(plots.plane(found), f"{title}. Bars span the 10th to the 90th percentile of rounds.")
        for entry in found["gaps"]:
            yield Note(gap_in_words(entry) + ".")
        columns = ("name", "ms_per_megapixel", "set14", "set5", "params", "macs_per_output_px", "source")
        yield table(sorted(found["points"], key=lambda point: point["ms_per_megapixel"]), columns=columns)
        if found["missing"]:
            yield table(found["missing"], caption="Not run")
        for warning in found["warnings"]:
            yield Note(f"Warning: {warning}")


def _predict(result: Result) -> Iterator[Block]:
    yield Note(
        f"Pictures of {result['size']}, {result['batch']} tiles at once; megapixels of output a second. "
        "At most: the limit of arithmetic, memory or bus alone. Step by step: each layer takes the longer of "
        "its arithmetic and its memory traffic."
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
    if (encoded := result.get("encoded_megapixels_per_second")) is not None:
        yield Note(f"All cores encode {encoded} megapixels a second as PNG.")


def _guard(result: Result) -> Iterator[Block]:
    for name, things in result.items():
        rows = [{"": thing, **values} for thing, values in things.items()]
        yield table(rows, caption=words(name))


RENDERERS: dict[str, Callable[[Result], Iterator[Block]]] = {
    "throughput": _throughput,
    "parity": _parity,
    "quality": _quality,
    "real": _real,
    "plane": _plane,
    "pipeline": _pipeline,
    "predict": _predict,
    "gpu": _gpu,
    "guard": _guard,
}
