"""The checks for a GPU: what is planned, ended at a limit, kept, repeated and reported.

Commands are small programs, so no GPU is needed.
"""

import importlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks import gpu_check, merged, parity, throughput
from benchmarks.gpu_check import Check, run_check, words_for
from benchmarks.lib.gpu_sections import PLANS, SECTIONS, Machine, Section, planned
from benchmarks.lib.limited import run_limited
from benchmarks.lib.paths import ROOT
from sr.backends.gpus import Gpu
from sr.cli import main as srup

GEFORCE = Machine((Gpu(0, "NVIDIA GeForce RTX 4090", 89),))
HOPPER = Machine(tuple(Gpu(index, "NVIDIA H100 80GB HBM3", 90) for index in range(2)))


def program(name: str, code: str, **changes: object) -> Section:
    """Return a section that runs Python code."""
    settings = {"limit_s": 60, "plan": 10, "needs": ()} | changes
    return Section(name, f"Title of {name}", ((sys.executable, "-c", code),), **settings)


def check(folder: Path, *sections: Section, **changes: object) -> Check:
    report = folder / "my report.txt"
    settings = {"machine": Machine(), "minutes": 10, "words": {}, "revision": "abc"} | changes
    return Check(report, sections=sections, **settings)


def counting(folder: Path) -> str:
    """Return code that leaves a mark each time it runs."""
    return f"open({str(folder / 'marks')!r}, 'a').write('x')"


def marks(folder: Path) -> int:
    return len((folder / "marks").read_text())


def test_longer_plans_contain_shorter_ones_and_keep_their_order():
    plans = [planned(minutes) for minutes in PLANS]
    for shorter, longer in itertools.pairwise(plans):
        assert len(shorter) < len(longer)
        assert [section for section in longer if section in shorter] == shorter
    names = [section.name for section in SECTIONS]
    assert len(set(names)) == len(names)
    assert plans[-1] == list(SECTIONS)


def test_what_a_section_waits_for_comes_before_it_in_each_plan():
    for minutes in PLANS:
        names = [section.name for section in planned(minutes)]
        for section in planned(minutes):
            assert all(name in names[: names.index(section.name)] for name in section.after), section.name


@pytest.mark.parametrize(
    ("capability", "extra"),
    [
        (75, "trt-rtx"),
        (80, "trt"),
        (89, "trt-rtx"),
        (90, "trt"),
        (100, "trt"),
        (120, "trt-rtx"),
    ],
)
def test_each_gpu_gets_the_tensorrt_that_runs_on_it(capability, extra):
    machine = Machine((Gpu(0, "a GPU", capability),))
    assert machine.tensorrt == extra
    assert Machine().tensorrt == ""


@pytest.mark.parametrize("machine", [GEFORCE, HOPPER, Machine()])
def test_all_words_are_filled_in_and_modules_and_tests_exist(tmp_path, machine):
    words = words_for(tmp_path / "gpu.txt", machine, None)
    run = Check(tmp_path / "gpu.txt", machine, 60, words)
    for section in SECTIONS:
        for command in run.commands(section):
            assert all(command)
            assert not any("{" in word for word in command)
            if "-m" in command and command[command.index("-m") + 1].startswith(
                ("benchmarks.", "sr.", "train")
            ):
                module = command[command.index("-m") + 1].replace(".", "/")
                assert (ROOT / f"{module}.py").is_file() or (ROOT / module / "__main__.py").is_file()
            assert all((ROOT / word).is_file() for word in command if word.startswith("tests/"))


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_our_own_commands_accept_their_options(tmp_path, section):
    """They are only parsed; a wrong option raises `click.UsageError`."""
    run = Check(tmp_path / "gpu.txt", HOPPER, 60, words_for(tmp_path / "gpu.txt", HOPPER, ROOT / "examples"))
    for command in run.commands(section):
        module, *words = command[command.index("-m") + 1 :] if "-m" in command else [""]
        if module == "sr.cli":
            module, *words = words
        if module in ("train", "prepare", "info"):
            entry = srup.get_command(srup.make_context("srup", [], resilient_parsing=True), module)
        elif module.startswith("benchmarks."):
            found = importlib.import_module(f"{module}{'.command' * (module == 'benchmarks.report')}")
            entry = getattr(found, "main", None)
        else:
            continue
        if isinstance(entry, click.Command):
            entry.make_context(module, words)


