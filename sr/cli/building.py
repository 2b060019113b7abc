"""Building the engines that a command lacks: the builder that every command hands in, and its progress.

Imports nothing of TensorRT, because most runs build no engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sr.cli.console import draws_bars, terminal

if TYPE_CHECKING:
    from sr.backends.tensorrt.request import EngineRequest, Progress


def build_engine(request: EngineRequest, *, progress: Progress | None, timing_cache: Path) -> bytes:
    """Build an engine and return it serialized; see `sr.backends.tensorrt.request.EngineBuilder`.

    Raises:
        EngineError, ModelError, OSError: as `deploy.engines.build.build_engine`.
    """
    from deploy.engines.build import build_engine as build

    return build(request, progress=progress, timing_cache=timing_cache)


@contextmanager
def build_progress() -> Iterator[Progress]:
    """Yield a progress callback for an engine that may have to be built: it prints why, then draws a bar."""
    bars: list[Progress | None] = []
    with ExitStack() as stack:

        def progress(phase: str, share: float) -> None:
            if not bars:
                terminal.message(phase)
                bars.append(stack.enter_context(engine_progress("engine")))
            elif bars[0] is not None:
                bars[0](phase, share)

        yield progress


@contextmanager
def engine_progress(title: str) -> Iterator[Progress | None]:
    """Yield a progress callback for a build: a bar if stderr is a terminal, else nothing."""
    if not draws_bars():
        yield None
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(f"building the {title} engine"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with terminal.bars(*columns) as bars:
        task = bars.add_task("", total=1.0)
        yield lambda phase, share: bars.update(task, completed=share, description=phase)
