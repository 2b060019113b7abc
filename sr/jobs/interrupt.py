"""What Ctrl-C does while pictures are upscaled."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT  # exit status, as shells have it


@contextmanager
def second_interrupt_stops_at_once() -> Iterator[None]:
    """The first Ctrl-C raises `KeyboardInterrupt`, once; the second ends the process, waiting for nothing.

    Python calls a handler when the main thread comes back from what it computes, a tile of seconds
    perhaps, and two signals until then are one call. So a thread counts the signals themselves.
    Where the signal is ignored, as in a shell's background, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    interrupted = False

    def stop_at_the_second() -> None:
        interrupts = 0
        while number := reader.recv(1):
            interrupts += number[0] == signal.SIGINT
            if interrupts == 2:
                os._exit(INTERRUPTED)

    def raise_at_the_first(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            signal.default_int_handler(number, frame)

    handler = signal.signal(signal.SIGINT, raise_at_the_first)
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = Thread(target=stop_at_the_second, name="interrupt", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        signal.signal(signal.SIGINT, handler)
        writer.close()
        watcher.join()
        reader.close()
