"""The fixed peers of the quality-speed plane: their networks with random weights, and published figures.

SAFMN and SPAN come from the `spandrel` package; the others are built here from the layer tables of
their papers. Random weights suffice for speed. Each is built in its fastest deployed form: branches
that its paper merges are merged, and luma networks lack the parts that only colour networks need.

Figures are the published ones, on the Y channel. "checked" names the second copy of a figure that was
compared; if it is empty, the figure comes from the paper's table alone.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy.export import quiet_exporter
from sr.errors import BackendError
from sr.network.modelfile import INPUT_NAME, OUTPUT_NAME

_FIGURES = Path(__file__).with_name("peers.json")
_OPSET = 20


@dataclass(frozen=True)
class Published:
    """What a paper publishes on its network at one scale; None for missing figures.

    Attributes:
        params: parameters.
        macs_720p_g: multiply-adds for an output of 1280x720, in 1e9.
        set5: Y-PSNR in dB on Set5.
        set14: Y-PSNR in dB on Set14.
        source: paper and table.
        checked: the second copy that the figures were compared with; empty without one.
    """

    params: int | None
    macs_720p_g: float | None
    set5: float | None
    set14: float | None
    source: str
    checked: str = ""


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


def _safmn(scale: int) -> nn.Module:
    """Return SAFMN (arXiv 2302.13800) of 36 channels and 8 blocks."""
    return _spandrel("SAFMN").SAFMN(dim=36, n_blocks=8, ffn_scale=2.0, upscaling_factor=scale)


def _adaptive_max_pool(x: Any, output_size: Sequence[int]) -> Any:
    """Write SAFMN's adaptive pooling for the exporter, which has none, where it is a plain pooling."""
    import onnxscript

    (height, width), (rows, columns) = x.shape[2:], output_size
    if height % rows or width % columns:
        raise ValueError(f"adaptive pooling from {width}x{height} to {columns}x{rows} is no plain pooling")
    kernel = [height // rows, width // columns]
    return onnxscript.opset20.MaxPool(x, kernel_shape=kernel, strides=kernel)


def _span(scale: int) -> nn.Module:
    """Return SPAN (arXiv 2311.12770) of 52 channels, its branches merged."""
    module = _spandrel("SPAN")
    net = module.SPAN(num_in_ch=3, num_out_ch=3, feature_channels=52, upscale=scale).eval()
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ == "Conv3XC":  # merges its branches anew in every call
                setattr(parent, name, child.eval_conv)
    return net


def _spandrel(architecture: str) -> types.ModuleType:
    """Import one architecture of spandrel.

    Raises:
        BackendError: spandrel is not installed.
    """
    if importlib.util.find_spec("spandrel") is None:
        raise BackendError(
            f"{architecture} needs the package 'spandrel'; install it: pip install --no-deps spandrel einops "
            "(torchvision, which it asks for, is not needed here)"
        )
    with _torchvision():
        arch = importlib.import_module(f"spandrel.architectures.{architecture}")
    return sys.modules[f"{arch.__name__}.__arch.{architecture.lower()}"]


@contextlib.contextmanager
def _torchvision() -> Iterator[None]:
    """Let spandrel be imported where torchvision is missing, which only networks need that are not ours."""
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    if importlib.util.find_spec("torchvision") is not None or "spandrel" in sys.modules:
        yield
        return
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    for name in ("InterpolationMode", "rotate", "normalize"):
        setattr(sys.modules[names[-1]], name, None)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "FSRCNN": FSRCNN,
    "ECBSR-M10C32": ECBSR,
    "CARN-M": CARNM,
    "IMDN": IMDN,
    "PAN": PAN,
    "SAFMN": _safmn,
    "SPAN": _span,
}
LUMA = {"FSRCNN", "ECBSR-M10C32"}


def published(peer: str, *, scale: int) -> Published:
    """Return the published figures of a peer at a scale."""
    entry = json.loads(_FIGURES.read_text(encoding="utf-8"))[peer]
    return Published(**entry["scales"][str(scale)], source=entry["source"])


class _OnPictures(nn.Module):
    """A network between uint8 pictures (N, H, W, C), converted in the graph as in our files."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        sr = self.net(image.float().permute(0, 3, 1, 2) / 255)
        return (sr * 255).permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8)


def peer_onnx(peer: str, *, scale: int, height: int, width: int) -> onnx.ModelProto:
    """Return a peer as an ONNX model, for one uint8 picture (1, height, width, 3), or luma alone (…, 1).

    Raises:
        BackendError: spandrel is not installed, and the peer comes from there.
    """
    torch.manual_seed(0)
    module = _OnPictures(NETWORKS[peer](scale)).eval()
    example = torch.zeros((1, height, width, 1 if peer in LUMA else 3), dtype=torch.uint8)
    with quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=_OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            custom_translation_table={torch.ops.aten.adaptive_max_pool2d.default: _adaptive_max_pool},
            verbose=False,
        )
    assert program is not None
    return program.model_proto
