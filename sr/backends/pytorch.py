"""PyTorch: the reference, and the backend for weights that were not exported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sr.backends.base import (
    Backend,
    BackendInfo,
    BackendRequest,
    Batch,
    gpu_indices,
    suitable_tile,
    tile_within,
)
from sr.backends.specs import BackendSpec
from sr.errors import BackendError, OutOfDeviceMemoryError
from sr.memory import available_memory
from sr.network.checkpoint import descriptor_from_weights
from sr.network.colour import RGBNet
from sr.network.deployed import fold, restored_weights
from sr.network.descriptor import ModelDescriptor
from sr.network.ends import Conventions
from sr.network.foreign.statedict import is_foreign_weights
from sr.network.modelfile import shipped_weights


def open_torch(spec: BackendSpec, request: BackendRequest) -> Backend:
    """Open the requested weights, ours or another program's, or the shipped ones."""
    weights = request.model or shipped_weights(scale=request.scale)
    return TorchBackend(
        weights,
        device=request.device,
        restore=request.restore,
        stated=request.conventions,
        progress=request.build_progress,
    )


def gpu_problem() -> str:
    """Return why PyTorch cannot use a GPU; empty if it can."""
    if torch.cuda.is_available():
        return ""
    return "a PyTorch that is built for CUDA; https://pytorch.org/get-started has the pip line"


class TorchBackend(Backend):
    """Trained weights on PyTorch, float32, channels last; networks of ours are folded."""

    def __init__(
        self,
        weights: Path,
        *,
        device: str,
        restore: float = 0.0,
        stated: Conventions | None = None,
        progress: Callable[[str, float], None] | None = None,
    ) -> None:
        """Load `weights` onto `device`: "cpu", "cuda", or a GPU by its number.

        Args:
            weights: safetensors of ours, or a file of another program.
            device: as above.
            restore: above 0 the file has a partner, and the network is that between the two.
            stated: conventions of another program's network, where they are not to be found out.
            progress: called with phase and share done while such a network is probed.

        Raises:
            ModelError: the weights are missing, damaged, refused or of an unknown architecture.
            BackendError: there is no such device.
        """
        gpus = gpu_indices(device)
        if gpus and not torch.cuda.is_available():
            raise BackendError("PyTorch sees no CUDA device; use --device cpu, or see srup info")
        if gpus and gpus[0] >= torch.cuda.device_count():
            raise BackendError(f"there is no GPU {gpus[0]}; PyTorch sees {torch.cuda.device_count()}")
        self._device = torch.device(f"cuda:{gpus[0]}" if gpus else "cpu")
        foreign = is_foreign_weights(weights)
        network, model = _foreign(weights, stated, progress) if foreign else _own(weights, restore)
        self._model = network.to(self._device)
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        self._ends = model.ends
        self.info = BackendInfo(
            name="torch",
            device=_describe(self._device),
            model=model,
            default_tile=suitable_tile(model) if gpus else tile_within(available_memory(), model),
            default_batch=4 if gpus else 1,
            constant_tiles=bool(gpus),
            max_batch=model.ends.batch,
            sixteen_bit=True,
        )

    def run(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Upscale batches in order, one at a time; raises as `Backend.run`."""
        for batch in batches:
            try:
                # Inside the loop, because a generator must not leave them on. float32 is promised: no TF32.
                with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                    result = self._run(batch) if self.info.model.ours else self._run_foreign(batch)
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

    def _run_foreign(self, batch: Batch) -> Batch:
        """Run a batch through a network with conventions of its own."""

        def run(part: NDArray) -> NDArray:
            return self._model(torch.from_numpy(part).to(self._device)).cpu().numpy()

        result = self._ends.in_batches(run, self._ends.tensor_from_batch(batch))
        return self._ends.batch_from_tensor(result, batch.dtype)

    def close(self) -> None:
        """Free the network."""
        del self._model


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"GPU {device.index} {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads != 1)}"


def _own(weights: Path, restore: float) -> tuple[nn.Module, ModelDescriptor]:
    """Load weights of ours, folded."""
    loaded = restored_weights(weights, restore)
    return RGBNet(fold(loaded.build())), descriptor_from_weights(loaded)


def _foreign(
    weights: Path, stated: Conventions | None, progress: Callable[[str, float], None] | None
) -> tuple[nn.Module, ModelDescriptor]:
    """Load weights of another program, after small runs of them in a process of its own."""
    from sr.network.foreign.describe import foreign_descriptor
    from sr.network.foreign.torchnet import load_network

    model = foreign_descriptor(weights, stated=stated, progress=progress)
    return load_network(weights).module, model
