"""The declaration of a setting of a run, from which help, option and TOML key are made."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field
from typing import Any

# Headings under which `srup train --help` lists the settings, in this order.
GROUPS = ("Network", "Data", "Loss and schedule", "Optimizer", "Computation", "Files")
NETWORK, DATA, LOSS, OPTIMIZER, COMPUTATION, FILES = GROUPS


@dataclass(frozen=True)
class Setting:
    """The declaration of a setting, beside its name, type and default.

    Attributes:
        help: what it is, one or two sentences.
        group: one of `GROUPS`.
        said: the default in words, where its value is not enough.
        option: names on the command line, the first of them in TOML too; if empty, `--` and its own name.
        off: of a setting that is true or false, the name of the option that makes it false.
        alone: value of the option if none is given with it.
        metavar: how help shows the value, if not by its type.
        at_least: smallest possible number.
        above: the number must be larger than this.
        below: the number must be smaller than this.
        resumable: a resumed run may change it, since it does not alter what has been trained so far.
    """

    help: str
    group: str
    said: str = ""
    option: tuple[str, ...] = ()
    off: str = ""
    alone: str | float | None = None
    metavar: str | None = None
    at_least: float | None = None
    above: float | None = None
    below: float | None = None
    resumable: bool = False

    def problem(self, value: Any) -> str:
        """Return what is needed in place of `value`, e.g. "need at least 1"; "" if nothing is wrong."""
        if not isinstance(value, int | float) or not math.isfinite(value):
            return "need a finite number"
        if self.at_least is not None and value < self.at_least:
            return f"need at least {self.at_least}"
        if self.above is not None and value <= self.above:
            return f"need more than {self.above}"
        if self.below is not None and value >= self.below:
            return f"need less than {self.below}"
        return ""


def setting(help: str, group: str, *, default: Any = MISSING, **details: Any) -> Any:
    """Declare a field of a dataclass as a setting; `details` are those of `Setting`."""
    return field(default=default, metadata={"setting": Setting(help, group, **details)})


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" where a known name is close to `name`, else ""."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
