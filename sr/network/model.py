"""The network and its counted cost.

Owns the trained form. `deploy.fold` makes the deployed form of it: the same class, without the mechanisms
that only training needs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from sr.network.config import ModelConfig, Norm

# Weight of one training batch in the running mean of the gates. The mean reaches back about 100 steps, so
# that it follows the weights but not single patches.
GATE_MOMENTUM = 0.01

# Grey in the middle of [0, 1]: subtracted before the first convolution and added after the last,
# so that the zeros with which convolutions pad mean mid-grey, not black.
MID_GREY = 0.5


class ChannelAttention(nn.Module):
    """Per-channel gates from the global average (RCAN, arXiv 1807.02758, section 3.3), unreduced.

    Keeps the running mean of its gates in `gate_mean`, as batch norm keeps its statistics, so that
    freezing them later needs no data.
    """

    gate_mean: Tensor

    def __init__(self, channels: int, *, norm: Norm, frozen: bool) -> None:
        super().__init__()
        self.squeeze = _conv(channels, channels, (1, 1), norm=norm)
        self.excite = _conv(channels, channels, (1, 1), norm=norm)
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)
        self.register_buffer("gate_mean", torch.full((1, channels, 1, 1), 0.5))

    def gates(self, x: Tensor) -> Tensor:
        """Return the gates for `x` (N, C, H, W): (N or 1, C, 1, 1), each in (0, 1)."""
        if self.frozen:
            return self.gate_mean
        # The pool reduces in at least float32 also where the body is half precision.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        pooled = wide.mean((2, 3), keepdim=True).to(x.dtype)  # (N, C, 1, 1)
        gates = torch.sigmoid(self.excite(torch.relu(self.squeeze(pooled))))
        if self.training:
            with torch.no_grad():
                batch_mean = gates.mean(0, keepdim=True).to(self.gate_mean.dtype)
                self.gate_mean.lerp_(batch_mean, GATE_MOMENTUM)
        return gates

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of `x` (N, C, H, W) by their gates."""
        return x * self.gates(x)


class LocalGate(nn.Module):
    """Gates for each pixel and channel from a 1x1 convolution of the branch, one at the start.

    After SPAN (arXiv 2311.12770), with no pooling: the receptive field stays finite.
    """

    def __init__(self, channels: int, *, norm: Norm) -> None:
        super().__init__()
        # Weight norm has no direction for the zero weights that the gate starts with.
        self.conv = _conv(channels, channels, (1, 1), norm="none")
        nn.init.zeros_(self.conv.weight)
        nn.init.ones_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return the gates for the branch `x`, (N, C, H, W) both."""
        return cast(Tensor, self.conv(x))


class ResidualBlock(nn.Module):
    """`x + residual_scale * attention(conv3x3(relu(asym(x))))`, `lo` channels in and out.

    With local attention `(x + residual_scale * f) * gate(f)`, where f is the branch.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        lo, mid, hi, norm = config.lo, config.mid, config.hi, config.norm
        batch_norm = norm == "batch"
        if config.asymmetric:
            # No bias on the 1x5: the 5x1 would only add a constant of it, wrong at the borders.
            expand: list[nn.Module] = [
                _conv(lo, mid, (1, 5), norm=norm, bias=False),
                _conv(mid, hi, (5, 1), norm=norm),
            ]
        else:
            expand = [_conv(lo, hi, (3, 3), norm=norm)]
        self.expand = nn.Sequential(*expand, *([nn.BatchNorm2d(hi)] if batch_norm else []))
        reduce: list[nn.Module] = [_conv(hi, lo, (3, 3), norm=norm)]
        self.reduce = nn.Sequential(*reduce, *([nn.BatchNorm2d(lo)] if batch_norm else []))
        self.attention: nn.Module = nn.Identity()
        self.gate: LocalGate | None = None
        if config.attention == "local":
            self.gate = LocalGate(lo, norm=norm)
        elif config.attention != "none":
            self.attention = ChannelAttention(lo, norm=norm, frozen=config.attention == "frozen")
        self.residual_scale = config.residual_scale

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, lo, H, W) to (N, lo, H, W)."""
        branch = self.attention(self.reduce(torch.relu(self.expand(x))))
        scaled = branch if self.residual_scale == 1.0 else branch * self.residual_scale
        return x + scaled if self.gate is None else (x + scaled) * self.gate(branch)


class Upsampler(nn.Module):
    """3x3 to `img_channels * scale^2` channels, pixel shuffle, 3x3 on the result."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, scale = config.img_channels, config.scale
        norm = _without_batch(config.norm)
        self.widen = _conv(config.lo, channels * scale**2, (3, 3), norm=norm)
        self.shuffle = nn.PixelShuffle(scale)
        self.refine = _conv(channels, channels, (3, 3), norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, lo, H, W) to (N, img_channels, scale * H, scale * W)."""
        return cast(Tensor, self.refine(self.shuffle(self.widen(x))))


class SRNet(nn.Module):
    """The super-resolution network: base features, residual blocks, upsampler; no global skip."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.base = _conv(config.img_channels, config.lo, (3, 3), norm=_without_batch(config.norm))
        self.blocks = nn.Sequential(*(ResidualBlock(config) for _ in range(config.num_blocks)))
        self.fuse = _fusion(config) if config.fusion else None
        self.upsampler = Upsampler(config)

    def trunk(self, x: Tensor) -> Tensor:
        """Map mid-grey-centred images (N, C, H, W) to features (N, lo, H, W)."""
        x = self.base(x)
        if self.fuse is None:
            return cast(Tensor, self.blocks(x))
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return cast(Tensor, self.fuse(torch.cat(outputs, 1)))  # (N, lo * num_blocks, H, W) -> lo

    def body(self, x: Tensor) -> Tensor:
        """Map mid-grey-centred images (N, C, H, W) to centred ones (N, C, scale*H, scale*W).

        This is the part that may run in half precision.
        """
        return cast(Tensor, self.upsampler(self.trunk(x)))

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale `lr`, (N, C, H, W) in [0, 1], to (N, C, scale*H, scale*W), not clipped."""
        return self.body(lr - MID_GREY) + MID_GREY


def _fusion(config: ModelConfig) -> nn.Conv2d:
    """Make the convolution that joins the blocks' outputs; it begins as the output of the last one."""
    conv = _conv(config.lo * config.num_blocks, config.lo, (1, 1), norm="none")
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:, -config.lo :, 0, 0] = torch.eye(config.lo)
    if config.norm == "weight":
        parametrizations.weight_norm(conv)
    return conv


