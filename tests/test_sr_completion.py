"""Completion in real shells: typed on a terminal as a user does, with the lines that docs/ shows."""

import fcntl
import os
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.pages import PAGES

PROGRAMS = Path(sys.executable).parent
SHELLS = {"bash": ["--norc", "-i"], "zsh": ["-f", "-i"], "fish": ["--no-config", "-i"]}
BEFORE = {
    "bash": "",
    "zsh": "autoload -U compinit; compinit -u -D; ",
    "fish": "",
}  # what zsh's own setup does
# What follows an option that needs a value: only the completed one is known to srup.
SAYS = "Option '--backend' requires an argument"


def setup_line(shell: str) -> str:
    (line,) = re.findall(rf"^(\S.*{shell}_source.*?)\s+# ", PAGES["docs/upscale.md"], flags=re.MULTILINE)
    return line


def typed(shell: str, *keys: str, until: str) -> str:
    """Type into a shell on a terminal of its own, until it shows `until`; return all that it showed."""
    leader, terminal = os.openpty()
    environment = os.environ | {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}", "TERM": "dumb"}
    command = [str(shutil.which(shell)), *SHELLS[shell]]
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    process = subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        **streams,
    )
    shown, waiting, deadline = "", list(keys), time.monotonic() + 60
    try:
        while until not in shown and time.monotonic() < deadline:
            if waiting and shown.count("READY") >= len(keys) - len(waiting):
                os.write(leader, waiting.pop(0).encode())
            if select.select([leader], [], [], 0.2)[0]:
                shown += os.read(leader, 4096).decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(leader)
        os.close(terminal)
    return shown


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_complete_options(shell: str) -> None:
    if shutil.which(shell) is None or not (PROGRAMS / "srup").exists():
        pytest.skip(f"no {shell}, or srup is not installed")
    # The quotes keep what is typed, and shown, apart from what is printed.
    setup = f"{BEFORE[shell]}{setup_line(shell)}; echo REA''DY\r"
    assert SAYS in typed(shell, setup, "srup upscale --back\t\r", until=SAYS)
    without = f"{BEFORE[shell]}echo REA''DY\r"
    unknown = "No such option"
    assert unknown in typed(shell, without, "srup upscale --back\t\r", until=unknown)


def completed(*words: str) -> str:
    environment = os.environ | {
        "_SRUP_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    program = (
        "import sys, atexit; sys.argv[0] = 'srup'; from sr.cli import main\n"
        "heavy = ('numpy', 'PIL', 'rich', 'onnxruntime', 'torch')\n"
        "atexit.register(lambda: print([name for name in heavy if name in sys.modules]))\n"
        "main(prog_name='srup')"
    )
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    *choices, heavy = answer.stdout.splitlines()
    assert heavy == "[]", "it answers at once"
    return " ".join(choices)


def test_what_is_offered() -> None:
    assert completed("srup", "upsc") == "plain,upscale"
    assert completed("srup", "upscale", "--format", "w") == "plain,webp"
    assert completed("srup", "upscale", "holi") == "file,holi"
    assert completed("srup", "upscale", "-o", "x") == "file,x"
