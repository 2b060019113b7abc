"""What a builder calls while it works: our logger and our progress monitor.

Both are subclasses of the bindings' own classes, so they are made for the module that is passed in.
No exception may leave them: their caller is C++.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

Progress = Callable[[str, float], None]
"""Called with the phase of the build and the share done, in [0, 1]."""

logger = logging.getLogger("srup.engine")
logger.addHandler(logging.NullHandler())  # what matters comes as an exception, not on the terminal


def message_log(module: ModuleType) -> Any:
    """Return a logger for the builder: into our logging, and what went wrong into our errors.

    Nothing else collects: an error recorder written in Python crashes the interpreter at exit.
    """
    levels = {
        module.ILogger.INTERNAL_ERROR: logging.ERROR,
        module.ILogger.ERROR: logging.ERROR,
        module.ILogger.WARNING: logging.WARNING,
        module.ILogger.INFO: logging.DEBUG,
        module.ILogger.VERBOSE: 1,
    }

    class MessageLog(module.ILogger):  # type: ignore[misc, name-defined]  # a class of the module passed in
        def __init__(self) -> None:
            module.ILogger.__init__(self)  # what pybind11 wants in place of super()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Take one message; must not raise, the caller is C++."""
            level = levels.get(severity, logging.DEBUG)
            if level >= logging.ERROR and message not in self.errors:
                self.errors.append(message)
            if logger.isEnabledFor(level):
                logger.log(level, "%s", message)

        def summary(self) -> str:
            """Return the first messages as one line."""
            return "; ".join(map(one_line, self.errors[:2])) or "it gave no reason"

    return MessageLog()


def progress_monitor(module: ModuleType, progress: Progress | None) -> Any:
    """Return a progress monitor that calls `progress`, and cancels the build if that raises.

    An exception must not travel through the builder's C++, so it waits in `raised`. Ctrl-C comes up
    here too, as the only Python that runs during a build.
    """

    class Monitor(module.IProgressMonitor):  # type: ignore[misc, name-defined]  # as above
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.raised: BaseException | None = None
            self._phases: dict[str, tuple[str | None, int, int]] = {}  # name: parent, steps, done
            self._reached = 0.0  # a phase ends before the step of its parent that it was counts as done

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Begin a phase, inside another one or at the top."""
            self._guarded(lambda: self._phases.update({phase_name: (parent_phase, max(1, num_steps), 0)}))

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Count a step; false cancels the build."""
            self._guarded(lambda: self._count(phase_name, step + 1))
            return self.raised is None

        def phase_finish(self, phase_name: str) -> None:
            """End a phase."""
            self._guarded(lambda: self._phases.pop(phase_name, None))

        def _guarded(self, action: Callable[[], object]) -> None:
            try:
                action()
            except BaseException as error:
                self.raised = self.raised or error

        def _count(self, name: str, done: int) -> None:
            if name in self._phases:
                parent, steps, _ = self._phases[name]
                self._phases[name] = (parent, steps, done)
            if progress is not None:
                self._reached = max(self._reached, *map(self._share, self._tops()))
                progress(name, self._reached)

        def _tops(self) -> list[str]:
            return [name for name, (parent, _, _) in self._phases.items() if parent not in self._phases]

        def _share(self, name: str) -> float:
            _, steps, done = self._phases[name]
            inner = [self._share(child) for child, (up, _, _) in self._phases.items() if up == name]
            return min(1.0, (done + max(inner, default=0.0)) / steps)

    return Monitor()


def one_line(text: str) -> str:
    """Return the beginning of a message on one line."""
    return " ".join(text.split())[:300]
