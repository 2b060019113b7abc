"""Limits of a machine: measured peaks of a matrix product and of a copy in memory.

A network's share of the limit is its multiply-adds over its time, divided by the rate of the fastest
product of two matrices that any engine reaches here with the same threads. The best try counts, not
the median: a limit was reached once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import click
import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.lib.options import store_option
from benchmarks.lib.results import store_result
from benchmarks.lib.timing import timed

SIDES = (512, 1024, 2048)  # of the matrices: the largest takes 0.1 s at 170 GFLOPS
_COPY_BYTES = 256 * 2**20  # beyond every cache
_TRIES = 8


@dataclass(frozen=True)
class Peaks:
    """The limits of one device.

    Attributes:
        flops: floating-point operations a second; a multiply-add is two.
        flops_by: engine and size that reached it.
        bytes_per_s: read plus written in a copy.
        bytes_by: library that reached it.
    """

    flops: float
    flops_by: str
    bytes_per_s: float
    bytes_by: str

    def share(self, macs: int, seconds: float) -> float:
        """Return the share of the peak at which `macs` multiply-adds in `seconds` run."""
        return 2 * macs / seconds / self.flops

    def as_dict(self) -> dict[str, Any]:
        """Return the peaks for a report."""
        return {
            "gflops": round(self.flops / 1e9, 1),
            "gflops_by": self.flops_by,
            "copy_gb_per_s": round(self.bytes_per_s / 1e9, 2),
            "copy_by": self.bytes_by,
        }


def cpu_peaks(*, sides: tuple[int, ...] = SIDES, tries: int = _TRIES, copy_bytes: int = _COPY_BYTES) -> Peaks:
    """Measure this processor in float32, with the default threads of each engine."""
    flops, flops_by = max(
        (2 * side**3 / _fastest(product, tries), f"{engine}, {side}x{side}")
        for side in sides
        for engine, product in _products(side)
    )
    copied, copied_by = max(
        (2 * copy_bytes / _fastest(copy, tries), name) for name, copy in _copies(copy_bytes)
    )
    return Peaks(flops, flops_by, copied, copied_by)


def gpu_peaks(precision: str, *, side: int = 8192, tries: int = _TRIES) -> Peaks:
    """Measure the first GPU with PyTorch, float32 (TF32 off) or fp16; not yet run on one."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    dtype = torch.float16 if precision == "fp16" else torch.float32
    matrix = torch.randn(side, side, dtype=dtype, device="cuda")
    source = torch.zeros(2**28, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)

    def waited(action: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            action()
            torch.cuda.synchronize()

        return run

    product = _fastest(waited(lambda: matrix @ matrix), tries)
    copy = _fastest(waited(lambda: target.copy_(source)), tries)
    return Peaks(
        2 * side**3 / product, f"torch {precision}, {side}x{side}", 2 * source.numel() / copy, "torch"
    )


def _fastest(action: Callable[[], object], tries: int) -> float:
    action()
    return min(timed(action) for _ in range(tries))


def _products(side: int) -> Iterator[tuple[str, Callable[[], object]]]:
    matrix = np.random.default_rng(0).random((side, side), np.float32)
    product = np.empty_like(matrix)
    yield "numpy", lambda: np.matmul(matrix, matrix, out=product)
    session = _onnx_product(side)
    yield "onnxruntime", lambda: session.run(None, {"a": matrix, "b": matrix})
    try:
        import torch
    except ImportError:
        return
    tensor, result = torch.from_numpy(matrix), torch.from_numpy(product)
    yield "torch", lambda: torch.mm(tensor, tensor, out=result)


def _copies(size: int) -> Iterator[tuple[str, Callable[[], object]]]:
    source = np.full(size, 7, np.uint8)  # untouched zeros are all one page
    target = np.empty_like(source)
    yield "numpy", lambda: np.copyto(target, source)
    try:
        import torch
    except ImportError:
        return
    read, written = torch.from_numpy(source), torch.from_numpy(target)
    yield "torch", lambda: written.copy_(read)


def _onnx_product(side: int) -> Any:
    import onnxruntime

    value = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [side, side]) for name in "aby"}
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    graph = helper.make_graph([node], "product", [value["a"], value["b"]], [value["y"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@click.command(help=__doc__)
@store_option
def main(store: bool) -> None:
    peaks = cpu_peaks()
    print(
        f"{peaks.flops / 1e9:.0f} GFLOPS ({peaks.flops_by}), "
        f"{peaks.bytes_per_s / 1e9:.1f} GB/s read and written ({peaks.bytes_by})"
    )
    if store:
        store_result("limits", {"peaks": asdict(peaks)})


if __name__ == "__main__":
    main()
