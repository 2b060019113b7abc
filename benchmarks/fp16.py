"""Cost of half precision: fp16 against fp32 of the shipped networks, by references that compute in half.

ONNX Runtime computes fp16 files in float32 on a CPU, so it cannot show the cost. PyTorch computes in half
precision on a CPU (with sums within a convolution in float32, as tensor cores do), and onnx.reference
even rounds every sum to half. For each folder of hr pictures and each scale the result has the PSNR of
both precisions against the hr picture, the loss, and the PSNR between the two outputs before rounding to
levels.

    python -m benchmarks.fp16 Set5=PATH/TO/Set5/HR
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from torch import nn

from benchmarks.lib.options import Script, click_sets
from benchmarks.lib.results import write_result
from deploy.fold import fold
from deploy.half import without_hidden_overflow
from sr.image import read_picture
from sr.network.checkpoint import load_weights
from sr.network.colour import upscale_rgb
from sr.network.ends import INPUT_NAME, OUTPUT_NAME
from sr.network.model import frozen_attention
from sr.network.modelfile import shipped_onnx, shipped_scales, shipped_weights
from train.data.pairs import load_pair_list
from train.evaluate import evaluate
from train.prepare.make import PrepareSpec, prepare

Floats = NDArray[np.float32]
REFERENCE_PX = 48  # side of the crop that onnx.reference computes; it takes seconds

# The requirements on the shipped files.
MIN_PSNR_DB = 65.0  # of the fp16 output against the fp32 output
MAX_LOSS_DB = 0.01  # of Y-PSNR on Set5


@dataclass(frozen=True)
class Nets:
    """The network of a scale, folded, in both precisions: RGB (1, 3, H, W) in [0, 1] in and out."""

    fp32: nn.Module
    fp16: nn.Module

    def upscale(self, precision: str, lr: NDArray[np.uint8]) -> Floats:
        """Return the output before rounding, (s*H, s*W, 3) in [0, 1], of uint8 RGB (H, W, 3)."""
        batch = torch.tensor(lr).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            sr = upscale_rgb(getattr(self, precision), batch).float()
        return sr[0].permute(1, 2, 0).numpy()


def shipped_nets(scale: int) -> Nets:
    """Return the shipped network of a scale."""
    weights = load_weights(shipped_weights(scale=scale))
    net = weights.build()
    net = fold(frozen_attention(net) if weights.config.attention == "dynamic" else net).eval()
    return Nets(net, without_hidden_overflow(net).half())


def reference_output(onnx_file: Path, lr: NDArray[np.uint8]) -> Floats:
    """Return the output of onnx.reference for one of our files before rounding, as `Nets.upscale` does."""
    model = onnx.load(onnx_file)
    (rounding,) = [node for node in model.graph.node if node.op_type == "Round"]
    info = onnx.helper.make_tensor_value_info(rounding.input[0], onnx.TensorProto.FLOAT, None)
    model.graph.output.append(info)
    names = [output.name for output in model.graph.output]
    values = dict(zip(names, ReferenceEvaluator(model).run(None, {INPUT_NAME: lr[None]}), strict=True))
    floats: Floats = values[rounding.input[0]][0]
    height, width, _ = values[OUTPUT_NAME][0].shape
    if floats.shape[0] == 3:  # rounded before the transposition to NHWC
        floats = floats.transpose(1, 2, 0)
    return floats.reshape(height, width, 3) / 255


def psnr_of_floats(first: Floats, second: Floats) -> float:
    """Return PSNR in dB of two pictures in [0, 1]; inf if they are equal."""
    error = float(np.mean((first.astype(np.float64) - second) ** 2))
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def levels(floats: Floats) -> NDArray[np.uint8]:
    """Round an output in [0, 1] to levels, as the ONNX file does."""
    return np.clip(np.rint(floats * 255), 0, 255).astype(np.uint8)


def recorded(
    nets: Nets, precision: str, outputs: list[Floats]
) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Return a function that upscales as the file of a precision does and keeps unrounded outputs."""

    def upscale(lr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        outputs.append(nets.upscale(precision, lr))
        return levels(outputs[-1])

    return upscale


@click.command(cls=Script, help=__doc__)
@click.argument("sets", nargs=-1, required=True, metavar="NAME=HR_FOLDER...", callback=click_sets)
def main(sets: dict[str, Path]) -> None:
    rows = [row for name, folder in sets.items() for row in measure(name, folder)]
    for row in rows:
        print(
            f"{row['set']:6} x{row['scale']} {row['psnr_y_fp32']:.4f} dB, {row['loss_db']:+.5f} dB lost; "
            f"fp16 against fp32 {row['psnr_min_db']:.1f} dB or more, "
            f"by onnx.reference {row['reference_min_db']:.1f}"
        )
    write_result("fp16", {"max_loss_db": MAX_LOSS_DB, "min_psnr_db": MIN_PSNR_DB, "rows": rows})


def measure(name: str, hr_folder: Path) -> list[dict[str, Any]]:
    """Return one row for each scale."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        spec = PrepareSpec(hr_folder, scales=tuple(shipped_scales()), output=Path(scratch), whole=True)
        for prepared in prepare(spec).without_problems().lists:
            scale, nets = prepared.scale, shipped_nets(prepared.scale)
            outputs: dict[str, list[Floats]] = {"fp32": [], "fp16": []}
            quality = {
                precision: evaluate(recorded(nets, precision, kept), prepared.path, scale=scale)
                for precision, kept in outputs.items()
            }
            apart = list(map(psnr_of_floats, outputs["fp16"], outputs["fp32"]))
            pairs = load_pair_list(prepared.path)
            crops = [read_picture(pair.lr).pixels[:REFERENCE_PX, :REFERENCE_PX] for pair in pairs]
            half = shipped_onnx(scale=scale, precision="fp16")
            by_reference = [
                psnr_of_floats(reference_output(half, crop), nets.upscale("fp32", crop)) for crop in crops
            ]
            rows.append(
                {
                    "set": name,
                    "scale": scale,
                    "psnr_y_fp32": quality["fp32"].psnr_y,
                    "psnr_y_fp16": quality["fp16"].psnr_y,
                    "loss_db": quality["fp32"].psnr_y - quality["fp16"].psnr_y,
                    "psnr_min_db": min(apart),
                    "psnr_mean_db": float(np.mean(apart)),
                    "reference_min_db": min(by_reference),
                    "pictures": len(pairs),
                }
            )
    return rows


if __name__ == "__main__":
    main()
