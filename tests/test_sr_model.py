"""The network: shapes, switches, receptive field, gates, counted cost."""

import copy
import math
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deploy.fold import fold
from sr.errors import ModelError
from sr.network.config import BICUBIC_RADIUS, COLOUR_CHANNELS, PRESETS, ModelConfig, preset_config
from sr.network.model import (
    GATE_MOMENTUM,
    ChannelAttention,
    LocalGate,
    ResidualBlock,
    SRNet,
    frozen_attention,
    model_cost,
    trunk_state,
    with_norm,
)

TINY = ModelConfig(num_feats=8, num_blocks=2)

SWITCHES: dict[str, dict[str, Any]] = {
    "attention dynamic": {"attention": "dynamic"},
    "attention frozen": {"attention": "frozen"},
    "attention none": {"attention": "none"},
    "attention local": {"attention": "local"},
    "norm weight": {"norm": "weight"},
    "norm batch": {"norm": "batch"},
    "norm none": {"norm": "none"},
    "asymmetric off": {"asymmetric": False},
    "fusion": {"fusion": True},
    "asym_width lo": {"asym_width": "lo"},
    "asym_width geometric": {"asym_width": "geometric"},
    "wide activation off": {"wa_rate": 1.0},
    "residual_scale 1": {"residual_scale": 1.0},
}


def picture(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network(config: ModelConfig, *, seed: int = 0) -> SRNet:
    """Return a float64 network in evaluation mode, the same one every time; local gates are not constant."""
    torch.manual_seed(seed)
    model = SRNet(config).double().eval()
    for module in model.modules():
        if isinstance(module, LocalGate):
            nn.init.normal_(module.conv.weight, std=0.3)
    return model


def attentions(model: nn.Module) -> list[ChannelAttention]:
    return [module for module in model.modules() if isinstance(module, ChannelAttention)]


def zero_weight(conv: nn.Conv2d) -> None:
    """Make the effective weights zero, through the norms where weight norm has written them apart."""
    with torch.no_grad():
        if hasattr(conv, "parametrizations"):
            conv.parametrizations.weight.original0.zero_()
        else:
            conv.weight.zero_()


# --- shapes and switches ------------------------------------------------------------------------


@pytest.mark.parametrize(("colour", "img_channels"), COLOUR_CHANNELS.items())
@pytest.mark.parametrize("scale", range(1, 9))
def test_output_is_scale_times_the_input(scale: int, colour: Any, img_channels: int) -> None:
    model = SRNet(replace(TINY, scale=scale, img_channels=img_channels, colour=colour, num_blocks=1))
    out = model(picture(2, img_channels, 5, 7, dtype=torch.float32))
    assert out.shape == (2, img_channels, 5 * scale, 7 * scale)
    assert out.isfinite().all()


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_gives_a_network_that_trains(switch: str) -> None:
    torch.manual_seed(0)
    model = SRNet(replace(TINY, **SWITCHES[switch])).train()
    model(picture(2, 3, 6, 5, dtype=torch.float32)).square().mean().backward()
    frozen = {id(p) for gate in attentions(model) if gate.frozen for p in gate.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) in frozen:
            assert not parameter.requires_grad
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("attention", ["dynamic", "frozen", "none"])
@pytest.mark.parametrize("norm", ["weight", "batch", "none"])
def test_network_holds_the_mechanisms_that_its_configuration_names_and_no_others(
    norm: Any, attention: Any
) -> None:
    model = SRNet(replace(TINY, norm=norm, attention=attention))
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    weight_normed = [conv for conv in convolutions if hasattr(conv, "parametrizations")]
    batch_norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(weight_normed) == (len(convolutions) if norm == "weight" else 0)
    assert len(batch_norms) == (2 * TINY.num_blocks if norm == "batch" else 0)
    assert len(attentions(model)) == (0 if attention == "none" else TINY.num_blocks)
    assert all(gate.frozen == (attention == "frozen") for gate in attentions(model))


def test_block_widths_and_kernels() -> None:
    config = replace(TINY, norm="none", attention="none")
    asymmetric = [m for m in ResidualBlock(config).modules() if isinstance(m, nn.Conv2d)]
    assert [tuple(conv.weight.shape) for conv in asymmetric] == [(8, 4, 1, 5), (16, 8, 5, 1), (4, 16, 3, 3)]
    plain = ResidualBlock(replace(config, asymmetric=False)).modules()
    assert [tuple(m.weight.shape) for m in plain if isinstance(m, nn.Conv2d)] == [
        (16, 4, 3, 3),
        (4, 16, 3, 3),
    ]


@pytest.mark.parametrize("norm", ["weight", "batch", "none"])
def test_only_the_1x5_convolution_has_no_bias(norm: Any) -> None:
    model = SRNet(replace(TINY, norm=norm))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert (module.bias is None) == (module.kernel_size == (1, 5))


def test_residual_scale_multiplies_the_branch() -> None:
    x = picture(1, TINY.lo, 6, 6)
    torch.manual_seed(0)
    block = ResidualBlock(replace(TINY, residual_scale=1.0)).double().eval()
    branch = block(x) - x
    block.residual_scale = 0.25
    torch.testing.assert_close(block(x), x + 0.25 * branch)


@pytest.mark.parametrize("norm", ["weight", "none"])
def test_no_global_skip(norm: Any) -> None:
    model = network(replace(TINY, norm=norm))
    zero_weight(model.upsampler.refine)
    with torch.no_grad():
        model.upsampler.refine.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    out = model(picture(1, 3, 6, 7))
    expected = torch.tensor([0.6, 0.3, 0.8], dtype=torch.float64).view(1, 3, 1, 1)
    torch.testing.assert_close(out, expected.expand(1, 3, 12, 14), rtol=0, atol=1e-6)
    assert torch.equal(out, out[:, :, :1, :1].expand_as(out))


def test_mid_grey_pads_the_borders() -> None:
    model = network(replace(TINY, attention="none"))
    flat = model(torch.full((1, 3, 9, 9), 0.5, dtype=torch.float64))
    assert torch.equal(flat, flat[:, :, :1, :1].expand_as(flat))


# --- configuration ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_feats", "wa_rate", "lo", "hi", "geometric"),
    [
        (32, 2.0, 16, 64, 32),
        (64, 4.0, 16, 256, 64),
        (8, 1.0, 8, 8, 8),
        (30, 1.5, 20, 45, 30),
        (7, 2.0, 4, 14, 7),
    ],
)
def test_widths_follow_from_num_feats_and_wa_rate(
    num_feats: int, wa_rate: float, lo: int, hi: int, geometric: int
) -> None:
    config = ModelConfig(num_feats=num_feats, wa_rate=wa_rate)
    assert (config.lo, config.hi, config.mid) == (lo, hi, geometric)
    assert replace(config, asym_width="lo").mid == lo


