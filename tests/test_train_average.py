"""Averages of trained weights."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from sr.network.checkpoint import Weights, load_weights, save_weights
from sr.network.config import preset_config
from sr.network.history import training_runs
from sr.network.model import SRNet
from train.average import main
from train.config import TrainConfig
from train.initial import initial_model


def write(path: Path, seed: int, started_from: dict | None = None, **changes) -> Path:
    torch.manual_seed(seed)
    config = preset_config("tiny", scale=2, norm="none", attention="none", **changes)
    training = {"steps": 100 * seed, "data": "photographs"}
    if started_from:
        training["started_from"] = started_from
    save_weights(path, Weights(config, SRNet(config).state_dict(), training, halo=9, restores={"steps": 4}))
    return path


def average(*arguments: object) -> None:
    with patch.object(sys, "argv", ["train.average", *map(str, arguments)]):
        main()


@pytest.mark.parametrize(("share", "first"), [("", 0.5), (":3", 0.25), (":0.25", 0.8)])
def test_each_has_its_share(tmp_path: Path, share: str, first: float) -> None:
    one, two = write(tmp_path / "one.safetensors", 1), write(tmp_path / "two.safetensors", 2)
    made = tmp_path / "made.safetensors"
    average(one, f"{two}{share}", "-o", made)
    a, b, mixed = (load_weights(path) for path in (one, two, made))
    for name, value in mixed.state.items():
        expected = first * a.state[name] + (1 - first) * b.state[name]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)
    assert mixed.halo is None
    assert mixed.restores == {}
    assert mixed.training == {
        **a.training,
        "average_of": f"{a.sha256[:12]} ({first:g}), {b.sha256[:12]} ({1 - first:.2g})",
        "beside": [b.training],
    }
    mixed.build()


def test_each_run_is_listed_once(tmp_path: Path) -> None:
    """Runs that two weights share, and runs behind an average within an average."""
    shared = {"steps": 1000, "hours": 1.0}
    one = write(tmp_path / "one.safetensors", 1, started_from=shared)
    two = write(tmp_path / "two.safetensors", 2, started_from=shared)
    average(one, two, "-o", tmp_path / "first.safetensors")
    made = load_weights(tmp_path / "first.safetensors").training
    assert [run["steps"] for run in training_runs(made)] == [100, 200, 1000]
    three = write(tmp_path / "three.safetensors", 3, started_from=made)
    average(two, three, one, tmp_path / "first.safetensors", "-o", tmp_path / "second.safetensors")
    made = load_weights(tmp_path / "second.safetensors").training
    assert [run["steps"] for run in made["beside"]] == [300, 100]
    assert sorted(run["steps"] for run in training_runs(made)) == [100, 200, 300, 1000]


def test_a_run_from_weights_does_not_list_them_again(tmp_path: Path) -> None:
    """What a run notes of the weights it starts from does not make their run another one."""
    one = write(tmp_path / "one.safetensors", 1)
    weights = load_weights(one)
    config = TrainConfig(model=weights.config, train_list=tmp_path / "x2.json", init_weights=one)
    _, origin = initial_model(config, log=print)
    two = write(tmp_path / "two.safetensors", 2, started_from=origin)
    average(two, one, "-o", tmp_path / "made.safetensors")
    made = load_weights(tmp_path / "made.safetensors").training
    assert made["beside"] == []
    assert training_runs(made) == [{"steps": 200, "data": "photographs"}, weights.training]


def test_another_network_is_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "one.safetensors", 1)
    two = write(tmp_path / "two.safetensors", 2, fusion=False)
    with pytest.raises(SystemExit) as refused:
        average(one, two, "-o", tmp_path / "made.safetensors")
    assert refused.value.code == f"error: {two}: belongs to another network than {one}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.safetensors", "two.safetensors"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*none\.safetensors"):
        average(tmp_path / "none.safetensors", "-o", tmp_path / "made.safetensors")


@pytest.mark.parametrize("share", ["0", "-1", "inf", "nan", "half"])
def test_a_share_that_is_none_is_wrong_usage(tmp_path: Path, capsys, share: str) -> None:
    with pytest.raises(SystemExit) as refused:
        average(f"{write(tmp_path / 'one.safetensors', 1)}:{share}", "-o", tmp_path / "made.safetensors")
    assert refused.value.code == 2
    assert f"one.safetensors:{share}" in capsys.readouterr().err
    assert not (tmp_path / "made.safetensors").exists()
