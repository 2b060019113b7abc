"""All measurements of this machine in one report: report.html to read, report.json to compare.

SETS are folders with hr pictures: parity and quality are measured on them as well.
Each measurement runs in a process of its own, so one that crashes is one gap in the report; gaps are
named with their reasons. With --from nothing is run: the results that are given are shown. With --compare
the change since an earlier report stands on the page and is printed. Exit status 1 if a measurement
failed or did not reach what it must.

    python -m benchmarks.report --quick
    python -m benchmarks.report Set5=PATH/TO/Set5/HR --photographs PHOTOGRAPHS -o report.html
    python -m benchmarks.report --from benchmarks/results/parity-*.json --compare OLD.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.lib.common import Script, provenance, write_json
from benchmarks.report.crops import example_crops
from benchmarks.report.page import page
from benchmarks.report.sections import NAMES, SECTIONS, Wish, measure_all, passed
from sr.errors import DataError
from sr.files import atomic_write


def read_results(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return stored results by section: of reports, and of single measurements by their file's name.

    Raises:
        DataError: a file cannot be read or is of no measurement.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot read the results ({error})") from error
        if not isinstance(content, dict):
            raise DataError(f"{path}: no results, need a JSON object")
        if "sections" in content:
            source = {key: content.get(key) for key in _SOURCE}
            for name, entry in content["sections"].items():
                if "result" in entry or name not in found:
                    found[name] = {**entry, "from": entry.get("from", source)}
            continue
        name = next((name for name in NAMES if path.stem == name or path.stem.startswith(f"{name}-")), None)
        if name is None:
            raise DataError(f"{path}: no report, and its name begins with none of {', '.join(NAMES)}")
        known = set(provenance())
        result = {key: value for key, value in content.items() if key not in known}
        found[name] = {"result": result, "from": {key: content.get(key) for key in _SOURCE}}
    return found


_SOURCE = ("date", "machine", "gpus", "revision", "command")


@dataclass(frozen=True)
class Change:
    """A figure that differs between two reports."""

    section: str
    row: str
    figure: str
    old: float
    new: float

    @property
    def percent(self) -> float | None:
        """How much it changed; None from zero."""
        return 100 * (self.new / self.old - 1) if self.old else None


# What says which figure it is, and not what came out: these numbers, and all words but those.
_NUMBERS_OF_ROWS = {
    "scale",
    "batch",
    "tile",
    "count",
    "cores",
    "rounds",
    "pictures",
    "targets",
    "height",
    "width",
}
_WORDS_THAT_COME_OUT = {"worst", "bottleneck", "bound_by", "why"}
NOTABLE_PERCENT = 2.0  # less is noise even on a machine that does nothing else


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return the figures that differ by more than `NOTABLE_PERCENT`, of sections that both have."""
    found = []
    for name, entry in new.items():
        before = dict(figures(old.get(name, {}).get("result", {})))
        for (row, figure), value in figures(entry.get("result", {})):
            then = before.get((row, figure))
            if then is not None and abs(value - then) > NOTABLE_PERCENT / 100 * abs(then):
                found.append(Change(name, row, figure, then, value))
    return found


def figures(result: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], float]]:
    """Yield every number of a result with the row that it is of and its name, both in words."""
    for key, value in result.items():
        if key not in _NUMBERS_OF_ROWS:
            yield from _figures(value, "", key)


def _figures(value: Any, row: str, figure: str) -> Iterator[tuple[tuple[str, str], float]]:
    if isinstance(value, Mapping):
        identity = {key: item for key, item in value.items() if _identifies(key, item)}
        words = (item if isinstance(item, str) else f"{key} {item}" for key, item in identity.items())
        row = ", ".join(filter(None, (row, *words)))
        for key in value.keys() - identity.keys():
            yield from _figures(value[key], row, f"{figure} {key}".strip())
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _figures(item, row, "" if isinstance(item, Mapping) else f"{figure} {at}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield (row, figure), float(value)


def _identifies(key: str, value: Any) -> bool:
    return key in _NUMBERS_OF_ROWS or (isinstance(value, str) and key not in _WORDS_THAT_COME_OUT)


def click_sets(context: click.Context, option: click.Parameter, values: Sequence[str]) -> dict[str, Path]:
    """Read NAME=HR_FOLDER; a folder alone is named as it is."""
    found = {}
    for value in values:
        name, equals, folder = value.rpartition("=")
        if not Path(folder).is_dir():
            raise click.BadParameter(f"{folder}: no such folder; give NAME=FOLDER with hr pictures")
        found[name if equals else Path(folder).resolve().name] = Path(folder)
    return found


@click.command(cls=Script, help=__doc__)
@click.argument("sets", nargs=-1, metavar="NAME=HR_FOLDER...", callback=click_sets)
@click.option(
    "--photographs", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A folder."
)
@click.option("--only", type=click.Choice(NAMES), multiple=True, help="Run these alone.")
@click.option("--quick", is_flag=True, help="Few pictures and rounds: minutes.")
@click.option(
    "--from", "results", type=click.Path(path_type=Path), multiple=True, help="Run nothing, show this JSON."
)
@click.option("--compare", type=click.Path(path_type=Path), help="An earlier report.json.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True
)
def main(
    sets: dict[str, Path],
    photographs: Path | None,
    only: tuple[str, ...],
    quick: bool,
    results: tuple[Path, ...],
    compare: Path | None,
    output: Path,
) -> None:
    if results and (sets or photographs or only or quick):
        raise click.UsageError("--from runs nothing; leave out what says what to run")
    if output.suffix not in (".html", ".htm"):
        raise click.UsageError(f"{output}: the report is a page; name it {output.stem or 'report'}.html")
    earlier = read_results([compare]) if compare is not None else None
    entries = read_results(results)
    if not results:
        chosen = [section for section in SECTIONS if section.name in (only or NAMES)]
        entries = measure_all(chosen, Wish(sets, photographs, quick))
    for section in SECTIONS:
        entries.setdefault(section.name, {"missing": "not measured in this run"})
    report = {**provenance(), "quick": quick, "sections": entries}
    changed = None if earlier is None else changes(earlier, entries)
    _write(output, report, changed)
    for change in changed or ():
        percent = "" if change.percent is None else f" ({change.percent:+.1f} %)"
        click.echo(
            f"{change.section}: {change.row}: {change.figure} {change.old:g} -> {change.new:g}{percent}"
        )
    if changed == []:
        click.echo(f"no figure changed by more than {NOTABLE_PERCENT:g} %")
    sys.exit(0 if all(map(passed, entries.values())) else 1)


def _write(output: Path, report: dict[str, Any], changed: list[Change] | None) -> None:
    """Write both files.

    Raises:
        DataError: one cannot be written.
    """
    text = page(report, SECTIONS, changed, list(example_crops()))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output.with_suffix(".json"), report)
        with atomic_write(output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{output}: cannot be written ({error.strerror}); choose another place (-o)"
        ) from error
    click.echo(f"{output} and {output.with_suffix('.json').name}", err=True)


if __name__ == "__main__":
    main()
