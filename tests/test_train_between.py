"""Training a partner at the strengths of its pair."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.func import functional_call

from sr.errors import TrainingError
from sr.network.checkpoint import load_weights
from sr.network.model import SRNet
from tests.test_train_resume import assert_same_run, stopped_in
from tests.training import CPU, NETWORK, silent, small_config, trained, write_pairs
from train.between import Between, strength_of
from train.config import TrainConfig
from train.data.patches import Epoch
from train.learner import Learner
from train.loop import Trainer

pytestmark = pytest.mark.usefixtures("one_thread", "no_curves")

PLAIN = replace(NETWORK, norm="none", attention="none")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Return the config of a run that has trained the base of a pair."""
    folder = tmp_path_factory.mktemp("base")
    config = small_config(write_pairs(folder / "x2.json", scale=2), folder / "base", model=PLAIN)
    trained(config)
    return config


@pytest.fixture
def partner(base: TrainConfig, tmp_path: Path) -> TrainConfig:
    weights = base.file("last.safetensors")
    return replace(
        base,
        checkpoint_dir=tmp_path,
        init_weights=weights,
        pair_base=weights,
        val_lists=(base.train_list,),
        degrade=("restore",),
    )


def test_gradients_are_those_of_the_network_at_the_strength(base):
    torch.manual_seed(0)
    weights, model = base.file("last.safetensors"), SRNet(PLAIN)
    low, own = load_weights(weights).build().state_dict(), dict(model.named_parameters())
    image, strength = torch.rand(1, 3, 8, 9), 0.25
    between = {name: (1 - strength) * low[name] + strength * value for name, value in own.items()}
    expected = torch.autograd.grad(
        functional_call(model, between, (image,)).square().mean(), list(own.values())
    )
    before = {name: value.detach().clone() for name, value in own.items()}
    with Between(weights, CPU.device).at(model, strength):
        model(image).square().mean().backward()
    for (name, value), gradient in zip(own.items(), expected, strict=True):
        torch.testing.assert_close(value.grad, gradient, msg=name)
        assert torch.equal(value, before[name]), "it has its own weights again"


def test_half_of_the_steps_are_at_full_strength():
    counted = Counter(strength_of(step, seed=1) for step in range(4000))
    assert counted[1.0] == pytest.approx(2000, abs=150)
    for strength in (0.25, 0.5, 0.75):
        assert counted[strength] == pytest.approx(667, abs=100)
    assert [strength_of(step, seed=1) for step in range(20)] != [
        strength_of(step, seed=2) for step in range(20)
    ]


def test_patches_are_damaged_as_much_as_the_strength_of_their_step_restores(partner, monkeypatch):
    shares, steps = [], []
    milder, step = Epoch.milder, Learner.step

    def noted(plan, strength):
        shares.append(strength)
        return milder(plan, strength)

    def counted(learner, batch, number, **settings):
        steps.append(number)
        return step(learner, batch, number, **settings)

    monkeypatch.setattr(Epoch, "milder", noted)
    monkeypatch.setattr(Learner, "step", counted)
    trained(replace(partner, workers=0))
    assert shares == [strength_of(number, seed=partner.seed) for number in steps]
    assert len(set(shares)) > 1


@pytest.mark.parametrize("attention", ["none", "dynamic"])
def test_a_run_at_all_strengths_resumes_exactly(partner, attention):
    """Weights without gates stay without them, whatever the settings say."""
    partner = replace(partner, model=replace(PLAIN, attention=attention))
    whole, cut = (replace(partner, save_subdir=name) for name in ("whole", "cut"))
    stopped_in(5)(cut, False)
    expected = trained(whole)
    assert_same_run(trained(cut, resume=True), expected)
    plain = trained(replace(partner, save_subdir="plain", pair_base=None)).model.state_dict()
    assert any(not torch.equal(value, plain[name]) for name, value in expected.model.state_dict().items())


def test_weights_of_another_network_are_refused(partner, tmp_path):
    other = replace(partner, model=replace(PLAIN, num_blocks=PLAIN.num_blocks + 1), init_weights=None)
    with pytest.raises(TrainingError, match="base of a pair"):
        Trainer(other, group=CPU, log=silent)


def test_weight_norm_is_refused(partner):
    """Directions and lengths between those of two networks are not the kernels between."""
    with pytest.raises(TrainingError, match="--norm none"):
        Trainer(replace(partner, model=replace(PLAIN, norm="weight")), group=CPU, log=silent)
