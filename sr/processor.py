"""How many processor cores this process may use: of the machine, of its affinity, of its control groups."""

from __future__ import annotations

import os
from pathlib import Path

from sr.cgroups import PROCESS, Version, control_groups, number_in


def available_cores(process: Path = PROCESS) -> int:
    """Return how many cores this process may use, at least 1.

    `taskset` and container runtimes restrict the affinity; a quota of processor time (Docker's `--cpus`,
    Kubernetes' limits, systemd's `CPUQuota`) counts as that many cores, rounded up.
    """
    machine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota(group, version) for group, version in control_groups("cpu", process)]
    return max(1, min([machine, *(quota for quota in quotas if quota is not None)]))


def _quota(group: Path, version: Version) -> int | None:
    """Return the cores that a group's quota is worth, None if it has none: cgroup-v2.rst, sched-bwc.rst."""
    if version == 1:
        quota, period = number_in(group / "cpu.cfs_quota_us"), number_in(group / "cpu.cfs_period_us")
    else:
        try:
            words = (group / "cpu.max").read_text().split()
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):  # "max", or the controller is off
            return None
    if quota is None or not period or quota <= 0:
        return None
    return -(-quota // period)
