"""Backends on a CPU that run out of memory: smaller tiles follow, with the same pixels."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sr import Upscaler
from sr.errors import OutOfDeviceMemoryError

pytest.importorskip("resource")  # which Windows does not have

# Limits the memory of the process to what it has and 150 MiB more; a tile of 640 px needs about 400 MiB.
PROGRAM = """
import resource, sys

import numpy as np
from sr import Upscaler

settings = {"backend": sys.argv[1], "model": sys.argv[2] or None}

picture = np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)
with Upscaler(**settings, tile=128) as upscaler:
    expected = upscaler(picture)
with Upscaler(**settings, tile=640) as upscaler:
    upscaler(picture[:64, :64])
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + (150 << 20)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    got = upscaler(picture)
    resource.setrlimit(resource.RLIMIT_AS, before)
    largest = max(upscaler.spec.tile, upscaler.backend.info.max_tile or 0)
    print(largest, np.abs(got.astype(int) - expected).max())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
@pytest.mark.parametrize(("backend", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_smaller_tiles_follow_where_memory_runs_out(backend: str, package: str) -> None:
    pytest.importorskip(package)
    tile, difference = tile_and_difference(backend)
    assert tile < 640
    assert difference <= 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
@pytest.mark.usefixtures("model_cache")
@pytest.mark.parametrize("exact", [True, False])
def test_networks_of_other_programs_get_smaller_tiles_too(tmp_path: Path, exact: bool) -> None:
    """Where tiles cannot be exact, the picture is begun whole; smaller tiles leave what the warning says."""
    pytest.importorskip("onnx")
    from tests.foreign import Convention, write_network

    path = write_network(tmp_path / "net.onnx", Convention(scale=4, mixed=not exact))
    tile, difference = tile_and_difference("onnx", str(path))
    assert tile < 640
    assert difference <= (1 if exact else 60)


@pytest.mark.parametrize(
    "message",
    [
        "Check 'ptr' failed at cpu_memory.cpp:257:\nFailed to allocate 2822400 bytes of memory",
        "[CPU] Reorder node with name 'node_permute_1_acdb_abcd_upscaled' can't alloc",
    ],
)
def test_openvino_says_in_several_ways_that_memory_ran_out(message: str) -> None:
    """The second comes when there is no memory for the instructions of a kernel."""
    with Upscaler(backend="onnx") as upscaler:
        failure = upscaler.backend.failure("OpenVINO", RuntimeError(message), (1, 320, 320, 3))
        assert isinstance(failure, OutOfDeviceMemoryError)
        assert upscaler.backend.info.max_tile == 160


def tile_and_difference(backend: str, model: str = "") -> tuple[int, int]:
    """Return the tile with which the picture was made in little memory, and how far off it is, in levels."""
    command = [sys.executable, "-c", PROGRAM, backend, model]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "", "nothing of the library reaches the user"
    tile, difference = map(int, result.stdout.split())
    return tile, difference


def test_smaller_tiles_follow_where_pytorch_runs_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """With little address space, oneDNN would compute for minutes; so one allocation is of a petabyte."""
    torch = pytest.importorskip("torch")
    from sr.backends.pytorch import TorchBackend

    run = TorchBackend._run

    def run_small(backend: TorchBackend, batch: np.ndarray) -> np.ndarray:
        if max(batch.shape[1:3]) > 110:
            torch.empty(1 << 50)
        return run(backend, batch)

    monkeypatch.setattr(TorchBackend, "_run", run_small)
    picture = np.random.default_rng(0).integers(0, 256, (150, 140, 3), np.uint8)
    with Upscaler(scale=2, backend="torch", tile=64) as upscaler:
        expected = upscaler(picture)
    with Upscaler(scale=2, backend="torch", tile=150) as upscaler:
        got = upscaler(picture)
        assert upscaler.spec.tile <= 110
    assert np.abs(got.astype(int) - expected).max() <= 1
