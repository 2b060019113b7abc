"""Where the measurements find and leave files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"
EXAMPLES = tuple(ROOT / "examples" / f"{name}.png" for name in ("colosseum", "kitten", "osprey"))
