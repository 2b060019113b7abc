"""`srup upscale --ray`: lost nodes and processes, bad pictures, Ctrl-C, and what listens meanwhile."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from benchmarks.lib.cluster import cluster_environment, start_cluster
from sr.cli import main
from sr.files import TEMPORARY_PREFIX
from sr.jobs.interrupt import INTERRUPTED
from sr.jobs.ray.connection import parse_address

ROOT = Path(__file__).resolve().parent.parent
PICTURES, BROKEN = 36, ("broken-0.png", "broken-1.png", "broken-2.png")
MANY = 200
REMOVED_AFTER, KILLED_AFTER = MANY * 3 // 10, MANY * 6 // 10  # results
IN_HAND = 6  # of a worker with one core, see sr.jobs.ray.worker
DEADLY_WIDTH = 13
PATIENCE_S = 240

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the ray extra")
unix = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# The command with the shipped network, slowed down; it notes each process that opens it and each picture that
# it has made, and one width of pictures ends its process.
PROGRAM = f"""
import os, signal, sys, time, zlib

signal.signal(signal.SIGINT, signal.default_int_handler)  # also below a shell that ignores it
from collections import deque
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from sr.cli import main
from sr.jobs.setup import open_setup

class Slow:
    def __init__(self, upscaler, log):
        self._log = log
        self.output_size, self.tile_count = upscaler.output_size, upscaler.tile_count
        self._upscaler = upscaler

    def picture(self, picture, *, progress=None):
        (upscaled,) = self.pictures([(picture, progress)])
        return upscaled

    def pictures(self, pictures):
        under_way = deque()

        def slowed():
            for each in pictures:
                if each is not None:
                    if each[0].width == {DEADLY_WIDTH}:
                        os._exit(1)
                    time.sleep(0.1)
                    under_way.append(zlib.crc32(each[0].pixels))
                yield each

        with closing(self._upscaler.pictures(slowed())) as stream:
            for upscaled in stream:
                os.write(self._log, f"{{under_way.popleft()}}\\n".encode())
                yield upscaled

def opener(upscaling, settings):
    log = os.open(Path(sys_argv[-1]) / str(os.getpid()), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    setup = open_setup(upscaling, **settings)
    slow = Slow(setup.upscaler, log)
    return replace(setup, upscaler=slow, capabilities=replace(setup.capabilities, pictures=slow.pictures))

sys_argv = list(sys.argv)
main(sys.argv[1:-1], prog_name="srup", obj=opener)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "in", range(PICTURES))
    (tmp_path / "opened").mkdir()
    return tmp_path / "in"


def make_pictures(folder: Path, numbers: range) -> None:
    for number in numbers:
        path = folder / str(number % 3) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(path)


def started(folder: Path, out: Path, *words: str, env: dict[str, str]) -> subprocess.Popen[str]:
    command = ["upscale", str(folder), "-o", str(out), "--backend", "onnx", "--json", *words]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command, str(folder.with_name("opened"))],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def plain(folder: Path, out: Path, *words: str) -> dict[str, bytes]:
    """Return what the command makes without Ray."""
    CliRunner().invoke(main, ["upscale", str(folder), "-o", str(out), "--backend", "onnx", *words])
    return contents(out)


def contents(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*.png")
        if not path.name.startswith(TEMPORARY_PREFIX)
    }


def records(driver: subprocess.Popen[str]) -> Iterator[dict[str, object]]:
    """Yield the lines that a run prints, as they come."""
    assert driver.stdout is not None
    yield from map(json.loads, driver.stdout)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@contextmanager
def ended(process: subprocess.Popen[str], *, by: Callable[[], object] | None = None) -> Iterator[None]:
    """End a process after the block; without a way to end it, at once."""
    try:
        yield
    finally:
        if by is None:
            process.kill()
        else:
            by()
        process.wait(timeout=PATIENCE_S)
        for stream in (process.stdin, process.stdout):
            if stream is not None and not stream.closed:
                stream.close()


@pytest.mark.slow
@needs_ray
@unix
def test_a_lost_node_and_a_killed_driver_lose_nothing(folder: Path, tmp_path: Path) -> None:
    make_pictures(folder, range(PICTURES, MANY))
    for name in BROKEN:
        (folder / name).write_bytes(b"damaged")
    out, env = tmp_path / "out", cluster_environment()
    expected = plain(folder, tmp_path / "alone")
    assert len(expected) == MANY
    cluster = start_cluster(env)
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    with ended(cluster, by=cluster.stdin.close):
        address = cluster.stdout.readline().strip()
        driver = started(folder, out, "--ray", address, env=env)
        with ended(driver):
            before = []
            for record in records(driver):
                before.append(record)
                if len(before) == REMOVED_AFTER:
                    wait_until(lambda: len(list((tmp_path / "opened").iterdir())) >= 2)
                    cluster.stdin.write("remove\n")
                    cluster.stdin.flush()
                    assert cluster.stdout.readline().strip() == "removed"
                if len(before) == KILLED_AFTER:
                    break
            driver.send_signal(signal.SIGKILL)
        made = {record["target"] for record in before if record["ok"]}
        assert len({record["source"] for record in before}) == KILLED_AFTER, "each once"
        assert contents(out).items() <= expected.items(), "whole, and under their names"

        again = started(folder, out, "--skip-existing", "--ray", address, env=env)
        with ended(again):
            *after, last = records(again)
            assert again.wait(timeout=PATIENCE_S) == 1
    assert contents(out) == expected
    assert not {record["target"] for record in after} & made, "the outputs are the checkpoint"
    assert {Path(str(record["source"])).name for record in after if not record["ok"]} == set(BROKEN)
    assert last["summary"]["failed"] == len(BROKEN)  # type: ignore[index]
    lines = [line for path in (tmp_path / "opened").iterdir() for line in path.read_text().split()]
    assert len(set(lines)) == MANY
    # In hand of the worker that was removed, and of the two whose driver was killed.
    assert len(lines) - MANY <= 3 * IN_HAND, "computed twice"
    print("computed twice:", len(lines) - MANY)
    plain(folder, out, "--skip-existing")  # which removes what killed processes left
    assert contents(out) == expected
    assert [path.name for path in out.rglob(f"{TEMPORARY_PREFIX}*") if path.suffix != ".jsonl"] == []


