"""The connection to a Ray cluster: one that runs already, or one that is started on this machine alone."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sr.errors import BackendError, ImageError, one_line, require_extra
from sr.processor import available_cores

LOCAL = "local"  # in place of an address

_OBJECT_STORE_BYTES = 80 * 2**20  # only paths and results go through it; Ray takes no less than 75 MiB


def parse_address(text: str) -> str:
    """Return the address of a cluster as it is: "local", "auto" or HOST:PORT.

    Raises:
        ImageError: it is something else.
    """
    host, _, port = text.rpartition(":")
    if text in (LOCAL, "auto") or (host and "/" not in host and port.isdigit()):
        return text
    raise ImageError(
        f"{text!r} is not the address of a Ray cluster; write --ray HOST:PORT or --ray auto on one of its "
        "nodes, or --ray alone, after INPUT, for this machine"
    )


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect this process to a cluster for the length of a block; one that was started here ends with it.

    Args:
        address: see `parse_address`.

    Raises:
        BackendError: Ray is missing, or the cluster cannot be reached.
    """
    require_extra("ray", "ray", purpose="--ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with _options(address) as options:
        import ray

        _keep_off_stdout(ray)
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # Ray raises bare exceptions too
            where = "on this machine" if address == LOCAL else f"at {address}"
            raise BackendError(
                f"--ray: no Ray cluster {where} ({one_line(error)}); check it with: ray status"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _options(address: str) -> Iterator[dict[str, Any]]:
    """Yield options of `ray.init`, with a folder for the files of a cluster that is started here."""
    if address != LOCAL:
        yield {"address": address}
        return
    _stay_on_loopback()
    with TemporaryDirectory(prefix="srup-ray-", dir=_short_folder(), ignore_cleanup_errors=True) as folder:
        yield {
            "address": LOCAL,
            "num_cpus": available_cores(),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "_temp_dir": folder,
        }


def _short_folder() -> str | None:
    """Return where Ray's sockets go: the system limits their paths to about 100 bytes."""
    return "/tmp" if Path("/tmp").is_dir() else None


def _keep_off_stdout(ray: Any) -> None:
    """Switch off what Ray prints about lost nodes and workers: standard output belongs to the results.

    `log_to_driver` does not concern these lines. Ray's debugger uses the same switch.
    """
    ray._private.worker._worker_logs_enabled = False


def _stay_on_loopback() -> None:
    """Let Ray listen on the loopback interface only, and obey nobody but this run; needs a fresh Ray.

    `ray.init` replaces a loopback address by that of the machine, unless clusters are switched off; the
    name of the switch is Ray's, and works everywhere.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
