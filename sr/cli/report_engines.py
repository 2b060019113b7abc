"""What `srup` prints of engines: their building, and what is in a folder of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import click

from sr.errors import OutOfDeviceMemoryError, SrupError

# `sr` imports `deploy` inside functions only, so its classes stand here by what they are.
Engine: TypeAlias = Any
EngineCache: TypeAlias = Any
EngineManifest: TypeAlias = Any
Gpu: TypeAlias = Any
Progress = Callable[[str, float], None]


def check_building(*, trt: bool, trt_rtx: bool, settings: dict[str, Any]) -> None:
    """Check that the options of `srup export` that were given concern what is built.

    Raises:
        click.UsageError: one does not.
    """
    needs = {
        "targets": ("--gpu", trt_rtx, "--trt-rtx; TensorRT builds for the GPUs that are here"),
        "builder_level": ("--builder-level", trt, "--trt"),
        "compatible": ("--compatible", trt, "--trt"),
        "tile": ("--tile", trt or trt_rtx, "--trt or --trt-rtx"),
        "batch": ("--batch", trt or trt_rtx, "--trt or --trt-rtx"),
    }
    for name, (option, met, need) in needs.items():
        given = settings[name] not in (None, False, ())
        if given and not met:
            raise click.UsageError(f"{option} needs {need}")


def export_engines(
    backends: Sequence[str],
    weights: str,
    scales: Sequence[int],
    *,
    precision: str,
    folder: Path | None,
    settings: dict[str, Any],
) -> None:
    """Build the engines of each backend, scale and kind of GPU; print path and size of each.

    Raises:
        SrupError: one cannot be built.
    """
    from deploy.engine import EngineCache, EngineSpec, load_module, visible_gpus
    from deploy.engine_models import engine_models

    cache = EngineCache(folder)
    modules = {backend: load_module(backend) for backend in backends}
    kinds = _kinds(visible_gpus())
    models = engine_models(weights, scales, precision, cache.folder)  # type: ignore[arg-type]  # checked by click
    shape = {name: settings[name] for name in ("tile", "batch") if settings[name] is not None}
    for backend, module in modules.items():
        own = ("targets",) if backend == "trt-rtx" else ("builder_level", "compatible")
        extra = {name: settings[name] for name in own}
        for scale, onnx in models:
            spec = EngineSpec(scale, precision=precision, **shape, **extra)  # type: ignore[arg-type]
            for gpu in _gpus_for(spec.targets, kinds):
                with engine_progress(f"x{scale}") as progress:
                    engine = cache.get(onnx, spec, module, gpu=gpu, progress=progress, log=_log)
                if gpu is not None:
                    engine = _checked(cache, engine, onnx, module, gpu)
                click.echo(f"{engine.path}  {engine.manifest.plan_bytes / 1e6:.2f} MB")


def _checked(cache: EngineCache, engine: Engine, onnx: Path, module: ModuleType, gpu: Gpu) -> Engine:
    """Prove on a GPU that the engine computes what the network does; say what was found.

    Raises:
        EngineError: it does not.
        BackendError: it does not run.
    """
    from deploy.engine_parity import engine_parity

    try:
        engine = cache.checked(engine, lambda: engine_parity(engine, onnx, module=module, gpu=gpu))
    except OutOfDeviceMemoryError as error:
        _log(f"{engine.path.name}: not compared with the network: {error}")
    else:
        _log(f"{engine.path.name}: {engine.manifest.parity}")
    return engine


def _log(line: str) -> None:
    click.echo(line, err=True)


def _kinds(gpus: Sequence[Gpu]) -> list[Gpu]:
    """Return one GPU of each kind: engines depend on name and compute capability."""
    return list({(gpu.name, gpu.compute_capability): gpu for gpu in reversed(gpus)}.values())[::-1]


def _gpus_for(targets: tuple[int, ...], kinds: list[Gpu]) -> list[Gpu | None]:
    """Return the GPUs to build on, one after the other; None is to build without one."""
    if targets:
        return [next((gpu for gpu in kinds if gpu.compute_capability in targets), None)]
    return [*kinds] or [None]


@contextmanager
def build_progress() -> Iterator[Progress]:
    """Yield a progress callback for what may have to be built: it says why, then draws a bar."""
    bars: list[Progress | None] = []
    with ExitStack() as stack:

        def progress(phase: str, share: float) -> None:
            if not bars:
                click.echo(phase, err=True)
                bars.append(stack.enter_context(engine_progress("engine")))
            elif bars[0] is not None:
                bars[0](phase, share)

        yield progress


@contextmanager
def engine_progress(title: str) -> Iterator[Progress | None]:
    """Yield a progress callback for a build: a bar if stderr is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(f"building the {title} engine"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=1.0)
        yield lambda phase, share: bars.update(task, completed=share, description=phase)


