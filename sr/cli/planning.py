"""From the options of `srup upscale` to a planned run; everything is checked before an upscaler is opened.

Opening one may build an engine, for minutes; wrong names and options are reported at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sr.backends.specs import model_suffixes
from sr.cli.building import build_engine, build_progress
from sr.cli.compare import check_page
from sr.cli.progress import phase_lines
from sr.cli.request import UpscaleRequest, image_error_is_wrong_usage
from sr.cli.stated import check_stated
from sr.cli.streams import check_streams, streamed_worklist
from sr.cli.types import STREAM, OutputPath
from sr.cli.workload import estimated_work
from sr.image import WriteOptions, refuse_unconcerned, write_options
from sr.image.formats.tiff import TIFF
from sr.jobs.admission import RunLimits
from sr.jobs.lists import read_list
from sr.jobs.pipeline import RunSettings
from sr.jobs.ray.worker import WorkerPlan
from sr.jobs.setup import UpscalerSetup, open_setup
from sr.jobs.worklist import (
    OutputRules,
    Worklist,
    check_inputs,
    listed_worklist,
    make_worklist,
)
from sr.network.ends import Conventions
from sr.network.modelkind import check_model_file
from sr.sized import UpscalerSettings, Upscaling

# Opens what upscales pictures; a program that composes its own command line may hand in another.
Opener = Callable[[Upscaling, UpscalerSettings], UpscalerSetup]


@dataclass(frozen=True)
class PlannedRun:
    """What is to be done.

    Attributes:
        worklist: which files become which.
        upscaling: the size of the outputs, and the networks.
        run_settings: how files are read and written.
        upscaler_settings: how the networks are run.
    """

    worklist: Worklist
    upscaling: Upscaling
    run_settings: RunSettings
    upscaler_settings: UpscalerSettings


def plan_run(request: UpscaleRequest) -> PlannedRun:
    """Check a request, and find the files that it names.

    Raises:
        UsageError: options do not go together.
        ImageError, ModelError: a file is missing, in the way, or not what it should be.
    """
    request.check()
    check_streams(request)
    check_inputs(request.files)
    for model in request.models:
        check_model_file(model, model_suffixes())
    check_stated(request.conventions, request.models)
    for model in request.models:
        _probe(model, request.backend, request.conventions)
    if request.compare is not None:
        check_page(request.compare, overwrite=request.overwrite)
    with image_error_is_wrong_usage():
        written_as = write_options(**_encoding(request))
    upscaling = Upscaling(
        scale=request.scale,
        size=request.size,
        long_side=request.long_side,
        linear=request.linear,
        models=request.models,
        conventions=request.conventions,
        restore=request.restore,
    )
    rules = _output_rules(request, upscaling, written_as)
    worklist = _worklist(request, rules)
    with image_error_is_wrong_usage():
        refuse_unconcerned(worklist.suffixes, **_encoding(request))
    if request.low_memory:
        _check_low_memory(worklist, upscaling)
    return PlannedRun(
        worklist,
        upscaling,
        RunSettings(written_as, RunLimits(request.max_pixels, request.low_memory)),
        _upscaler_settings(request),
    )


def _probe(model: Path, backend: str, stated: Conventions | None) -> None:
    """Convert and probe a model of another program now, with progress; later the answers are cached."""
    from sr.backends.choice import runnable_model
    from sr.network.foreign.describe import foreign_descriptor, is_others

    progress = phase_lines()
    model = runnable_model(backend, model, progress=progress) or model
    if is_others(model):
        foreign_descriptor(model, stated=stated, progress=progress)


def open_planned(planned: PlannedRun, opener: Opener | None) -> UpscalerSetup:
    """Open what upscales the pictures of a planned run; None as `opener` opens the networks that ship.

    Raises:
        BackendError, ModelError, TilingError: as `sr.upscale.Upscaler`.
    """
    with build_progress() as progress:
        settings: UpscalerSettings = {
            **planned.upscaler_settings,
            "build_progress": progress,
            "builder": build_engine,
        }
        if planned.upscaling.request is None and settings["backend"] == "auto":
            settings["work"] = estimated_work(planned.worklist.jobs)
        if opener is not None:
            return opener(planned.upscaling, settings)
        return open_setup(planned.upscaling, **settings)


def worker_plan(planned: PlannedRun, opener: Opener | None) -> WorkerPlan:
    """Return what each worker of a cluster does; `opener` as in `open_planned`."""
    settings: UpscalerSettings = {**planned.upscaler_settings, "builder": build_engine}
    return WorkerPlan(planned.upscaling, settings, planned.run_settings, opener)


def _worklist(request: UpscaleRequest, rules: OutputRules) -> Worklist:
    if request.files_from is None:
        return streamed_worklist(request, rules) or make_worklist(request.files, rules)
    folder = request.folder or Path()
    if request.files_from == STREAM:
        return listed_worklist(folder, read_list(sys.stdin.buffer, nul=request.nul), rules)
    return listed_worklist(folder, _lines(request.files_from, nul=request.nul), rules)


def _lines(path: Path, *, nul: bool) -> Iterator[Path]:
    """Yield the files of a list, which is read as far as they are asked for."""
    with path.open("rb") as file:
        yield from read_list(file, nul=nul)


def _output_rules(request: UpscaleRequest, upscaling: Upscaling, written_as: WriteOptions) -> OutputRules:
    output = request.output
    return OutputRules(
        output=output.path if isinstance(output, OutputPath) else None,
        is_folder=isinstance(output, OutputPath) and output.folder,
        suffix=f"_{upscaling.label}" if request.suffix is None else request.suffix,
        format=request.format_ and f".{request.format_}",
        include=request.include,
        exclude=request.exclude,
        existing="skip" if request.skip_existing else "overwrite" if request.overwrite else "refuse",
        shard=request.shard,
        largest_first=request.shard is not None or request.ray is not None,
        settings=f"{upscaling.identity} {request.precision} {written_as}"
        + (f" depth {written_as.depth}" if written_as.depth else ""),
    )


def _encoding(request: UpscaleRequest) -> dict[str, Any]:
    """Return the options that say how outputs are encoded, as `sr.image.write_options` takes them."""
    names = ("quality", "lossless", "subsampling", "png_level", "tiff_compression", "depth")
    return {name: getattr(request, name) for name in names}


def _upscaler_settings(request: UpscaleRequest) -> UpscalerSettings:
    return {
        "backend": request.backend,
        "precision": request.precision,
        "device": request.device,
        "tile": request.tile,
        "halo": request.halo,
        "batch": request.batch,
        "engine_dir": request.engine_dir,
        "conventions": request.conventions,
        "restore": request.restore,
    }


def _check_low_memory(worklist: Worklist, upscaling: Upscaling) -> None:
    if upscaling.request is not None:
        raise click.UsageError(
            "--low-memory makes no exact sizes; use a factor that one network has (--scale)"
        )
    if not {suffix.lower() for suffix in worklist.suffixes} <= set(TIFF.write_suffixes) or any(
        job.stdin or job.stdout for job in worklist.jobs
    ):
        raise click.UsageError("--low-memory reads files and writes TIFF; use --format tif or -o NAME.tif")
