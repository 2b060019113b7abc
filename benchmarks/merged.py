"""On a GPU: each 1x5 convolution and the 5x1 after it as one 5x5, by the time of the engine alone.

Exact but for rounding. It has 1.6 times the multiply-adds, but reads and writes less memory, which bounds
these networks on a GPU (`benchmarks.predict`). On a CPU it is slower (`benchmarks.levers`). Both engines are
timed in turn, in batches of the largest shape, by CUDA events; the best round counts.

    python -m benchmarks.merged
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click
import onnx

from benchmarks.levers import merged_5x5
from benchmarks.lib.options import Script
from benchmarks.lib.results import store_result
from benchmarks.lib.trt_split import measured_split
from deploy.engines.build import plan_from_onnx
from sr.backends.available import missing_requirements
from sr.backends.tensorrt.cuda import cuda_gpus
from sr.backends.tensorrt.modules import KINDS, TensorRt
from sr.backends.tensorrt.spec import EngineSpec
from sr.errors import BackendError, EngineError
from sr.network.modelfile import shipped_onnx

SCALE, RUNS, ROUNDS = 2, 100, 3


def compare(trt: TensorRt, spec: EngineSpec, compute_ms: Callable[[bytes], float]) -> dict[str, Any]:
    """Build both engines and time them in turn.

    Args:
        trt: that builds them.
        spec: what to build, resolved.
        compute_ms: returns the time of a run of a serialized engine.

    Raises:
        EngineError: one cannot be built.
    """
    model = onnx.load(shipped_onnx(scale=spec.scale, precision="fp16"))
    usual = model.SerializeToString()
    graphs = {"usual": usual, "merged": merged_5x5(model).SerializeToString()}
    plans = {name: plan_from_onnx(graph, spec, trt) for name, graph in graphs.items()}
    times: dict[str, list[float]] = {name: [] for name in plans}
    for _ in range(ROUNDS):
        for name, plan in plans.items():
            times[name].append(compute_ms(plan))
    best = {f"{name}_ms": round(min(found), 4) for name, found in times.items()}
    return {"scale": spec.scale, "ran": trt.title, "batch": spec.batch, "tile": spec.tile, **best}


def run() -> dict[str, Any]:
    """Compare on the first GPU, with each TensorRT that is installed.

    Raises:
        BackendError: there is no GPU.
    """
    gpus = cuda_gpus()
    if not gpus:
        raise BackendError("no NVIDIA GPU here")
    from cuda.bindings import runtime

    rows = []
    for kind in KINDS.values():
        if lack := missing_requirements(kind.backend.name):
            print(f"{kind.backend.name}: lacks {lack}", file=sys.stderr)
            continue
        trt = kind.load()

        def compute_ms(plan: bytes, trt: TensorRt = trt) -> float:
            largest = EngineSpec(SCALE)
            shape = (largest.batch, largest.tile, largest.tile, 3)
            return measured_split(plan, shape, trt, runtime, rounds=RUNS)["compute"]["median"]

        try:
            row = compare(trt, trt.resolved(EngineSpec(SCALE), gpus[0]), compute_ms)
        except EngineError as error:  # TensorRT-RTX does not support every GPU
            print(f"{trt.title}: {error}", file=sys.stderr)
            continue
        print(line(row), file=sys.stderr, flush=True)
        rows.append(row)
    return {"gpu": gpus[0].name, "rows": rows}


def line(row: dict[str, Any]) -> str:
    """Return a row in words."""
    return f"x{row['scale']} {row['ran']}: usual {row['usual_ms']} ms, merged {row['merged_ms']} ms"


@click.command(cls=Script, help=__doc__)
def main() -> None:
    store_result("merged", run())


if __name__ == "__main__":
    main()
