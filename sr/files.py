"""Files that are whole or absent: temporary name, flush, rename. What killed processes leave is removed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# A crash can leave such a file behind; it never carries the final name or a picture's suffix first.
TEMPORARY_PREFIX = ".srup-"

_TOKEN_BYTES = 8
_TEMPORARY = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}[0-9a-f]{{{2 * _TOKEN_BYTES}}}(\.[^.]*)?")


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, an empty file; rename it to `path` if the block succeeds.

    The temporary file has the same suffix as `path` and is removed when the block fails. While it is
    being written it is locked, which tells it from those that a killed process left, see
    `remove_left_over`. The block writes to this very file, and does not put another in its place.

    Raises:
        OSError: the directory cannot be written, or whatever the block raises.
        ValueError: the block wrote nothing.
    """
    temporary, descriptor = _locked_temporary(path)
    try:
        try:
            yield temporary
            with temporary.open("rb+") as written:
                if os.fstat(written.fileno()).st_size == 0:
                    raise ValueError(f"nothing was written to {path.name}")
                os.fsync(written.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    finally:
        if descriptor is not None:
            os.close(descriptor)


def remove_left_over(folder: Path) -> None:
    """Remove the temporary files in `folder` that killed processes left; those being written stay.

    On a file system that knows no locks, and on Windows, all stay.
    """
    if fcntl is None:
        return
    with contextlib.suppress(OSError):  # a folder that is missing, or not to be listed
        left_over = [path for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name)]
        for path in left_over:
            with contextlib.suppress(OSError):  # a link, removed meanwhile, being written, not ours
                _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    assert fcntl is not None
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)


def _locked_temporary(path: Path) -> tuple[Path, int | None]:
    """Create a temporary file beside `path`; return it, and the descriptor that holds its lock."""
    while True:
        temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(_TOKEN_BYTES)}{path.suffix}")
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        if fcntl is None:  # an open file could not be renamed either
            os.close(descriptor)
            return temporary, None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another process is just removing what seems left over
            os.close(descriptor)
            continue
        except OSError:  # no locks on this file system
            return temporary, descriptor
        if temporary.exists():
            return temporary, descriptor
        os.close(descriptor)
