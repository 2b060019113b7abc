"""Available memory and cores: nested control groups of both versions, and `ulimit -v`."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr import memory
from sr.backends.base import default_tile, tile_within
from sr.backends.ort import read_metadata
from sr.cgroups import control_groups
from sr.network.modelfile import shipped_onnx, shipped_scales
from sr.processor import available_cores

MIB = 2**20
UNLIMITED_V1 = 0x7FFFFFFFFFFFF000  # what version 1 states without a limit
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


class Machine:
    """What the kernel shows of a process and its control groups, as files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.process, self.mounted = folder / "proc", folder / "cgroup"
        for path in (self.process, self.mounted):
            path.mkdir()
        self.belongs()
        self.mounts()

    def belongs(self, *lines: str) -> None:
        (self.process / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def mounts(self, *lines: str) -> None:
        (self.process / "mountinfo").write_text("".join(f"{line}\n" for line in lines))

    def mount(self, kind: str, *, root: str = "/", options: str = "rw") -> str:
        return f"35 31 0:32 {root} {self.mounted} rw,relatime shared:9 - {kind} {kind} {options}"

    def group(self, path: str, names: tuple[str, ...], *, limit: object, used: int, cache: int = 0) -> None:
        folder = self.mounted / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon {used - cache}\nactive_file 0\n{names[2]} {cache}\n")

    @property
    def left(self) -> int:
        return memory._cgroup_available(self.process)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("own", ["0::/a.slice/b.scope", "0::/a.slice/b.scope/inner"])
def test_the_tightest_group_of_version_2_counts(machine: Machine, own: str) -> None:
    machine.belongs(own)
    machine.mounts(machine.mount("cgroup2"))
    machine.group("a.slice/b.scope/inner", V2, limit="max", used=10 * MIB)
    machine.group("a.slice/b.scope", V2, limit=300 * MIB, used=100 * MIB)
    machine.group("a.slice", V2, limit=1000 * MIB, used=200 * MIB)
    assert machine.left == 200 * MIB
    machine.group("a.slice", V2, limit=250 * MIB, used=200 * MIB)
    assert machine.left == 50 * MIB


def test_page_cache_that_is_given_back_is_not_used(machine: Machine) -> None:
    machine.belongs("0::/a")
    machine.mounts(machine.mount("cgroup2"))
    machine.group("a", V2, limit=512 * MIB, used=500 * MIB, cache=300 * MIB)
    assert machine.left == 312 * MIB


def test_the_high_mark_of_a_group_is_its_limit(machine: Machine) -> None:
    machine.belongs("0::/a")
    machine.mounts(machine.mount("cgroup2"))
    machine.group("a", V2, limit="max", used=100 * MIB)
    (machine.mounted / "a" / "memory.high").write_text(f"{150 * MIB}\n")
    assert machine.left == 50 * MIB


def test_version_1_and_a_mixture(machine: Machine) -> None:
    machine.belongs("5:cpu,cpuacct:/", "4:memory:/box/inner", "0::/")
    machine.mounts(
        machine.mount("cgroup", options="rw,cpu,cpuacct"), machine.mount("cgroup", options="rw,memory")
    )
    machine.group("box/inner", V1, limit=UNLIMITED_V1, used=1 * MIB)
    assert machine.left > 2**60
    machine.group("box", V1, limit=64 * MIB, used=60 * MIB, cache=20 * MIB)
    assert machine.left == 24 * MIB


def test_a_container_sees_its_own_group_as_the_mount(machine: Machine) -> None:
    """Docker without a namespace of control groups: the path is the host's, the mount is the group."""
    machine.belongs("0::/docker/1f2e")
    machine.mounts(machine.mount("cgroup2", root="/docker/1f2e"))
    machine.group(".", V2, limit=128 * MIB, used=28 * MIB)
    assert machine.left == 100 * MIB
    machine.belongs("0::/../elsewhere")  # moved out of its namespace
    machine.mounts(machine.mount("cgroup2"))
    assert machine.left == 100 * MIB


def test_without_control_groups_there_is_no_bound(machine: Machine, tmp_path: Path) -> None:
    assert machine.left > 2**60
    assert memory._cgroup_available(tmp_path / "absent") > 2**60
    machine.belongs("0::/a")
    machine.mounts(machine.mount("cgroup2"))
    (machine.mounted / "a").mkdir()  # the memory controller is not on
    assert machine.left > 2**60


# --- cores --------------------------------------------------------------------------------------

MACHINE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process run on 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


@pytest.mark.parametrize(
    ("quota", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("800000 100000", 8), ("max 100000", 64)]
)
@pytest.mark.usefixtures("many_cores")
def test_a_quota_of_version_2_counts_in_cores(machine: Machine, quota: str, cores: int) -> None:
    machine.belongs("0::/a/b")
    machine.mounts(machine.mount("cgroup2"))
    (machine.mounted / "a" / "b").mkdir(parents=True)
    (machine.mounted / "a" / "cpu.max").write_text(f"{quota}\n")  # of an ancestor
    (machine.mounted / "a" / "b" / "cpu.max").write_text("max 100000\n")
    assert available_cores(machine.process) == cores


@pytest.mark.parametrize(("quota", "cores"), [("250000", 3), ("-1", 64)])
@pytest.mark.usefixtures("many_cores")
def test_a_quota_of_version_1_counts_in_cores(machine: Machine, quota: str, cores: int) -> None:
    machine.belongs("5:cpu,cpuacct:/box", "4:memory:/box")
    machine.mounts(machine.mount("cgroup", options="rw,cpu,cpuacct"))
    (machine.mounted / "box").mkdir()
    (machine.mounted / "box" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (machine.mounted / "box" / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cores(machine.process) == cores


def test_without_quota_the_affinity_counts(machine: Machine) -> None:
    assert available_cores(machine.process) == MACHINE
    assert 1 <= available_cores() <= MACHINE


# --- memory again -------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="no control groups here")
def test_the_groups_of_this_process_are_found() -> None:
    groups = [group for group, _ in control_groups("memory")]
    assert groups
    assert all(group.is_dir() for group in groups)
    assert 0 < memory.available_memory() < 2**50


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits address space the Linux way")
def test_a_limit_of_the_address_space_counts() -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)); "
    code += "from sr.memory import available_memory; print(available_memory())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 2**28 < int(printed) < 2**30


@pytest.mark.parametrize("scale", shipped_scales())
def test_tiles_shrink_with_the_memory(scale: int) -> None:
    model = read_metadata(shipped_onnx(scale=scale))
    largest = default_tile(scale)
    sides = [tile_within(mib * MIB, model) for mib in (0, 64, 128, 256, 512, 1024, 4096)]
    assert sides == sorted(sides)
    assert sides[0] == 64
    assert sides[-1] == largest
    assert sides[2] < largest


# What a process has before is no measure, so the limit is set on top of it; the usual tile takes 100 MiB.
IN_LITTLE_MEMORY = """
import resource, sys
import numpy as np
from pathlib import Path
from sr.upscale import Upscaler
photograph = np.random.default_rng(0).integers(0, 256, (678, 1020, 3), np.uint8)
with Upscaler(backend="onnx", device="cpu") as usual:
    usual(photograph[:64, :64])
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 80 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
with Upscaler(backend="onnx", device="cpu", tile=int(sys.argv[1]) or None) as upscaler:
    print(usual.spec.tile, upscaler.spec.tile, upscaler(photograph).shape)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits address space the Linux way")
def test_a_picture_is_upscaled_where_the_usual_tiles_would_not_fit() -> None:
    def run(tile: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", IN_LITTLE_MEMORY, str(tile)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    planned = run(0)
    assert planned.returncode == 0, planned.stderr
    usual, smaller, *shape = planned.stdout.split(maxsplit=2)
    assert int(smaller) < int(usual)
    assert shape == ["(1356, 2040, 3)\n"]
    forced = run(int(usual))
    assert forced.returncode == 0, "smaller tiles follow"
    assert forced.stdout.endswith(planned.stdout.split(maxsplit=2)[2])


# A picture whose stages do not fit, an animation whose frames do not, and one that fits.
KILOBYTES = 1_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space the Linux way")
@pytest.mark.parametrize("scale", ["4.1", "4"])
def test_what_exceeds_the_memory_is_one_failed_job(scale: str, tmp_path: Path) -> None:
    import resource

    folder, noise = tmp_path / "in", np.random.default_rng(0).integers(0, 256, (2500, 2500), np.uint8)
    folder.mkdir()
    Image.fromarray(noise[:1500, :1500]).convert("RGB").save(folder / "a.png", compress_level=1)
    frames = [Image.fromarray(noise).convert("P"), Image.fromarray(noise[::-1]).convert("P")]
    frames[0].save(folder / "b.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(noise[:30, :40]).save(folder / "c.png")
    words = ["--exclude", "a.png"] if scale == "4" else []  # which fits there, and takes long
    answer = subprocess.run(
        [sys.executable, "-m", "sr.cli", "upscale", str(folder), "--scale", scale, *words],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (KILOBYTES * 1024, KILOBYTES * 1024)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (answer.returncode, "Traceback" in answer.stderr) == (1, False), answer.stderr
    errors = [line for line in answer.stderr.splitlines() if line.startswith("Error: ")]
    assert [Path(line.split(": ")[1]).name for line in errors] == (
        ["a.png", "b.gif"] if scale == "4.1" else ["b.gif"]
    )
    made = [path.name for path in folder.with_name(f"in_x{scale}").glob("*x*")]
    assert made == [f"c_x{scale}.png"]


# Pictures are decoded and encoded by several threads; glibc reserves 64 MiB for an arena.
ARENAS = """
import resource, sys
from sr.cli import main
from tests.test_sr_composed import composed
limit = 8 * 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    main(["upscale", sys.argv[1]], obj=composed)
finally:
    for line in open("/proc/self/maps"):
        addresses, protection, *_ = line.split()
        first, last = (int(address, 16) for address in addresses.split("-"))
        if protection == "---p" and 48 * 2**20 < last - first <= 64 * 2**20:
            print("arena")
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_threads_share_an_arena_where_address_space_is_limited(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (30, 20), (number, 0, 0)).save(folder / f"{number}.png")
    command, root = [sys.executable, "-c", ARENAS, str(folder)], Path(__file__).parent.parent
    printed = subprocess.check_output(command, cwd=root, text=True, timeout=120)
    assert len(list((tmp_path / "in_x2").glob("*.png"))) == 6
    assert "arena" not in printed.splitlines()


# In the last 30 MiB, an AVIF's encoder ended the process with a segmentation fault, in 13 MiB a GIF's.
ENCODED_IN_LITTLE = """
import resource, sys
from pathlib import Path
import numpy as np
from sr.errors import ImageError
from sr.image import Picture, write_picture
from sr.memory import spare_address_space
resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))
spare_address_space()
path, shape = Path(sys.argv[1]), (1000, 1000, 3)
write_picture(path, Picture(np.zeros((8, 8, 3), np.uint8)))
pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (int(sys.argv[2]) << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    write_picture(path, Picture(pixels))
except ImageError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space the Linux way")
@pytest.mark.parametrize(("name", "mib"), [("out.avif", 30), ("out.gif", 13)])
def test_no_encoder_runs_out_of_address_space(name: str, mib: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENCODED_IN_LITTLE, str(tmp_path / name), str(mib)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (0, "")
    assert name in run.stdout
    assert "memory" in run.stdout


_KEPT = """
import resource, sys, torch
from sr.memory import keep_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
if sys.argv[1] == "keep":
    keep_freed_memory()
before = resident()
tensor = torch.ones(10 * 2**20)  # 40 MiB, more than glibc ever keeps unless told to
del tensor
print(resident() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_is_kept() -> None:
    run = [sys.executable, "-c", _KEPT]
    default, kept = (int(subprocess.check_output([*run, how])) for how in ("default", "keep"))
    assert default < 10 * 2**20
    assert 30 * 2**20 < kept < 60 * 2**20