def print_engines(folder: Path | None, *, prune: bool) -> None:
    """Print size, age, builder, targets and state of each engine; remove stale ones if asked to.

    Raises:
        SrupError: removing needs a package that is missing.
    """
    from deploy.engine import EngineCache, visible_gpus
    from deploy.engine_manifest import plans_in

    cache = EngineCache(folder)
    if prune:
        removed = cache.prune(click.echo)
        click.echo(f"{len(removed)} stale removed")
    stale, gpus = cache.stale(), visible_gpus()
    engines = {engine.path: engine for engine in cache.list()}
    paths = list(plans_in(cache.folder))
    sizes = [path.stat().st_size if path.exists() else 0 for path in paths]
    count = f"{len(paths)} engine{'s' * (len(paths) != 1)}"
    click.echo(f"{cache.folder}: {count}, {sum(sizes) / 1e6:.2f} MB")
    usable = _usability()
    for path, size in zip(paths, sizes, strict=True):
        click.echo(f"  {path.name}")
        engine = engines.get(path)
        details = _details(engine.manifest) if engine else "not readable"
        state = f"stale: {stale[path]}" if path in stale else usable(engine, gpus) if engine else "unknown"
        click.echo(f"    {size / 1e6:.2f} MB, {_age(path, engine)}, {details}; {state}")


def _details(manifest: EngineManifest) -> str:
    from deploy.engine import TITLES

    identity = manifest.identity
    targets = "+".join(f"SM{target}" for target in identity.targets) or identity.gpu
    shape = f"tiles to {identity.tile} px, batches to {identity.batch}"
    parity = manifest.parity or "not compared with the network"
    return f"{TITLES[identity.module]} {manifest.built_by}, for {targets}, {shape}, {parity}"


def _usability() -> Callable[[Engine, Sequence[Gpu]], str]:
    """Return what says whether an engine that is not stale can be used at once."""
    from deploy.engine import MODULES, TITLES, load_module

    missing = {}
    for backend, name in MODULES.items():
        try:
            load_module(backend)
        except SrupError:
            missing[name] = backend

    def usable(engine: Engine, gpus: Sequence[Gpu]) -> str:
        identity = engine.manifest.identity
        if identity.module in missing:
            return f"usable where {TITLES[identity.module]} {identity.module_version} is installed"
        here = {f"{gpu.name}, SM{gpu.compute_capability}" for gpu in gpus}
        codes = {gpu.compute_capability for gpu in gpus}
        if not gpus:
            return "usable on such a GPU; none is here"
        fits = identity.compatible or identity.gpu in here or codes & set(identity.targets)
        return "usable" if fits else "usable on such a GPU; others are here"

    return usable


def _age(path: Path, engine: Engine | None) -> str:
    """Return how long ago an engine was built, in its largest unit."""
    if engine is not None:
        built = datetime.fromisoformat(engine.manifest.built)
    else:
        file = path if path.exists() else path.with_suffix(".json")
        built = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    seconds = max(0, int((datetime.now(UTC) - built).total_seconds()))
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if count := seconds // length:
            return f"{count} {unit}{'s' * (count > 1)} old"
    return "just built"
