"""Resuming: an interrupted run continues as if it had not stopped; foreign checkpoints are refused."""

import json
import pickle
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sr.errors import ModelError, SrupError, TrainingError
from sr.network.checkpoint import load_weights
from tests.training import (
    CPU,
    NETWORK,
    assert_same,
    metrics,
    optimizer_states,
    silent,
    small_config,
    trained,
    without_times,
    write_pairs,
)
from train.config import TrainConfig
from train.loop import Stopped, Trainer
from train.run import run_training
from train.state import load_config, load_state

pytestmark = pytest.mark.usefixtures("one_thread", "no_curves")

STAGES = ("l1:1", "l2:2:frozen:lr=1e-3")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "x2.json", scale=2)


@pytest.fixture
def config(pairs: Path, tmp_path: Path) -> TrainConfig:
    """Return a run of 3 epochs of 4 steps, the last of which is short."""
    return small_config(pairs, tmp_path / "run", batch_size=5, val_lists=(pairs,), keep=2, save_every=1)


class Interrupted(Exception):
    """Stands for a power cut."""


class Signalled(Trainer):
    """Sends this process a signal in the middle of a step."""

    step_to_stop_in = -1

    def _train_step(self, *arguments: Any) -> Tensor:
        if self.at.step == self.step_to_stop_in:
            signal.raise_signal(signal.SIGTERM)
        return super()._train_step(*arguments)


@contextmanager
def only_for_the_run(number: signal.Signals) -> Iterator[None]:
    """Fail where a signal that is meant for the run is not taken by it: its default ends this process."""

    def not_taken(*_: object) -> None:
        raise AssertionError(f"the run does not handle {number.name}")

    before = signal.signal(number, not_taken)
    try:
        yield
        assert signal.getsignal(number) is not_taken, "the run puts back the handler that it found"
    finally:
        signal.signal(number, before)


def cut_off_after(epoch: int) -> Callable[[TrainConfig, bool], None]:
    """Train, and be cut off when `epoch` is through but not saved."""

    def run(config: TrainConfig, resume: bool) -> None:
        def log(line: str) -> None:
            if line.startswith(f"epoch {epoch}/"):
                raise Interrupted

        with pytest.raises(Interrupted):
            Trainer(config, group=CPU, log=log, resume=resume).run()

    return run


def stopped_in(step: int) -> Callable[[TrainConfig, bool], None]:
    """Train, and be asked to stop in `step`."""

    def run(config: TrainConfig, resume: bool) -> None:
        trainer = Signalled(config, group=CPU, log=silent, resume=resume)
        trainer.step_to_stop_in = step
        with only_for_the_run(signal.SIGTERM), pytest.raises(Stopped, match=rf"step {step + 1} ") as caught:
            trainer.run()
        assert caught.value.signal_number == signal.SIGTERM
        progress = load_state(config.file("last.pt"))["progress"]
        assert progress["step"] == step + 1

    return run


def assert_same_run(first: Trainer, second: Trainer) -> None:
    """Compare two runs that have ended, in memory and on disk, bit for bit."""
    assert_same(first.model.state_dict(), second.model.state_dict())
    assert_same(first.shipped_model.state_dict(), second.shipped_model.state_dict())
    ours, theirs = (optimizer_states(t.optimizer.state_dict()) for t in (first, second))
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert_same(one, other)
    assert first.at.best == second.at.best
    for record, expected in zip(metrics(first.config), metrics(second.config), strict=True):
        assert without_times(record) == without_times(expected)
    for what in ("last.safetensors", "best.safetensors"):
        one, other = (load_weights(trainer.config.file(what)) for trainer in (first, second))
        assert_same(one.state, other.state)
        assert one.config == other.config
        assert one.training | {"hours": 0} == other.training | {"hours": 0}