def test_what_has_not_been_run_is_listed():
    _, _, listed = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").partition("## Not yet run")
    marked = {
        path.name
        for path in (ROOT / "tests").glob("test_*.py")
        if re.search(r"^(pytestmark = |@)pytest\.mark\.gpu$", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert set(re.findall(r"`tests/(\w+\.py)`", listed)) == marked


def test_without_a_gpu_there_is_a_report_that_says_what_was_needed(tmp_path):
    section = program("speed", "print('never')", needs=("gpu",))
    run = check(tmp_path, section, program("packages", "print('numpy 2')"))
    assert run_check(run) == 0
    report = run.report.read_text()
    assert "needs gpu" in report
    assert "numpy 2" in report
    assert "\nnever" not in report


def test_a_failure_is_counted_and_the_others_go_on(tmp_path):
    run = check(
        tmp_path,
        program("install", "print('no network'); raise SystemExit(3)"),
        program("needs it", "print('never')", after=("install",)),
        Section("missing", "Missing program", (("/no/such/program",),), 60, 10, ()),
        program("last", "print('reached')"),
    )
    assert run_check(run) == 2
    report = run.report.read_text()
    assert "exit status 3" in report
    assert "no network" in report
    assert "needs that install passes" in report
    assert "/no/such/program: No such file" in report
    assert "\nreached" in report


def test_what_passed_is_not_repeated_until_the_revision_changes(tmp_path):
    good = program("good", counting(tmp_path) + "; print('figures')")
    flaky = tmp_path / "flaky"
    bad = program("bad", f"import os, sys; sys.exit(0 if os.path.exists({str(flaky)!r}) else 1)")
    assert run_check(check(tmp_path, good, bad)) == 1
    flaky.touch()
    again = check(tmp_path, good, bad)
    assert run_check(again) == 0
    assert marks(tmp_path) == 1
    assert "figures" in again.report.read_text()
    assert run_check(check(tmp_path, good, bad, revision="def")) == 0
    assert marks(tmp_path) == 2


def test_a_section_ends_at_its_limit_with_its_children_and_says_where_it_was(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('partial', child.pid, flush=True)\n"
        "def hanging():\n    time.sleep(600)\n"
        "hanging()\n"
    )
    run = check(tmp_path, program("hangs", code, limit_s=3), program("next", "print('reached')"))
    assert run_check(run) == 1
    report = run.report.read_text()
    assert "timed out" in report
    assert "in hanging" in report
    assert "\nreached" in report
    child = int(report.split("partial ")[1].split()[0])
    ended(child)


def ended(pid: int) -> None:
    """Wait until a killed process has ended: that takes a moment on a busy machine."""
    deadline = time.monotonic() + 60
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_section_that_measures_nothing_has_not_passed(tmp_path):
    run = check(
        tmp_path,
        program("skips", "print('3 skipped')", evidence=r"\d passed"),
        program("measures", "print('3 passed, 1 skipped')", evidence=r"\d passed"),
    )
    assert run_check(run) == 1
    assert [run.state(section).end for section in run.sections] == ["failed", "passed"]


def test_evidence_is_what_the_scripts_print(tmp_path):
    """Lines as the scripts make them, from figures that are made up."""
    found = {section.name: section.evidence for section in SECTIONS if section.evidence}
    row = {
        "scale": 3,
        "precision": "fp16",
        "tiling": "tiled",
        "psnr_db": 61.0,
        "max_levels": 2,
        "share": 0.01,
    }
    for name, backend in (("pixels-torch", "torch"), ("pixels-onnxruntime", "onnx")):
        rows = [row | {"backend": backend, "device": device, "passed": True} for device in ("cpu", "cuda")]
        cpu, cuda = parity.lines({"rows": rows, "sets": [], "not_run": []})
        assert re.search(found[name], cuda)
        assert not re.search(found[name], cpu)
    row = {"scale": 2, "ran": "TensorRT 11.4", "usual_ms": 1.25, "merged_ms": 1.0}
    assert re.search(found["merged"], merged.line(row))
    latency = dict.fromkeys(("median", "p90", "p95", "p99"), 4.25)
    figures = {"latency_ms": latency, "megapixels_per_s": 1.0, "share_of_flops": 0.5}
    figures |= {"time_ratio": {"median": 1.0, "p10": 1.0, "p90": 1.0}}
    for name, backend in (
        ("speed", "srup-trt"),
        ("speed", "srup-trt-rtx"),
        ("speed-torch", "torch-eager"),
        ("speed-onnxruntime", "srup-onnx"),
        ("speed-onnxruntime", "onnxruntime-cuda"),
    ):
        case = {"scale": 2, "batch": 1, "size": "9x9", "precision": "fp16", "device": "cuda", "gmacs": 1.0}
        case |= {
            "megabytes": 1.0,
            "against": "x",
            "missing": [{"backend": backend, "why": "no"}],
            "warnings": [],
        }
        result = {"peaks": {"gflops": 1, "gflops_by": "", "copy_gb_per_s": 1, "copy_by": ""}, "rounds": 1}
        measured, missing = (
            "\n".join(throughput.lines(result | {"cases": [case | {"rows": rows}]}))
            for rows in ([figures | {"backend": backend}], [])
        )
        assert re.search(found[name], measured)
        assert not re.search(found[name], missing)


def test_nothing_starts_when_the_time_is_over_and_the_next_run_continues(tmp_path):
    section = program("late", counting(tmp_path))
    run = check(tmp_path, section, minutes=0)
    assert run_check(run) == 0
    assert "no time left" in run.report.read_text()
    assert run_check(check(tmp_path, section)) == 0
    assert marks(tmp_path) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_report_is_left_when_the_program_is_killed(tmp_path, number):
    driver = (
        "import signal, sys\nfrom pathlib import Path\n"
        "from benchmarks import gpu_check\nfrom tests.test_benchmarks_gpu_check import check, program\n"
        "signal.signal(signal.SIGTERM, gpu_check._stop)\n"
        "gpu_check.run_check(check(Path(sys.argv[1]), program('first', 'print(123)'),\n"
        "    program('hangs', 'import os, time; print(os.getpid(), 1, flush=True); time.sleep(60)')))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", driver, tmp_path], cwd=ROOT, stderr=subprocess.DEVNULL)
    log = tmp_path / "my report.txt.parts" / "hangs.log"
    for _ in range(600):
        if log.exists() and log.read_text().endswith(" 1\n"):
            break
        time.sleep(0.1)
    child = int(log.read_text().splitlines()[-1].split()[0])
    process.send_signal(number)
    process.wait(60)
    if number == signal.SIGKILL:
        os.kill(child, signal.SIGKILL)
    else:
        ended(child)
    report = (tmp_path / "my report.txt").read_text()
    assert "\n123\n" in report
    assert "running" in report
    state = json.loads((log.parent / "first.json").read_text())
    assert state["end"] == "passed"


def test_the_command_makes_a_plan_for_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "planned", lambda minutes: [program("only", f"print({minutes})")])
    answer = CliRunner().invoke(gpu_check.main, [str(tmp_path / "gpu.txt"), "--minutes", "30"])
    assert answer.exit_code == 0, answer.output
    assert "\n30.0\n" in (tmp_path / "gpu.txt").read_text()
    assert CliRunner().invoke(gpu_check.main, ["--minutes", "20"]).exit_code == 2
    blocked = tmp_path / "file"
    blocked.touch()
    answer = CliRunner().invoke(gpu_check.main, [str(blocked / "gpu.txt")])
    assert answer.exit_code == 1
    assert "Traceback" not in answer.output


