"""The `srup` command: each subcommand, in a module of its own, parses, calls the library, and prints.

Nothing heavy is imported at module level; `srup --help` loads click and little else.
"""

from __future__ import annotations

import click

from sr.cli import evaluate, export, info, prepare, train, upscale
from sr.cli.help import SrupGroup
from sr.version import __version__

COMMANDS = {
    "upscale": upscale.command,
    "info": info.command,
    "export": export.command,
    "prepare": prepare.command,
    "train": train.command,
    "eval": evaluate.command,
}


@click.group(cls=SrupGroup, commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="srup")
def main() -> None:
    """Super-resolution: upscale pictures, export the networks that do it, train them."""
