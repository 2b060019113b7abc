"""Host work of the TensorRT runtime: a picture on a simulated GPU that computes and copies in no time.

The processor time for a whole picture: cutting tiles, filling pinned memory, calls of CUDA and TensorRT.
What the simulation itself takes, such as the copies that a GPU would make, is not in it.

What matters is the time of the GPU that the host serves: `host_per_gpu_time` is the host's time as a
multiple of the least time in which named GPUs can compute the picture in fp16, from their published
peaks (`roofline` of `benchmarks.predict`). Above 1 such a GPU waits for this host.

    python -m benchmarks.runtime_overhead
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from benchmarks.lib.devices import GPUS
from benchmarks.lib.results import write_result
from benchmarks.predict import Job, predict
from sr.backends.base import default_tile
from sr.backends.ort import read_metadata
from sr.backends.tensorrt.backend import TrtBackend, TrtSettings
from sr.backends.tensorrt.modules import TensorRt
from sr.network.modelfile import shipped_onnx
from sr.upscale import Upscaler
from tests.simulated_device import Costs, SimulatedCuda
from tests.simulated_tensorrt import SimulatedPlan, SimulatedTensorRT, no_kernel

ROUNDS = 15
CASES = tuple((scale, size) for scale in (2, 3, 4) for size in ((678, 1020), (1080, 1920)))
BATCH = 4


def main() -> None:
    """Measure and store."""
    write_result("runtime-overhead", {"cases": [host_time(scale, size) for scale, size in CASES]})


def host_time(scale: int, size: tuple[int, int], *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return median milliseconds of the host for a picture (height, width), and related to GPUs."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    cuda = SimulatedCuda(costs=Costs(copy=0, kernel=0), clock=time.thread_time)
    with Upscaler(backend=simulated(scale, cuda)) as upscaler:
        spent = []
        for _ in range(rounds + 2):  # the first ones allocate
            started = cuda.host_time
            upscaler(image)
            spent.append(1e3 * (cuda.host_time - started))
        tiles = len(upscaler.grid(*size))
    host_ms = statistics.median(spent[2:])
    return {
        "scale": scale,
        "size": f"{size[1]}x{size[0]}",
        "tiles": tiles,
        "host_ms": round(host_ms, 2),
        "host_per_gpu_time": host_per_gpu_time(host_ms, scale, size),
    }


def host_per_gpu_time(host_ms: float, scale: int, size: tuple[int, ...]) -> dict[str, float]:
    """Return a time of the host as a multiple of the least time of each named GPU.

    Args:
        host_ms: milliseconds for a picture.
        scale: of the network.
        size: height and width of the picture in lr pixels.
    """
    height, width = size
    job = Job.shipped(scale, (height, width), precision="fp16", batch=BATCH)
    megapixels = height * width * scale**2 / 1e6
    return {gpu.name: round(host_ms / 1e3 * predict(gpu, job).roofline / megapixels, 2) for gpu in GPUS}


def simulated(scale: int, cuda: SimulatedCuda) -> TrtBackend:
    """Open the backend on a simulated GPU with a kernel that does nothing."""
    module, onnx = SimulatedTensorRT(cuda), shipped_onnx(scale=scale, precision="fp16")
    plan = module.plan(SimulatedPlan(no_kernel, scale, BATCH, default_tile(scale)))
    settings = TrtSettings(read_metadata(onnx))
    return TrtBackend({0: plan}, settings, trt=TensorRt(module), cudart=cuda)


if __name__ == "__main__":
    main()
