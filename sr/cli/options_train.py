"""The options of `srup train`: one for each setting of `train.config.TrainConfig`.

An option that is not given is None here: the defaults live in `TrainConfig`, and a value that was
given can be told from one that was not when a run is resumed. Help repeats them; a test compares.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)
_OPTIONS = (
    # The network
    click.option("--upscale-factor", type=click.IntRange(1), help="Scale.  [default: 2]"),
    click.option("--preset", help="Network: tiny, small, base or large.  [default: small]"),
    click.option("--num-feats", type=int, help="Nominal width, in place of the preset's."),
    click.option("--wa-rate", type=float, help="Wide-activation rate, in place of the preset's."),
    click.option("--num-blocks", type=int, help="Residual blocks, in place of the preset's."),
    click.option(
        "--attention",
        type=click.Choice(["dynamic", "local", "none"]),
        help="Gates: channel attention, or one for each pixel.  [default: dynamic]",
    ),
    click.option(
        "--norm", type=click.Choice(["weight", "batch", "none"]), help="Normalization.  [default: weight]"
    ),
    click.option(
        "--asymmetric/--square", default=None, help="1x5 and 5x1, or one 3x3.  [default: asymmetric]"
    ),
    click.option(
        "--asym-width",
        type=click.Choice(["lo", "geometric"]),
        help="Channels between 1x5 and 5x1.  [default: geometric]",
    ),
    click.option("--residual-scale", type=float, help="Factor on residual branches.  [default: 0.25]"),
    click.option(
        "--colour",
        type=click.Choice(["RGB", "YCbCr", "Y"]),
        help="What the network sees; the export converts.  [default: RGB]",
    ),
    # Data
    click.option("--train-list", type=_PATH, help="JSON pair list.  [default: pairs/train/x<scale>.json]"),
    click.option(
        "--val-list",
        "val_lists",
        type=_PATH,
        multiple=True,
        help="JSON pair list to measure on; may be repeated.  [default: all pairs/val/*/x<scale>.json]",
    ),
    click.option("--patch-size", type=int, help="Side of a patch in lr pixels.  [default: 24]"),
    click.option(
        "--patches-per-picture", type=int, help="Random patches of a picture in an epoch.  [default: 16]"
    ),
    click.option("--workers", type=int, help="Threads that prepare batches.  [default: 1]"),
    # Optimization
    click.option("--loss", help="E.g. l1, or l1+0.05*fftloss.  [default: l1]"),
    click.option("--fft-cutoff", type=float, help="Of fftloss, in cycles per pixel; 0 is all.  [default: 0]"),
    click.option(
        "--stage",
        "stages",
        multiple=True,
        metavar="LOSS:EPOCHS[:batch=N][:patch=PX][:lr=RATE][:frozen]",
        help="Part of the run with its own loss; repeat it. Batch size, patch size and learning rate hold "
        "until a later stage changes them; 'frozen' fixes the attention gates.",
    ),
    click.option("--total-epochs", type=int, help="Where there are no stages.  [default: 100]"),
    click.option("--batch-size", type=int, help="Of all processes together.  [default: 16]"),
    click.option(
        "--optimizer",
        type=click.Choice(["Adam", "AdamW", "SGD", "Muon"]),
        help="Muon learns fastest, best with --norm none.  [default: Adam]",
    ),
    click.option("--lr", "learning_rate", type=float, help="Learning rate.  [default: 0.001]"),
    click.option(
        "--lr-schedule",
        type=click.Choice(["cosine", "step"]),
        help="To zero by a cosine, or halved in steps.  [default: cosine; step if --lr-halve-step is given]",
    ),
    click.option("--lr-halve-step", type=int, help="Epochs between halvings.  [default: 60]"),
    click.option("--warmup-steps", type=int, help="Steps of linear rise.  [default: 100]"),
    click.option("--weight-decay", type=float, help="Of the optimizer.  [default: 0]"),
    click.option("--max-grad-norm", type=float, help="Clip gradients to this norm.  [default: 1]"),
    click.option(
        "--amp",
        type=click.Choice(["off", "bf16", "fp16"]),
        is_flag=False,
        flag_value="bf16",
        help="Mixed precision; alone it means bf16.  [default: off]",
    ),
    click.option(
        "--ema",
        type=float,
        is_flag=False,
        flag_value=0.999,
        help="Decay of a moving average of the weights; alone it means 0.999.  [default: 0, off]",
    ),
    click.option("--compile/--no-compile", default=None, help="Train through torch.compile.  [default: no]"),
    click.option("--seed", type=int, help="Of initialisation and patches.  [default: 0]"),
    # Checkpoints
    click.option("--checkpoint-dir", type=_PATH, help="Folder of all runs.  [default: checkpoints]"),
    click.option("--save-subdir", help="Folder of this run in it.  [default: none]"),
    click.option("--save-prefix", help="What its files begin with.  [default: srup]"),
    click.option("--save-every", type=int, help="Epochs between checkpoints kept.  [default: 10]"),
    click.option("--keep", type=int, help="How many of them.  [default: 3]"),
    click.option("--val-every", type=int, help="Epochs between measurements.  [default: 1]"),
    click.option(
        "--init-weights",
        type=_PATH,
        help="Start from these weights; another scale gives its trunk, new blocks start as the identity.",
    ),
    click.option("--load-subdir", help="Start from a checkpoint: its folder.  [default: --save-subdir]"),
    click.option("--load-prefix", help="What its name begins with.  [default: --save-prefix]"),
    click.option("--load-epoch", type=int, help="Its epoch.  [default: the last]"),
    click.option("--data-note", help="What the data are, for the model's metadata."),
)


def training(command: Command) -> Command:
    """Add all options of a training run to a command."""
    return reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)
