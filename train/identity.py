"""The network of scale 1 that returns its picture: where restoring without enlarging starts from.

Every block adds nothing, and three channels of the trunk carry the picture, so uint8 pictures come back bit
for bit. Weights that go on from it form a pair with it: strength 0 is the picture, 1 is what was trained.

    python -m train.identity -o small_x1.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

import torch

from sr.network.checkpoint import Weights, save_weights
from sr.network.config import ModelConfig, preset_config, preset_name
from sr.network.model import ResidualBlock, SRNet

# Exporters drop biases of zero and merge equal ones, and both networks of a pair need the same structure.
_NOTHING = 1e-30


def identity(config: ModelConfig) -> SRNet:
    """Return a network that returns its input; only what leaves its blocks is zero, so it can learn.

    Args:
        config: of scale 1, without norm or gates.
    """
    model = SRNet(config)
    with torch.no_grad():
        for block in cast("list[ResidualBlock]", list(model.blocks)):
            for parameter in block.reduce.parameters():
                parameter.zero_()
        for conv in (model.base, model.upsampler.widen, model.upsampler.refine):
            _pass_on(conv, config.img_channels)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.add_(_NOTHING * torch.rand_like(parameter))
    return model


def _pass_on(conv: torch.nn.Conv2d, channels: int) -> None:
    """Make the first channels of a 3x3 convolution copies of its first channels."""
    conv.weight[:channels] = 0
    conv.weight[range(channels), range(channels), 1, 1] = 1
    cast(torch.Tensor, conv.bias)[:channels] = 0


def main() -> None:
    """Write the weights of such a network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="safetensors file")
    parser.add_argument("--preset", default="small", help="size of the network [default: %(default)s]")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    config = preset_config(chosen.preset, scale=1, norm="none", attention="none")
    model = identity(config)
    save_weights(chosen.output, Weights(config, model.state_dict(), preset=preset_name(config)))


if __name__ == "__main__":
    main()
