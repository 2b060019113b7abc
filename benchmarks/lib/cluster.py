"""A Ray cluster of two nodes on this machine, each with one core."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

from benchmarks.lib.paths import ROOT

# A line on standard input removes the second node; its end shuts the cluster down.
_CLUSTER = """
import sys
from ray.cluster_utils import Cluster

node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
try:
    second = cluster.add_node(**node)
    print(cluster.address, flush=True)
    if sys.stdin.readline():
        cluster.remove_node(second, allow_graceful=False)
        print("removed", flush=True)
    sys.stdin.readline()
finally:
    cluster.shutdown()
"""


def cluster_environment() -> dict[str, str]:
    """Return variables that keep a cluster on the loopback interface, for those who know the token."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


def start_cluster(environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start the cluster as a process, which prints its address."""
    return subprocess.Popen(
        [sys.executable, "-c", _CLUSTER],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
