"""One process of a Ray cluster: it opens an upscaler, takes jobs, and returns results, errors included.

It imports nothing of Ray. Pictures never pass through Ray: a worker reads and writes the files itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from socket import gethostname

from sr.errors import SrupError
from sr.jobs.job import FileJob, FileResult
from sr.jobs.pipeline import RunSettings, upscale_files
from sr.jobs.setup import Description, UpscalerSetup, open_setup
from sr.processor import available_cores
from sr.sized import UpscalerSettings, Upscaling
from sr.version import __version__

# Jobs that a worker has in hand: enough to keep decoders and encoders busy, few enough that a lost node
# and the end of a run cost little.
_JOBS_BESIDE, _JOBS_PER_CORE, _MOST_JOBS = 4, 2, 64

# The first job of a batch may be on its way; later ones are there, or there are none.
_WAIT_S = 1.0


@dataclass(frozen=True)
class WorkerPlan:
    """What each worker does.

    Attributes:
        upscaling: the size of the outputs, and the networks.
        settings: how the networks are run.
        run_settings: how files are read and written.
        opener: opens the upscaler in place of `sr.jobs.setup.open_setup`; workers import it by name.
    """

    upscaling: Upscaling
    settings: UpscalerSettings
    run_settings: RunSettings
    opener: Callable[[Upscaling, UpscalerSettings], UpscalerSetup] | None = None

    def portable(self) -> WorkerPlan:
        """Return a plan with absolute paths, and without callbacks of this process."""
        models, engine_dir = self.upscaling.models, self.settings.get("engine_dir")
        settings: UpscalerSettings = {
            **self.settings,
            "engine_dir": engine_dir and engine_dir.absolute(),
            "build_progress": None,
        }
        return replace(
            self,
            upscaling=replace(self.upscaling, models=tuple(model.absolute() for model in models)),
            settings=settings,
        )


@dataclass(frozen=True)
class OpenedWorker:
    """What a worker says of itself when its upscaler is open, or has failed to open.

    Attributes:
        error: why it failed, or empty.
        description: of the upscaler.
        jobs: how many it wants to have in hand.
        warning: what the user should know before the run, or None.
        version: of srup.
    """

    error: str = ""
    description: Description = field(default_factory=Description)
    jobs: int = 1
    warning: str | None = None
    version: str = __version__


class Worker:
    """Upscales what it is fed with; `feed`, `stop` and `notes` may be called from another thread."""

    def __init__(self, plan: WorkerPlan) -> None:
        self._plan = plan
        self._setup: UpscalerSetup | None = None
        self._queue: SimpleQueue[FileJob] = SimpleQueue()
        self._stopped = False

    def open(self) -> OpenedWorker:
        """Open the upscaler."""
        plan = self._plan
        try:
            if plan.opener is not None:
                setup = plan.opener(plan.upscaling, plan.settings)
            else:
                setup = open_setup(plan.upscaling, **plan.settings)
        except SrupError as error:
            return OpenedWorker(error=str(error))
        self._setup = setup
        jobs = min(_JOBS_BESIDE + _JOBS_PER_CORE * available_cores(), _MOST_JOBS)
        return OpenedWorker("", setup.description, jobs, setup.warning)

    def feed(self, jobs: Iterable[FileJob]) -> None:
        """Take further jobs, with absolute paths."""
        for job in jobs:
            self._queue.put(job)

    def results(self) -> Iterator[FileResult]:
        """Yield the result of each job in order, until there are no more jobs for now."""
        setup = self._setup
        assert setup is not None  # nobody feeds a worker that has not opened
        files = upscale_files(
            self._jobs(),
            setup.upscaler,
            capabilities=setup.capabilities,
            settings=self._plan.run_settings,
        )
        with suppress(KeyboardInterrupt):  # `stop`
            for result in files:
                device = setup.description.device
                yield _row(replace(result, host=gethostname(), device=device))

    def stop(self) -> None:
        """Finish what is being written, and nothing more."""
        self._stopped = True

    def notes(self) -> list[str]:
        """Return what the user should know of the run."""
        return [] if self._setup is None else list(self._setup.notes())

    def _jobs(self) -> Iterator[FileJob]:
        wait = _WAIT_S
        while True:
            if self._stopped:
                raise KeyboardInterrupt
            try:
                job = self._queue.get(timeout=wait) if wait else self._queue.get_nowait()
            except Empty:
                return
            yield job
            wait = 0.0


def _row(result: FileResult) -> FileResult:
    """Return a result that can be sent: an error may hold what cannot."""
    return result if result.error is None else replace(result, error=SrupError(str(result.error)))
