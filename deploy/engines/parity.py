"""The proof that an engine computes what its network does, on a GPU of this machine."""

from __future__ import annotations

from pathlib import Path

from deploy.verify import CHART_SIZES, parity
from sr.backends.gpus import Gpu
from sr.backends.ort import OrtBackend, read_metadata
from sr.backends.parity import Parity
from sr.backends.tensorrt.backend import TrtBackend, TrtSettings
from sr.backends.tensorrt.manifest import Engine
from sr.backends.tensorrt.modules import TensorRt
from sr.backends.tensorrt.opening import fallback_of


def engine_parity(engine: Engine, onnx: Path, *, trt: TensorRt, gpu: Gpu) -> Parity:
    """Compare an engine with ONNX Runtime on the CPU, on the fp32 file of the same weights if there is one.

    Args:
        engine: that `gpu` can load.
        onnx: file that it was built from.
        trt: that built it.
        gpu: to run on.

    Raises:
        OutOfDeviceMemoryError: other programs have taken the GPU's memory.
        BackendError: the engine does not load or run, or gives what is not finite.
    """
    from cuda.bindings import runtime as cudart

    model, identity = read_metadata(onnx), engine.manifest.identity
    side = model.side_within(min(identity.spec.tile, max(CHART_SIZES[0])))
    settings = TrtSettings(
        model=model,
        tile=side,
        batch=1,
        gpu_names={gpu.index: gpu.name},
        host_code=identity.spec.compatible,
    )
    in_fp32 = fallback_of(onnx, model)
    with (
        OrtBackend(onnx, device="cpu") if in_fp32 is None else in_fp32() as reference,
        TrtBackend({gpu.index: engine.plan()}, settings, trt=trt, cudart=cudart) as backend,
    ):
        return parity(backend, reference, largest=side)
