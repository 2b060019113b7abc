"""How a builder reports its progress, and how Ctrl-C ends a build.

The monitor derives from the bindings' own class, so it is made for the module that is passed in. No
exception may leave it, because its caller is C++, and several threads may call it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from types import ModuleType
from typing import Any

from sr.backends.tensorrt.request import Progress


def progress_monitor(module: ModuleType, progress: Progress | None) -> Any:
    """Return a progress monitor that calls `progress`, and cancels the build if that raises.

    An exception must not pass through the builder's C++, so it is kept in `raised`. So is Ctrl-C: no other
    Python runs during a build.
    """
    phases = _Phases(progress)

    class Monitor(module.IProgressMonitor):  # type: ignore[misc, name-defined]  # a class of the module
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        @property
        def raised(self) -> BaseException | None:
            """What `progress` raised."""
            return phases.raised

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Begin a phase, inside another one or at the top."""
            phases.guarded(lambda: phases.start(phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Count a step; false cancels the build."""
            phases.guarded(lambda: phases.count(phase_name, step + 1))
            return phases.raised is None

        def phase_finish(self, phase_name: str) -> None:
            """End a phase."""
            phases.guarded(lambda: phases.finish(phase_name))

    return Monitor()


class _Phases:
    """The phases of a build that have begun and not ended, some inside others, and the share that is done."""

    def __init__(self, progress: Progress | None) -> None:
        self.raised: BaseException | None = None
        self._progress = progress
        self._phases: dict[str, tuple[str | None, int, int]] = {}  # name: parent, steps, done
        self._reached = 0.0  # a phase ends before its parent counts the step as done
        self._lock = RLock()  # NvInfer.h: the builder may call from several threads

    def guarded(self, action: Callable[[], object]) -> None:
        """Do one thing at a time; keep what it raises."""
        try:
            with self._lock:
                action()
        except BaseException as error:
            self.raised = self.raised or error

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase."""
        self._phases[name] = (parent, max(1, steps), 0)

    def finish(self, name: str) -> None:
        """End a phase."""
        self._phases.pop(name, None)

    def count(self, name: str, done: int) -> None:
        """Note how many steps of a phase are done, and report it."""
        if name in self._phases:
            parent, steps, _ = self._phases[name]
            self._phases[name] = (parent, steps, done)
        if self._progress is not None:
            self._reached = max(self._reached, *map(self._share, self._tops()))
            self._progress(name, self._reached)

    def _tops(self) -> list[str]:
        return [name for name, (parent, _, _) in self._phases.items() if parent not in self._phases]

    def _share(self, name: str) -> float:
        _, steps, done = self._phases[name]
        inner = [self._share(child) for child, (up, _, _) in self._phases.items() if up == name]
        return min(1.0, (done + max(inner, default=0.0)) / steps)
