"""Shared by all tests: GPU tests are skipped without a GPU, and packaging tests get a copy of the sources."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from sr.backends.gpus import visible_gpus
from tests import standstill

ROOT = Path(__file__).resolve().parent.parent

# No deadline: how long an example takes says nothing about whether it is right.
settings.register_profile("srup", deadline=None)
settings.load_profile("srup")


def pytest_configure(config: pytest.Config) -> None:
    """Let a run that stands still fail."""
    standstill.watch(config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where the NVIDIA driver lists no GPU."""
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items and not visible_gpus():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Let PyTorch compute on one thread: on tiny tensors more threads mostly wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is converted and probed out of the user's cache folder; tests of all files share it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "model_cache"))
        yield


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train without matplotlib, as where it is not installed: curves take most of the time of a tiny run."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture(scope="module")
def source_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository as a fresh clone would be, in a path with a space."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    tree = tmp_path_factory.mktemp("sources") / "a clone"
    return shutil.copytree(
        ROOT, tree, ignore=shutil.ignore_patterns(".git", *(n.rstrip("/") for n in ignored))
    )


@pytest.fixture(scope="session")
def bare_env() -> dict[str, str]:
    """Return the environment variables without those that would redirect Python or bin/srup."""
    redirecting = {"VIRTUAL_ENV", "SRUP_VENV", "PYTHON", "PYTHONPATH", "PYTHONHOME"}
    return {name: value for name, value in os.environ.items() if name not in redirecting}


@pytest.fixture(scope="session")
def package_index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip the test if pip cannot download a small package."""
    probe = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--retries", "1"]
    answer = subprocess.run(
        [*probe, "--dest", tmp_path_factory.mktemp("probe"), "platformdirs"], capture_output=True
    )
    if answer.returncode != 0:
        pytest.skip("pip reaches no package index")
