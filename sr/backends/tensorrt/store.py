"""The store of engines: a folder of plans and manifests, in which engines are found, added and removed.

Several processes may use one folder: one builds, the others wait and take its engine.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from sr.backends.gpus import Gpu
from sr.backends.parity import MIN_PSNR_DB, Parity
from sr.backends.tensorrt.kernels import LOCK_NAME
from sr.backends.tensorrt.log import logger
from sr.backends.tensorrt.manifest import (
    MANIFEST_SUFFIX,
    PLAN_SUFFIX,
    Engine,
    EngineManifest,
    Identity,
    plans_in,
    read_engine,
    read_manifest,
)
from sr.backends.tensorrt.modules import TensorRt, title_of
from sr.backends.tensorrt.request import EngineBuilder, EngineRequest, Progress, engine_request
from sr.backends.tensorrt.spec import EngineSpec
from sr.backends.tensorrt.stale import remove_engine, remove_left_over, stale_engines
from sr.errors import EngineError
from sr.files import atomic_write
from sr.version import __version__

Log = Callable[[str], None]


def default_folder() -> Path:
    """Return the default folder of engines, in the user's cache folder."""
    return Path(platformdirs.user_cache_dir("srup")) / "engines"


class EngineStore:
    """Engines in a folder, each a plan and a JSON manifest."""

    def __init__(self, folder: Path | None = None, *, builder: EngineBuilder | None = None) -> None:
        """Use a folder.

        Args:
            folder: need not exist; None is `default_folder`.
            builder: builds engines that the folder lacks; without one they are an error.
        """
        self._named_folder = folder
        self.folder = default_folder() if folder is None else folder
        self._builder = builder

    def get(
        self,
        onnx_path: Path,
        spec: EngineSpec,
        trt: TensorRt,
        *,
        gpu: Gpu | None,
        progress: Progress | None = None,
        log: Log | None = None,
    ) -> Engine:
        """Return the engine of an ONNX file; build it if the folder lacks it.

        Args:
            onnx_path: file with uint8 IO, and the scale and precision of `spec`.
            spec: what engine.
            trt: that builds it.
            gpu: that the engine is for; None for TensorRT-RTX with targets.
            progress: called during a build.
            log: called with one line: what was found, or which field differs. None is our logging.

        Raises:
            EngineError: the engine is missing and there is no builder, or it cannot be built here.
            ModelError: the ONNX file is missing or not ours.
            OSError: the folder cannot be written.
        """
        say = logger.info if log is None else log
        request = engine_request(onnx_path, spec, trt, gpu)
        if found := self._find(request, say):
            return found
        if self._builder is None:
            command = request.build_command(self._named_folder)
            raise EngineError(f"{self._why_missing(request)}; build it with: {command}")
        if not self._exists(request):
            say(f"{self._why_missing(request)}; building it")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock(say):
            if found := self._find(request, lambda _: None):
                say(f"{found.path.name}: built meanwhile by another process")
                return found
            return self._build(request, self._builder, progress, say)

    def checked(self, engine: Engine, measure: Callable[[], Parity]) -> Engine:
        """Return the engine with its parity in the manifest; measure it if it is missing.

        An engine whose output is too far from that of its network is removed.

        Raises:
            EngineError: it is too far off.
            OSError: the manifest cannot be written.
        """
        manifest = engine.manifest
        if manifest.parity is not None:
            return engine
        found, precision = measure(), manifest.identity.spec.precision
        if not found.passes(precision):
            with self._lock(logger.info):
                remove_engine(engine.path)
            raise EngineError(
                f"{engine.path.name}: its output is {found}, need {MIN_PSNR_DB[precision]} dB; removed. "
                "Another version of the builder may do better; until then use --backend onnx"
            )
        manifest = replace(manifest, parity=found)
        with self._lock(logger.info):
            _write_manifest(engine.path, manifest)
        return replace(engine, manifest=manifest)

    def list(self) -> list[Engine]:
        """Return the complete engines, of any builder, sorted by name."""
        engines = []
        for path in plans_in(self.folder):
            try:
                engines.append(read_engine(path))
            except ValueError:
                continue
        return engines

    def stale(self) -> dict[Path, str]:
        """Return the plans that can never be used on this machine again, each with the reason.

        Engines for other GPUs, and those of a module that is not installed, are not stale.
        """
        return stale_engines(self.folder)

    def prune(self, log: Log | None = None) -> dict[Path, str]:
        """Remove stale engines and the temporary files of killed processes; name each engine first.

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
                remove_engine(path)
            remove_left_over(self.folder)
        return reasons

    def _find(self, request: EngineRequest, say: Log) -> Engine | None:
        """Return a complete engine: the requested one, or one that can take its place."""
        if self._exists(request):
            path = self._path(request)
            try:
                engine = read_engine(path)
            except ValueError as error:
                say(f"{path.name}: {error}; it has to be built again")
                return None
            reasons = engine.manifest.identity.differences(request.identity)
            if reasons:
                reasons.insert(0, "the manifest is of another engine")
            elif request.too_new(engine.manifest):
                reasons = [f"built by {engine.manifest.built_by}, this is {request.trt.version}"]
            if reasons:
                say(f"{path.name}: {'; '.join(reasons)}; it has to be built again")
                return None
            say(f"{path.name}: found")
            return engine
        for path, manifest in self._manifests():
            if request.accepts(manifest):
                try:
                    engine = read_engine(path)
                except ValueError:
                    continue
                say(f"{path.name}: found, fits as well")
                return engine
        return None

    def _exists(self, request: EngineRequest) -> bool:
        """Say whether a plan or manifest of the requested name exists, complete or not."""
        path = self._path(request)
        return path.exists() or path.with_suffix(MANIFEST_SUFFIX).exists()

    def _path(self, request: EngineRequest) -> Path:
        return self.folder / f"{request.identity.stem(request.onnx_name)}{PLAN_SUFFIX}"

    def _manifests(self) -> Iterator[tuple[Path, EngineManifest]]:
        for path in plans_in(self.folder):
            try:
                yield path, read_manifest(path)
            except ValueError:
                continue

    def _why_missing(self, request: EngineRequest) -> str:
        """Say that no engine fits, and how the nearest one differs."""
        wanted = request.identity
        name = f"{title_of(wanted.module)} engine for x{wanted.spec.scale} {wanted.spec.precision}"
        nearest = []
        for path, manifest in self._manifests():
            other = manifest.identity
            if _network_of(other) == _network_of(wanted):
                differences = request.as_requested(other).differences(wanted)
                nearest.append((len(differences), path.name, "; ".join(differences)))
        if not nearest:
            return f"no {name} in {self.folder}"
        _, closest, differing = min(nearest)
        return f"no {name} fits; {closest}: {differing or 'not complete'}"

    def _build(
        self, request: EngineRequest, builder: EngineBuilder, progress: Progress | None, say: Log
    ) -> Engine:
        started, path = time.perf_counter(), self._path(request)
        timing_cache = self.folder / f"timing_{_slug(request.identity)}.cache"
        plan = builder(request, progress=progress, timing_cache=timing_cache)
        seconds = time.perf_counter() - started
        manifest = EngineManifest(
            identity=request.identity,
            onnx_name=request.onnx_name,
            built_by=request.trt.version,
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
        """Hold the folder's lock; the operating system releases it when a process is killed."""
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


def _network_of(identity: Identity) -> tuple[str, int, str]:
    return identity.module, identity.spec.scale, identity.spec.precision


def _write_manifest(plan: Path, manifest: EngineManifest) -> None:
    with atomic_write(plan.with_suffix(MANIFEST_SUFFIX)) as temporary:
        temporary.write_text(manifest.to_json(), encoding="utf-8")


def _slug(identity: Identity) -> str:
    """Return what a timing cache depends on as part of a file name."""
    text = f"{identity.module_version} {identity.gpu}".lower()
    return "".join(letter if letter.isalnum() else "-" for letter in text)