@pytest.mark.parametrize(
    "fields",
    [
        {"scale": 0},
        {"scale": -2},
        {"img_channels": 2},
        {"img_channels": 4},
        {"img_channels": 1},
        {"img_channels": 1, "colour": "YCbCr"},
        {"img_channels": 3, "colour": "Y"},
        {"colour": "Y"},
        {"colour": "HSV"},
        {"num_blocks": 0},
        {"wa_rate": 0.5},
        {"wa_rate": float("inf")},
        {"num_feats": 0},
        {"num_feats": 1, "wa_rate": 4.0},
        {"attention": "soft"},
        {"norm": "layer"},
        {"asym_width": "hi"},
    ],
)
def test_bad_configuration_is_refused_in_one_line_that_names_the_value(fields: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as caught:
        ModelConfig(**fields)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("model configuration: ")
    assert all(str(value) in message for value in fields.values())


@pytest.mark.parametrize("fields", [{"depth": 3}, {"num_blocks": "six"}, {"scale": None}])
def test_foreign_fields_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as caught:
        ModelConfig.from_dict(asdict(TINY) | fields)
    assert "\n" not in str(caught.value)


def test_configuration_survives_its_dict() -> None:
    config = replace(TINY, scale=3, attention="frozen", norm="batch", asymmetric=False, wa_rate=1.5)
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("fields", "colour"),
    [({"img_channels": 3}, "RGB"), ({"img_channels": 1}, "Y"), ({}, "RGB"), ({"colour": "YCbCr"}, "YCbCr")],
)
def test_configurations_without_a_colour_space_are_read(fields: dict[str, Any], colour: str) -> None:
    config = ModelConfig.from_dict(fields)
    assert (config.colour, config.img_channels) == (colour, COLOUR_CHANNELS[config.colour])


def test_presets_differ_in_size_only() -> None:
    neutral = [replace(config, num_feats=32, num_blocks=1) for config in PRESETS.values()]
    assert all(config == neutral[0] for config in neutral)
    sizes = [model_cost(config).params for config in PRESETS.values()]
    assert sizes == sorted(set(sizes)), "tiny, small, base, large"


@pytest.mark.parametrize("name", PRESETS)
def test_preset_builds(name: str) -> None:
    config = preset_config(name, scale=3, colour="Y")
    assert config.img_channels == 1, "follows from the colour"
    assert replace(config, scale=PRESETS[name].scale, img_channels=3, colour="RGB") == PRESETS[name]
    model = SRNet(config).eval()
    with torch.inference_mode():
        assert model(picture(1, 1, 4, 5, dtype=torch.float32)).shape == (1, 1, 12, 15)


