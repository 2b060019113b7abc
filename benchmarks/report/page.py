"""The page of a report: one HTML file that loads nothing and runs nothing.

`report.html.jinja` is its frame; `renderers` and `headlines` fill the sections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2

from benchmarks.report.blocks import Result, number
from benchmarks.report.changes import NOTABLE_PERCENT
from benchmarks.report.headlines import headline
from benchmarks.report.renderers import blocks

TEMPLATE = Path(__file__).with_name("report.html.jinja")


def page(report: Result, sections: Sequence[Any], changed: Sequence[Any] | None, crops: Sequence[Any]) -> str:
    """Return the page.

    Args:
        report: the content of report.json.
        sections: see `benchmarks.report.sections`, in order.
        changed: figures that changed since an earlier report; None without one.
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
        notable=f"{NOTABLE_PERCENT:g}",
    )


def machine_words(report: Result) -> str:
    """Return processor, cores, GPUs and driver as text."""
    machine = report.get("machine") or {}
    if isinstance(machine, str):  # in early results
        return machine
    words = [f"{machine.get('processor', 'unknown')}, {machine.get('cores', '?')} cores"]
    words += report.get("gpus") or ["no NVIDIA GPU"]
    if report.get("driver"):
        words.append(f"driver {report['driver']}")
    return "; ".join(words)


def facts(report: Result) -> Iterator[tuple[str, str]]:
    """Yield the facts that are needed to repeat the report."""
    yield "date", report["date"]
    yield "machine", machine_words(report)
    yield "versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    yield "Python", f"{report['machine']['python']} on {report['machine']['system']}"
    yield "revision", report.get("revision") or "not a git checkout"
    yield "command", report["command"]


def _state(entry: Result) -> str:
    if "missing" in entry:
        return "missing"
    bad = "failed" in entry or entry.get("result", {}).get("passed", True) is False
    return "bad" if bad else "good"


def _source(entry: Result, report: Result) -> str:
    """Return where and when a result was measured, if not with this report."""
    source = entry.get("from")
    if not source:
        return ""
    return f"Measured {source.get('date', 'at an unknown date')} on {machine_words(source)}" + (
        f", revision {source['revision']}" if source.get("revision") else ""
    )
