"""A real terminal of any width: a process writes to it, and what a user would see can be asked for."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte

ROOT = Path(__file__).resolve().parent.parent
ROWS = 60


class Terminal:
    """Runs Python on a terminal of its own."""

    def __init__(self, *command: str, cwd: Path, columns: int, stdout: int | None = None) -> None:
        """Start it; `stdout` may go elsewhere."""
        self._leader, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        self._screen = pyte.HistoryScreen(columns, ROWS, history=1000, ratio=1)
        self._stream = pyte.ByteStream(self._screen)
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=cwd,
            env=environment | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
            stdin=terminal,
            stdout=terminal if stdout is None else stdout,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored below some shells
        )
        os.close(terminal)

    def read(self, until: Callable[[list[str]], bool] = lambda _: False, seconds: float = 60) -> list[str]:
        """Read until the screen shows something, or the process has ended; return the screen's lines."""
        deadline = time.monotonic() + seconds
        while not until(self.lines) and time.monotonic() < deadline:
            if not select.select([self._leader], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(self._leader, 65536)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            self._stream.feed(data)
        return self.lines

    @property
    def lines(self) -> list[str]:
        """What the screen shows, and what has scrolled away above it, without empty lines."""
        above = [
            "".join(row[column].data for column in range(self._screen.columns))
            for row in self._screen.history.top
        ]
        return [line.rstrip() for line in (*above, *self._screen.display) if line.strip()]

    def close(self) -> int:
        """Wait for the process to end; return its exit status."""
        try:
            return self.process.wait(timeout=60)
        finally:
            self.process.kill()
            os.close(self._leader)
