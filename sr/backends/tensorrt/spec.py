"""What an engine is built for: scale, precision, largest tile and batch, GPUs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sr.errors import EngineError
from sr.network.descriptor import ModelDescriptor, Precision
from sr.tiling import MIN_HALOS_PER_TILE


@dataclass(frozen=True)
class EngineSpec:
    """What engine to build.

    Its optimization profile runs from the smallest tile that the network takes, (1, 1, 1, 3) for most, to
    (batch, tile, tile, 3), with the optimum at the largest shape.

    Attributes:
        scale: of the network; the ONNX file must have the same.
        precision: of the convolutions; the ONNX file must have the same.
        tile: largest side of a tile in lr pixels.
        batch: largest number of tiles at once.
        targets: compute capabilities that TensorRT-RTX builds for, 89 for SM89. Empty means the GPU of
            this machine.
        builder_level: TensorRT's optimization level, 0 to 5; None is its own default.
        compatible: TensorRT engines that later versions and all GPUs since Ampere can load; slower.
        tiling_level: how long TensorRT searches for layers that pass tiles through the L2 cache: "none",
            "fast", "moderate" or "full"; None is its own default.
        static: add a second profile for the largest shape alone, whose kernels may be faster.

    Raises:
        EngineError: a number is out of range.
    """

    scale: int
    precision: Precision = "fp16"
    tile: int = 512
    batch: int = 4
    targets: tuple[int, ...] = ()
    builder_level: int | None = None
    compatible: bool = False
    tiling_level: str | None = None
    static: bool = False

    def __post_init__(self) -> None:
        if min(self.scale, self.tile, self.batch) < 1:
            raise EngineError(f"scale {self.scale}, tile {self.tile}, batch {self.batch}: need 1 or more")
        object.__setattr__(self, "targets", tuple(sorted(set(self.targets))))

    def fitted_to(self, model: ModelDescriptor) -> EngineSpec:
        """Return the same with the nearest batch and tile that a network takes, large enough for its halo."""
        tile = model.side_within(max(self.tile, MIN_HALOS_PER_TILE * model.halo))
        return replace(self, tile=tile, batch=model.ends.batch or self.batch)
