"""Stop a run on request: signals set a flag that the loop checks between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):
    """The run stopped on request; its state is saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class StopFlag:
    """The signal that asked the run to stop; None so far."""

    signal_number: int | None = None


@contextmanager
def asked_to_stop(*, alone: bool) -> Iterator[StopFlag]:
    """Turn SIGTERM and SIGINT into a flag.

    A second SIGINT stops at once if the process is alone: a launcher passes on the SIGINT that the
    terminal has already sent to all.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield flag
        return

    def handle(number: int, _: FrameType | None) -> None:
        if alone and flag.signal_number == number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.signal_number = number

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
