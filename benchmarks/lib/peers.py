"""The fixed peers of the quality-speed plane: their networks with random weights, and published figures.

SAFMN and SPAN come from the `spandrel` package, the others from `peer_networks`. Random weights suffice for
speed.

Figures are the published ones, on the Y channel. "checked" names the second copy of a figure that was
compared; if it is empty, the figure comes from the paper's table alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from benchmarks.lib.peer_networks import CARNM, ECBSR, FSRCNN, IMDN, PAN
from deploy.export import quiet_exporter
from sr.errors import BackendError
from sr.network.ends import INPUT_NAME, OUTPUT_NAME
from sr.network.foreign.torchnet import import_spandrel

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
    import_spandrel()
    arch = importlib.import_module(f"spandrel.architectures.{architecture}")
    return sys.modules[f"{arch.__name__}.__arch.{architecture.lower()}"]


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