# --- exactly ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": replace(NETWORK, norm="batch"), "optimizer": "SGD", "workers": 0},
        {"ema": 0.8, "amp": "bf16", "lr_schedule": "step", "lr_halve_step": 1},
        {"stages": STAGES},
        {"stages": STAGES, "ema": 0.8, "optimizer": "AdamW", "model": replace(NETWORK, norm="batch")},
        {"optimizer": "Muon", "model": replace(NETWORK, norm="none")},
        {"stages": ("l1:1:batch=3", "l1:1:batch=7:patch=6", "l2:1:batch=5:patch=11:lr=1e-3"), "ema": 0.8},
        {"degrade": ("restore", "clean=0.1"), "workers": 2},
    ],
    ids=["weight norm", "batch norm", "average", "frozen", "frozen average", "Muon", "grown", "degraded"],
)
@pytest.mark.parametrize(
    "cuts",
    [
        [cut_off_after(2)],
        [stopped_in(5)],
        [stopped_in(3), cut_off_after(2), stopped_in(7), stopped_in(8)],
    ],
    ids=["cut off", "SIGTERM", "again and again"],
)
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
    config: TrainConfig, changes: dict[str, Any], cuts: list[Callable[[TrainConfig, bool], None]]
) -> None:
    config = replace(config, **changes)
    whole = trained(replace(config, save_subdir="whole"))
    cut = replace(config, save_subdir="cut")
    for index, interrupt in enumerate(cuts):
        interrupt(cut, index > 0)
    assert_same_run(trained(cut, resume=True), whole)


def test_stopping_at_the_end_of_an_epoch_repeats_and_loses_nothing(config: TrainConfig) -> None:
    whole = trained(replace(config, save_subdir="whole"))
    cut = replace(config, save_subdir="cut")
    stopped_in(3)(cut, False)  # the last of four steps
    progress = load_state(cut.file("last.pt"))["progress"]
    assert (progress["epoch"], progress["done_in_epoch"]) == (0, 4)
    assert_same_run(trained(cut, resume=True), whole)


def test_a_run_that_is_cut_off_before_its_first_epoch_leaves_nothing_to_resume(config: TrainConfig) -> None:
    cut_off_after(1)(config, False)
    refused(config)
    trained(config)  # and is not in the way of a new one
    assert [record["epoch"] for record in metrics(config)] == [1, 2, 3]


def test_random_generators_go_on(config: TrainConfig) -> None:
    stopped_in(5)(config, False)
    stored = load_state(config.file("last.pt"))["rng"]["torch"]
    torch.manual_seed(99)
    Trainer(config, group=CPU, log=silent, resume=True)
    assert torch.equal(torch.get_rng_state(), stored)


def test_finished_run_has_nothing_left_to_do(config: TrainConfig) -> None:
    before = trained(config)
    again = trained(config, resume=True)
    assert again.at.step == again.schedule.total_steps == 12
    assert_same(before.model.state_dict(), again.model.state_dict())
    assert len(metrics(config)) == 3


def test_resuming_a_finished_run_says_so(config: TrainConfig) -> None:
    trained(config)
    lines: list[str] = []
    Trainer(config, group=CPU, log=lines.append, resume=True).run()
    (line,) = lines
    assert str(config.file("last.pt")) in line
    assert "--total-epochs" in line


def test_a_second_interrupt_stops_at_once(config: TrainConfig) -> None:
    class Impatient(Trainer):
        def _train_step(self, *arguments: Any) -> Tensor:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            return super()._train_step(*arguments)

    with only_for_the_run(signal.SIGINT), pytest.raises(KeyboardInterrupt):
        Impatient(config, group=CPU, log=silent).run()
    assert not config.file("last.pt").exists()


# --- settings -----------------------------------------------------------------------------------


