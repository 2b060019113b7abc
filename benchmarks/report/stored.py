"""Stored results, by section of the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.lib.provenance import provenance
from benchmarks.report.sections import NAMES
from sr.errors import DataError

_SOURCE = ("date", "machine", "gpus", "revision", "command")


def read_results(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return stored results by section, from reports and from single measurements.

    The section of a single measurement is the beginning of its file's name.

    Raises:
        DataError: a file cannot be read or belongs to no section.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot read the results ({error})") from error
        if not isinstance(content, dict):
            raise DataError(f"{path}: holds no results, need a JSON object")
        if "sections" in content:
            source = {key: content.get(key) for key in _SOURCE}
            for name, entry in content["sections"].items():
                if "result" in entry or name not in found:
                    found[name] = {**entry, "from": entry.get("from", source)}
            continue
        name = next((name for name in NAMES if path.stem == name or path.stem.startswith(f"{name}-")), None)
        if name is None:
            raise DataError(f"{path}: is not a report, and its name begins with none of {', '.join(NAMES)}")
        known = set(provenance())
        result = {key: value for key, value in content.items() if key not in known}
        found[name] = {"result": result, "from": {key: content.get(key) for key in _SOURCE}}
    return found