def test_an_unknown_preset_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"'huge'.*tiny, small, base, large"):
        preset_config("huge")


# --- receptive field ----------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["frozen", "local", "none"])
@pytest.mark.parametrize("norm", ["weight", "batch"])
@pytest.mark.parametrize(
    ("scale", "num_blocks", "asymmetric"),
    [(1, 1, True), (2, 1, False), (2, 2, True), (3, 1, True), (4, 1, False)],
)
def test_receptive_field_radius_is_exact(
    scale: int, num_blocks: int, asymmetric: bool, norm: Any, attention: Any
) -> None:
    config = ModelConfig(
        scale=scale, num_feats=8, num_blocks=num_blocks, asymmetric=asymmetric, norm=norm, attention=attention
    )
    radius = config.receptive_field_radius
    model, centre = network(config), radius + 2
    lr = picture(1, 3, 2 * centre + 1, 2 * centre + 1)

    def centre_pixel(image: Tensor) -> Tensor:
        """Return the scale x scale output pixels of the lr pixel in the middle."""
        first = centre * scale
        return model(image)[:, :, first : first + scale, first : first + scale]

    before = centre_pixel(lr)
    outside = torch.ones_like(lr, dtype=torch.bool)
    outside[:, :, 2:-2, 2:-2] = False  # leaves the square of the radius about the centre
    assert torch.equal(centre_pixel(torch.where(outside, 1 - lr, lr)), before)
    for edge in (2, -3):  # the first and last rows and columns inside
        for axis in (2, 3):
            changed = lr.clone()
            line = changed.select(axis, edge)
            line.copy_(1 - line)
            assert not torch.equal(centre_pixel(changed), before), (edge, axis)


def test_every_network_reaches_farther_than_the_bicubic_filter_of_the_chroma() -> None:
    smallest = ModelConfig(img_channels=1, colour="Y", num_blocks=1, asymmetric=False, scale=4)
    assert smallest.receptive_field_radius > BICUBIC_RADIUS


# --- channel attention --------------------------------------------------------------------------


def gates_of(attention: ChannelAttention, x: Tensor) -> Tensor:
    """Compute the gates from the weights alone, as matrix products."""
    squeeze, excite = attention.squeeze, attention.excite
    hidden = x.mean((2, 3)) @ squeeze.weight[:, :, 0, 0].T + squeeze.bias
    return torch.sigmoid(hidden.clamp(min=0) @ excite.weight[:, :, 0, 0].T + excite.bias)


def test_gates_come_from_the_channel_means_without_reduction() -> None:
    torch.manual_seed(0)
    attention = ChannelAttention(6, norm="weight", frozen=False).double().eval()
    assert attention.squeeze.weight.shape == attention.excite.weight.shape == (6, 6, 1, 1)
    x = 4 * picture(3, 6, 4, 5) - 2
    expected = gates_of(attention, x).view(3, 6, 1, 1)
    torch.testing.assert_close(attention.gates(x), expected, rtol=0, atol=1e-6)  # pooled in float32
    torch.testing.assert_close(attention(x), x * expected, rtol=0, atol=1e-6)


def test_gate_mean_follows_the_gates_in_training_only() -> None:
    torch.manual_seed(0)
    attention = ChannelAttention(6, norm="none", frozen=False).double()
    x = 4 * picture(3, 6, 4, 5) - 2
    start = attention.gate_mean.clone()
    attention.eval()(x)
    assert torch.equal(attention.gate_mean, start)

    target = gates_of(attention, x).mean(0).view(1, 6, 1, 1)
    attention.train()(x)
    torch.testing.assert_close(
        attention.gate_mean, start + GATE_MOMENTUM * (target - start), rtol=0, atol=1e-7
    )
    for _ in range(1500):
        attention(x)
    torch.testing.assert_close(attention.gate_mean, target, rtol=0, atol=1e-6)
    assert not attention.gate_mean.requires_grad


def test_frozen_gates_stay_in_training() -> None:
    attention = ChannelAttention(4, norm="weight", frozen=True)
    attention.gate_mean.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]).view(1, 4, 1, 1))
    before = attention.gate_mean.clone()
    x = picture(2, 4, 3, 3, dtype=torch.float32)
    assert torch.equal(attention.train()(x), x * before)
    assert torch.equal(attention.gate_mean, before)


@pytest.mark.parametrize("norm", ["weight", "batch", "none"])
def test_frozen_network_equals_the_dynamic_one_where_gates_equal_their_mean(norm: Any) -> None:
    model = network(replace(TINY, norm=norm))
    lr = picture(1, 3, 9, 8)
    seen: list[Tensor] = []
    hooks = [
        gate.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for gate in attentions(model)
    ]
    dynamic = model(lr)
    for hook in hooks:
        hook.remove()
    assert not torch.allclose(frozen_attention(model)(lr), dynamic, atol=1e-3), "gates are far from 0.5"

    for gate, x in zip(attentions(model), seen, strict=True):
        gate.gate_mean.copy_(gate.gates(x))
    torch.testing.assert_close(frozen_attention(model)(lr), dynamic, rtol=0, atol=1e-12)