def test_a_command_reports_how_it_ended(tmp_path):
    log = tmp_path / "log"
    ended = run_limited([sys.executable, "-c", "print(1)"], log, limit_s=60, folder=tmp_path)
    assert (ended.end, ended.status) == ("passed", 0)
    ended = run_limited([sys.executable, "-c", "raise SystemExit(4)"], log, limit_s=60, folder=tmp_path)
    assert (ended.end, ended.status) == ("failed", 4)
    assert log.read_text() == "1\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a bash script")
def test_the_script_starts_the_checks_in_the_folder_of_the_caller(tmp_path):
    programs = tmp_path / "clone" / "venv" / "bin"
    programs.mkdir(parents=True)
    (tmp_path / "clone" / "bin").mkdir()
    shutil.copy(ROOT / "bin" / "gpu-check", tmp_path / "clone" / "bin")
    (tmp_path / "clone" / "bin" / "_env.sh").write_text(
        f"root='{ROOT}' venv='{tmp_path}/clone/venv'; ensure_installed() {{ [ \"$1\" = dev ]; }}\n"
    )
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "python").chmod(0o755)
    caller = tmp_path / "caller"
    caller.mkdir()
    script = tmp_path / "clone" / "bin" / "gpu-check"
    answer = subprocess.run(
        [script, "no/such/folder/a.txt", "--photographs", "none"], cwd=caller, capture_output=True
    )
    assert answer.returncode == 2
    assert b"--photographs" in answer.stderr
    (caller / "photographs").mkdir()
    help_ = subprocess.run(
        [script, "--photographs", "photographs", "--help"], cwd=caller, capture_output=True
    )
    assert help_.returncode == 0
    assert b"--minutes" in help_.stdout