def flat(config: TrainConfig, **changes: Any) -> dict[str, Any]:
    """Return the settings of a run as options would give them."""
    names = ("checkpoint_dir", "train_list", "val_lists", "total_epochs", "patches_per_picture", "batch_size",
             "patch_size", "learning_rate", "warmup_steps", "seed", "keep", "save_every")  # fmt: skip
    settings = {name: getattr(config, name) for name in names}
    return settings | {"num_feats": 8, "num_blocks": 1, "preset": "tiny"} | changes


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.usefixtures("on_cpu")
def test_settings_of_a_resumed_run_are_those_of_its_checkpoint(config: TrainConfig) -> None:
    settings = flat(config, stages=STAGES, ema=0.8, colour="YCbCr", save_subdir="whole")
    assert run_training(settings, log=silent) == 0
    place = {"checkpoint_dir": config.checkpoint_dir, "save_subdir": "cut"}
    stopped_in(5)(replace(load_config(config.checkpoint_dir / "whole/srup_x2_last.pt"), **place), False)
    assert run_training(place, resume=True, log=silent) == 0
    for what in ("last", "best"):
        whole, cut = (
            load_weights(config.checkpoint_dir / folder / f"srup_x2_{what}.safetensors")
            for folder in ("whole", "cut")
        )
        assert_same(whole.state, cut.state)
        assert whole.config == cut.config


@pytest.mark.usefixtures("on_cpu")
def test_repeating_the_whole_command_resumes_too(config: TrainConfig) -> None:
    settings = flat(config, lr_halve_step=2)
    assert run_training(settings, log=silent) == 0
    assert run_training(settings | {"total_epochs": 4, "val_every": 4}, resume=True, log=silent) == 0
    records = metrics(config)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    assert load_config(config.file("last.pt")).lr_schedule == "step"


@pytest.mark.usefixtures("on_cpu")
def test_run_can_be_moved_and_made_longer(config: TrainConfig) -> None:
    assert run_training(flat(config, save_subdir="a", save_prefix="first"), log=silent) == 0
    moved = config.checkpoint_dir / "b"
    (config.checkpoint_dir / "a").rename(moved)
    for path in list(moved.iterdir()):
        path.rename(path.with_name(path.name.replace("first_", "srup_", 1)))
    assert run_training({"checkpoint_dir": moved, "total_epochs": 5}, resume=True, log=silent) == 0
    records = (moved / "srup_x2_metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in records] == [1, 2, 3, 4, 5]
    assert not (config.checkpoint_dir / "a").exists()


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 1e-3}, ["learning_rate was 0.005, is 0.001"]),
        ({"batch_size": 8}, ["batch_size was 5, is 8"]),
        ({"seed": 7}, ["seed was 1, is 7"]),
        ({"loss": "l2"}, ["loss was l1, is l2"]),
        ({"num_blocks": 2}, ["model.num_blocks was 1, is 2"]),
        (
            {"preset": "base"},
            [
                *("model.num_feats was 8, is 64", "model.num_blocks was 1, is 16"),
                *("model.asym_width was geometric, is lo", "model.fusion was False, is True"),
            ],
        ),
        ({"colour": "Y"}, ["model.colour was RGB, is Y", "model.img_channels was 3, is 1"]),
        ({"norm": "batch", "ema": 0.5}, ["model.norm was weight, is batch", "ema was 0.0, is 0.5"]),
        ({"amp": "bf16", "patch_size": 6}, ["amp was off, is bf16", "patch_size was 8, is 6"]),
    ],
    ids=str,
)
def test_other_settings_are_refused_and_named(
    config: TrainConfig, changes: dict[str, Any], named: list[str]
) -> None:
    Trainer(config, group=CPU, log=silent).save()
    place = {"checkpoint_dir": config.checkpoint_dir}
    with pytest.raises(TrainingError) as caught:
        run_training(place | changes, resume=True, log=silent)
    message = str(caught.value)
    assert message.startswith(f"{config.file('last.pt')}: made with other settings: ")
    assert "\n" not in message
    for part in named:
        assert part in message
    assert len(message.split("; ")) == len(named) + ("preset" in changes)


@pytest.mark.usefixtures("on_cpu")
def test_resuming_and_loading_exclude_each_other(config: TrainConfig) -> None:
    Trainer(config, group=CPU, log=silent).save()
    with pytest.raises(TrainingError, match="--load-"):
        run_training({"checkpoint_dir": config.checkpoint_dir, "load_epoch": 1}, resume=True, log=silent)


def test_another_number_of_pictures_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    stopped_in(5)(config, False)
    more = write_pairs(tmp_path / "more/x2.json", scale=2, pictures=3)
    with pytest.raises(TrainingError, match="number of pictures"):
        trained(replace(config, train_list=more), resume=True)


