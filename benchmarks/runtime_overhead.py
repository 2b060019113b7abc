"""Host work of the TensorRT runtime: a picture on a simulated GPU that computes in no time.

The time for a whole picture (cutting tiles, filling pinned memory, calls of CUDA and TensorRT, collecting,
stitching) is compared with the time of ONNX Runtime for the same picture and tiles on this CPU, in turn.
It includes the simulation's own work, mainly its copies, so the share is an upper bound.

What matters is the time of the GPU that the host serves: `host_per_gpu_time` is the host's time as a
multiple of the least time in which named GPUs can compute the picture in fp16, from their published
peaks (`roofline` of `benchmarks.predict`). Above 1 such a GPU waits for this host.

    python -m benchmarks.runtime_overhead
"""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

import numpy as np

from benchmarks.lib.devices import GPUS
from benchmarks.lib.paths import ROOT
from benchmarks.lib.results import write_result
from benchmarks.lib.timing import spent
from benchmarks.predict import Job, predict
from sr.backends.ort import OrtBackend, read_metadata
from sr.backends.tensorrt.backend import TrtBackend, TrtSettings
from sr.image import read_picture
from sr.network.modelfile import shipped_onnx
from sr.resize import bicubic_resize
from sr.upscale import Upscaler
from tests.simulated_device import SimulatedCuda
from tests.simulated_tensorrt import SimulatedPlan, SimulatedTensorRT, no_kernel

PICTURE = ROOT / "examples" / "kitten.png"
ROUNDS = 5
CASES = ((2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (4, 2))  # scale, enlargement of the photograph
BATCH = 4


def main() -> None:
    """Measure and store."""
    photograph = read_picture(PICTURE).pixels
    images = {times: bicubic_resize(photograph, scale=times) for times in (1, 2)}
    write_result("runtime-overhead", {"cases": [share(scale, images[times]) for scale, times in CASES]})


def share(scale: int, image: np.ndarray) -> dict[str, Any]:
    """Return median milliseconds of both, and the share in wall and in processor time, and of GPUs' time."""
    onnx = shipped_onnx(scale=scale, precision="fp16")
    cuda = SimulatedCuda()
    module = SimulatedTensorRT(cuda)
    with (
        Upscaler(backend=OrtBackend(onnx, device="cpu")) as ort,
        Upscaler(backend=simulated(scale, ort.spec.tile, cuda, module)) as simulation,
    ):
        ort.batch = 1  # its best on a CPU
        ort.grid = simulation.grid  # type: ignore[method-assign]  # the same tiles
        actions = {"onnx": ort, "host": simulation}
        rounds = [
            {name: spent(partial(upscaler, image)) for name, upscaler in actions.items()}
            for _ in range(ROUNDS + 1)
        ][1:]
        tiles = len(simulation.grid(*image.shape[:2]))
    wall_ms = {name: 1e3 * statistics.median(one[name].wall for one in rounds) for name in actions}
    cores_ms = {name: 1e3 * statistics.median(one[name].cores for one in rounds) for name in actions}
    return {
        "scale": scale,
        "size": f"{image.shape[1]}x{image.shape[0]}",
        "tiles": tiles,
        "onnxruntime_ms": round(wall_ms["onnx"], 1),
        "host_ms": round(wall_ms["host"], 2),
        "share_of_wall_time": round(wall_ms["host"] / wall_ms["onnx"], 4),
        "share_of_processor_time": round(cores_ms["host"] / cores_ms["onnx"], 4),
        "host_per_gpu_time": host_per_gpu_time(wall_ms["host"], scale, image.shape[:2]),
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


def simulated(scale: int, tile: int, cuda: SimulatedCuda, module: SimulatedTensorRT) -> TrtBackend:
    """Open the backend on a simulated GPU with a kernel that does nothing."""
    onnx = shipped_onnx(scale=scale, precision="fp16")
    plan = module.plan(SimulatedPlan(no_kernel, scale, BATCH, tile))
    settings = TrtSettings("trt", read_metadata(onnx), tile=tile)
    return TrtBackend({0: plan}, settings, module=module, cudart=cuda)


if __name__ == "__main__":
    main()
