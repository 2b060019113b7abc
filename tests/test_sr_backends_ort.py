"""ONNX Runtime that runs out of memory: smaller tiles follow, with the same pixels."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource")  # which Windows does not have

# Limits the memory of the process to what it has and 150 MiB more; a tile of 640 px needs about 400 MiB.
PROGRAM = """
import resource

import numpy as np
from sr import Upscaler

picture = np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)
with Upscaler(scale=2, backend="onnx", tile=64) as upscaler:
    expected = upscaler(picture)
with Upscaler(scale=2, backend="onnx", tile=640) as upscaler:
    upscaler(picture[:64, :64])
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + (150 << 20)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    got = upscaler(picture)
    resource.setrlimit(resource.RLIMIT_AS, before)
    print(upscaler.spec.tile, np.abs(got.astype(int) - expected).max())
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_smaller_tiles_follow_where_memory_runs_out() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == "", "nothing of ONNX Runtime reaches the user"
    tile, difference = map(int, result.stdout.split())
    assert tile < 640
    assert difference <= 1
