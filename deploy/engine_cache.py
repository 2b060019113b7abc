"""The folder of engines: what is in it, what is built into it, what is stale in it.

Several processes may use one folder: one builds, the others wait and take what it built.
"""

from __future__ import annotations

import hashlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import platformdirs

from deploy.engine_build import MODULES, TITLES, EngineSpec, load_module, plan_from_onnx
from deploy.engine_callbacks import Progress, logger
from deploy.engine_manifest import (
    MANIFEST_SUFFIX,
    PLAN_SUFFIX,
    Engine,
    EngineManifest,
    Identity,
    cuda_major,
    plans_in,
    read_engine,
    read_manifest,
    this_platform,
)
from deploy.engine_order import Order, check_model, order_of
from deploy.engine_types import check_plan
from deploy.gpu import Gpu
from deploy.verify import MIN_PSNR_DB, Parity
from sr.errors import EngineError, SrupError, require_extra
from sr.files import TEMPORARY_PREFIX, atomic_write
from sr.network.modelfile import SHIPPED_DIR
from sr.version import __version__

Log = Callable[[str], None]

LOCK_NAME = ".lock"


def default_folder() -> Path:
    """Return where engines are kept: in the platform's cache folder of the user."""
    return Path(platformdirs.user_cache_dir("srup")) / "engines"


class EngineCache:
    """Engines in a folder, each a plan and a JSON manifest."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder

    def get(
        self,
        onnx_path: Path,
        spec: EngineSpec,
        module: ModuleType,
        *,
        gpu: Gpu | None,
        progress: Progress | None = None,
        log: Log | None = None,
    ) -> Engine:
        """Return the engine of an ONNX file, built if need be.

        Args:
            onnx_path: with uint8 IO, and the scale and precision of `spec`.
            spec: what engine.
            module: `tensorrt` or `tensorrt_rtx`, see `load_module`.
            gpu: that the engine is for; None for TensorRT-RTX with targets.
            progress: called during a build, see `Progress`.
            log: told in a line what was found, or which field differs. None is our logging.

        Raises:
            EngineError: the engine cannot be built here; see `plan_from_onnx`.
            ModelError: the ONNX file is missing or not ours.
            OSError: the folder cannot be written.
        """
        say = logger.info if log is None else log
        order = order_of(onnx_path, spec, module, gpu)
        if found := self._find(order, say):
            return found
        if not self._is_there(order):
            say(self._why_missing(order))
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock(say):
            if found := self._find(order, lambda _: None):
                say(f"{found.path.name}: built meanwhile by another process")
                return found
            check_model(onnx_path, spec)
            return self._build(order, progress, say)

    def checked(self, engine: Engine, measure: Callable[[], Parity]) -> Engine:
        """Return the engine with its parity in the manifest; measured if it is not there yet.

        An engine that is too far from its network is removed.

        Raises:
            EngineError: it is too far off.
            OSError: the manifest cannot be written.
        """
        manifest = engine.manifest
        if manifest.parity is not None:
            return engine
        found, precision = measure(), manifest.identity.precision
        if not found.passes(precision):
            with self._lock(logger.info):
                _remove(engine.path)
            raise EngineError(
                f"{engine.path.name}: its output is {found}, need {MIN_PSNR_DB[precision]} dB; removed. "
                "Another version of the builder may do better; --backend onnx runs the network meanwhile"
            )
        manifest = replace(manifest, parity=found)
        _write_manifest(engine.path, manifest)
        return replace(engine, manifest=manifest)

    def list(self) -> list[Engine]:
        """Return the engines that are whole, whatever built them, sorted by name."""
        engines = []
        for path in plans_in(self.folder):
            try:
                engines.append(read_engine(path))
            except ValueError:
                continue
        return engines

    def stale(self) -> dict[Path, str]:
        """Return the plans that can never be used here again, each with the reason.

        Engines for other GPUs, and those of a module that is not installed, are not stale.
        """
        versions = {name: _installed_version(backend) for backend, name in MODULES.items()}
        shipped = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in SHIPPED_DIR.glob("*.onnx")
        }
        reasons = {}
        for path in plans_in(self.folder):
            try:
                manifest = read_engine(path).manifest
            except ValueError as error:
                reasons[path] = str(error)
                continue
            if differences := _outdated(manifest, versions, shipped):
                reasons[path] = "; ".join(differences)
        return reasons

    def prune(self, log: Log | None = None) -> dict[Path, str]:
        """Remove stale engines, and what killed processes left; say each one before.

        Returns what was removed, as `stale` does.

        Raises:
            OSError: a file cannot be removed.
        """
        say = logger.info if log is None else log
        if not self.folder.is_dir():
            return {}
        with self._lock(say):
            reasons = self.stale()
            for path, reason in reasons.items():
                say(f"removing {path.name}: {reason}")
                _remove(path)
            for left_over in self.folder.glob(f"{TEMPORARY_PREFIX}*"):
                left_over.unlink(missing_ok=True)
        return reasons

    def _find(self, order: Order, say: Log) -> Engine | None:
        """Return a whole engine that is what was ordered, or one that will do in its place."""
        if self._is_there(order):
            path = self._path(order)
            try:
                engine = read_engine(path)
            except ValueError as error:
                say(f"{path.name}: {error}; building it again")
                return None
            reasons = engine.manifest.identity.differences(order.identity)
            if reasons:
                reasons.insert(0, "the manifest is of another engine")
            elif order.too_new(engine.manifest):
                reasons = [f"built by {engine.manifest.built_by}, this is {order.module.__version__}"]
            if reasons:
                say(f"{path.name}: {'; '.join(reasons)}; building it again")
                return None
            say(f"{path.name}: found")
            return engine
        for path, manifest in self._manifests():
            if order.served_by(manifest):
                try:
                    engine = read_engine(path)
                except ValueError:
                    continue
                say(f"{path.name}: found, it will do")
                return engine
        return None

    def _is_there(self, order: Order) -> bool:
        """Say whether a plan or a manifest of the ordered name is there, whole or not."""
        path = self._path(order)
        return path.exists() or path.with_suffix(MANIFEST_SUFFIX).exists()

    def _path(self, order: Order) -> Path:
        return self.folder / f"{order.identity.stem(order.onnx_name)}{PLAN_SUFFIX}"

    def _manifests(self) -> Iterator[tuple[Path, EngineManifest]]:
        for path in plans_in(self.folder):
            try:
                yield path, read_manifest(path)
            except ValueError:
                continue

    def _why_missing(self, order: Order) -> str:
        """Say how the nearest engine that is there differs."""
        wanted = order.identity
        name = f"{TITLES[wanted.module]} engine for x{wanted.scale} {wanted.precision}"
        nearest = []
        for path, manifest in self._manifests():
            other = manifest.identity
            if (other.module, other.scale, other.precision) == (
                wanted.module,
                wanted.scale,
                wanted.precision,
            ):
                differences = order.as_ordered(other).differences(wanted)
                nearest.append((len(differences), path.name, "; ".join(differences)))
        if not nearest:
            return f"no {name} in {self.folder}; building it"
        _, closest, differing = min(nearest)
        return f"no {name} fits; {closest}: {differing}; building it"

    def _build(self, order: Order, progress: Progress | None, say: Log) -> Engine:
        started, path, module, spec = time.perf_counter(), self._path(order), order.module, order.spec
        timing_cache = self.folder / f"timing_{_slug(order.identity)}.cache"
        with _current_device(order.gpu):
            plan = plan_from_onnx(order.onnx, spec, module, progress=progress, timing_cache=timing_cache)
            seconds = time.perf_counter() - started
            if order.runs_here:
                check_plan(plan, spec.precision, module, compatible=spec.compatible)
        manifest = EngineManifest(
            identity=order.identity,
            onnx_name=order.onnx_name,
            built_by=module.__version__,
            srup_version=__version__,
            built=datetime.now(UTC).isoformat(timespec="seconds"),
            build_seconds=round(seconds, 3),
            plan_bytes=len(plan),
            plan_sha256=hashlib.sha256(plan).hexdigest(),
        )
        with atomic_write(path) as temporary:
            temporary.write_bytes(plan)
        _write_manifest(path, manifest)
        say(f"{path.name}: built in {seconds:.1f} s, {len(plan) / 1e6:.1f} MB")
        return Engine(path, manifest)

    @contextmanager
    def _lock(self, say: Log) -> Iterator[None]:
        """Hold the folder's lock; the operating system frees it when a process is killed."""
        require_extra("trt-rtx", "filelock", purpose="writing to a folder of engines")
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / LOCK_NAME)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"another process builds engines in {self.folder}; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _write_manifest(plan: Path, manifest: EngineManifest) -> None:
    with atomic_write(plan.with_suffix(MANIFEST_SUFFIX)) as temporary:
        temporary.write_text(manifest.to_json(), encoding="utf-8")


