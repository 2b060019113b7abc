"""PyTorch: the reference, and the backend for weights that were not exported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from sr.backends.base import (
    Backend,
    BackendInfo,
    BackendRequest,
    Batch,
    default_tile,
    gpu_indices,
    tile_within,
)
from sr.backends.specs import BackendSpec
from sr.errors import BackendError, OutOfDeviceMemoryError
from sr.memory import available_memory
from sr.network.checkpoint import descriptor_from_weights
from sr.network.colour import RGBNet
from sr.network.deployed import fold, restored_weights
from sr.network.modelfile import shipped_weights


def open_torch(spec: BackendSpec, request: BackendRequest) -> Backend:
    """Open the requested weights, or the shipped ones."""
    weights = request.model or shipped_weights(scale=request.scale)
    return TorchBackend(weights, device=request.device, restore=request.restore)


def gpu_problem() -> str:
    """Return why PyTorch cannot use a GPU; empty if it can."""
    if torch.cuda.is_available():
        return ""
    return "a PyTorch that is built for CUDA; https://pytorch.org/get-started has the pip line"


class TorchBackend(Backend):
    """Trained weights on PyTorch, folded, float32, channels last."""

    def __init__(self, weights: Path, *, device: str, restore: float = 0.0) -> None:
        """Load `weights` (safetensors) onto `device`: "cpu", "cuda", or a GPU by its number.

        With `restore` above 0 the file has a partner, and the network is that between the two.

        Raises:
            ModelError: the weights are missing, damaged or not ours.
            BackendError: there is no such device.
        """
        gpus = gpu_indices(device)
        if gpus and not torch.cuda.is_available():
            raise BackendError("PyTorch sees no CUDA device; use --device cpu, or see srup info")
        if gpus and gpus[0] >= torch.cuda.device_count():
            raise BackendError(f"there is no GPU {gpus[0]}; PyTorch sees {torch.cuda.device_count()}")
        loaded = restored_weights(weights, restore)
        self._device = torch.device(f"cuda:{gpus[0]}" if gpus else "cpu")
        self._model = RGBNet(fold(loaded.build())).to(self._device)
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        model = descriptor_from_weights(loaded)
        self.info = BackendInfo(
            name="torch",
            device=_describe(self._device),
            model=model,
            default_tile=default_tile(model.scale) if gpus else tile_within(available_memory(), model),
            default_batch=4 if gpus else 1,
            constant_tiles=bool(gpus),
            sixteen_bit=True,
        )

    def run(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Upscale batches in order, one at a time; raises as `Backend.run`."""
        for batch in batches:
            try:
                # Inside the loop, because a generator must not leave them on. float32 is promised: no TF32.
                with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                    result = self._run(batch)
            except (RuntimeError, MemoryError) as error:
                failure = self.failure("PyTorch", error, batch.shape)
                if isinstance(failure, OutOfDeviceMemoryError) and self._device.type == "cuda":
                    torch.cuda.empty_cache()  # of blocks that are too small for anything else
                raise failure from error
            yield result

    def _run(self, batch: Batch) -> Batch:
        largest = 255 if batch.dtype == np.uint8 else 65535
        source = batch if batch.dtype == np.uint8 else batch.astype(np.float32)  # torch hardly knows uint16
        lr = torch.tensor(source, device=self._device).permute(0, 3, 1, 2)  # a channels-last view
        sr = self._model(lr.float() / largest)
        levels = (sr * largest).round_().clamp_(0, largest).permute(0, 2, 3, 1)
        if largest == 255:  # as few bytes as can be cross the bus
            return levels.to(torch.uint8).contiguous().cpu().numpy()
        return levels.contiguous().cpu().numpy().astype(np.uint16)

    def close(self) -> None:
        """Free the network."""
        del self._model


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"GPU {device.index} {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads != 1)}"
