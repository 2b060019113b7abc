"""One log for each TensorRT module in a process: into our logging, and errors kept for our messages.

TensorRT keeps the first logger of a process and ignores later ones, so builder and runtime share one.
"""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from collections import deque
from typing import Any

from sr.errors import one_line

logger = logging.getLogger("srup.engine")
logger.addHandler(logging.NullHandler())  # what matters becomes an exception, not text on the terminal

_KEPT_ERRORS = 32
_QUOTED_ERRORS = 2


@functools.cache
def tensorrt_log(base: Any) -> Any:
    """Return the process-wide logger of a module, whose `ILogger` is `base` and that of the logger.

    Nothing else collects messages: an error recorder written in Python crashes the interpreter at exit.
    """
    levels = {
        base.INTERNAL_ERROR: logging.ERROR,
        base.ERROR: logging.ERROR,
        base.WARNING: logging.WARNING,
        base.INFO: logging.DEBUG,
        base.VERBOSE: 1,
    }

    class TensorRtLog(base):  # type: ignore[misc]  # a class of the module that was passed in
        def __init__(self) -> None:
            base.__init__(self)  # pybind11 needs this in place of super()
            self._numbers = itertools.count(1)
            self._last = 0
            self._errors: deque[tuple[int, int, str]] = deque(maxlen=_KEPT_ERRORS)  # number, thread, text

        def log(self, severity: Any, message: str) -> None:
            """Take one message, from any thread; must not raise, because the caller is C++."""
            level = levels.get(severity, logging.DEBUG)
            if level >= logging.ERROR:
                self._last = next(self._numbers)
                self._errors.append((self._last, threading.get_ident(), message))
            if logger.isEnabledFor(level):
                logger.log(level, "%s", message)

        def mark(self) -> int:
            """Return a position in the log, for `since`."""
            return self._last

        def since(self, mark: int) -> list[str]:
            """Return the errors after a mark: those of this thread, or of any if this one has none."""
            errors = [(thread, text) for number, thread, text in list(self._errors) if number > mark]
            own = [text for thread, text in errors if thread == threading.get_ident()]
            return list(dict.fromkeys(own or [text for _, text in errors]))

        def summary(self, mark: int) -> str:
            """Return the first errors after a mark on one line; empty if there is none."""
            return "; ".join(map(one_line, self.since(mark)[:_QUOTED_ERRORS]))

    return TensorRtLog()