def _remove(plan: Path) -> None:
    plan.unlink(missing_ok=True)
    plan.with_suffix(MANIFEST_SUFFIX).unlink(missing_ok=True)


@contextmanager
def _current_device(gpu: Gpu | None) -> Iterator[None]:
    """Make a GPU the current one, on which TensorRT builds and inspects."""
    if gpu is None or gpu.index == 0:
        yield
        return
    from cuda.bindings import runtime

    _, before = runtime.cudaGetDevice()
    (status,) = runtime.cudaSetDevice(gpu.index)
    if status != runtime.cudaError_t.cudaSuccess:
        raise EngineError(f"GPU {gpu.index} ({gpu.name}) cannot be used: {status.name}; see nvidia-smi")
    try:
        yield
    finally:
        runtime.cudaSetDevice(before)


def _slug(identity: Identity) -> str:
    """Return what a timing cache depends on as part of a file name."""
    text = f"{identity.module_version} {identity.gpu}".lower()
    return "".join(letter if letter.isalnum() else "-" for letter in text)


def _installed_version(backend: str) -> str | None:
    if importlib.util.find_spec(MODULES[backend]) is None:
        return None
    try:
        return str(load_module(backend).__version__)
    except SrupError:
        return None


def _outdated(
    manifest: EngineManifest, versions: dict[str, str | None], shipped: dict[str, str]
) -> list[str]:
    """Return in words why an engine can never be used here again; empty if it can."""
    identity = manifest.identity
    version = versions.get(identity.module)
    if version is not None and identity.compatible:
        version = version.partition(".")[0]
    here = replace(
        identity,
        module_version=version or identity.module_version,
        platform=this_platform(),
        cuda_major=cuda_major() or identity.cuda_major,
        onnx_sha256=shipped.get(manifest.onnx_name, identity.onnx_sha256),
    )
    return identity.differences(here)
