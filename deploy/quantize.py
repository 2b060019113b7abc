"""INT8: which convolutions are computed in 8 bits, and the ranges of their inputs.

Owns the way from a float32 ONNX file of ours to one with pairs of QuantizeLinear and
DequantizeLinear; runtimes turn them into integer convolutions.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from sr.errors import ModelError
from sr.image import read_picture
from sr.network.ends import INPUT_NAME

Image = NDArray[np.uint8]  # (H, W, 3) RGB

# Inside a block: convolutions that read neither the picture nor the trunk. The trunk carries the whole range
# of the picture, so that a step of 8 bits is two levels: convolutions that read it cost 0.12 dB at x3 for a
# tenth of the work, all others together cost nothing (benchmarks/README.md). Channel attention stays float.
INSIDE_BLOCKS = r"net\.blocks\.\d+\.(expand\.1|reduce\.0)\.weight"

# How many pictures ranges are measured on, and their side; more pictures changed no score.
CALIBRATION_PICTURES, CALIBRATION_PX = 16, 128

Method = Literal["minmax", "percentile", "entropy"]


@dataclass(frozen=True)
class QuantizeSpec:
    """How to quantise.

    Attributes:
        layers: pattern of weight names; these convolutions are computed in 8 bits.
        method: how a range follows from the values seen: all of them; all inside `percentile`; or the
            range that loses least information (Kullback-Leibler).
        percentile: share in percent of the values that a range holds.
    """

    layers: str = INSIDE_BLOCKS
    method: Method = "percentile"
    percentile: float = 99.99


def calibration_pictures(folder: Path) -> list[Image]:
    """Return pictures of one size to measure ranges on, spread over a folder of lr pictures.

    Raises:
        ModelError: the folder holds no pictures.
        ImageError: a picture cannot be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not paths:
        raise ModelError(f"{folder}: no PNG or JPEG pictures to calibrate on")
    chosen = paths[:: -(-len(paths) // CALIBRATION_PICTURES)]
    return [_square(read_picture(path).pixels) for path in chosen]


def _square(pixels: NDArray) -> Image:
    """Return the middle as 8-bit RGB, continued by its mirror images where it is smaller."""
    rows, columns = (
        slice(max(0, (size - CALIBRATION_PX) // 2), (size + CALIBRATION_PX) // 2) for size in pixels.shape[:2]
    )
    part = pixels[rows, columns] if pixels.ndim == 3 else pixels[rows, columns, None].repeat(3, axis=2)
    missing = [(0, CALIBRATION_PX - size) for size in part.shape[:2]]
    square = np.pad(part, [*missing, (0, 0)], mode="symmetric")
    return square if square.dtype == np.uint8 else (square // 257).astype(np.uint8)


def quantized(
    model: onnx.ModelProto, pictures: Sequence[Image], spec: QuantizeSpec | None = None
) -> onnx.ModelProto:
    """Return `model`, float32 with uint8 IO, with some convolutions computed in 8 bits.

    Inputs are unsigned with a zero point, one range for each; weights are symmetric with one range
    for each output channel, and of 7 bits: products of 8 bits overflow on processors without VNNI.

    Raises:
        ModelError: no convolution matches `spec.layers`.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    spec, model = spec or QuantizeSpec(), copy.deepcopy(model)
    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    chosen = [node.name for node in convolutions if re.fullmatch(spec.layers, node.input[1])]
    if not chosen:
        raise ModelError(f"no convolution to quantise: none has weights named {spec.layers}")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            path,
            _reader(pictures),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=chosen,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=methods[spec.method],
            extra_options={
                "OpTypesToExcludeOutputQuantization": ["Conv"],  # the trunk and the picture stay float
                "CalibPercentile": spec.percentile,
            },
        )
        return onnx.load(path)


def _reader(pictures: Sequence[Image]) -> object:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            self._left = iter(pictures)

        def get_next(self) -> dict[str, NDArray] | None:
            picture = next(self._left, None)
            return None if picture is None else {INPUT_NAME: picture[None]}

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice and prints off the user's terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
