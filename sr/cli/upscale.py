"""`srup upscale`: pictures and folders, upscaled."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sr.cli import options, options_engine
from sr.cli.help import GroupedCommand
from sr.cli.request import UpscaleRequest
from sr.cli.types import InputPathOrStream, OutputPathOrStream, ParsedText
from sr.sizing import SizeRequest

if TYPE_CHECKING:
    from sr.cli.planning import Opener, PlannedRun
    from sr.jobs.run import FailureLimit, RunSummary
    from sr.jobs.shards import Shard

GROUPS = {
    "Options": ("scale", "output", "format_", "backend", "overwrite"),
    "Exact size": ("size", "long_side", "linear"),
    "Encoding of the output": (
        "quality",
        "lossless",
        "subsampling",
        "png_level",
        "tiff_compression",
        "depth",
    ),
    "Folders": ("skip_existing", "suffix", "include", "exclude", "dry_run", "as_json"),
    "Very many files": ("shard", "files_from", "nul", "failures", "max_failures", "ray"),
    "Computation": (
        *("models", "model_range", "model_order", "restore", "precision", "device", "tile", "halo", "batch"),
        *("low_memory", "max_pixels", "engine_dir"),
    ),
}
EXAMPLES = (
    "srup upscale photo.jpg --scale 3              # writes photo_x3.png",
    "srup upscale holiday -o large --format webp   # a folder with all below it",
)


def _shard(text: str) -> Shard:
    from sr.jobs.shards import Shard

    return Shard.parse(text)


def _ray_address(text: str) -> str:
    from sr.jobs.ray.connection import parse_address

    return parse_address(text)


def _failure_limit(text: str) -> FailureLimit:
    from sr.jobs.run import FailureLimit

    return FailureLimit.parse(text)


@click.command(cls=GroupedCommand, groups=GROUPS, examples=EXAMPLES)
@click.argument("inputs", nargs=-1, type=InputPathOrStream(), metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    type=OutputPathOrStream(),
    help="Output file or folder; - is standard output.  [default: beside INPUT]",
)
@options.factor
@click.option(
    "--size",
    type=ParsedText("WxH", SizeRequest.parse_size),
    metavar="WxH",
    help="Exact size of the output in pixels; give one side (3840x or x2160) to keep proportions.",
)
@click.option(
    "--long-side", type=click.IntRange(1), metavar="N", help="Exact longer side of the output in pixels."
)
@click.option("--linear", is_flag=True, help="Resample to the exact size in linear light.")
@options.backend
@options.precision
@options.device
@options.tiles
@options.models
@options.conventions
@options.restore
@options.format_
@options.encoding
@options.max_pixels
@click.option(
    "--low-memory",
    is_flag=True,
    help="Upscale in bands, as is done with pictures that do not fit into memory; the output is TIFF.",
)
@options_engine.engine_dir
@options.skip_existing
@options.overwrite
@click.option(
    "--suffix",
    metavar="TEXT",
    help="Text added to the names of outputs.  [default: _x<scale>, or the size]",
)
@click.option(
    "--include", multiple=True, metavar="GLOB", help="In folders, process only matching files; repeatable."
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="In folders, skip matching files; repeatable.")
@click.option("--dry-run", is_flag=True, help="List what would be written, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per picture, and a summary.")
@click.option(
    "--shard",
    type=ParsedText("I/N", _shard),
    metavar="I/N",
    help="Process part I of N, e.g. 3/16; the same split on every machine, for one output folder.",
)
@click.option(
    "--files-from",
    type=InputPathOrStream(),
    metavar="FILE|-",
    help="Process the files of this list, one a line, relative to INPUT.  [default INPUT: .]",
)
@click.option("-0", "--null", "nul", is_flag=True, help="Files of the list end with NUL, not with a line.")
@click.option(
    "--failures",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write what failed, and why, to this file; --files-from reads it.",
)
@click.option(
    "--max-failures",
    type=ParsedText("N|P%", _failure_limit),
    metavar="N|P%",
    help="Stop when more pictures have failed.  [default: never]",
)
@click.option(
    "--ray",
    is_flag=False,
    flag_value="local",
    type=ParsedText("[ADDRESS]", _ray_address),
    metavar="[ADDRESS]",
    help="Use all nodes of a Ray cluster (HOST:PORT, or auto on a node); without ADDRESS, of one on this "
    "machine. Needs the ray extra.",
)
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Write a page that shows each output beside nearest and bicubic, under a slider.",
)
@options.as_record(UpscaleRequest)
def command(request: UpscaleRequest) -> None:
    """Upscale pictures, or folders of pictures.

    in.png becomes in_x2.png beside it; a folder becomes FOLDER_x2 beside it, with the same tree
    inside; - is standard input, and goes to standard output. Colour profile, EXIF and transparency
    are kept, orientation is applied.
    """
    from sr.cli.planning import plan_run
    from sr.cli.printing import print_worklist

    planned = plan_run(request)
    if request.dry_run or not (planned.worklist.has_work or request.compare):  # opening may take minutes
        sys.exit(0 if print_worklist(planned.worklist, as_json=request.as_json) else 1)
    summary = _upscale(request, planned, click.get_current_context().obj)
    if summary.interrupted:
        from sr.jobs.interrupt import INTERRUPTED

        sys.exit(INTERRUPTED)
    sys.exit(1 if summary.failed else 0)


def _upscale(request: UpscaleRequest, planned: PlannedRun, opener: Opener | None) -> RunSummary:
    """Run what is planned, and print what happens; `opener` replaces the networks that ship."""
    from sr.cli.comparison import print_comparison
    from sr.cli.failures import written_failures
    from sr.cli.planning import open_planned
    from sr.cli.printing import print_summary, printer
    from sr.cli.streams import reserved_stdout
    from sr.jobs.run import run_worklist

    if request.ray is not None:
        from sr.cli.upscale_ray import upscale_on_ray

        return upscale_on_ray(request, planned, opener)

    with reserved_stdout() if request.to_stdout else nullcontext():
        with open_planned(planned, opener) as setup:
            with (
                written_failures(request.failures, folder=request.folder) as failures,
                printer(
                    setup.description, as_json=request.as_json, failures=failures, shard=request.shard
                ) as listener,
            ):
                summary = run_worklist(
                    planned.worklist,
                    setup,
                    planned.run_settings,
                    listener,
                    most_failures=request.max_failures,
                )
            print_summary(planned.worklist, summary, setup.description, as_json=request.as_json)
        if request.compare is not None and not summary.interrupted:
            print_comparison(
                request.compare,
                planned,
                summary,
                setup.description,
                as_json=request.as_json,
                opener=opener,
            )
    return summary
