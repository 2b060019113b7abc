"""What a command line of `srup upscale` asks for: checked and planned before a backend is opened.

Opening one may build an engine, for minutes; what is wrong with names or options is said at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sr.cli.compare import check_page
from sr.cli.options import ENCODING
from sr.cli.streams import STREAM, check_streams, stream_plan
from sr.errors import ImageError
from sr.image import DEFAULT_MAX_PIXELS, WriteOptions, refuse_unconcerned, write_options
from sr.jobs.folders import OutputRules, Plan, check_inputs, plan_jobs
from sr.sized import SizedUpscaler, Upscaling
from sr.upscale import Upscaler


@dataclass(frozen=True)
class UpscaleOrder:
    """What is to be done.

    Attributes:
        plan: which files become which.
        upscaling: what is done to each.
        write_options: how outputs are encoded.
        max_pixels: larger pictures are refused.
        low_memory: all pictures are upscaled by bands.
        settings: of the `Upscaler`.
    """

    plan: Plan
    upscaling: Upscaling
    write_options: WriteOptions
    max_pixels: int
    low_memory: bool
    settings: dict[str, Any]

    @property
    def to_stdout(self) -> bool:
        """Whether standard output is the picture's."""
        return any(job.stdout is not None for job in self.plan.jobs)

    @staticmethod
    def checked(inputs: Sequence[Path | str], **given: Any) -> UpscaleOrder:
        """Make the order from the options of the command, by their names.

        Raises:
            UsageError: options do not go together.
            ImageError, ModelError: a file is missing, in the way, or not what it should be.
        """

        def named(names: Sequence[str]) -> dict[str, Any]:
            return {name: given[name] for name in names}

        _check_usage(inputs, given)
        check_inputs([Path(source) for source in inputs if source != STREAM])
        if given["compare"] is not None:
            check_page(given["compare"], overwrite=given["overwrite"])
        with _wrong_usage():
            written_as = write_options(**named(ENCODING))
        upscaling = Upscaling(**named(("scale", "size", "long_side", "linear", "model")))
        output, suffix, format_ = given["output"], given["suffix"], given["format_"]
        rules = OutputRules(
            output=None if output == STREAM else output,
            suffix=f"_{upscaling.label}" if suffix is None else suffix,
            format=format_ and f".{format_}",
            include=given["include"],
            exclude=given["exclude"],
            existing="skip" if given["skip_existing"] else "overwrite" if given["overwrite"] else "refuse",
            settings=f"{upscaling.identity} {given['precision']} {written_as}",
        )
        plan = stream_plan(inputs, output, rules) or plan_jobs([Path(each) for each in inputs], rules)
        with _wrong_usage():
            refuse_unconcerned(plan.suffixes, **named(ENCODING))
        settings = named(("backend", "precision", "device", "tile", "halo", "batch", "engine_dir"))
        if given["low_memory"]:
            _check_low_memory(plan, upscaling)
        max_pixels = given["max_pixels"] or DEFAULT_MAX_PIXELS
        return UpscaleOrder(plan, upscaling, written_as, max_pixels, given["low_memory"], settings)

    def open(self, **settings: Any) -> Upscaler | SizedUpscaler:
        """Open the upscaler; `settings` are further ones.

        Raises:
            BackendError, ModelError, TilingError: as `Upscaler`.
        """
        return self.upscaling.open(**self.settings, **settings)


def _check_usage(inputs: Sequence[Path | str], given: Mapping[str, Any]) -> None:
    if sum(given[name] is not None for name in ("scale", "size", "long_side")) > 1:
        raise click.UsageError("--scale, --size and --long-side exclude each other")
    if given["skip_existing"] and given["overwrite"]:
        raise click.UsageError("--skip-existing and --overwrite exclude each other")
    if given["compare"] is not None and given["dry_run"]:
        raise click.UsageError("--compare shows what was written, and --dry-run writes nothing")
    if given["compare"] is not None and STREAM in (*inputs, given["output"]):
        raise click.UsageError(
            "--compare reads the pictures again, which a stream does not allow; name files"
        )
    check_streams(inputs, given["output"])


def _check_low_memory(plan: Plan, upscaling: Upscaling) -> None:
    if upscaling.request is not None:
        raise click.UsageError(
            "--low-memory makes no exact sizes; take a factor that one network has (--scale)"
        )
    if not {suffix.lower() for suffix in plan.suffixes} <= {".tif", ".tiff"} or any(
        job.stdin or job.stdout for job in plan.jobs
    ):
        raise click.UsageError("--low-memory reads files and writes TIFF; use --format tif or -o NAME.tif")


@contextmanager
def _wrong_usage() -> Iterator[None]:
    """Errors in options are wrong usage."""
    try:
        yield
    except ImageError as error:
        raise click.UsageError(str(error)) from error
