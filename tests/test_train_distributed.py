"""Several processes, really: they train what one would, fail in one line, stop and go on.

The processes compute on the CPU with gloo, also where there is a GPU.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from sr.network.checkpoint import load_weights
from tests.training import (
    TINY_RUN,
    assert_close,
    command_line,
    cpu_environment,
    optimizer_states,
    train_command,
    write_pairs,
)
from train.state import load_state

pytestmark = pytest.mark.slow
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="the workers are looked up in /proc"
)
TWO = ("--processes", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with lists of pictures for training and validation, an odd number of each."""
    folder = tmp_path_factory.mktemp("distributed")
    write_pairs(folder / "pairs/train/x2.json", scale=2, pictures=3)
    write_pairs(folder / "pairs/val/a/x2.json", scale=2, pictures=3, side=16)
    return folder


def arguments(name: str, *more: str | Path) -> list[str]:
    """Return options of a run; 21 patches in batches of 6 are 3 full ones, and one of 3."""
    return [*TINY_RUN, "--batch-size", "6", "--save-subdir", name, *map(str, more)]


def run_dir(folder: Path, name: str) -> Path:
    return folder / "checkpoints" / name


def state_of(folder: Path, name: str) -> dict[str, Any]:
    return load_state(run_dir(folder, name) / "srup_x2_last.pt")


def records_of(folder: Path, name: str) -> list[dict[str, Any]]:
    text = (run_dir(folder, name) / "srup_x2_metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def succeeded(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def failed(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line in which a run says why it failed."""
    assert result.returncode == 1, (result.returncode, result.stdout, result.stderr)
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0].removeprefix("Error: ")


# --- the same network ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(folder: Path) -> str:
    """Train in one process; return the run's name."""
    succeeded(train_command(arguments("alone"), cwd=folder))
    return "alone"


