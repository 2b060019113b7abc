"""Running a command with a time limit; its output goes straight to a file, so nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# After SIGABRT a Python process with its fault handler on writes where each thread was.
_TO_SAY_WHERE_S = 5.0

End = Literal["passed", "failed", "timed out"]


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        end: "passed" is exit status 0.
        status: exit status; negative is the signal that ended it.
        seconds: it ran.
    """

    end: End
    status: int
    seconds: float


def run_limited(command: Sequence[str], log: Path, *, limit_s: float, folder: Path) -> Ended:
    """Run a command in `folder`, append its output to `log`, and end it with all its children at the limit.

    Its children also end if this process is interrupted.
    """
    started = time.monotonic()
    environment = os.environ | {"PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its children end with it
            )
        except OSError as error:
            output.write(f"{command[0]}: {error.strerror}\n".encode())
            return Ended("failed", 127, time.monotonic() - started)
        try:
            status = process.wait(limit_s)
            end: End = "failed" if status else "passed"
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # not to its children, whose dumps would mix with its own
            try:
                status = process.wait(_TO_SAY_WHERE_S)
            except subprocess.TimeoutExpired:
                status = -signal.SIGKILL
            end = "timed out"
        finally:
            _signal(process, signal.SIGKILL)
            process.wait()
    return Ended(end, status, time.monotonic() - started)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the process and all its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
