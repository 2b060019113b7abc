"""Ends a run on several processes of which none has begun or ended a test for too long.

Time limits of tests end what a test does. They do not end a process that never comes to its next test, for
which pytest-xdist waits for ever.
"""

import os
import threading

import pytest


class Standstill:
    """A plugin of the process that hands out tests."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer = threading.Timer(0, lambda: None)
        self._running: dict[str, None] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note that a test has begun."""
        self._running[nodeid] = None
        self._begin_anew()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Note that a test has ended."""
        self._running.pop(nodeid, None)
        self._begin_anew()

    def pytest_sessionfinish(self) -> None:
        """Stop watching."""
        self._timer.cancel()

    def _begin_anew(self) -> None:
        self._timer.cancel()
        self._timer = threading.Timer(self._seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        running = ", ".join(self._running) or "no test is running"
        os.write(2, f"\nFAILED: no test began or ended for {self._seconds:.0f} s: {running}\n".encode())
        os._exit(1)  # the other processes end with the connection to this one


def watch(config: pytest.Config) -> None:
    """Watch a run on several processes, from the one that hands out tests."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        limit = float(config.getini("faulthandler_timeout"))  # after which the process of a test is ended
        config.pluginmanager.register(Standstill(2 * limit))
