"""Timing actions in turn, so that ratios hold on a machine whose speed varies.

Every round runs each action once, starting with another one each time, and a fixed matrix product for
calibration. Ratios are taken within rounds; their spread over rounds shows how reliable they are, and the
calibration shows how much the speed of the machine varied.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sr.processor import available_cores

WARM_UP_S = 0.2  # trtexec's --warmUp
_CALIBRATION_SIDE = 1024  # 2.1 GFLOP: some tens of milliseconds
_SETTLE_S = 0.06  # threads of the previous engine may still spin: at 0.02 the next took 1.6 times as long
# A run warns above these: the first two by experience on shared machines, the last is trtexec's.
_MAX_LOAD_PER_CORE, _MAX_WANDER = 0.5, 0.10
MAX_VARIATION_CPU, MAX_VARIATION_GPU = 0.10, 0.025


@dataclass
class Timings:
    """Seconds of each action, one value for each round, and the state of the machine meanwhile."""

    seconds: dict[str, list[float]]
    calibration: list[float]
    load_before: float
    clock_mhz: tuple[float | None, float | None] = (None, None)
    max_variation: float = MAX_VARIATION_CPU
    notes: list[str] = field(default_factory=list)

    def latency_ms(self, name: str) -> dict[str, float]:
        """Return median and high percentiles of an action, in milliseconds."""
        return percentiles(self.seconds[name])

    def ratio(self, name: str, to: str) -> dict[str, float]:
        """Return the time of an action as a multiple of the time of `to`: median, p10 and p90 over rounds."""
        ratios = np.divide(self.seconds[name], self.seconds[to])
        low, median, high = np.percentile(ratios, (10, 50, 90))
        return {"median": round(median, 3), "p10": round(low, 3), "p90": round(high, 3)}

    def variation(self, name: str) -> float:
        """Return the coefficient of variation of an action's time."""
        values = np.array(self.seconds[name])
        return float(values.std() / values.mean())

    @property
    def wander(self) -> float:
        """How much the machine's speed varied: p90 over p10 of the calibration, minus one."""
        low, high = np.percentile(self.calibration, (10, 90))
        return float(high / low - 1)

    def warnings(self) -> list[str]:
        """Return a sentence for each fact that makes the figures less reliable."""
        found = list(self.notes)
        cores = available_cores()
        if self.load_before > _MAX_LOAD_PER_CORE * cores:
            found.append(f"other work was running: load {self.load_before:.1f} on {cores} cores at the start")
        if self.wander > _MAX_WANDER:
            found.append(
                f"the machine's speed varied by {self.wander:.0%} (calibration, p10 to p90): "
                "trust the ratios, not the milliseconds"
            )
        before, after = self.clock_mhz
        if before and after and abs(after / before - 1) > _MAX_WANDER:
            found.append(f"the clock went from {before:.0f} to {after:.0f} MHz")
        for name in self.seconds:
            if (variation := self.variation(name)) > self.max_variation:
                found.append(
                    f"{name}: times vary by {variation:.1%} (standard deviation over mean), "
                    f"more than {self.max_variation:.1%}"
                )
        return found


def interleaved(
    actions: Mapping[str, Callable[[], object]], *, rounds: int, max_variation: float = MAX_VARIATION_CPU
) -> Timings:
    """Warm up each action, then time all of them in turn, `rounds` times."""
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}, need at least 1")
    load, clock = _load(), clock_mhz()
    for action in actions.values():
        started = time.perf_counter()
        action()
        while time.perf_counter() - started < WARM_UP_S:
            action()
    calibrate = _calibration()
    calibrate()
    names = list(actions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    calibration = []
    for turn in range(rounds):
        calibration.append(_settled(calibrate))
        first = turn % len(names) if names else 0
        for name in names[first:] + names[:first]:
            seconds[name].append(_settled(actions[name]))
    return Timings(seconds, calibration, load, (clock, clock_mhz()), max_variation)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return median, p90, p95, p99 in milliseconds."""
    points = np.percentile(seconds, (50, 90, 95, 99)) * 1e3
    return {
        name: round(float(ms), 4) for name, ms in zip(("median", "p90", "p95", "p99"), points, strict=True)
    }


def timed(action: Callable[[], object]) -> float:
    """Run an action and return the seconds that it takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


@dataclass(frozen=True)
class Spent:
    """Time of an action: seconds on the clock, and of all cores together."""

    wall: float
    cores: float


def spent(action: Callable[[], object]) -> Spent:
    """Run an action and return its time; core-seconds are those of all threads of this process."""
    started, used = time.perf_counter(), time.process_time()
    action()
    return Spent(time.perf_counter() - started, time.process_time() - used)


def interleaved_seconds(actions: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Time the actions in turn, `rounds` times after one warm-up; return each one's median seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(rounds + 1):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            if turn > 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _settled(action: Callable[[], object]) -> float:
    time.sleep(_SETTLE_S)
    return timed(action)


def clock_mhz() -> float | None:
    """Return the current clock of the processor; None if the system does not tell."""
    try:
        khz = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq").read_text()
    except OSError:
        return None
    return int(khz) / 1e3


def _load() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _calibration() -> Callable[[], object]:
    matrix = np.random.default_rng(0).random((_CALIBRATION_SIDE, _CALIBRATION_SIDE), np.float32)
    product = np.empty_like(matrix)
    return lambda: np.matmul(matrix, matrix, out=product)
