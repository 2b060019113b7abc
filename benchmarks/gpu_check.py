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
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import click

from benchmarks.lib.limited import run_limited
from benchmarks.lib.paths import ROOT
from benchmarks.lib.provenance import revision
from sr.files import atomic_write

Need = Literal["gpu", "tensorrt", "several GPUs"]

PLANS = (10, 30, 60)  # minutes
_LEAST_S = 20  # a section that has less time left is not started
# Compute capabilities of GeForce and RTX GPUs, which TensorRT-RTX is for. It has no engines for Hopper (9.0)
# and later data-centre GPUs, and on the A100 (8.0) TensorRT is the usual choice.
_RTX_CAPABILITIES = ("7.5", "8.6", "8.9", "12.0", "12.1")


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Attributes:
        name: of its files.
        title: in the report.
        commands: run one after the other until one fails; words in braces are those of `words`.
        limit_s: seconds for all of them together.
        plan: minutes of the shortest plan that has it.
        needs: what the machine must have.
        after: sections that must have passed.
    """

    name: str
    title: str
    commands: tuple[tuple[str, ...], ...]
    limit_s: float
    plan: int
    needs: tuple[Need, ...] = ("gpu",)
    after: tuple[str, ...] = ()


_PYTEST = ("{python}", "-m", "pytest", "-m", "gpu", "-ra", "-o", "faulthandler_timeout=120")
_SPEED = ("-m", "benchmarks.throughput", "--device", "cuda", "--precision", "fp16", "--rounds", "50")
_SHAPES = (("512x512", "1"), ("512x512", "4"), ("1920x1080", "1"))
_TENSORRT = ("--backend", "srup-trt", "--backend", "srup-trt-rtx", "--backend", "torch-channels-last")
_TORCH = ("--backend", "torch-eager", "--backend", "torch-channels-last")
_ORT = ("--backend", "srup-onnx", "--backend", "onnxruntime-cuda")
_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")
_TRAINING = (
    *("{python}", "-m", "train", "--scale", "2", "--train-list", "{parts}/pairs/x2.json"),
    *("--total-epochs", "3", "--patches-per-picture", "400", "--batch-size", "64", "--amp", "bf16"),
    *("--checkpoint-dir", "{parts}/checkpoints"),
)
_FRESH = ("rm", "-rf", "{parts}/checkpoints")  # of an earlier attempt
_PAIRS = ("{python}", "-m", "sr.cli", "prepare", "{root}/examples", "--scale", "2", "-o", "{parts}/pairs")


def _sized(python: str, backends: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple((python, *_SPEED, *backends, "--size", size, "--batch", batch) for size, batch in _SHAPES)


# In the order in which they run: the most telling first.
SECTIONS = (
    Section("driver", "Driver", (("nvidia-smi",),), 30, 10),
    Section(
        "install-tensorrt",
        "TensorRT is installed",
        (("{python}", *_PIP, "--editable", "{root}[{tensorrt}]"),),
        300,
        10,
        ("gpu", "tensorrt"),
    ),
    Section("info", "Backends", (("{python}", "-m", "sr.cli", "info"),), 60, 10, ()),
    Section("packages", "Packages", (("{python}", "-m", "pip", "list"),), 60, 10, ()),
    Section(
        "pixels",
        "Pixels of TensorRT at x2, x3, x4",
        ((*_PYTEST, "tests/test_gpu.py", "-k", "equal_those_of_the_cpu"),),
        240,
        10,
        ("gpu", "tensorrt"),
        ("install-tensorrt",),
    ),
    Section(
        "pixels-torch",
        "Pixels of PyTorch on CUDA at x2, x3, x4",
        (("{python}", "-m", "benchmarks.parity", "--backend", "torch", "{root}/examples/kitten.png"),),
        180,
        10,
    ),
    Section(
        "speed",
        "Speed in fp16 of 1 and 4 x 512x512 and of 1920x1080; engines alone (enqueue, copies, compute)",
        _sized("{python}", _TENSORRT),
        300,
        10,
        ("gpu", "tensorrt"),
        ("install-tensorrt",),
    ),
    Section("speed-torch", "Speed of PyTorch on CUDA in fp16", _sized("{python}", _TORCH), 120, 10),
    Section(
        "training",
        "Training: images a second",
        (_FRESH, _PAIRS, (*_TRAINING, "--save-subdir", "one", "--processes", "1")),
        180,
        10,
    ),
    Section(
        "install-onnxruntime",
        "ONNX Runtime for GPUs is installed in an environment of its own",
        (
            ("{python}", "-m", "venv", "{parts}/onnxruntime"),
            ("{ort_python}", *_PIP, "--editable", "{root}[train]", "cuda-bindings>=12.9.1"),
            ("{ort_python}", "-m", "pip", "uninstall", "--yes", "--quiet", "onnxruntime"),
            ("{ort_python}", *_PIP, "onnxruntime-gpu[cuda,cudnn]"),
        ),
        600,
        10,
    ),
    Section(
        "pixels-onnxruntime",
        "Pixels of ONNX Runtime on CUDA at x2, x3, x4",
        (("{ort_python}", "-m", "benchmarks.parity", "--backend", "onnx", "{root}/examples/kitten.png"),),
        240,
        30,
        after=("install-onnxruntime",),
    ),
    Section(
        "speed-onnxruntime",
        "Speed of ONNX Runtime on CUDA",
        _sized("{ort_python}", _ORT),
        240,
        10,
        after=("install-onnxruntime",),
    ),
    Section(
        "folder",
        "Folder of 200 photographs, files to files",
        (
            (
                *("{python}", "-m", "benchmarks.pipeline", "--count", "200", "--format", "jpg"),
                *("--long-side", "1920", "--rounds", "1", "--device", "cuda", "{photographs}"),
            ),
        ),
        300,
        30,
    ),
    Section(
        "settings",
        "Tiles, batches and CUDA graphs",
        (("{python}", "-m", "benchmarks.gpu"),),
        600,
        30,
        ("gpu", "tensorrt"),
        ("install-tensorrt",),
    ),
    Section(
        "training-nccl",
        "Training on all GPUs through NCCL: images a second",
        (_FRESH, _PAIRS, (*_TRAINING, "--save-subdir", "all", "--processes", "{gpus}")),
        240,
        30,
        ("gpu", "several GPUs"),
    ),
    Section("tests", "All tests for a GPU", (_PYTEST,), 900, 30),
    Section(
        "host",
        "Host work of the TensorRT runtime, on a simulated GPU",
        (("{python}", "-m", "benchmarks.runtime_overhead"),),
        300,
        60,
        (),
    ),
    Section(
        "report",
        "Report of all benchmarks",
        (("{python}", "-m", "benchmarks.report", "--quick", "-o", "{page}"),),
        1500,
        60,
        (),
    ),
)


@dataclass(frozen=True)
class Machine:
    """The GPUs of this machine.

    Attributes:
        names: of the GPUs.
        capability: compute capability of the first, e.g. "8.9".
    """

    names: tuple[str, ...] = ()
    capability: str = ""

    @property
    def tensorrt(self) -> str:
        """The extra that installs the TensorRT for this GPU; empty without one."""
        if not self.names:
            return ""
        return "trt-rtx" if self.capability in _RTX_CAPABILITIES else "trt"

    def lacks(self, section: Section) -> str:
        """Return what a section needs and this machine does not have; empty if it has all."""
        has: dict[Need, bool] = {
            "gpu": bool(self.names),
            "tensorrt": bool(self.tensorrt),
            "several GPUs": len(self.names) > 1,
        }
        return next((need for need in section.needs if not has[need]), "")


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
        decisive = json.dumps([self.commands(section), self.revision, self.machine.names])
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


def planned(minutes: float, sections: Sequence[Section] = SECTIONS) -> list[Section]:
    """Return the sections of a plan, in order."""
    return [section for section in sections if section.plan <= minutes]


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
    return replace(running, end=end, seconds=round(time.monotonic() - started, 1))


def write_report(check: Check) -> None:
    """Write the report of all sections so far, whole or not at all."""
    now = datetime.now(UTC)
    lines = [
        f"srup gpu-check, {now:%Y-%m-%d %H:%M} UTC, plan of {check.minutes:g} minutes",
        f"revision {check.revision}",
        f"GPUs: {', '.join(check.machine.names) or 'none found by nvidia-smi'}",
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


def found_machine() -> Machine:
    """Ask nvidia-smi for the GPUs; without it there are none."""
    query = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return Machine()
    rows = [line.rpartition(",") for line in answer.stdout.splitlines() if "," in line]
    if answer.returncode or not rows:
        return Machine()
    return Machine(tuple(name.strip() for name, _, _ in rows), rows[0][2].strip())


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
        "gpus": str(len(machine.names)),
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
    report, machine = report.resolve(), found_machine()
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