def test_stages_before_and_within_the_epoch_keep_their_sizes(config: TrainConfig) -> None:
    config = replace(config, stages=("l1:1:batch=4", "l1:2:batch=8"))  # epochs of 4, 2, 2 steps
    stopped_in(4)(config, False)
    past = replace(config, stages=("l1:1:batch=8", "l1:2:batch=8"))
    with pytest.raises(TrainingError, match=r"last\.pt: .*batch sizes"):
        trained(past, resume=True)
    for changed in ("l1:2:batch=16", "l1:2:batch=8:patch=6"):
        with pytest.raises(TrainingError, match=r"last\.pt: .*epoch 2"):
            trained(replace(config, stages=("l1:1:batch=4", changed)), resume=True)
    later = replace(config, stages=("l1:1:batch=4", "l1:1:batch=8", "l2:1:batch=16:patch=6"))
    assert trained(later, resume=True).at.step == 4 + 2 + 1


def test_what_a_run_started_from_is_not_needed_to_go_on(config: TrainConfig, tmp_path: Path) -> None:
    first = replace(config, checkpoint_dir=tmp_path / "first", total_epochs=1)
    trained(first)
    config = replace(config, init_weights=first.file("last.safetensors"))
    whole = trained(replace(config, save_subdir="whole"))
    cut = replace(config, save_subdir="cut")
    stopped_in(5)(cut, False)
    shutil.rmtree(first.checkpoint_dir)
    again = trained(cut, resume=True)
    assert_same_run(again, whole)
    assert again.weights().training["started_from"]["steps"] == 4


@pytest.mark.usefixtures("on_cpu")
def test_a_run_that_is_there_is_not_overwritten(config: TrainConfig) -> None:
    trained(config)
    before = {path: path.read_bytes() for path in config.run_dir.glob("srup_*.*")}
    with pytest.raises(TrainingError, match="--resume"):
        run_training(flat(config), log=silent)
    assert {path: path.read_bytes() for path in config.run_dir.glob("srup_*.*")} == before
    assert run_training(flat(config, save_prefix="other", total_epochs=1), log=silent) == 0


# --- what is kept -------------------------------------------------------------------------------


def kept(config: TrainConfig) -> list[str]:
    names = [path.name for path in config.run_dir.iterdir()]
    return sorted(found[1] for name in names if (found := re.fullmatch(r"srup_x2_(e\d+)\.pt", name)))


def test_newest_checkpoints_are_kept(config: TrainConfig) -> None:
    trained(replace(config, total_epochs=5, save_every=2, keep=2))
    assert kept(config) == ["e0004", "e0005"]  # e0002 had to go; the last epoch is always kept
    for name, step in (("e0004", 16), ("e0005", 20), ("last", 20)):
        state = load_state(config.file(f"{name}.pt"))
        assert state["progress"]["step"] == step
        assert load_weights(config.file(f"{name}.pt")).training["steps"] == step


def test_checkpoints_of_others_are_left_alone(config: TrainConfig) -> None:
    config.run_dir.mkdir(parents=True)
    others = ["srup_x3_e0001.pt", "srup_x2_e0001.safetensors", "mysrup_x2_e0001.pt", "srup_x2_e0900.pt"]
    for name in others:
        (config.run_dir / name).write_text("not ours")
    trained(replace(config, keep=1))
    assert kept(config) == ["e0003", "e0900"]
    assert all((config.run_dir / name).read_text() == "not ours" for name in others)


def test_best_weights_are_those_of_the_best_epoch(config: TrainConfig, pairs: Path) -> None:
    states: dict[int, dict[str, Tensor]] = {}

    def log(line: str) -> None:
        if line.startswith("epoch "):
            states[trainer.at.epoch] = {n: v.clone() for n, v in trainer.model.state_dict().items()}

    # The second stage is harmful: its rate makes the weights worse, not infinite.
    config = replace(config, stages=("l1:3", "l2:2:lr=8"), optimizer="SGD", learning_rate=0.05)
    trainer = Trainer(config, group=CPU, log=log)
    trainer.run()
    qualities = [record["quality"][pairs.as_posix()]["psnr_y"] for record in metrics(config)]
    best = qualities.index(max(qualities)) + 1
    assert best < 5
    assert_same(load_weights(config.file("best.safetensors")).state, states[best])
    assert_same(load_weights(config.file("last.safetensors")).state, states[5])
    assert trainer.at.best == max(qualities)