def compare(folder: Path, name: str, alone: str) -> None:
    ours, theirs = state_of(folder, name), state_of(folder, alone)
    assert ours["progress"]["step"] == theirs["progress"]["step"] == 4
    gates = "blocks.0.attention.gate_mean"
    assert gates in ours["model"]
    assert not torch.allclose(ours["model"][gates], torch.full_like(ours["model"][gates], 0.5))
    assert_close(ours["model"], theirs["model"], atol=1e-5)
    states = (optimizer_states(run["optimizer"]) for run in (ours, theirs))
    for mine, other in zip(*states, strict=True):
        assert_close(tensors(mine), tensors(other), atol=1e-5)
    (record,), (expected,) = records_of(folder, name), records_of(folder, alone)
    assert record["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    assert record["quality"].keys() == expected["quality"].keys() == {"pairs/val/a/x2.json"}
    for path, quality in expected["quality"].items():
        assert quality["pictures"] == 3
        assert record["quality"][path] == pytest.approx(quality, abs=2e-3)


def tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def test_two_processes_train_what_one_does(folder: Path, alone: str) -> None:
    output = succeeded(train_command(arguments("two", *TWO), cwd=folder))
    assert "on 2 processes, CPU" in output
    assert output.count("epoch 1/1") == 1  # only one of them speaks
    compare(folder, "two", alone)
    names = sorted(path.name for path in run_dir(folder, "two").iterdir())
    assert names == sorted(path.name for path in run_dir(folder, alone).iterdir())
    board = run_dir(folder, "two") / "srup_x2_metrics_tensorboard"
    assert not board.exists() or len(list(board.iterdir())) == 1


def test_torchrun_does_the_same(folder: Path, alone: str) -> None:
    module = ("torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "train")
    output = succeeded(train_command(arguments("torchrun"), cwd=folder, module=module))
    assert "on 2 processes, CPU" in output
    assert output.count("epoch 1/1") == 1
    compare(folder, "torchrun", alone)


def test_process_without_a_patch_does_no_harm(folder: Path) -> None:
    # 21 patches in batches of 4: the last has one, and the second process none.
    more = ["--batch-size", "4", "--ema", "0.5"]
    succeeded(train_command(arguments("filler-1", *more), cwd=folder))
    succeeded(train_command(arguments("filler-2", *more, *TWO), cwd=folder))
    ours, theirs = state_of(folder, "filler-2"), state_of(folder, "filler-1")
    assert theirs["progress"]["step"] == 6
    assert_close(ours["model"], theirs["model"], atol=1e-5)
    assert_close(ours["averaged"], theirs["averaged"], atol=1e-5)


# --- failures -----------------------------------------------------------------------------------


def test_error_of_all_processes_is_one_line(folder: Path) -> None:
    absent = folder / "absent.json"
    message = failed(train_command(arguments("absent", "--train-list", absent, *TWO), cwd=folder))
    assert message == f"{absent}: cannot read the pair list (No such file or directory)"


def test_bad_pictures_are_named_once(folder: Path, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "x2.json", scale=2)
    Image.new("RGB", (5, 5)).save(tmp_path / "hr1-x2.png")
    message = failed(train_command(arguments("bad", "--train-list", path, *TWO), cwd=folder))
    assert message.startswith(f"{tmp_path / 'hr1-x2.png'}: is 5x5, need 24x24")


def test_loss_that_is_not_finite_stops_all(folder: Path) -> None:
    diverging = ["--norm", "none", "--optimizer", "SGD", "--max-grad-norm", "0", "--warmup-steps", "0"]
    stages = ["--stage", "l1:1:lr=1e-3", "--stage", "l2:2:lr=1e30"]
    message = failed(train_command(arguments("nan", *diverging, *stages, *TWO), cwd=folder))
    path = Path("checkpoints/nan/srup_x2_diverged.pt")
    assert re.search(r"the loss is (inf|nan) at step \d \(epoch 2, batch \d of 4, of hr\d-x2\.png", message)
    assert str(path) in message
    assert "--resume" not in message  # it would only diverge again
    assert state_of(folder, "nan")["progress"]["step"] == 4
    diverged = load_state(folder / path)["model"]
    assert torch.isfinite(diverged["base.weight"]).all()  # the step was not taken
    assert load_weights(run_dir(folder, "nan") / "srup_x2_last.safetensors").training["steps"] == 4


# --- death and signals --------------------------------------------------------------------------


class Running:
    """A training run in the background, of many epochs."""

    def __init__(self, folder: Path, name: str, *more: str, module: tuple[str, ...] = ("train",)) -> None:
        self.folder, self.name = folder, name
        self.log = folder / f"{name}.log"
        self._output = self.log.open("w", encoding="utf-8")
        self.process = subprocess.Popen(
            command_line(arguments(name, "--total-epochs", "3000", *more), module=module),
            cwd=folder,
            env=cpu_environment(),
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def wait_for_epochs(self, count: int) -> None:
        metrics = run_dir(self.folder, self.name) / "srup_x2_metrics.jsonl"
        deadline = time.monotonic() + 240
        while not metrics.exists() or metrics.read_text().count("\n") < count:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def workers(self) -> list[int]:
        """Return the processes that share the work: those with a process group of PyTorch's."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = [int(pid) for pid in children.read_text().split()]
        return [p for p in found if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]

    def ended(self) -> tuple[int, str]:
        status = self.process.wait(timeout=240)
        self._output.close()
        return status, self.log.read_text()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._output.close()


@pytest.fixture
def running() -> Iterator[list[Running]]:
    """Yield a list of runs, which end with the test at the latest."""
    runs: list[Running] = []
    yield runs
    for run in runs:
        for worker in run.workers() if run.process.poll() is None else []:
            os.kill(worker, signal.SIGKILL)
        run.stop()


def resumed_to_the_end(folder: Path, name: str, *more: str) -> None:
    """Resume a run for two epochs more, and check that its record has no gap."""
    done = state_of(folder, name)["progress"]["epoch"]
    total = str(done + 2)
    succeeded(train_command(["--save-subdir", name, "--resume", "--total-epochs", total, *more], cwd=folder))
    assert [r["epoch"] for r in records_of(folder, name)] == list(range(1, done + 3))
    assert state_of(folder, name)["progress"]["step"] == 4 * (done + 2)


@needs_proc
@pytest.mark.parametrize("victim", [0, 1])
def test_death_of_a_process_is_reported_and_the_run_goes_on(
    folder: Path, running: list[Running], victim: int
) -> None:
    name = f"killed-{victim}"
    running.append(run := Running(folder, name, *TWO))
    run.wait_for_epochs(2)
    workers = run.workers()
    assert len(workers) == 2
    os.kill(workers[victim], signal.SIGKILL)
    status, log = run.ended()
    assert status == 1
    error = log.splitlines()[-1]
    assert error.startswith(f"Error: process {victim} of 2 was killed (SIGKILL)")
    assert f"checkpoints/{name}/srup_x2_last.pt" in error
    assert "--resume" in error
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    resumed_to_the_end(folder, name, *TWO)


@needs_proc
@pytest.mark.parametrize("whom", ["launcher", "worker"])
def test_sigterm_saves_in_the_middle_of_an_epoch(folder: Path, running: list[Running], whom: str) -> None:
    name = f"stopped-{whom}"
    running.append(run := Running(folder, name, *TWO))
    run.wait_for_epochs(2)
    workers = run.workers()
    os.kill(run.process.pid if whom == "launcher" else workers[1], signal.SIGTERM)
    status, log = run.ended()
    assert status == 128 + signal.SIGTERM, log
    assert "Traceback" not in log
    stopped = re.search(rf"stopped after step (\d+) .*saved checkpoints/{name}/srup_x2_last.pt", log)
    assert stopped
    assert state_of(folder, name)["progress"]["step"] == int(stopped[1])
    resumed_to_the_end(folder, name)  # one process takes over from two


def test_sigterm_to_torchrun_saves_too(folder: Path, running: list[Running]) -> None:
    module = ("torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "train")
    running.append(run := Running(folder, "torchrun-stopped", module=module))
    run.wait_for_epochs(1)
    run.process.send_signal(signal.SIGTERM)
    status, log = run.ended()
    assert status != 0
    assert "saved checkpoints/torchrun-stopped/srup_x2_last.pt" in log
    resumed_to_the_end(folder, "torchrun-stopped", *TWO)


def test_sigterm_to_a_single_process(folder: Path, running: list[Running]) -> None:
    running.append(run := Running(folder, "single"))
    run.wait_for_epochs(2)
    run.process.send_signal(signal.SIGTERM)
    status, log = run.ended()
    assert status == 128 + signal.SIGTERM, log
    assert "Traceback" not in log
    assert "--resume" in log.splitlines()[-1]
    resumed_to_the_end(folder, "single")


@needs_proc
def test_no_thread_of_the_group_outlives_it(tmp_path: Path) -> None:
    """One that lives on while Python ends aborts the process now and then."""
    (tmp_path / "joins.py").write_text(
        "from pathlib import Path\n"
        "import torch\n"
        "from train.distributed import joined\n"
        "def step(group):\n"
        "    model = group.wrap(torch.nn.Linear(3, 3))\n"
        "    model(torch.ones(2, 3)).sum().backward()\n"
        "with joined() as group:\n"
        "    step(group)\n"
        "    assert any('gloo' in path.read_text() for path in Path('/proc/self/task').glob('*/comm'))\n"
        "threads = [path.read_text() for path in Path('/proc/self/task').glob('*/comm')]\n"
        "assert not any('gloo' in name for name in threads), threads\n"
        "print('alone')\n"
    )
    module = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    result = subprocess.run(
        [*module, "joins.py"],
        cwd=tmp_path,
        env=cpu_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert succeeded(result).count("alone") == 2


def test_two_processes_on_one_gpu_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sr.errors import TrainingError
    from train.run import run_training

    monkeypatch.chdir(folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TrainingError, match=r"2 processes.* 1 "):
        run_training({"save_subdir": "gpu"}, processes=2)
