"""All that a machine with an NVIDIA GPU can tell in 10, 30 or 60 minutes, as one report to send back.

The most telling measurements come first. Each has a time limit, and its output is kept in the folder
REPORT.parts as it is written. The report is written anew after each section, so there is one even if this
program is killed. Started again, it repeats only what has not passed at this revision.

TensorRT is installed on data-centre GPUs, TensorRT-RTX on GeForce and RTX ones, and ONNX Runtime's build for
GPUs in an environment of its own. What cannot be installed is left out with the reason.

    bin/gpu-check --minutes 30 gpu-report.txt
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks.lib.gpu_sections import PLANS, SECTIONS, Machine, Section, planned
from benchmarks.lib.limited import run_limited
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import revision
from sr.backends.gpus import visible_gpus
from sr.files import atomic_write

_LEAST_S = 20  # a section that has less time left is not started


@dataclass(frozen=True)
class State:
    """What became of a section.

    Attributes:
        end: "passed", "failed", "timed out", "skipped", "running" or "not run".
        why: reason for "skipped".
        seconds: it ran.
        fingerprint: of its commands and the revision; a section that passed with the same is not repeated.
    """

    end: str = "not run"
    why: str = ""
    seconds: float = 0.0
    fingerprint: str = ""


@dataclass(frozen=True)
class Check:
    """One run of the checks.

    Attributes:
        report: file to write.
        machine: where.
        minutes: all sections together may take.
        words: replacements of words in braces in commands; an empty one removes the word.
        sections: to run.
        revision: of the sources.
    """

    report: Path
    machine: Machine
    minutes: float
    words: Mapping[str, str]
    sections: Sequence[Section] = SECTIONS
    revision: str = ""

    @property
    def parts(self) -> Path:
        """The folder of logs and states."""
        return self.report.with_name(self.report.name + ".parts")

    def commands(self, section: Section) -> list[list[str]]:
        """Return the commands of a section, without words in braces."""
        filled = ([word.format_map(self.words) for word in command] for command in section.commands)
        return [[word for word in command if word] for command in filled]

    def fingerprint(self, section: Section) -> str:
        """Return what decides whether an earlier result holds."""
        names = [gpu.name for gpu in self.machine.gpus]
        decisive = json.dumps([self.commands(section), self.revision, names])
        return hashlib.sha256(decisive.encode()).hexdigest()[:16]

    def log(self, section: Section) -> Path:
        """Return the file of a section's output."""
        return self.parts / f"{section.name}.log"

    def state(self, section: Section) -> State:
        """Return what became of a section so far."""
        try:
            return State(**json.loads((self.parts / f"{section.name}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # there is none, or the program was killed at a bad moment
            return State()

    def keep(self, section: Section, state: State) -> None:
        """Store what became of a section, and write the report."""
        with atomic_write(self.parts / f"{section.name}.json") as temporary:
            temporary.write_text(json.dumps(asdict(state)), encoding="utf-8")
        write_report(self)


def run_check(check: Check) -> int:
    """Run the sections that have not passed yet; return how many failed or ran out of time."""
    check.parts.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * check.minutes
    states: dict[str, State] = {}
    for section in check.sections:  # what an earlier run left does not count unless it still holds
        earlier = check.state(section)
        if (earlier.end, earlier.fingerprint) != ("passed", check.fingerprint(section)):
            (check.parts / f"{section.name}.json").unlink(missing_ok=True)
    write_report(check)
    for section in check.sections:
        earlier = check.state(section)
        if earlier.end == "passed":
            states[section.name] = earlier
            click.echo(f"{section.title}: passed earlier", err=True)
            continue
        click.echo(f"{section.title} ...", err=True)
        state = states[section.name] = _run_section(check, section, states, deadline)
        check.keep(section, state)
        click.echo(f"  {state.end}{f': {state.why}' if state.why else ''}", err=True)
    return sum(state.end in ("failed", "timed out") for state in states.values())


def _run_section(check: Check, section: Section, states: Mapping[str, State], deadline: float) -> State:
    """Run one section, unless something that it needs is missing."""
    left = deadline - time.monotonic()
    unmet = [name for name in section.after if states.get(name, State()).end != "passed"]
    if need := check.machine.lacks(section):
        return State("skipped", f"needs {need}")
    if unmet:
        return State("skipped", f"needs that {unmet[0]} passes")
    if left < min(_LEAST_S, section.limit_s):
        return State("skipped", "no time left; start again to continue")
    started = time.monotonic()
    ends_at = min(deadline, started + section.limit_s)
    running = State("running", fingerprint=check.fingerprint(section))
    check.log(section).write_bytes(b"")
    check.keep(section, running)
    end = "passed"
    for command in check.commands(section):
        with check.log(section).open("a", encoding="utf-8") as log:
            log.write(f"$ {shlex.join(command)}\n")
        limit = max(0.0, ends_at - time.monotonic())
        ended = run_limited(command, check.log(section), limit_s=limit, folder=ROOT)
        with check.log(section).open("a", encoding="utf-8") as log:
            log.write(f"({ended.end}, exit status {ended.status}, {ended.seconds:.0f} s)\n")
        end = ended.end
        if end != "passed":
            break
    why = ""
    text = check.log(section).read_text(encoding="utf-8", errors="replace")
    if end == "passed" and not re.search(section.evidence, text):
        end, why = "failed", "it ended well but measured nothing; its output says why"
    return replace(running, end=end, why=why, seconds=round(time.monotonic() - started, 1))


def write_report(check: Check) -> None:
    """Write the report of all sections so far, whole or not at all."""
    now = datetime.now(UTC)
    lines = [
        f"srup gpu-check, {now:%Y-%m-%d %H:%M} UTC, plan of {check.minutes:g} minutes",
        f"revision {check.revision}",
        f"GPUs: {', '.join(gpu.name for gpu in check.machine.gpus) or 'none found by the driver'}",
        "",
    ]
    states = {section: check.state(section) for section in check.sections}
    for section, state in states.items():
        lines.append(f"{state.end:10} {state.seconds:6.0f} s  {section.title}  {state.why}".rstrip())
    for section, state in states.items():
        if state.end not in ("skipped", "not run"):
            log = check.log(section)
            text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            lines += ["", f"=== {section.title}: {state.end}", text.rstrip()]
    with atomic_write(check.report) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def words_for(report: Path, machine: Machine, photographs: Path | None) -> dict[str, str]:
    """Return the replacements of words in braces."""
    parts = report.with_name(report.name + ".parts")
    return {
        "python": sys.executable,
        "ort_python": str(parts / "onnxruntime" / "bin" / "python"),
        "root": str(ROOT),
        "parts": str(parts),
        "page": str(report.with_suffix(".html")),
        "tensorrt": machine.tensorrt,
        "gpus": str(len(machine.gpus)),
        "photographs": "" if photographs is None else str(photographs.resolve()),
    }


def _stop(number: int, _frame: Any) -> None:
    """End as Ctrl-C does, so that no child stays."""
    raise KeyboardInterrupt(f"signal {number}")


@click.command(help=__doc__)
@click.argument("report", type=click.Path(path_type=Path, dir_okay=False), default=Path("gpu-report.txt"))
@click.option(
    "--minutes",
    type=click.Choice([str(minutes) for minutes in PLANS]),
    default="60",
    show_default=True,
    help="Time for all sections together; it decides which ones run.",
)
@click.option(
    "--photographs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of photographs for the section on folders.  [default: crops of the examples]",
)
def main(report: Path, minutes: str, photographs: Path | None) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):  # a lost connection sends SIGHUP
        signal.signal(number, _stop)
    report, machine = report.resolve(), Machine(tuple(visible_gpus()))
    check = Check(
        report,
        machine,
        float(minutes),
        words_for(report, machine, photographs),
        planned(float(minutes)),
        revision(),
    )
    try:
        failed = run_check(check)
    except OSError as error:
        raise click.ClickException(f"{error.filename or report}: {error.strerror}") from error
    click.echo(f"{failed} sections failed; send back {report}", err=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
