"""Stages of a pipeline: pools of threads, and work that is started ahead of its turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Peekable(Generic[Job]):
    """An iterator whose next item can be looked at."""

    def __init__(self, items: Iterable[Job]) -> None:
        self._items, self._seen = iter(items), deque[Job]()

    def peek(self) -> Job | None:
        """Return the next item and keep it; None if there is none."""
        if not self._seen:
            self._seen.extend(islice(self._items, 1))
        return self._seen[0] if self._seen else None

    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        return self._seen.popleft() if self._seen else next(self._items)


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
