"""A network of another program in PyTorch: its architecture found from its weights, by spandrel.

Owns what of spandrel is used, and which of its networks are no upscalers of pictures.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sr.errors import ModelError, one_line, printable, require_extra
from sr.network.ends import Ends
from sr.network.foreign.graph import Graph, TensorInfo
from sr.network.foreign.session import PictureSession
from sr.network.foreign.statedict import read_state, stated_licence, tensors_in

_FLOAT32 = 1  # element type in onnx.proto3


class CallableNet(nn.Module):
    """What spandrel calls, as a module: float32 RGB in [0, 1], (N, 3, H, W), to (N, 3, scale*H, scale*W)."""

    def __init__(self, described: Any) -> None:
        super().__init__()
        self.net = described.model
        self._call = described._call_fn  # some architectures give tuples, or another range

    def forward(self, image: Tensor) -> Tensor:
        """Upscale; the output is clipped to [0, 1] as spandrel clips it."""
        result: Tensor = self._call(self.net, image).clamp(0, 1)
        return result


@dataclass(frozen=True)
class TorchNetwork:
    """A network with what spandrel knows of it.

    Attributes:
        module: float32, in evaluation mode, on the CPU.
        architecture: its name.
        scale: upscaling factor.
        channels: of input and output, 3 or 1.
        minimum: smallest side of a picture in lr pixels.
        multiple: sides are multiples of this.
        supports_half: whether float16 is known to be enough.
        params: number of values in its weights.
        licence: of the weights, if the file states one.
    """

    module: CallableNet
    architecture: str
    scale: int
    channels: int
    minimum: int
    multiple: int
    supports_half: bool
    params: int
    licence: str

    def properties(self) -> dict[str, str]:
        """Return what an ONNX file made from it says of it."""
        stated = {
            "architecture": self.architecture,
            "order": "RGB",
            "range": "0..1",
            "minimum": str(self.minimum),
            "multiple": str(self.multiple),
            "half": "" if self.supports_half else "no",
            "license": self.licence,
        }
        return {key: value for key, value in stated.items() if value}


def load_network(path: Path) -> TorchNetwork:
    """Read weights, and find the network that they belong to.

    Raises:
        ModelError: the file is refused, or no architecture is known that upscales pictures with it.
        MissingExtraError: spandrel is not installed.
    """
    require_extra("models", "torch", "safetensors", "spandrel", purpose=f"reading {printable(path)}")
    state, name = read_state(path), printable(path)
    spandrel = import_spandrel()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch, about old code in architectures
            described = spandrel.ModelLoader(device="cpu").load_from_state_dict(
                spandrel.canonicalize_state_dict(state)
            )
    except spandrel.UnsupportedModelError as error:
        raise ModelError(
            f"{name}: no architecture that spandrel {spandrel.__version__} knows has such weights; "
            "export the network to ONNX (torch.onnx.export) in the program that trained it"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # detectors compute with names and shapes as they are
        if "alloc" in str(error):
            raise MemoryError from error
        raise ModelError(f"{name}: its weights do not fit together ({one_line(error)})") from error
    _check(described, name, is_image=isinstance(described, spandrel.ImageModelDescriptor))
    sizes = described.size_requirements
    return TorchNetwork(
        module=CallableNet(described.float().eval()).requires_grad_(False).eval(),
        architecture=described.architecture.name,
        scale=described.scale,
        channels=described.input_channels,
        minimum=max(1, sizes.minimum),
        multiple=sizes.multiple_of,
        supports_half=described.supports_half,
        params=sum(tensor.numel() for tensor in tensors_in(described.model.state_dict())),
        licence=stated_licence(path),
    )


def _check(described: Any, name: str, *, is_image: bool) -> None:
    """Refuse what does not make a picture from a picture."""
    kind, given = described.architecture.name, (described.input_channels, described.output_channels)
    if not is_image:
        raise ModelError(f"{name}: a network of the architecture {kind} needs a mask besides a picture")
    if 4 in given:
        raise ModelError(
            f"{name}: takes four channels (RGBA), need three or one: transparency is upscaled as a second "
            "picture; use a network for RGB"
        )
    if given not in ((3, 3), (1, 1)):
        raise ModelError(f"{name}: makes {given[1]} channels from {given[0]}, need 3 from 3, or 1 from 1")
    if described.size_requirements.square:
        raise ModelError(f"{name}: the architecture {kind} takes square pictures only")


def import_spandrel() -> Any:
    """Import spandrel, also where torchvision is missing or was built for another PyTorch.

    Only two of its architectures use torchvision, for inpainting and faces; they cannot be used then.
    """
    if "spandrel" in sys.modules or _has_torchvision():
        return importlib.import_module("spandrel")
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    placed = {name: ModuleType(name) for name in names}
    for name in ("InterpolationMode", "rotate", "normalize"):
        setattr(placed[names[2]], name, None)
    for name in [each for each in sys.modules if each.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # what is left of a failed import
    sys.modules.update(placed)
    try:
        return importlib.import_module("spandrel")
    finally:
        for name in names:
            sys.modules.pop(name, None)


def _has_torchvision() -> bool:
    if importlib.util.find_spec("torchvision") is None:
        return False
    try:
        import torchvision  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
    except (ImportError, RuntimeError, OSError):  # built for another PyTorch, or for CUDA
        return False
    return True


class TorchSession(PictureSession):
    """A network of another program, run by PyTorch on the CPU."""

    def __init__(self, path: Path) -> None:
        """Load the weights.

        Raises:
            ModelError, MissingExtraError: as `load_network`.
        """
        self.network = load_network(path)
        axes = (None, self.network.channels, None, None)
        info = TensorInfo("input", _FLOAT32, axes)
        self.graph = Graph(
            inputs=[info], outputs=[TensorInfo("output", _FLOAT32, axes)], metadata=self.network.properties()
        )

    def tensor(self, ends: Ends, tensor: NDArray[Any]) -> NDArray[Any]:
        """Run a tensor as the network takes it; return its output.

        Raises:
            ModelError: PyTorch failed.
            MemoryError: it needs more memory than the process may have.
        """
        try:
            with torch.inference_mode():
                made: NDArray[np.float32] = self.network.module(torch.from_numpy(tensor)).numpy()
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            if "alloc" in str(error):
                raise MemoryError from error
            raise ModelError(one_line(error)) from error
        return made
