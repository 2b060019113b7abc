"""Engines on the command line: building them with `srup export`, listing them with `srup info`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from sr.backends.gpus import Gpu
from sr.backends.ort import read_metadata
from sr.backends.tensorrt.cuda import cuda_gpus
from sr.backends.tensorrt.manifest import Engine, EngineManifest, plans_in
from sr.backends.tensorrt.modules import KINDS, TensorRt, load_tensorrt, title_of
from sr.backends.tensorrt.store import EngineStore
from sr.cli.building import build_engine, engine_progress
from sr.cli.console import terminal
from sr.cli.export_request import ExportRequest
from sr.errors import OutOfDeviceMemoryError, SrupError


def export_engines(request: ExportRequest) -> None:
    """Build the engines of each backend, scale and kind of GPU; print path and size of each.

    Raises:
        SrupError: one cannot be built.
    """
    from deploy.engines.models import engine_models

    store = EngineStore(request.output, builder=build_engine)
    builders = [load_tensorrt(backend) for backend in request.backends]
    kinds = _kinds(cuda_gpus())
    models = engine_models(
        request.weights,
        request.scales,
        request.precision or "fp16",
        store.folder,
        restore=request.restore,
        conventions=request.conventions,
    )
    for trt in builders:
        for scale, onnx in models:
            spec = request.engine(trt.backend.name, scale).fitted_to(read_metadata(onnx))
            for gpu in _gpus_for(spec.targets, kinds):
                with engine_progress(f"x{scale}") as progress:
                    engine = store.get(onnx, spec, trt, gpu=gpu, progress=progress, log=_log)
                if gpu is not None:
                    engine = _checked(store, engine, onnx, trt, gpu)
                click.echo(f"{engine.path}  {engine.manifest.plan_bytes / 1e6:.2f} MB")


def _checked(store: EngineStore, engine: Engine, onnx: Path, trt: TensorRt, gpu: Gpu) -> Engine:
    """Prove on a GPU that the engine computes what the network does, and report the difference.

    Raises:
        EngineError: it does not.
        BackendError: it does not run.
    """
    from deploy.engines.parity import engine_parity

    try:
        engine = store.checked(engine, lambda: engine_parity(engine, onnx, trt=trt, gpu=gpu))
    except OutOfDeviceMemoryError as error:
        _log(f"{engine.path.name}: not compared with the network: {error}")
    else:
        _log(f"{engine.path.name}: {engine.manifest.parity}")
    return engine


def _log(line: str) -> None:
    terminal.message(line)


def _kinds(gpus: Sequence[Gpu]) -> list[Gpu]:
    """Return one GPU of each kind, because engines depend on name and compute capability."""
    return list({(gpu.name, gpu.compute_capability): gpu for gpu in reversed(gpus)}.values())[::-1]


def _gpus_for(targets: tuple[int, ...], kinds: list[Gpu]) -> list[Gpu | None]:
    """Return the GPUs to build on, one after the other; None means to build without a GPU."""
    if targets:
        return [next((gpu for gpu in kinds if gpu.compute_capability in targets), None)]
    return [*kinds] or [None]


def print_engines(folder: Path | None, *, prune: bool) -> None:
    """Print size, age, builder, targets and state of each engine; remove stale ones if asked to."""
    store = EngineStore(folder)
    if prune:
        removed = store.prune(click.echo)
        click.echo(f"{len(removed)} stale removed")
    stale, gpus = store.stale(), _gpus_or_note()
    engines = {engine.path: engine for engine in store.list()}
    paths = list(plans_in(store.folder))
    sizes = [path.stat().st_size if path.exists() else 0 for path in paths]
    count = f"{len(paths)} engine{'s' * (len(paths) != 1)}"
    click.echo(f"{store.folder}: {count}, {sum(sizes) / 1e6:.2f} MB")
    usable = _usability()
    for path, size in zip(paths, sizes, strict=True):
        click.echo(f"  {path.name}")
        engine = engines.get(path)
        details = _details(engine.manifest) if engine else "not readable"
        state = f"stale: {stale[path]}" if path in stale else usable(engine, gpus) if engine else "unknown"
        click.echo(f"    {size / 1e6:.2f} MB, {_age(path, engine)}, {details}; {state}")


def _gpus_or_note() -> list[Gpu]:
    """Return the GPUs; none, with a line on stderr, where the driver does not work."""
    try:
        return cuda_gpus()
    except SrupError as error:
        _log(f"Warning: {error}")
        return []


def _details(manifest: EngineManifest) -> str:
    identity, spec = manifest.identity, manifest.identity.spec
    targets = "+".join(f"SM{target}" for target in spec.targets) or identity.gpu
    shape = f"tiles to {spec.tile} px, batches to {spec.batch}"
    parity = manifest.parity or "not compared with the network"
    return f"{title_of(identity.module)} {manifest.built_by}, for {targets}, {shape}, {parity}"


def _usability() -> Callable[[Engine, Sequence[Gpu]], str]:
    """Return a function that says whether an engine that is not stale can be used on this machine."""
    missing = set()
    for name, kind in KINDS.items():
        try:
            kind.load()
        except SrupError:
            missing.add(name)

    def usable(engine: Engine, gpus: Sequence[Gpu]) -> str:
        identity = engine.manifest.identity
        if identity.module in missing:
            return f"usable where {title_of(identity.module)} {identity.module_version} is installed"
        here = {f"{gpu.name}, SM{gpu.compute_capability}" for gpu in gpus}
        codes = {gpu.compute_capability for gpu in gpus}
        spec = identity.spec
        if (gpus and spec.compatible) or identity.gpu in here or codes & set(spec.targets):
            return "usable"
        return f"usable on such a GPU; this machine has {'other ones' if gpus else 'none'}"

    return usable


def _age(path: Path, engine: Engine | None) -> str:
    """Return how long ago an engine was built, in the largest unit that fits."""
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
