"""The training runs behind weights, as the summary in their file tells of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_NOT_OF_THE_RUN = ("started_from", "average_of", "beside")


def training_runs(training: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the summaries of the last run, of those that it started from, and of those averaged with them."""
    earlier: Any = training
    while isinstance(earlier, dict) and earlier:
        yield {key: value for key, value in earlier.items() if key not in _NOT_OF_THE_RUN}
        yield from earlier.get("beside", [])
        earlier = earlier.get("started_from")
