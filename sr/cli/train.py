"""`srup train`: a training run."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sr.cli import options_train
from sr.cli.console import terminal
from sr.cli.help import GroupedCommand
from sr.errors import require_extra
from train.setting import GROUPS
from train.settings import Settings

OWN = ("config_file", "resume", "processes")  # the other options stand below the headings of the settings
EXAMPLES = (
    "srup train --scale 2 --total-epochs 200 --save-subdir x2",
    "srup train --config run.toml --resume",
)


@click.command(cls=GroupedCommand, groups={"Options": OWN, **dict.fromkeys(GROUPS, ())}, examples=EXAMPLES)
@options_train.training
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="TOML file of settings, named like the options; command-line options override it.",
)
@click.option("--resume", is_flag=True, help="Continue from the run's last checkpoint, with its settings.")
@click.option(
    "--processes",
    type=click.IntRange(1),
    help="Number of training processes.  [default: one for each visible GPU; 1 on a CPU]",
)
def command(settings: Settings, config_file: Path | None, resume: bool, processes: int | None) -> None:
    """Train a network on all visible GPUs, or on the CPU."""
    require_extra("train", "torch", "safetensors", purpose="srup train")
    from sr.cli.progress import training_progress
    from train.run import run_training

    with training_progress() as progress:
        status = run_training(
            settings,
            config_file=config_file,
            resume=resume,
            processes=processes,
            log=terminal.result,
            progress=progress,
        )
    sys.exit(status)
