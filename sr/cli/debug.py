"""`SRUP_DEBUG=1`: tracebacks of errors that otherwise are one line."""

from __future__ import annotations

import os
import traceback

SWITCH = "SRUP_DEBUG"


def show_traceback(error: BaseException) -> None:
    """Print to stderr where an error comes from and what caused it, if `SRUP_DEBUG` asks for it."""
    if os.environ.get(SWITCH, "0") not in ("", "0"):
        traceback.print_exception(error)
