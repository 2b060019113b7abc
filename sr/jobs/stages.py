"""Stages of a pipeline: pools of threads, and work that is started ahead of its turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


@contextmanager
def threads(number: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool; at the end wait for running tasks and cancel those that have not started."""
    pool = ThreadPoolExecutor(number, name)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def ahead(
    jobs: Iterable[Job],
    submit: Callable[[Job], Future[Result]],
    *,
    is_full: Callable[[int, list[Result]], bool],
) -> Iterator[tuple[Job, Future[Result]]]:
    """Pair each job with its task, which is started while earlier ones are being worked on.

    Args:
        jobs: read one by one.
        submit: starts the task of a job.
        is_full: says, from the number of tasks that wait for their turn and the results of those that have
            succeeded, whether no further one may be started.
    """
    started: deque[tuple[Job, Future[Result]]] = deque()

    def full() -> bool:
        # A task that failed raises when its turn has come.
        succeeded = [each.result() for _, each in started if each.done() and not each.exception()]
        return is_full(len(started), succeeded)

    for job in jobs:
        while started and full():
            yield started.popleft()
        started.append((job, submit(job)))
    while started:
        yield started.popleft()
