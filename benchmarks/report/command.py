"""All measurements of this machine in one report: report.html to read, report.json to compare.

Arguments NAME=HR_FOLDER name folders with hr pictures, on which parity and quality are measured as well.
Each measurement runs in a process of its own, so one that crashes is one gap in the report; gaps are
shown with their reasons. --from shows stored results instead of measuring. --compare shows and prints the
change since an earlier report. The exit status is 1 if a measurement failed or missed its requirement.

    python -m benchmarks.report --quick
    python -m benchmarks.report Set5=PATH/TO/Set5/HR --photographs PHOTOGRAPHS -o report.html
    python -m benchmarks.report --from benchmarks/results/parity-*.json --compare OLD.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.lib.options import Script, click_sets
from benchmarks.lib.provenance import provenance
from benchmarks.lib.results import write_json
from benchmarks.report.changes import NOTABLE_PERCENT, Change, changes
from benchmarks.report.crops import example_crops
from benchmarks.report.page import page
from benchmarks.report.sections import NAMES, SECTIONS, Inputs, measure_all, passed
from benchmarks.report.stored import read_results
from sr.errors import DataError
from sr.files import atomic_write


@click.command(cls=Script, help=__doc__)
@click.argument("sets", nargs=-1, metavar="NAME=HR_FOLDER...", callback=click_sets)
@click.option(
    "--photographs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of photographs for files to files.",
)
@click.option("--only", type=click.Choice(NAMES), multiple=True, help="Measurement to run; repeatable.")
@click.option("--quick", is_flag=True, help="Few pictures and rounds: minutes.")
@click.option(
    "--from",
    "results",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Show this JSON instead of measuring; repeatable.",
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
        raise click.UsageError(
            "--from runs nothing; leave out NAME=HR_FOLDER, --photographs, --only and --quick"
        )
    if output.suffix not in (".html", ".htm"):
        raise click.UsageError(
            f"{output}: the report is an HTML page; name it {output.stem or 'report'}.html"
        )
    earlier = read_results([compare]) if compare is not None else None
    entries = read_results(results)
    if not results:
        chosen = [section for section in SECTIONS if section.name in (only or NAMES)]
        entries = measure_all(chosen, Inputs(sets, photographs, quick))
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
    """Write the page and the JSON file.

    Raises:
        DataError: a file cannot be written.
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
