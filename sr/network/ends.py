"""Between pictures, integers (N, H, W, 3), and the tensors that a network takes and gives.

Owns the conventions in which networks differ: layout, order of channels, range and type of values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # loaded when used: help is made from records that need `Ends`, and must start fast
    import numpy as np
    from numpy.typing import NDArray

Layout = Literal["NHWC", "NCHW"]
Order = Literal["RGB", "BGR"]
TensorType = Literal["uint8", "float32", "float16"]

# Names of the tensors in ONNX files that `deploy.export` writes.
INPUT_NAME, OUTPUT_NAME, FINITE_NAME = "image", "upscaled", "finite"


@dataclass(frozen=True)
class Ends:
    """How a network takes and gives images.

    Attributes:
        dtype: of the tensors. uint8 holds levels from 0 to 255, whatever `black` and `white` are.
        layout: order of the axes.
        order: of the three channels.
        channels: of the network, 3 or 1; one of 1 upscales red, green and blue one after the other.
        black: float that stands for level 0.
        white: float that stands for the highest level.
        border: lr pixels by which a picture is continued on each side, for a network that crops its output.
        crop: hr pixels that are then cut off each side of the output.
        batch: number of images that the network takes at once; None is any.
        size: (height, width) in lr pixels that the network takes; None is any.
        input_name: name of the input tensor.
        output_name: name of the output tensor.
    """

    dtype: TensorType = "float32"
    layout: Layout = "NCHW"
    order: Order = "RGB"
    channels: int = 3
    black: float = 0.0
    white: float = 1.0
    border: int = 0
    crop: int = 0
    batch: int | None = None
    size: tuple[int, int] | None = None
    input_name: str = INPUT_NAME
    output_name: str = OUTPUT_NAME

    @property
    def floats(self) -> bool:
        """Whether the network takes and gives floats, and so 16 bits per channel too."""
        return self.dtype != "uint8"

    def tensor_from_batch(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Return what the network takes for a batch of uint8 or uint16 RGB, (N, H, W, 3).

        A tensor of uint8 is for batches of uint8. One channel: (3 * N, 1, H, W).
        """
        import numpy as np

        if self.border:
            sides = (self.border, self.border)
            batch = np.pad(batch, ((0, 0), sides, sides, (0, 0)), mode="symmetric")
        if self.order == "BGR":
            batch = batch[..., ::-1]
        tensor = batch if self.layout == "NHWC" and self.channels == 3 else batch.transpose(0, 3, 1, 2)
        if self.floats:
            tensor = tensor / np.float32(np.iinfo(batch.dtype).max)
            if (self.black, self.white) != (0.0, 1.0):
                tensor = tensor * np.float32(self.white - self.black) + np.float32(self.black)
        if self.channels == 1:
            tensor = tensor.reshape(-1, 1, *tensor.shape[2:])
            tensor = tensor.transpose(0, 2, 3, 1) if self.layout == "NHWC" else tensor
        return np.ascontiguousarray(tensor, self.dtype)

    def shares_from_tensor(self, tensor: NDArray[Any]) -> NDArray[np.float32]:
        """Return the network's output as float32 (N, H, W, 3), 0 for black and 1 for white, not clipped."""
        import numpy as np

        values = self._pixels(tensor).astype(np.float32, copy=False)
        if (self.black, self.white) == (0.0, 1.0):
            return values
        return (values - np.float32(self.black)) / np.float32(self.white - self.black)

    def batch_from_tensor(self, tensor: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the network's output as integers (N, H, W, 3) of `dtype`, rounded and clipped."""
        import numpy as np

        if not self.floats:
            return np.ascontiguousarray(self._pixels(tensor))
        largest = np.iinfo(dtype).max
        scaled = np.rint(self.shares_from_tensor(tensor) * np.float32(largest))
        return np.ascontiguousarray(scaled.clip(0, largest).astype(dtype))

    def _pixels(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Return the output as (N, H, W, 3) RGB in the network's own values."""
        if self.channels == 1:
            planes = tensor.transpose(0, 3, 1, 2) if self.layout == "NHWC" else tensor
            tensor = planes.reshape(-1, 3, *planes.shape[2:]).transpose(0, 2, 3, 1)
        elif self.layout == "NCHW":
            tensor = tensor.transpose(0, 2, 3, 1)
        if self.crop:
            tensor = tensor[:, self.crop : -self.crop, self.crop : -self.crop]
        return tensor[..., ::-1] if self.order == "BGR" else tensor

    def in_batches(self, run: Callable[[NDArray[Any]], NDArray[Any]], tensor: NDArray[Any]) -> NDArray[Any]:
        """Run a tensor, piece by piece where the network takes a fixed number of images."""
        import numpy as np

        if self.batch is None or len(tensor) == self.batch:
            return run(tensor)
        parts = []
        for at in range(0, len(tensor), self.batch):
            part = tensor[at : at + self.batch]
            missing = self.batch - len(part)
            full = np.concatenate([part, part[:1].repeat(missing, 0)]) if missing else part
            parts.append(run(full)[: len(part)])
        return np.concatenate(parts)


@dataclass(frozen=True)
class Conventions:
    """Conventions of a network that the user states; None where the user states nothing.

    Attributes:
        value_range: floats that stand for black and white.
        order: of the channels.
    """

    value_range: tuple[float, float] | None = None
    order: Order | None = None


UINT8 = Ends(dtype="uint8", layout="NHWC", black=0.0, white=255.0)
FLOAT32 = Ends()
