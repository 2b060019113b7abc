"""Folding: the deployed form computes what the trained form computes, and holds nothing else."""

import copy
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from deploy.fold import fold
from sr.network.config import ModelConfig
from sr.network.model import ChannelAttention, LocalGate, ResidualBlock, SRNet, Upsampler, frozen_attention

SHAPES: dict[str, dict[str, Any]] = {
    "3x3": {"asymmetric": False},
    "1x5-lo": {"asym_width": "lo"},
    "1x5-geometric": {"asym_width": "geometric"},
    "1x5-fusion": {"fusion": True},
}
COMBINATIONS = [
    pytest.param(
        ModelConfig(
            scale=scale,
            img_channels=img_channels,
            colour="Y" if img_channels == 1 else "RGB",
            num_feats=8,
            num_blocks=2,
            residual_scale=residual_scale,
            attention=attention,
            norm=norm,
            **SHAPES[shape],
        ),
        id=f"{attention}-{norm}-{shape}-rs{residual_scale}-x{scale}-c{img_channels}",
    )
    for attention, norm, shape, residual_scale, (scale, img_channels) in itertools.product(
        ("dynamic", "frozen", "local", "none"),
        ("weight", "batch", "none"),
        SHAPES,
        (0.25, 1.0),
        ((2, 3), (3, 1)),
    )
]

# Every two values of two settings occur together, because 5 shares no factor with any number of values.
SOME = COMBINATIONS[::5]


def trained_network(config: ModelConfig, dtype: torch.dtype) -> SRNet:
    """Return a network whose every parameter and statistic is away from its initial value."""
    torch.manual_seed(1)
    model = SRNet(config).to(dtype)
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith("num_batches_tracked"):
                continue
            if name.endswith(("running_var", "gate_mean")):
                value.uniform_(0.1, 0.9)
            elif name.endswith(("running_mean", "bias", "gate.conv.weight")):  # gates start at zero
                value.normal_(0, 0.3)
            elif value.dim() == 1:  # batch norm's weight, of both signs
                value.normal_(0, 1)
            else:
                value.mul_(1 + 0.5 * torch.randn_like(value))
    return model.eval()


def picture(config: ModelConfig, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(2, config.img_channels, 9, 8, generator=generator, dtype=torch.float64).to(dtype)


@torch.no_grad()
def difference(model: SRNet, folded: SRNet, dtype: torch.dtype) -> tuple[float, float]:
    """Return the largest absolute difference of the two outputs, and the range of the first."""
    lr = picture(model.config, dtype)
    before, after = model(lr), folded(lr)
    assert after.dtype == dtype
    return (after - before).abs().max().item(), (before.max() - before.min()).item()


@pytest.mark.parametrize("config", COMBINATIONS)
def test_folding_is_exact(config: ModelConfig) -> None:
    model = trained_network(config, torch.float64)
    error, spread = difference(model, fold(model), torch.float64)
    assert spread > 0.1
    # Local gates multiply the branch by itself, so that values grow far beyond 1.
    assert error < 1e-9 * (max(1.0, spread) if config.attention == "local" else 1.0)


@pytest.mark.parametrize("norm", ["weight", "batch", "none"])
def test_any_residual_scale_folds_around_local_gates(norm: Any) -> None:
    config = ModelConfig(num_feats=8, num_blocks=2, residual_scale=0.3, norm=norm, attention="local")
    model = trained_network(config, torch.float64)
    error, spread = difference(model, fold(model), torch.float64)
    assert spread > 0.1
    assert error < 1e-9 * max(1.0, spread)


@pytest.mark.parametrize("norm", ["weight", "batch", "none"])
def test_any_residual_scale_folds_around_dynamic_gates(norm: Any) -> None:
    config = ModelConfig(num_feats=8, num_blocks=2, residual_scale=0.3, norm=norm)
    model = trained_network(config, torch.float64)
    error, spread = difference(model, fold(model), torch.float64)
    # The gates pool in float32, where a branch scaled by no power of two rounds differently.
    assert error < 1e-6 * spread


@pytest.mark.parametrize("config", SOME)
def test_folding_costs_float32_at_most_rounding(config: ModelConfig) -> None:
    model = trained_network(config, torch.float32)
    error, spread = difference(model, fold(model), torch.float32)
    assert error < 1e-4 * spread


@pytest.mark.parametrize("config", SOME)
def test_folded_network_is_plain(config: ModelConfig) -> None:
    folded = fold(trained_network(config, torch.float32).train())
    kinds = {SRNet, ResidualBlock, Upsampler, nn.Sequential, nn.Conv2d, nn.PixelShuffle, nn.Identity}
    if config.attention == "dynamic":
        kinds.add(ChannelAttention)
    if config.attention == "local":
        kinds.add(LocalGate)
    assert {type(module) for module in folded.modules()} == kinds - (
        {nn.Identity} if config.attention == "dynamic" else set()
    )
    assert not any(is_parametrized(module) for module in folded.modules())
    assert not any(module.training for module in folded.modules())
    assert folded.config.residual_scale == 1.0
    assert all(block.residual_scale == 1.0 for block in folded.blocks)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["weight", "batch", "none"])
@pytest.mark.parametrize("attention", ["dynamic", "frozen", "local", "none"])
def test_folding_leaves_the_trained_network_alone(attention: Any, norm: Any, training: bool) -> None:
    config = ModelConfig(num_feats=8, num_blocks=2, attention=attention, norm=norm)
    model = trained_network(config, torch.float32).train(training)
    before, trainable = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    folded = fold(model)
    with torch.no_grad():
        for parameter in folded.parameters():
            parameter.add_(1)  # shares no memory with the original
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [p.requires_grad for p in model.parameters()] == trainable
    assert model.config == config
    assert model.training == training


def test_freezing_then_folding_leaves_no_attention() -> None:
    model = trained_network(ModelConfig(num_feats=8, num_blocks=2), torch.float64)
    frozen = frozen_attention(model)
    folded = fold(frozen)
    assert not any(isinstance(module, ChannelAttention) for module in folded.modules())
    error, _ = difference(frozen, folded, torch.float64)
    assert error < 1e-9
    assert folded.config == replace(model.config, attention="none", norm="none", residual_scale=1.0)


@pytest.mark.parametrize("attention", ["dynamic", "frozen"])
def test_folding_twice_changes_nothing(attention: Any) -> None:
    config = ModelConfig(num_feats=8, num_blocks=2, attention=attention, norm="batch")
    once = fold(trained_network(config, torch.float32))
    twice = fold(once)
    assert twice.config == once.config
    for name, value in twice.state_dict().items():
        assert torch.equal(value, once.state_dict()[name]), name
