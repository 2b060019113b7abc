"""The `srup` command: each subcommand, in a module of its own, parses, calls the library, and prints.

Nothing heavy is imported at module level, and a command only when it is used.
"""

from __future__ import annotations

import click

from sr.cli.help import SrupGroup
from sr.cli.lazy import LazyCommands
from sr.version import __version__

COMMANDS = LazyCommands(
    {
        "upscale": ("sr.cli.upscale", "Upscale pictures, or folders of pictures."),
        "info": ("sr.cli.info", "Show what is installed, describe a model, or list engines."),
        "export": (
            "sr.cli.export",
            "Export trained weights to ONNX, to TensorRT engines, or for a Triton server.",
        ),
        "prepare": (
            "sr.cli.prepare",
            "Make pairs from hr pictures: lr by MATLAB-exact bicubic, patches of both, JSON lists.",
        ),
        "train": ("sr.cli.train", "Train a network on all visible GPUs, or on the CPU."),
        "eval": (
            "sr.cli.evaluate",
            "Measure PSNR and SSIM of a model on a folder of hr pictures or a list of pairs.",
        ),
    }
)


@click.group(
    cls=SrupGroup,
    commands=COMMANDS,
    summaries=COMMANDS.summaries,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="srup")
def main() -> None:
    """Super-resolution: upscale pictures, export the networks that do it, train them."""
