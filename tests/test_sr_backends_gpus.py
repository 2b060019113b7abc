"""GPUs: those that the driver shows, asked of a real library with made-up GPUs, and those known by name."""

import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from sr.backends import gpus
from sr.backends.gpus import COMPUTE_CAPABILITIES, Gpu, compute_capability, driver_cuda_version, visible_gpus
from sr.backends.tensorrt.cuda import cuda_gpus
from sr.cli import main
from sr.errors import EngineError

# Devices have handles of their own, so that one is not taken for an index. The last device is broken.
DRIVER = """
#include <string.h>
static const char *names[] = {"NVIDIA L4", "Tesla T4", ""};
static const int majors[] = {8, 7, 0}, minors[] = {9, 5, 0};
int cuInit(unsigned flags) { return flags; }
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuDeviceGetCount(int *count) { *count = GPUS; return 0; }
int cuDeviceGet(int *device, int index) { *device = 40 + index; return 0; }
int cuDeviceGetName(char *name, int length, int device)
{
    strncpy(name, names[device - 40], length);
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    if (device == 42) return 999;
    *value = attribute == 75 ? majors[device - 40] : attribute == 76 ? minors[device - 40] : -1;
    return 0;
}
"""


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """Return a function that gives this machine a driver with GPUs."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform == "win32" or compiler is None:
        pytest.skip("needs a C compiler")

    def install(count: int) -> None:
        source, library = tmp_path / "driver.c", tmp_path / f"driver-of-{count}.so"
        source.write_text(DRIVER)
        command = [compiler, "-shared", "-fPIC", f"-DGPUS={count}", "-o", str(library), str(source)]
        subprocess.run(command, check=True, capture_output=True)
        monkeypatch.setattr(gpus, "_DRIVER", str(library))

    return install


def test_the_drivers_gpus_are_described(driver):
    driver(3)
    assert visible_gpus() == [Gpu(0, "NVIDIA L4", 89), Gpu(1, "Tesla T4", 75), Gpu(2, "unknown", 0)]
    assert driver_cuda_version() == "12.4"
    listed = CliRunner().invoke(main, ["info"]).stdout
    assert all(line in listed for line in ("NVIDIA driver: supports CUDA 12.4, 3 GPUs", "1  Tesla T4"))


def test_without_a_driver_there_are_none(monkeypatch, tmp_path):
    monkeypatch.setattr(gpus, "_DRIVER", str(tmp_path / "none.so"))
    assert visible_gpus() == []
    assert driver_cuda_version() == ""


@pytest.fixture
def answer_of_cuda(monkeypatch):
    """Return a function that sets the status with which CUDA for Python counts the GPUs."""
    pytest.importorskip("cuda.bindings.runtime")

    def set_status(name: str) -> None:
        statuses = SimpleNamespace(cudaSuccess=0, cudaErrorInsufficientDriver=35)
        status = getattr(statuses, name)
        counted = SimpleNamespace(cudaError_t=statuses, cudaGetDeviceCount=lambda: (status, 1))
        monkeypatch.setattr("cuda.bindings.runtime", counted)

    return set_status


def test_engines_run_on_gpus_that_the_driver_can_describe(driver, answer_of_cuda):
    answer_of_cuda("cudaSuccess")
    driver(2)
    assert cuda_gpus() == [Gpu(0, "NVIDIA L4", 89), Gpu(1, "Tesla T4", 75)]
    driver(3)
    with pytest.raises(EngineError, match="GPU 2: "):
        cuda_gpus()


def test_a_driver_that_is_too_old_is_named(driver, answer_of_cuda):
    answer_of_cuda("cudaErrorInsufficientDriver")
    driver(0)
    assert cuda_gpus() == [], "CUDA answers the same without any driver"
    driver(1)
    with pytest.raises(EngineError, match=r"driver is too old.*CUDA 12\.4.*update the driver"):
        cuda_gpus()
    listed = CliRunner().invoke(main, ["info", "--engines"])
    assert listed.exit_code == 0
    assert "driver is too old" in listed.stderr


# --- by name ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sm89", 89),
        ("SM_120", 120),
        ("rtx4090", 89),
        ("RTX 3060", 86),
        ("NVIDIA GeForce RTX 2080 Ti", 75),
        ("Tesla T4", 75),
        ("a100", 80),
        ("h100", 90),
        ("rtx-pro-6000", 120),
        # as nvidia-smi prints them
        ("NVIDIA A100-SXM4-80GB", 80),
        ("NVIDIA A100 80GB PCIe", 80),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 80),
        ("NVIDIA H100 80GB HBM3", 90),
        ("NVIDIA H100 NVL", 90),
        ("NVIDIA GH200 480GB", 90),
        ("NVIDIA RTX A2000 12GB", 86),
        ("NVIDIA RTX 6000 Ada Generation", 89),
        ("NVIDIA RTX 4000 SFF Ada Generation", 89),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 89),
        ("NVIDIA GeForce RTX 4090 D", 89),
        ("NVIDIA GeForce GTX 1660 Ti with Max-Q Design", 75),
        ("Quadro RTX 6000", 75),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 120),
    ],
)
def test_gpus_are_known_by_name(name, expected):
    assert compute_capability(name) == expected


@pytest.mark.parametrize("name", ["", "sm", "sm8", "rtx", "rtx 9999", "89"])
def test_an_unknown_gpu_is_refused_with_the_names_there_are(name):
    with pytest.raises(ValueError, match=r"sm75.*rtx4090"):
        compute_capability(name)


def test_the_names_are_as_they_are_looked_up():
    assert {name: compute_capability(name.upper()) for name in COMPUTE_CAPABILITIES} == COMPUTE_CAPABILITIES
