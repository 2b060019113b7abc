"""The page of a run: its figures beside bicubic's, its curves and its crops, in one HTML file."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from sr.files import atomic_write
from train.evaluate import Quality

_SHEETS = 6  # crops of so many epochs are shown

_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse }
td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left } img { max-width: 100%; image-rendering: pixelated }
</style>
<h1>$title</h1>
<p>$summary</p>
$figures
$curves
$crops
</html>
""")


def write_page(
    path: Path,
    *,
    title: str,
    records: Sequence[Mapping[str, Any]],
    bicubic: Mapping[str, Quality],
    curves: Path | None,
    crops: Mapping[int, Path],
) -> None:
    """Write the page atomically; pictures are in it, so it can be sent on by itself.

    Args:
        records: of `train.monitor.Metrics`.
        bicubic: its figures by validation list.
        curves: a PNG, if there is one.
        crops: PNG sheets by epoch.
    """
    last = records[-1] if records else {"epoch": 0, "step": 0, "seconds": 0, "loss": float("nan")}
    summary = (
        f"{last['epoch']} epochs, {last['step']:,} steps, {last['seconds'] / 3600:.2f} hours, "
        f"last loss {last['loss']:.5f}"
    )
    text = _PAGE.substitute(
        title=html.escape(title),
        summary=summary,
        figures=_figures(records, bicubic),
        curves=f"<h2>Curves</h2>\n{_image(curves, 'loss and Y-PSNR over the epochs')}" if curves else "",
        crops=_sheets(crops),
    )
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _figures(records: Sequence[Mapping[str, Any]], bicubic: Mapping[str, Quality]) -> str:
    rows = []
    for name, reference in bicubic.items():
        measured = [(r["quality"][name]["psnr_y"], r) for r in records if name in r.get("quality", {})]
        if measured:
            best, record = max(measured, key=lambda pair: pair[0])
            last = measured[-1][0]
            rows.append(
                f"<tr><td>{html.escape(name)}<td>{reference.psnr_y:.3f}<td>{last:.3f}"
                f"<td>{best:.3f} (epoch {record['epoch']})<td>{best - reference.psnr_y:+.3f}"
            )
    if not rows:
        return "<p>No validation list was measured.</p>"
    head = "<tr><th>Y-PSNR in dB<th>bicubic<th>last<th>best<th>best over bicubic"
    return "<table>\n" + "\n".join([head, *rows]) + "\n</table>"


def _sheets(crops: Mapping[int, Path]) -> str:
    epochs = sorted(crops)
    step = max(1, -(-len(epochs) // _SHEETS))
    chosen = epochs[::-1][::step][::-1]  # the last one is among them
    sheets = [
        f"<h3>Epoch {epoch}</h3>\n{_image(crops[epoch], f'crops of epoch {epoch}')}" for epoch in chosen
    ]
    return "\n".join(["<h2>Crops: lr, bicubic, this network, hr</h2>", *sheets]) if sheets else ""


def _image(path: Path, alt: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'