def descendants(process: int) -> set[int]:
    """Return all processes below a process."""
    children: dict[int, set[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        children.setdefault(parent, set()).add(int(path.parent.name))
    found, new = set(), {process}
    while new:
        new = set().union(*(children.get(each, set()) for each in new))
        found |= new
    return found


def alive(process: int) -> bool:
    """Say whether a process has not ended; one that nobody has waited for has."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listening(processes: set[int]) -> list[str]:
    """Return the addresses on which processes listen, as the kernel prints them."""
    inodes = set()
    for process in processes:
        for path in Path(f"/proc/{process}/fd").glob("*"):
            try:
                inodes.add(str(path.readlink()))
            except OSError:
                continue
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return [row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]


@pytest.mark.slow
@needs_ray
@unix
def test_a_picture_that_ends_its_process_fails_alone_on_a_cluster_that_only_this_machine_sees(
    folder: Path, tmp_path: Path
) -> None:
    for path in sorted(folder.rglob("*.png"))[12:]:
        path.unlink()
    expected = plain(folder, tmp_path / "alone")
    Image.new("RGB", (DEADLY_WIDTH, 20)).save(folder / "deadly.png")
    driver = started(folder, tmp_path / "out", "--ray", env=cluster_environment())
    with ended(driver):
        lines = records(driver)
        first = next(lines)
        processes = descendants(driver.pid)
        loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
        addresses = listening(processes | {driver.pid})
        assert addresses
        assert set(addresses) <= loopback
        commands = [Path(f"/proc/{each}/cmdline") for each in processes]
        agents = [
            words for path in commands if path.exists() and b"/dashboard.py" in (words := path.read_bytes())
        ]
        assert all(b"--disable-frontend" in words for words in agents), "without the page"
        *rest, last = lines
        assert driver.wait(timeout=PATIENCE_S) == 1
        wait_until(lambda: not any(map(alive, processes)))
    assert contents(tmp_path / "out") == expected
    failed = [record for record in (first, *rest) if not record["ok"]]
    assert [Path(str(record["source"])).name for record in failed] == ["deadly.png"]
    assert last["summary"]["done"] == len(expected)  # type: ignore[index]
    assert rest[0]["host"] == gethostname()
    assert "Ray" not in str(rest[0]["device"]), "the worker's own"


@pytest.mark.slow
@needs_ray
@unix
def test_ctrl_c_ends_all_processes_and_leaves_no_partial_file(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    driver = started(folder, out, "--ray", env=cluster_environment())
    with ended(driver):
        lines = records(driver)
        next(lines)
        processes = descendants(driver.pid)
        driver.send_signal(signal.SIGINT)
        *_, last = lines
        assert driver.wait(timeout=PATIENCE_S) == INTERRUPTED
        wait_until(lambda: not any(map(alive, processes)))
    summary = last["summary"]
    assert isinstance(summary, dict)
    assert summary["interrupted"]
    assert len(contents(out)) == summary["done"] < PICTURES
    assert [path.name for path in out.rglob(f"{TEMPORARY_PREFIX}*") if path.suffix != ".jsonl"] == []


def upscale(*words: str) -> Result:
    return CliRunner().invoke(main, ["upscale", *words])


@pytest.mark.parametrize("address", ["local", "auto", "head:6379", "10.0.0.1:6379", "[::1]:6379"])
def test_addresses(address: str) -> None:
    assert parse_address(address) == address


@pytest.mark.parametrize("words", [("--ray", "holiday"), ("--ray=ray://head:10001",), ("--ray=head:",)])
def test_what_is_no_address_is_wrong_usage(words: tuple[str, ...], tmp_path: Path) -> None:
    result = upscale(*words, str(tmp_path))
    assert result.exit_code == 2
    assert "HOST:PORT" in result.stderr


def test_streams_and_numbered_gpus_are_wrong_usage(tmp_path: Path) -> None:
    assert upscale("-", "--ray").exit_code == 2
    assert upscale(str(tmp_path), "--device", "1", "--ray").exit_code == 2


def test_without_ray_the_error_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else here(name))
    result = upscale(str(folder), "-o", str(folder.with_name("out")), "--ray")
    assert result.exit_code == 1
    assert "srup[ray]" in result.stderr
    assert not folder.with_name("out").exists()
