"""What `srup` prints: progress, results of files, the environment, a model."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from sr.cli.debug import show_traceback
from sr.errors import printable, require_extra
from sr.files import remove_left_over
from sr.image import WriteOptions
from sr.jobs.folders import Plan
from sr.jobs.interrupt import INTERRUPTED, second_interrupt_stops_at_once
from sr.jobs.pipeline import FileJob, FileResult, upscale_files
from sr.network.descriptor import ModelDescriptor
from sr.network.modelfile import shipped_onnx, shipped_scales
from sr.sized import SizedUpscaler
from sr.upscale import Upscaler

AnyUpscaler = Upscaler | SizedUpscaler
TileProgress = Callable[[FileJob, int, int], None]


def print_plan(plan: Plan) -> None:
    """Print what would be written."""
    _warn_unlisted(plan)
    for job in plan.jobs:
        replaces = "  (replaces it)" if job.target.exists() else ""
        click.echo(f"{printable(job.source)} -> {printable(job.target)}{replaces}")
    click.echo(f"{_pictures(len(plan.jobs))} to upscale{_left_out(plan)}")


def report_files(
    plan: Plan,
    upscaler: AnyUpscaler,
    *,
    write_options: WriteOptions,
    max_pixels: int,
    low_memory: bool = False,
    as_json: bool = False,
) -> list[FileResult]:
    """Upscale what is planned, print a line for each and a summary; return what became of them."""
    if upscaler.warning:
        click.echo(f"Warning: {upscaler.warning}", err=True)
    _warn_unlisted(plan)
    started = time.perf_counter()
    results: list[FileResult] = []
    records = _Records(plan)
    for folder in {job.target.parent for job in (*plan.jobs, *plan.done)}:
        remove_left_over(folder)
    lines = _json_line if as_json else _result_line
    with _progress(len(plan.jobs)) as (on_tile, on_file), second_interrupt_stops_at_once():

        def take(result: FileResult) -> None:
            results.append(result)
            if result.error is None:
                records.add(result.job)
            else:
                show_traceback(result.error)
            on_file(result, lines(result, upscaler))
            for note in result.notes if not as_json else ():
                click.echo(f"Note: {printable(result.job.target)}: {note}", err=True)

        files = upscale_files(
            plan.jobs,
            upscaler,
            write_options=write_options,
            max_pixels=max_pixels,
            low_memory=low_memory,
            progress=on_tile,
        )
        try:
            for result in files:
                take(result)
        except KeyboardInterrupt as interrupt:
            for result in _being_written(files, interrupt):
                take(result)
            for kept in interrupt.args:
                click.echo(f"Note: {kept}", err=True)
            click.echo(
                f"stopped: {len(results):,} of {_pictures(len(plan.jobs))} done, nothing partial was left; "
                "go on with --skip-existing",
                err=True,
            )
            sys.exit(INTERRUPTED)
    for note in dict.fromkeys(note for backend in upscaler.backends for note in backend.notes):
        click.echo(f"Warning: {note}", err=True)
    if not as_json:
        _print_summary(plan, results, upscaler, seconds=time.perf_counter() - started)
    return results


def _being_written(
    files: Generator[FileResult, None, None], interrupt: KeyboardInterrupt
) -> Iterator[FileResult]:
    """Yield what is still finished after Ctrl-C, which `files` may not have seen yet."""
    with suppress(KeyboardInterrupt):
        yield files.throw(interrupt)
        yield from files


class _Records:
    """The ledgers of a plan; that one cannot be written is said once and does not stop the work."""

    def __init__(self, plan: Plan) -> None:
        self._ledgers, self._failed = plan.ledgers, False
        for folder, ledger in plan.ledgers.items():
            with self._warning(folder):
                ledger.begin(job for job in plan.jobs if job.ledger == folder)

    def add(self, job: FileJob) -> None:
        """Record a picture that has been written."""
        if job.ledger is not None:
            with self._warning(job.ledger):
                self._ledgers[job.ledger].add(job)

    @contextmanager
    def _warning(self, folder: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._failed:
                click.echo(
                    f"Warning: {folder}: the record of what is done cannot be written ({error.strerror}); "
                    "--skip-existing will go by names only",
                    err=True,
                )
            self._failed = True


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
    from sr.cli.compare import Compared, write_page

    info = upscaler.backend.info
    about = f"{info.model.name} {upscaler.label}, {info.model.precision}, {info.name} on {info.device}"
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
            click.echo(f"  {printable(result.job.source)}", err=True)


def _pictures(number: int) -> str:
    return f"{number:,} picture" if number == 1 else f"{number:,} pictures"


def _left_out(plan: Plan) -> str:
    """Say what of the inputs was not taken, and why."""
    done = f"; {_pictures(len(plan.done))} skipped, their outputs exist" if plan.done else ""
    ours = f"; {_pictures(len(plan.ours))} left out as outputs of earlier runs" if plan.ours else ""
    kinds = ", ".join(sorted({path.suffix.lower() for path in plan.unread}))
    unread = (
        f"; {_pictures(len(plan.unread))} left out, of formats that are not read ({kinds})" if kinds else ""
    )
    return done + ours + unread


def _warn_unlisted(plan: Plan) -> None:
    for error in plan.unlisted:
        folder = printable(Path(error.filename))
        click.echo(
            f"Warning: {folder}: cannot be listed ({error.strerror}); what is in it is left out", err=True
        )


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
    return json.dumps(record), False  # ASCII: names need not be valid in any encoding


def _result_line(result: FileResult, upscaler: AnyUpscaler) -> tuple[str, bool]:
    """Return the line for a result, and whether it goes to stderr."""
    if result.error is not None or result.size is None or result.output_size is None:
        return f"Error: {' '.join(str(result.error).splitlines())}", True
    (width, height), (output_width, output_height) = result.size, result.output_size
    return (
        f"{printable(result.job.source)} -> {printable(result.job.target)}  "
        f"{width}x{height} -> {output_width}x{output_height}  "
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
    from rich.markup import escape
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
                bars.reset(tiles, total=count, description=escape(printable(Path(job.source.name))))
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
    from sr.cli.environment import environment_lines

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


def _rows(metadata: ModelDescriptor) -> Iterator[tuple[str, Any]]:
    yield "model", f"{metadata.name} x{metadata.scale}, {metadata.colour}"
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


def _describe(name: str, scale: int | None) -> Iterator[ModelDescriptor]:
    path = Path(name)
    if path.suffix == ".onnx":
        yield _onnx_metadata(path)
    elif path.suffix in (".safetensors", ".pt"):
        require_extra("torch", "torch", "safetensors", purpose=f"describing {name}")
        from sr.network.checkpoint import descriptor_from_weights, load_weights

        yield descriptor_from_weights(load_weights(path))
    elif shipped := [s for s in shipped_scales(name) if scale in (None, s)]:
        for one in shipped:
            yield _onnx_metadata(shipped_onnx(scale=one, preset=name))
    else:
        require_extra(
            "torch", "torch", "safetensors", purpose=f"describing {name!r}, which ships no weights,"
        )
        from sr.network.checkpoint import Weights, descriptor_from_weights
        from sr.network.config import preset_config

        yield descriptor_from_weights(Weights(preset_config(name, scale=scale or 2), {}, preset=name))


def _onnx_metadata(path: Path) -> ModelDescriptor:
    from sr.backends.ort import read_metadata

    return read_metadata(path)
