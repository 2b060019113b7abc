"""`srup prepare`: pairs of pictures to train and test with."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sr.cli import options
from sr.cli.console import terminal
from sr.cli.help import GroupedCommand
from sr.errors import SrupError

if TYPE_CHECKING:
    from train.prepare.plan import PrepareSpec

EXAMPLES = (
    "srup prepare DIV2K/DIV2K_train_HR --scale 2     # patches, and JSON lists of them",
    "srup prepare Set5 --whole -o pairs/val/Set5     # a test set",
)


@dataclass(frozen=True)
class PrepareRequest:
    """The options of `srup prepare`, each as its help describes it; None was not given."""

    hr_folder: Path
    scales: tuple[int, ...]
    output: Path | None
    exclude: tuple[str, ...]
    patch_size: int | None
    stride: int | None
    min_variance: float | None
    min_detail: float | None
    shrink: tuple[float, ...]
    degrade: tuple[str, ...]
    seed: int | None
    whole: bool
    overwrite: bool

    def spec(self) -> PrepareSpec:
        """Return what to prepare.

        Raises:
            DataError: a file of degradations cannot be read, or says what is not one.
            UsageError: options do not go together.
        """
        from train.data.degrade import degradation_from
        from train.prepare.plan import PrepareSpec

        if self.whole and (self.patch_size or self.stride or self.min_variance or self.min_detail):
            raise click.UsageError("--whole cuts no patches; leave out --patch-size, --stride and --min-...")
        degradation = degradation_from(self.degrade)
        try:
            return PrepareSpec(
                self.hr_folder,
                scales=self.scales,
                output=self.output,
                exclude=frozenset(self.exclude),
                patch_size=self.patch_size or PrepareSpec.patch_size,
                stride=self.stride,
                min_variance=self.min_variance or PrepareSpec.min_variance,
                min_detail=self.min_detail or PrepareSpec.min_detail,
                whole=self.whole,
                overwrite=self.overwrite,
                shrink=tuple(sorted(set(self.shrink), reverse=True)),
                degradation=degradation,
                seed=self.seed or PrepareSpec.seed,
            )
        except SrupError as error:
            raise click.UsageError(str(error)) from error


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument("hr_folder", type=click.Path(path_type=Path))
@click.option(
    "-s",
    "--scale",
    "scales",
    type=click.IntRange(min=1),
    multiple=True,
    default=(2, 3, 4),
    show_default=True,
    help="Upscaling factor; repeatable.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Output folder.  [default: pairs/train; with --whole pairs/val/NAME]",
)
@click.option("--exclude", multiple=True, metavar="STEM", help="Leave out pictures of this name; repeatable.")
@click.option(
    "--patch-size", type=click.IntRange(min=1), help="Side of a patch in hr pixels.  [default: 192]"
)
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    help="Distance between patches in hr pixels.  [default: the patch size]",
)
@click.option(
    "--min-variance",
    type=click.FloatRange(min=0),
    help="Drop patches whose luma varies less, in squared levels of 255.  [default: 0]",
)
@click.option(
    "--min-detail",
    type=click.FloatRange(min=0),
    help="Drop patches that bicubic restores too well: variance of the luma's difference.  [default: 0]",
)
@click.option(
    "--shrink",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    multiple=True,
    metavar="FACTOR",
    help="Also take copies of the pictures that are this much smaller; repeatable.",
)
@click.option(
    "--degrade",
    multiple=True,
    metavar="restore|FILE.toml|KEY=VALUE",
    help="Degrade lr pictures, as srup train --degrade does; repeatable.",
)
@click.option("--seed", type=int, help="Seed of the degradation.  [default: 0]")
@click.option("--whole", is_flag=True, help="Keep pictures whole, for a test set; none is dropped.")
@click.option("--overwrite", is_flag=True, help="Replace existing pairs; remove stale patches.")
@options.as_record(PrepareRequest)
def command(request: PrepareRequest) -> None:
    """Make pairs from hr pictures: lr by MATLAB-exact bicubic, patches of both, JSON lists.

    HR_FOLDER is a folder of pictures, or a data set laid out as DIV2K is: its lr pictures are used
    as they are. A run that was killed and is started again makes only what is missing. Bad pictures are
    left out and named; the exit status is then 1.
    """
    from sr.cli.progress import picture_progress
    from train.data.patches import left_out
    from train.prepare.make import prepare as prepare_pairs

    spec = request.spec()
    with picture_progress() as progress:
        prepared = prepare_pairs(spec, progress=progress)
    for line in prepared.lines():
        terminal.result(line)
    if prepared.problems:
        terminal.message(left_out(list(prepared.problems)))
        sys.exit(1)