# --- damaged and foreign files ------------------------------------------------------------------


def refused(config: TrainConfig) -> str:
    """Return the message with which resuming is refused: one line that names the file first."""
    with pytest.raises(TrainingError) as caught:
        Trainer(config, group=CPU, log=silent, resume=True)
    return checked(caught.value, config)


def refused_weights(config: TrainConfig) -> str:
    """Return the message with which the weights in the checkpoint are refused."""
    with pytest.raises(ModelError) as caught:
        load_weights(config.file("last.pt"))
    return checked(caught.value, config)


def checked(error: SrupError, config: TrainConfig) -> str:
    message = str(error)
    assert "\n" not in message
    assert message.startswith(f"{config.file('last.pt')}: ")
    return message


def test_missing_checkpoint(config: TrainConfig) -> None:
    refused(config)
    refused_weights(config)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated_checkpoint(config: TrainConfig, share: float) -> None:
    Trainer(config, group=CPU, log=silent).save()
    path = config.file("last.pt")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "--load-epoch" in refused(config)
    refused_weights(config)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"text\n", bytes(100), b"\x80\x02}q\x00."])
def test_foreign_bytes(config: TrainConfig, content: bytes) -> None:
    config.run_dir.mkdir()
    config.file("last.pt").write_bytes(content)
    refused(config)
    refused_weights(config)


@pytest.mark.parametrize(
    "content",
    [{"state_dict": {}}, [1, 2], torch.zeros(3), {"format": "srup-training-0"}, {"format": ["x"]}],
    ids=["state dict", "list", "tensor", "old format", "odd format"],
)
def test_checkpoint_of_another_program(config: TrainConfig, content: Any) -> None:
    config.run_dir.mkdir()
    torch.save(content, config.file("last.pt"))
    assert "srup" in refused(config)
    assert "srup" in refused_weights(config)


ENTRIES = ["config", "weights", "model", "attention", "optimizer", "scaler", "progress", "rng", "averaged"]


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("value", [None, "text", {"x": 1}], ids=str)
@pytest.mark.parametrize("entry", ENTRIES)
def test_checkpoint_with_a_foreign_entry(config: TrainConfig, entry: str, value: Any) -> None:
    """A file that calls itself ours is refused in one line, or the entry does not matter there."""
    config = replace(config, ema=0.5, amp="fp16")
    Trainer(config, group=CPU, log=silent).save()
    path = config.file("last.pt")
    torch.save(torch.load(path, weights_only=True) | {entry: value}, path)
    if entry == "weights":
        refused_weights(config)
    else:
        refused(config)
        with pytest.raises(SrupError) as caught:
            run_training({"checkpoint_dir": config.checkpoint_dir}, resume=True, log=silent)
        assert "\n" not in str(caught.value)


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("how", ["pickle", "torch", "torch legacy", "inside a checkpoint"])
def test_pickled_code_is_not_executed(config: TrainConfig, tmp_path: Path, how: str) -> None:
    witness, path = tmp_path / "executed", config.file("last.pt")
    config.run_dir.mkdir()
    bomb: Any = Malicious(witness)
    if how == "pickle":
        path.write_bytes(pickle.dumps(bomb, protocol=2))  # the one that torch takes without a warning
    elif how == "inside a checkpoint":
        Trainer(config, group=CPU, log=silent).save()
        torch.save(torch.load(path, weights_only=True) | {"model": bomb}, path)
    else:
        torch.save(bomb, path, _use_new_zipfile_serialization=how == "torch")
    refused(config)
    refused_weights(config)
    assert not witness.exists()

    with path.open("rb") as file:  # the same file is a bomb where it is trusted
        if how == "pickle":
            pickle.load(file)
        else:
            torch.load(file, weights_only=False)
    assert witness.exists()
