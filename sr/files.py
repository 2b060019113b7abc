"""Files that are whole or absent: temporary name, flush, rename."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

# A crash can leave such a file behind; it never carries the final name or a picture's suffix first.
TEMPORARY_PREFIX = ".srup-"


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds.

    The temporary file has the same suffix as `path` and is removed when the block fails.

    Raises:
        OSError: the directory cannot be written, or whatever the block raises.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
