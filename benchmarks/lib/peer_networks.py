"""Networks of the fixed peers, built from the layer tables of their papers, with random weights.

Each is built in its fastest deployed form: branches that its paper merges are merged, and luma networks lack
the parts that only colour networks need.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class FSRCNN(nn.Sequential):
    """FSRCNN(56, 12, 4), luma (arXiv 1608.00367, section 3.3): shrink, map, expand, deconvolve."""

    def __init__(self, scale: int, wide: int = 56, narrow: int = 12, maps: int = 4) -> None:
        layers = [_conv(1, wide, 5), nn.PReLU(wide), _conv(wide, narrow, 1), nn.PReLU(narrow)]
        for _ in range(maps):
            layers += [_conv(narrow, narrow, 3), nn.PReLU(narrow)]
        layers += [_conv(narrow, wide, 1), nn.PReLU(wide)]
        layers += [nn.ConvTranspose2d(wide, 1, 9, stride=scale, padding=4, output_padding=scale - 1)]
        super().__init__(*layers)


class ECBSR(nn.Module):
    """ECBSR-M10C32, luma, reparameterised (ACM MM 2021): plain 3x3 convolutions with PReLU."""

    def __init__(self, scale: int, blocks: int = 10, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (1, *[width] * blocks):
            layers += [_conv(channels, width, 3), nn.PReLU(width)]
        self.body = nn.Sequential(*layers, _conv(width, scale**2, 3))
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.body(x) + x)


class _RecursiveBlock(nn.Module):
    """CARN-M's cascading block: one efficient residual block, used three times."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _conv(width, width, 3, groups),
            nn.ReLU(),
            _conv(width, width, 3, groups),
            nn.ReLU(),
            _conv(width, width, 1),
        )
        self.fuse = nn.ModuleList(_conv(width * count, width, 1) for count in (2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        kept = x
        for fuse in self.fuse:
            kept = torch.cat((kept, functional.relu(self.residual(x) + x)), 1)
            x = functional.relu(fuse(kept))
        return x


class CARNM(nn.Module):
    """CARN-M (arXiv 1803.08664): 64 channels, 3x3 convolutions in 4 groups; upsamplers of all scales."""

    def __init__(self, scale: int, width: int = 64, groups: int = 4) -> None:
        super().__init__()
        self.entry = _conv(3, width, 3)
        self.blocks = nn.ModuleList(_RecursiveBlock(width, groups) for _ in range(3))
        self.fuse = nn.ModuleList(_conv(width * count, width, 1) for count in (2, 3, 4))
        steps = {2: (2,), 3: (3,), 4: (2, 2)}
        self.upsamplers = nn.ModuleDict(
            {
                str(factor): nn.Sequential(
                    *[
                        layer
                        for step in parts
                        for layer in (
                            _conv(width, width * step**2, 3, groups),
                            nn.ReLU(),
                            nn.PixelShuffle(step),
                        )
                    ]
                )
                for factor, parts in steps.items()
            }
        )
        self.exit = _conv(width, 3, 3)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        kept = x = self.entry(x)
        for block, fuse in zip(self.blocks, self.fuse, strict=True):
            kept = torch.cat((kept, block(x)), 1)
            x = functional.relu(fuse(kept))
        return self.exit(self.upsamplers[str(self.scale)](x))


class _DistillationBlock(nn.Module):
    """IMDN's block: a quarter of the channels is kept at each of three steps; contrast-aware attention."""

    def __init__(self, width: int, reduction: int = 16) -> None:
        super().__init__()
        kept, rest = width // 4, width - width // 4
        self.sizes = (kept, rest)
        self.steps = nn.ModuleList([_conv(width, width, 3), _conv(rest, width, 3), _conv(rest, width, 3)])
        self.last = _conv(rest, kept, 3)
        self.attention = nn.Sequential(
            _conv(width, width // reduction, 1), nn.ReLU(), _conv(width // reduction, width, 1), nn.Sigmoid()
        )
        self.fuse = _conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        distilled, rest = [], x
        for step in self.steps:
            kept, rest = functional.leaky_relu(step(rest), 0.05).split(self.sizes, 1)
            distilled.append(kept)
        features = torch.cat((*distilled, self.last(rest)), 1)
        mean = features.mean((2, 3), keepdim=True)
        contrast = (features - mean).square().mean((2, 3), keepdim=True).sqrt() + mean
        return self.fuse(features * self.attention(contrast)) + x


class IMDN(nn.Module):
    """IMDN (arXiv 1909.11856): 64 channels, 6 information multi-distillation blocks."""

    def __init__(self, scale: int, width: int = 64, blocks: int = 6) -> None:
        super().__init__()
        self.entry = _conv(3, width, 3)
        self.blocks = nn.ModuleList(_DistillationBlock(width) for _ in range(blocks))
        self.fuse = nn.Sequential(_conv(width * blocks, width, 1), nn.LeakyReLU(0.05))
        self.trunk = _conv(width, width, 3)
        self.upsampler = nn.Sequential(_conv(width, 3 * scale**2, 3), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        entry = x = self.entry(x)
        outputs = [x := block(x) for block in self.blocks]
        return self.upsampler(self.trunk(self.fuse(torch.cat(outputs, 1))) + entry)


class _SelfCalibratedBlock(nn.Module):
    """PAN's block: half of the channels through a 3x3, half through pixel attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.split = nn.ModuleList(_conv(width, half, 1, bias=False) for _ in range(2))
        self.plain = _conv(half, half, 3, bias=False)
        self.attention = nn.Sequential(_conv(half, half, 1), nn.Sigmoid())
        self.attended, self.last = (_conv(half, half, 3, bias=False) for _ in range(2))
        self.fuse = _conv(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first, second = (functional.leaky_relu(split(x), 0.2) for split in self.split)
        first = functional.leaky_relu(self.plain(first), 0.2)
        second = self.last(self.attended(second) * self.attention(second))
        return self.fuse(torch.cat((first, functional.leaky_relu(second, 0.2)), 1)) + x


class _PixelAttentionUpsampler(nn.Module):
    def __init__(self, channels: int, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.first = _conv(channels, width, 3)
        self.attention = nn.Sequential(_conv(width, width, 1), nn.Sigmoid())
        self.second = _conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(functional.interpolate(x, scale_factor=self.factor, mode="nearest"))
        x = functional.leaky_relu(x * self.attention(x), 0.2)
        return functional.leaky_relu(self.second(x), 0.2)


class PAN(nn.Module):
    """PAN (arXiv 2010.01073): 40 channels, 16 self-calibrated blocks, 24 channels after upsampling."""

    def __init__(self, scale: int, width: int = 40, up_width: int = 24, blocks: int = 16) -> None:
        super().__init__()
        self.scale = scale
        self.entry = _conv(3, width, 3)
        self.trunk = nn.Sequential(
            *(_SelfCalibratedBlock(width) for _ in range(blocks)), _conv(width, width, 3)
        )
        factors = (2, 2) if scale == 4 else (scale,)
        widths = (width, *[up_width] * len(factors))
        self.upsampler = nn.Sequential(
            *(
                _PixelAttentionUpsampler(channels, up_width, factor)
                for channels, factor in zip(widths, factors, strict=False)
            ),
            _conv(up_width, 3, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        entry = self.entry(x)
        upscaled = functional.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return self.upsampler(entry + self.trunk(entry)) + upscaled


def _conv(channels: int, width: int, kernel: int, groups: int = 1, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel, padding=kernel // 2, groups=groups, bias=bias)