def frozen_attention(model: SRNet) -> SRNet:
    """Return a copy of `model` whose gates are constant, at their running mean.

    A model without dynamic gates is returned itself. The copy has the same `state_dict` layout, and training
    can continue in it with fixed gates.
    """
    if model.config.attention != "dynamic":
        return model
    frozen = SRNet(replace(model.config, attention="frozen")).to(model.base.weight)
    frozen.load_state_dict(model.state_dict())
    return frozen.train(model.training)


def without_gates(model: SRNet) -> SRNet:
    """Return a copy of `model` that has no channel gates; a model without dynamic gates itself."""
    if model.config.attention != "dynamic":
        return model
    plain = SRNet(replace(model.config, attention="none")).to(model.base.weight)
    plain.load_state_dict(model.state_dict(), strict=False)
    return plain.train(model.training)


def with_norm(model: SRNet, norm: Norm) -> SRNet:
    """Return a copy of `model` that computes the same, with weight normalization added or multiplied in.

    Both `norm` and the norm of `model` must be "weight" or "none": batch norm needs data.
    """
    changed = copy.deepcopy(model)
    for name, conv in list(_convolutions(changed)):
        if parametrize.is_parametrized(conv):
            parametrize.remove_parametrizations(conv, "weight")
        if norm == "weight" and ".gate." not in name:  # see LocalGate
            parametrizations.weight_norm(conv)
    changed.config = replace(model.config, norm=norm)
    return changed


def trunk_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of a `state_dict` that does not depend on the scale."""
    return {name: value for name, value in state.items() if not name.startswith("upsampler.")}


@dataclass(frozen=True)
class ModelCost:
    """Counted size and work of a network.

    Attributes:
        params: trainable parameters of the trained form; of a weight-normalised convolution the
            weights count once (its norms are another way to write them).
        macs_per_lr_px: multiply-adds of the deployed form for each lr pixel; gates cost nothing
            there, biases, ReLUs, additions and conversions of colour are not counted.
        activation_bytes_per_lr_px: float32 activations that are alive at once, at the widest place:
            the trunk beside a convolution's input and output.
    """

    params: int
    macs_per_lr_px: int
    activation_bytes_per_lr_px: int


def model_cost(config: ModelConfig) -> ModelCost:
    """Count the parameters and the multiply-adds of a configuration."""
    plain = SRNet(replace(config, norm="batch" if config.norm == "batch" else "none"))
    params = sum(p.numel() for p in plain.parameters())
    macs = 0
    for name, conv in _convolutions(plain):
        if ".attention." in name:
            continue
        positions = config.scale**2 if name.endswith("refine") else 1
        macs += conv.weight.numel() * positions
    hr_channels = 3 * config.scale**2  # RGB at the end, whatever the network's channels are
    alive = max(config.lo + config.mid + config.hi, 2 * config.lo + config.hi)
    if config.fusion:  # the outputs of the blocks before stay alive; joining them takes a copy
        alive = max(alive + config.lo * (config.num_blocks - 1), 2 * config.lo * config.num_blocks)
    alive = max(alive, 3 * hr_channels)
    return ModelCost(params=params, macs_per_lr_px=macs, activation_bytes_per_lr_px=4 * alive)


def _convolutions(model: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            yield name, module


def _without_batch(norm: Norm) -> Norm:
    """Batch norm stays inside the blocks: at the two ends it would distort the picture's range."""
    return "none" if norm == "batch" else norm


def _conv(
    in_channels: int, out_channels: int, kernel: tuple[int, int], *, norm: Norm, bias: bool = True
) -> nn.Conv2d:
    """Make a same-size convolution, Kaiming-normal (fan-in), weight-normalised if asked."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, bias=bias)
    nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    if norm == "weight":
        parametrizations.weight_norm(conv)
    return conv
