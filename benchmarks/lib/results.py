"""Stored results, with the machine and command that produced them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.lib.paths import RESULTS, ROOT
from benchmarks.lib.provenance import machine, machine_kind, provenance
from sr.files import atomic_write


def write_result(name: str, figures: Mapping[str, Any]) -> None:
    """Store `figures` as benchmarks/results/NAME.json and print them."""
    report = {"date": date.today().isoformat(), "machine": machine(), **figures}
    text = json.dumps(report, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def store_result(theme: str, figures: Mapping[str, Any]) -> Path:
    """Store `figures` with their provenance as benchmarks/results/THEME-MACHINE-DATE.json."""
    path = result_path(theme)
    write_json(path, {**provenance(), **figures})
    print(path.relative_to(ROOT))
    return path


def result_path(theme: str, folder: Path = RESULTS) -> Path:
    """Return the path of a result of this machine and day."""
    return folder / f"{theme}-{machine_kind()}-{date.today().isoformat()}.json"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write strict JSON, whole or not at all; `value` must not hold infinities."""
    text = json.dumps(value, indent=1, allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