def test_freezing_keeps_layout_dtype_mode_and_the_original() -> None:
    for training in (True, False):
        model = network(TINY).train(training)
        before = copy.deepcopy(model.state_dict())
        frozen = frozen_attention(model)
        assert frozen.config == replace(TINY, attention="frozen")
        assert frozen.training == training
        assert list(frozen.state_dict()) == list(before)
        for name, value in frozen.state_dict().items():
            assert value.dtype == torch.float64
            assert torch.equal(value, before[name]), name
        with torch.no_grad():
            for parameter in frozen.parameters():
                parameter.add_(1)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert model.config == TINY


def test_trunk_state_holds_what_scales_share() -> None:
    two, three = (SRNet(replace(TINY, scale=scale)).state_dict() for scale in (2, 3))
    shared = {name for name in two if two[name].shape == three[name].shape}
    trunk = trunk_state(two)
    assert set(trunk) == {name for name in two if name.split(".")[0] in ("base", "blocks")}
    assert set(trunk) <= shared


# --- cost and initialisation --------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("switch", SWITCHES)
def test_counted_parameters_are_those_of_the_network(switch: str, scale: int) -> None:
    config = replace(TINY, scale=scale, **SWITCHES[switch])
    model = SRNet(config)
    norms = sum(
        conv.parametrizations.weight.original0.numel()
        for conv in model.modules()
        if isinstance(conv, nn.Conv2d) and hasattr(conv, "parametrizations")
    )
    assert model_cost(config).params == sum(p.numel() for p in model.parameters()) - norms


@pytest.mark.parametrize(("colour", "img_channels"), COLOUR_CHANNELS.items())
@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("switch", SWITCHES)
def test_counted_work_is_that_of_the_folded_network(
    switch: str, scale: int, colour: Any, img_channels: int
) -> None:
    config = replace(TINY, scale=scale, img_channels=img_channels, colour=colour, **SWITCHES[switch])
    folded = fold(frozen_attention(SRNet(config)))
    macs, widest = 0, 0

    def count(conv: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        nonlocal macs, widest
        assert isinstance(conv, nn.Conv2d)
        taps = conv.kernel_size[0] * conv.kernel_size[1] * conv.in_channels
        macs += out.numel() * taps
        beside = 0 if conv is folded.base or conv is folded.upsampler.refine else config.lo * 5 * 7
        widest = max(widest, beside + inputs[0].numel() + out.numel())

    for module in folded.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    folded(picture(1, img_channels, 5, 7, dtype=torch.float32))
    cost = model_cost(config)
    assert cost.macs_per_lr_px * 5 * 7 == macs
    assert cost.activation_bytes_per_lr_px * 5 * 7 >= 4 * widest


@pytest.mark.parametrize("norm", ["weight", "batch", "none"])
def test_initial_weights_are_kaiming_normal_by_fan_in(norm: Any) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(ModelConfig(num_feats=64, wa_rate=2.0, norm=norm))
    for module in block.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        weight = module.weight.detach().double().flatten()
        fan_in = module.in_channels * math.prod(module.kernel_size)
        deviation = math.sqrt(2 / fan_in)
        # Four standard errors of the mean, the variance and the fourth moment of a normal sample.
        assert abs(weight.mean()) < 4 * deviation / math.sqrt(weight.numel())
        assert weight.var().item() == pytest.approx(deviation**2, rel=4 * math.sqrt(2 / weight.numel()))
        kurtosis = (weight**4).mean().item() / deviation**4
        assert kurtosis == pytest.approx(3, abs=4 * math.sqrt(96 / weight.numel()))
        if module.bias is not None:
            assert not module.bias.any()


@pytest.mark.parametrize("attention", ["local", "none"])
@pytest.mark.parametrize("fusion", [False, True])
def test_a_changed_norm_computes_the_same_in_the_layout_of_such_a_network(
    attention: Any, fusion: bool
) -> None:
    config = replace(TINY, attention=attention, norm="none", fusion=fusion)
    model, lr = network(config), picture(1, 3, 9, 11)
    changed = with_norm(model, "weight")
    assert changed.state_dict().keys() == SRNet(replace(config, norm="weight")).state_dict().keys()
    torch.testing.assert_close(changed(lr), model(lr), atol=1e-12, rtol=0)
    torch.testing.assert_close(with_norm(changed, "none")(lr), model(lr), atol=1e-12, rtol=0)
