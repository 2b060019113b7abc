"""Hidden units that never fire: they are found, reported, and start anew."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sr.network.model import SRNet
from tests.training import CPU, NETWORK, silent, small_config, write_pairs
from train.config import TrainConfig
from train.loop import Trainer
from train.monitor import Metrics
from train.silent import renew, share_of, silent_units

pytestmark = pytest.mark.usefixtures("one_thread", "no_curves")

PLAIN = replace(NETWORK, num_blocks=3, attention="none", norm="none")
DEAD = -1e3  # a bias that no picture lifts above zero


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    pairs = write_pairs(tmp_path / "x2.json", scale=2)
    return small_config(pairs, tmp_path / "run", model=PLAIN, val_lists=(pairs,))


def epoch_of(config: TrainConfig) -> Any:
    return Trainer(config, group=CPU, log=silent)._epoch_plan(0)


def silence(model: SRNet, *, block: int, units: slice) -> SRNet:
    with torch.no_grad():
        model.blocks[block].expand[-1].bias[units] = DEAD
    return model


def all_firing(model: SRNet) -> SRNet:
    with torch.no_grad():
        for block in model.blocks:
            block.expand[-1].bias.fill_(1.0)
    return model


def test_units_that_never_fire_are_found(config: TrainConfig) -> None:
    model = all_firing(SRNet(PLAIN))
    epoch = epoch_of(config)
    assert share_of(silent_units(model, epoch)) == 0
    found = silent_units(silence(model, block=1, units=slice(3, 6)), epoch)
    assert [int(each.sum()) for each in found] == [0, 3, 0]
    assert found[1][3:6].all()
    assert share_of(found) == pytest.approx(3 / (3 * PLAIN.hi))
    assert model.training, "as it was"


@pytest.mark.parametrize("units", [slice(2, 5), slice(None)], ids=["some", "whole block"])
@pytest.mark.parametrize(
    "model", [{}, {"norm": "weight"}, {"asymmetric": False}, {"attention": "dynamic"}, {"attention": "local"}]
)
def test_renewed_units_change_nothing_and_learn(
    config: TrainConfig, model: dict[str, Any], units: slice
) -> None:
    torch.manual_seed(0)
    net = silence(all_firing(SRNet(replace(PLAIN, **model))), block=1, units=units)
    epoch = epoch_of(config)
    mask = silent_units(net, epoch)
    assert mask[1][units].all()
    lr = torch.from_numpy(epoch.batch(0, rank=0, world=1).lr.copy()).permute(0, 3, 1, 2) / 255
    expected = net.eval()(lr)
    renew(net, mask)
    torch.testing.assert_close(net.eval()(lr), expected, atol=1e-5, rtol=0)

    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    before = net.blocks[1].expand[-1].bias.clone()
    for _ in range(2):  # the zeros behind a unit move first, then what lies before it
        optimizer.zero_grad()
        net.train()(lr).square().mean().backward()
        optimizer.step()
    moved = net.blocks[1].expand[-1].bias != before
    assert moved[units].any()
    assert share_of(silent_units(net, epoch)) < share_of(mask)


def test_a_run_from_weights_starts_silent_units_anew(config: TrainConfig) -> None:
    said: list[str] = []
    first = Trainer(config, group=CPU, log=silent)
    silence(all_firing(first.model), block=0, units=slice(None))
    first.save()
    weights = config.file("last.safetensors")
    again = Trainer(replace(config, init_weights=weights, save_subdir="again"), group=CPU, log=said.append)
    assert any("33.3%" in line for line in said)
    assert not (again.model.blocks[0].expand[-1].bias <= DEAD).any()
    resumed = Trainer(config, group=CPU, log=silent, resume=True)
    assert (resumed.model.blocks[0].expand[-1].bias <= DEAD).all(), "resuming changes nothing"


def test_a_run_reports_silent_units(config: TrainConfig) -> None:
    said: list[str] = []
    trainer = Trainer(replace(config, total_epochs=1), group=CPU, log=said.append)
    silence(all_firing(trainer.model), block=2, units=slice(0, 8))
    trainer.run()
    (record,) = Metrics(config.file("metrics.jsonl")).read()
    assert record["silent_units"] == pytest.approx(8 / (3 * PLAIN.hi))
    assert any("never fire" in line and "--init-weights" in line for line in said)
