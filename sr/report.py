"""What `srup` prints: progress, results of files, the environment, a model."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from sr.errors import require_extra
from sr.folders import Plan
from sr.image import WriteOptions
from sr.modelfile import ModelMetadata, shipped_onnx, shipped_scales
from sr.pipeline import FileJob, FileResult, upscale_files
from sr.sized import SizedUpscaler
from sr.upscale import Upscaler

AnyUpscaler = Upscaler | SizedUpscaler
TileProgress = Callable[[FileJob, int, int], None]

_INTERRUPTED = 128 + signal.SIGINT  # exit status, as shells have it


def print_plan(plan: Plan) -> None:
    """Print what would be written."""
    for job in plan.jobs:
        replaces = "  (replaces it)" if job.target.exists() else ""
        click.echo(f"{job.source} -> {job.target}{replaces}")
    click.echo(f"{_pictures(len(plan.jobs))} to upscale{_left_out(plan)}")


def report_files(
    plan: Plan, upscaler: AnyUpscaler, *, write_options: WriteOptions, max_pixels: int, as_json: bool = False
) -> list[FileResult]:
    """Upscale what is planned, print a line for each and a summary; return what became of them."""
    if upscaler.warning:
        click.echo(f"Warning: {upscaler.warning}", err=True)
    started = time.perf_counter()
    results: list[FileResult] = []
    lines = _json_line if as_json else _result_line
    with _progress(len(plan.jobs)) as (on_tile, on_file), _second_interrupt_stops_at_once():
        try:
            for result in upscale_files(
                plan.jobs, upscaler, write_options=write_options, max_pixels=max_pixels, progress=on_tile
            ):
                results.append(result)
                if result.error is None and result.job.ledger is not None:
                    plan.ledgers[result.job.ledger].add(result.job)
                on_file(result, lines(result, upscaler))
                for note in result.notes if not as_json else ():
                    click.echo(f"Note: {result.job.target}: {note}", err=True)
        except KeyboardInterrupt:
            click.echo(
                f"stopped: {len(results):,} of {_pictures(len(plan.jobs))} done, nothing partial was left; "
                "go on with --skip-existing",
                err=True,
            )
            sys.exit(_INTERRUPTED)
    for note in dict.fromkeys(note for backend in upscaler.backends for note in backend.notes):
        click.echo(f"Warning: {note}", err=True)
    if not as_json:
        _print_summary(plan, results, upscaler, seconds=time.perf_counter() - started)
    return results


def report_comparison(
    page: Path,
    plan: Plan,
    results: Sequence[FileResult],
    upscaler: AnyUpscaler,
    *,
    max_pixels: int,
    as_json: bool = False,
) -> None:
    """Write the page of outputs, of this run first, beside nearest and bicubic; print what is on it."""
    from sr.compare import Compared, write_page

    info = upscaler.backend.info
    about = f"{info.model.preset} {upscaler.label}, {info.model.precision}, {info.name} on {info.device}"
    made = [result.job for result in results if result.error is None]
    compared = [Compared(job.source, job.target) for job in made]
    compared += [Compared(job.source, job.target, "output of an earlier run") for job in plan.done]
    summary = write_page(page, compared, about=about, max_pixels=max_pixels)
    for line in summary.left_out:
        click.echo(f"Note: not on {page}: {line}", err=True)
    if summary.shown:
        click.echo(f"{page}: {_pictures(summary.shown)} compared, {summary.size / 1e6:.1f} MB", err=as_json)
    else:
        click.echo(f"Note: {page} was not written, there is no picture to compare", err=True)


@contextmanager
def _second_interrupt_stops_at_once() -> Iterator[None]:
    """The first Ctrl-C lets the picture that is being written finish; the second waits for nothing."""
    interrupted = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            os._exit(_INTERRUPTED)
        interrupted = True
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _print_summary(plan: Plan, results: list[FileResult], upscaler: AnyUpscaler, *, seconds: float) -> None:
    info = upscaler.backend.info
    failed = [result for result in results if result.error is not None]
    done = [(r.output_size, r.frames) for r in results if r.output_size and not r.error]
    output = sum(width * height * frames for (width, height), frames in done) / 1e6
    click.echo(
        f"{len(results) - len(failed)} of {_pictures(len(results))}, {upscaler.label}, "
        f"{output:.2f} megapixels out in {seconds:.1f} s "
        f"({output / seconds:.2f} MP/s) on {info.device} (backend {info.name}{info.why and f'; {info.why}'})"
        f"{_left_out(plan)}"
    )
    if failed and len(results) > 1:
        click.echo(f"{len(failed)} failed:", err=True)
        for result in failed:
            click.echo(f"  {result.job.source}", err=True)


def _pictures(number: int) -> str:
    return f"{number:,} picture" if number == 1 else f"{number:,} pictures"


def _left_out(plan: Plan) -> str:
    """Say what of the inputs was not taken, and why."""
    done = f"; {_pictures(len(plan.done))} skipped, their outputs exist" if plan.done else ""
    ours = f"; {_pictures(len(plan.ours))} left out as outputs of earlier runs" if plan.ours else ""
    return done + ours


def _json_line(result: FileResult, upscaler: AnyUpscaler) -> tuple[str, bool]:
    """Return the line for a result as JSON, for stdout."""
    width, height = result.size or (None, None)
    output_width, output_height = result.output_size or (None, None)
    info = upscaler.backend.info
    record = {
        "source": str(result.job.source),
        "target": str(result.job.target),
        "ok": result.error is None,
        "error": None if result.error is None else " ".join(str(result.error).splitlines()),
        "width": width,
        "height": height,
        "output_width": output_width,
        "output_height": output_height,
        "scale": output_width and width and round(output_width / width, 4),
        "tiles": result.tiles,
        "seconds": round(result.seconds, 4),
        "frames": result.frames,
        "notes": result.notes,
        "backend": info.name,
        "device": info.device,
    }
    return json.dumps(record, ensure_ascii=False), False


def _result_line(result: FileResult, upscaler: AnyUpscaler) -> tuple[str, bool]:
    """Return the line for a result, and whether it goes to stderr."""
    if result.error is not None or result.size is None or result.output_size is None:
        return f"Error: {' '.join(str(result.error).splitlines())}", True
    (width, height), (output_width, output_height) = result.size, result.output_size
    return (
        f"{result.job.source} -> {result.job.target}  {width}x{height} -> {output_width}x{output_height}  "
        f"{'' if result.frames == 1 else f'{result.frames} frames, '}"
        f"{result.tiles} {'tile' if result.tiles == 1 else 'tiles'}, {result.seconds:.2f} s"
    ), False


@contextmanager
def _progress(
    total: int,
) -> Iterator[tuple[TileProgress | None, Callable[[FileResult, tuple[str, bool]], None]]]:
    """Yield callbacks for tiles and for files; they draw bars if stderr is a terminal."""

    def plain(_: FileResult, line: tuple[str, bool]) -> None:
        click.echo(line[0], err=line[1])

    if not sys.stderr.isatty():
        yield None, plain
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        files = bars.add_task("all", total=total, unit="pictures", rate="", visible=total > 1)
        tiles = bars.add_task("", total=None, unit="tiles", rate="")
        current: list[FileJob] = []

        def on_tile(job: FileJob, done: int, count: int) -> None:
            if current != [job]:
                current[:] = [job]
                bars.reset(tiles, total=count, description=job.source.name)
            bars.update(tiles, completed=done)
            speed = bars.tasks[tiles].speed
            bars.update(tiles, rate=f"{speed:.1f}/s" if speed else "")

        def on_file(_: FileResult, line: tuple[str, bool]) -> None:
            bars.advance(files)
            if line[1] or not sys.stdout.isatty():
                click.echo(line[0], err=line[1])
            else:
                bars.console.print(line[0], markup=False, highlight=False, soft_wrap=True)

        yield on_tile, on_file


@contextmanager
def picture_progress() -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (done, total): it draws a bar if stderr is a terminal, else says each tenth."""

    def plain(done: int, total: int) -> None:
        if done * 10 // total > (done - 1) * 10 // total:
            click.echo(f"{done:,} of {total:,} pictures", err=True)

    if not sys.stderr.isatty():
        yield plain
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("pictures"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("pictures", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def print_environment() -> None:
    """Print versions, backends with what they lack, and shipped models."""
    from sr.environment import environment_lines

    for line in environment_lines():
        click.echo(line)


def print_model(name: str, *, scale: int | None) -> None:
    """Print parameters, multiply-adds and origin of a preset or of a model file.

    Raises:
        ModelError: there is no such preset or file.
    """
    for metadata in _describe(name, scale):
        for label, value in _rows(metadata):
            click.echo(f"{label:32} {value}")
        click.echo()


def _rows(metadata: ModelMetadata) -> Iterator[tuple[str, Any]]:
    yield "model", f"{metadata.preset} x{metadata.scale}, {metadata.colour}"
    yield "parameters", f"{metadata.params:,}"
    yield "multiply-adds per lr pixel", f"{metadata.macs_per_lr_px:,}"
    yield "receptive-field radius", f"{metadata.receptive_field_radius} lr px"
    if metadata.weights_sha256:
        yield "default halo", f"{metadata.halo} lr px"
        yield "precision, IO", f"{metadata.precision}, {metadata.io}"
        yield "attention", metadata.attention
        yield "licence of the weights", metadata.licence
        yield "sha256 of the weights", metadata.weights_sha256[:16]
    yield from _training_rows(metadata.training, "training")


def _training_rows(training: dict[str, Any], label: str) -> Iterator[tuple[str, Any]]:
    for key, value in training.items():
        if isinstance(value, dict):
            yield from _training_rows(value, key.replace("_", " "))
        else:
            yield f"{label}: {key.replace('_', ' ')}", value


def _describe(name: str, scale: int | None) -> Iterator[ModelMetadata]:
    path = Path(name)
    if path.suffix == ".onnx":
        yield _onnx_metadata(path)
    elif path.suffix in (".safetensors", ".pt"):
        require_extra("torch", "torch", "safetensors", purpose=f"describing {name}")
        from sr.backends.pytorch import metadata_from_weights
        from sr.checkpoint import load_weights

        yield metadata_from_weights(load_weights(path))
    elif shipped := [s for s in shipped_scales(name) if scale in (None, s)]:
        for one in shipped:
            yield _onnx_metadata(shipped_onnx(scale=one, preset=name))
    else:
        require_extra(
            "torch", "torch", "safetensors", purpose=f"describing {name!r}, which ships no weights,"
        )
        from sr.backends.pytorch import metadata_from_weights
        from sr.checkpoint import Weights
        from sr.model import preset_config

        yield metadata_from_weights(Weights(preset_config(name, scale=scale or 2), {}, preset=name))


def _onnx_metadata(path: Path) -> ModelMetadata:
    from sr.backends.ort import read_metadata

    return read_metadata(path)
