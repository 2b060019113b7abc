"""A run on a Ray cluster: a worker per GPU, or per node without one, fed with paths.

The workers are plain actors of Ray, and this module hands out the jobs. Ray Data was tried: one bad picture
aborts it or loses its block, and its checkpoints do nothing for rows that are made in memory. With actors
the outputs and the ledger are the checkpoint, as everywhere else, and it is known which jobs a lost node
had in hand.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sr.backends.specs import BACKENDS
from sr.errors import BackendError, one_line, printable
from sr.files import remove_left_over
from sr.jobs.job import FileJob, FileResult
from sr.jobs.ray.connection import connected
from sr.jobs.ray.worker import OpenedWorker, Worker, WorkerPlan
from sr.jobs.setup import Description
from sr.version import __version__

_MOST_LOSSES = 3  # of the worker that has a picture in hand, before the picture has failed
_MOST_CRASHES = 3  # of workers that open on a node, before the node is left out
_LOOK_FOR_NODES_S = 5.0
_WAIT_S = 1.0  # for a result, before other things are looked at
_STOP_S = 10.0  # that workers have to finish what is being written, after Ctrl-C
_NOTES_S = 5.0


@contextmanager
def ray_cluster(address: str, plan: WorkerPlan) -> Iterator[RayCluster]:
    """Yield a cluster with at least one open worker; everything that was started ends with the block.

    Args:
        address: see `parse_address`.
        plan: what each worker does.

    Raises:
        BackendError: Ray is missing, the cluster cannot be reached, or no worker opens.
    """
    with connected(address):
        cluster = RayCluster(plan)
        try:
            cluster.open()
            yield cluster
        finally:
            cluster.close()
    cluster.remove_left_over()


@dataclass
class _Task:
    """A job as its caller named it, and how many workers were lost that had it in hand."""

    job: FileJob
    losses: int = 0


@dataclass(eq=False)
class _Member:
    """A worker, seen from here.

    Attributes:
        node: that it runs on.
        actor: Ray's handle.
        opening: reference to its `OpenedWorker` until that has come.
        results: Ray's stream of results, if it is at work.
        jobs: how many it wants to have in hand.
        in_hand: tasks by the job that was sent.
    """

    node: str
    actor: Any
    opening: Any
    results: Any = None
    jobs: int = 0
    in_hand: dict[FileJob, _Task] = field(default_factory=dict)

    @property
    def source(self) -> Any:
        """What to wait for, or None."""
        return self.results if self.opening is None else self.opening


class RayCluster:
    """Workers on the nodes of the cluster that this process is connected to; nodes may come and go."""

    def __init__(self, plan: WorkerPlan) -> None:
        import ray

        self._ray: Any = ray  # which is typed in part only
        self._plan = plan.portable()
        self._remote = self._ray.remote(concurrency_groups={"control": 1})(Worker)
        self._exhausted = False  # no job is left to be handed out for the first time
        self._members: list[_Member] = []
        self._crashes: Counter[str] = Counter()
        self._looked = float("-inf")
        self._returned: deque[_Task] = deque()  # from lost workers
        self._folders: set[Path] = set()  # that workers wrote to
        self._opened: list[OpenedWorker] = []
        self._nodes: set[str] = set()
        self._failures: list[str] = []
        self._notes: list[str] = []

    def open(self) -> None:
        """Start the workers, and wait until the first is open.

        Raises:
            BackendError: none can be opened.
        """
        while not self._opened:
            self._start_workers()
            for _ in self._collected():
                pass

    @property
    def description(self) -> Description:
        """What upscales, for the user."""
        first = self._opened[0].description
        workers, nodes = len(self._opened), len(self._nodes)
        return replace(
            first,
            label=first.label or self._plan.upscaling.label,
            device=f"{workers} Ray worker{'s' * (workers > 1)} on {nodes} node{'s' * (nodes > 1)}, "
            f"{first.device}",
        )

    @property
    def warning(self) -> str | None:
        """What the user should know before the run, or None."""
        return self._opened[0].warning

    def notes(self) -> list[str]:
        """Return what the user should know after the run."""
        versions = {opened.version for opened in self._opened} - {__version__}
        other = [f"some workers run srup {version}, this is {__version__}" for version in sorted(versions)]
        return [*self._failures, *other, *self._notes]

    def upscale_files(self, jobs: Iterator[FileJob]) -> Generator[FileResult, None, None]:
        """Upscale files and yield a result for each when its file has been written, in any order.

        What a lost worker had in hand is done again by others, one picture at a time, so that a picture
        that ends its process fails alone. Ctrl-C lets what is being written finish.

        Raises:
            BackendError: no node is left that can open a worker.
        """
        tasks, self._exhausted = (_Task(job) for job in jobs), False
        try:
            self._feed_all(tasks)
            while not self._exhausted or self._returned or any(member.in_hand for member in self._members):
                self._start_workers()
                yield from self._collected()
                self._feed_all(tasks)
        except KeyboardInterrupt:
            yield from self._written_last()
            raise
        self._ask_for_notes()

    def close(self) -> None:
        """End the workers."""
        for member in self._members:
            with suppress(Exception):  # it is lost, or the cluster is
                self._ray.kill(member.actor)
        self._members.clear()

    def remove_left_over(self) -> None:
        """Remove the temporary files of workers that were lost, or ended, while they wrote.

        Those of a killed run may have gone on for a moment after this run began.
        """
        for folder in self._folders:
            remove_left_over(folder)

    # --- workers ---

    def _start_workers(self) -> None:
        """Start the workers that nodes lack; look for new nodes now and then.

        Raises:
            BackendError: there is neither a worker nor a node for one.
        """
        if time.monotonic() < self._looked + _LOOK_FOR_NODES_S:
            return
        self._looked = time.monotonic()
        usable = 0
        for node in self._ray.nodes():
            identity = node["NodeID"]
            if node["Alive"] and self._crashes[identity] < _MOST_CRASHES:
                resources = self._resources(node["Resources"])
                usable += len(resources)
                there = sum(member.node == identity for member in self._members)
                self._members += [self._started(identity, each) for each in resources[there:]]
        if not usable and not self._members:
            reason = self._failures[-1] if self._failures else "no node offers a GPU or a processor core"
            raise BackendError(f"--ray: no worker can be started: {reason}")

    def _resources(self, offered: dict[str, float]) -> list[dict[str, float]]:
        """Return what each worker of a node takes: a GPU, or else all cores of the node.

        The backends spread one picture over all cores, so a second worker would only take their memory.
        """
        settings = self._plan.settings
        spec = BACKENDS.get(settings.get("backend", "auto"))
        may_use_gpu = settings.get("device") != "cpu" and (spec is None or set(spec.devices) != {"cpu"})
        cores, gpus = int(offered.get("CPU", 0)), int(offered.get("GPU", 0))
        if gpus and may_use_gpu:
            return [{"num_gpus": 1, "num_cpus": min(1, cores // gpus)}] * gpus
        return [{"num_cpus": cores}] if cores else []

    def _started(self, node: str, resources: dict[str, float]) -> _Member:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        place = NodeAffinitySchedulingStrategy(node, soft=False)
        actor = self._remote.options(scheduling_strategy=place, **resources).remote(self._plan)
        return _Member(node, actor, opening=actor.open.remote())

    def _take_opened(self, member: _Member) -> None:
        """Take what a worker says of itself."""
        try:
            opened: OpenedWorker = self._ray.get(member.opening)
        except self._ray.exceptions.RayError as error:
            self._crashes[member.node] += 1
            self._lose(member, f"a worker did not start: {_reason(error)}")
            return
        if opened.error:
            self._crashes[member.node] = _MOST_CRASHES
            self._lose(member, opened.error)
            return
        member.opening, member.jobs = None, opened.jobs
        self._opened.append(opened)
        self._nodes.add(member.node)

    def _lose(self, member: _Member, why: str) -> None:
        """Take back what a lost worker had in hand."""
        self._failures.append(why)
        self._members.remove(member)
        self._returned += [replace(task, losses=task.losses + 1) for task in member.in_hand.values()]
        member.in_hand.clear()
        self._looked = float("-inf")  # others may take its place
        with suppress(Exception):
            self._ray.kill(member.actor)

    # --- jobs and results ---

    def _feed_all(self, tasks: Iterator[_Task]) -> None:
        """Give jobs to the workers that want some."""
        for member in self._members:
            new = list(self._tasks_for(member, tasks)) if member.opening is None else []
            if new:
                self._control(member, "feed", new)
            if member.in_hand and member.results is None:
                member.results = member.actor.results.remote()

    def _tasks_for(self, member: _Member, tasks: Iterator[_Task]) -> Iterator[FileJob]:
        """Yield the jobs to send to a worker; one that was lost with another worker is in hand alone."""
        while len(member.in_hand) < member.jobs and not any(task.losses for task in member.in_hand.values()):
            if self._returned and member.in_hand:
                return
            task = self._returned.popleft() if self._returned else next(tasks, None)
            if task is None:
                self._exhausted = True
                return
            sent = FileJob(task.job.source.absolute(), task.job.target.absolute())
            member.in_hand[sent] = task
            self._folders.add(sent.target.parent)
            yield sent

    def _control(self, member: _Member, method: str, *arguments: Any) -> Any:
        """Call a method of a worker that is at work."""
        return getattr(member.actor, method).options(concurrency_group="control").remote(*arguments)

    def _collected(self) -> Iterator[FileResult]:
        """Wait a moment for workers, and yield the results that have come."""
        by_source = {member.source: member for member in self._members if member.source is not None}
        if not by_source:
            time.sleep(_WAIT_S)
            return
        ready, _ = self._ray.wait([*by_source], num_returns=1, timeout=_WAIT_S)
        for source in ready:
            member = by_source[source]
            if member.opening is not None:
                self._take_opened(member)
            else:
                yield from self._received(member)

    def _received(self, member: _Member) -> Iterator[FileResult]:
        errors = self._ray.exceptions
        try:
            result: FileResult = self._ray.get(next(member.results))
        except StopIteration:  # a job may have come too late for this stream; then `_feed_all` opens another
            member.results = None
        except errors.RayTaskError:  # a mistake of the program, which ends any run
            raise
        except errors.RayError as error:
            self._lose(member, f"a worker was lost: {_reason(error)}")
            yield from self._given_up()
        else:
            yield replace(result, job=member.in_hand.pop(result.job).job)

    def _given_up(self) -> Iterator[FileResult]:
        """Yield a failure for each picture that has been lost too often."""
        for task in [task for task in self._returned if task.losses >= _MOST_LOSSES]:
            self._returned.remove(task)
            error = BackendError(
                f"{printable(task.job.source)}: {task.losses} workers ended while they had it in hand; look "
                "into Ray's logs, and give workers more memory or use --low-memory"
            )
            yield FileResult(task.job, error=error)

    def _written_last(self) -> Iterator[FileResult]:
        """Stop the workers, and yield what they still finish."""
        self._members = [member for member in self._members if member.results is not None]
        for member in self._members:
            self._control(member, "stop")
        deadline = time.monotonic() + _STOP_S
        while time.monotonic() < deadline and any(member.results for member in self._members):
            yield from self._collected()

    def _ask_for_notes(self) -> None:
        asked = [self._control(member, "notes") for member in self._members if member.opening is None]
        with suppress(self._ray.exceptions.RayError):
            for notes in self._ray.get(asked, timeout=_NOTES_S):
                self._notes += notes


def _reason(error: BaseException) -> str:
    """Return what matters of an error of Ray: it begins with a worker's traceback or ends with advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(lines[-1].partition(". ")[0] if lines else error)
