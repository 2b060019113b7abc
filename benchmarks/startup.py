"""Time to start `srup`: `srup --help` against a bare `python -c "import click"`.

python -m benchmarks.startup
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from benchmarks.lib.paths import ROOT
from benchmarks.lib.results import write_result
from benchmarks.lib.timing import interleaved_seconds

ROUNDS = 15
LIMIT = 2.5  # times the bare import


def main() -> None:
    """Measure and store."""
    run = partial(subprocess.run, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds = interleaved_seconds(
        {
            "import click": lambda: run([sys.executable, "-c", "import click"]),
            "srup --help": lambda: run([sys.executable, "-m", "sr.cli", "--help"]),
        },
        rounds=ROUNDS,
    )
    ratio = seconds["srup --help"] / seconds["import click"]
    write_result("startup", {"ratio": round(ratio, 2), "limit": LIMIT, "seconds": seconds})


if __name__ == "__main__":
    main()
