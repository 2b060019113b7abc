"""Time to build TensorRT-RTX engines, and to find one in the cache.

For each scale and target: time and size of a build, and the median time of `EngineStore.get` for a cached
engine, which reads and checks ONNX file, plan and manifest. Needs no GPU.

    python -m benchmarks.engines
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.lib.options import Script
from benchmarks.lib.results import write_result
from benchmarks.lib.timing import timed
from deploy.engines.build import build_engine
from sr.backends.tensorrt.modules import TensorRt, TensorRtRtx
from sr.backends.tensorrt.spec import EngineSpec
from sr.backends.tensorrt.store import EngineStore
from sr.network.modelfile import shipped_onnx, shipped_scales

TARGETS = ((75,), (80,), (86,), (89,), (120,), (75, 80, 86, 89, 120))
LOOKUPS = 20

# The requirements.
MAX_BUILD_S, MAX_LOOKUP_MS = 5.0, 50.0


def run(*, targets: Sequence[tuple[int, ...]] = TARGETS) -> dict[str, Any]:
    """Build an engine for each scale and set of compute capabilities, then find it in the cache.

    Raises:
        SrupError: TensorRT-RTX is not installed, or does not build.
    """
    trt = TensorRtRtx.load()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = EngineStore(Path(folder), builder=build_engine)
        for scale in shipped_scales():
            onnx = shipped_onnx(scale=scale, precision="fp16")
            for served in targets:
                spec = EngineSpec(scale, targets=served)
                manifest = store.get(onnx, spec, trt, gpu=None).manifest
                rows.append(
                    {
                        "scale": scale,
                        "targets": served,
                        "build_s": manifest.build_seconds,
                        "plan_bytes": manifest.plan_bytes,
                        "lookup_ms": lookup_ms(store, onnx, spec, trt),
                    }
                )
    slowest = {name: max(row[name] for row in rows) for name in ("build_s", "lookup_ms")}
    return {
        "builder": trt.title,
        "max_build_s": MAX_BUILD_S,
        "max_lookup_ms": MAX_LOOKUP_MS,
        "slowest_build_s": slowest["build_s"],
        "slowest_lookup_ms": slowest["lookup_ms"],
        "rows": rows,
    }


@click.command(cls=Script, help=__doc__)
def main() -> None:
    write_result("engines", run())


def lookup_ms(store: EngineStore, onnx: Path, spec: EngineSpec, trt: TensorRt) -> float:
    """Return the median time to find a cached engine."""
    seconds = (timed(partial(store.get, onnx, spec, trt, gpu=None)) for _ in range(LOOKUPS))
    return round(1000 * statistics.median(seconds), 2)


if __name__ == "__main__":
    main()
