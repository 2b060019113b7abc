"""Converts weights to ONNX with one exporter, in a process of its own; see `apart`.

That a file was written proves nothing: it is run, and compared with PyTorch, before it is kept.
"""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sr.errors import ModelError, SrupError, one_line
from sr.network.ends import Ends
from sr.network.foreign.apart import limit_memory, say
from sr.network.foreign.session import ForeignSession
from sr.network.foreign.torchnet import TorchNetwork, load_network

INPUT, OUTPUT = "input", "output"
# The legacy exporter writes what it knows since 17 unchanged; dynamo's own is 18.
_OPSETS = {"legacy": 17, "dynamo": 18}
_LEAST = 48  # side of the traced picture: no network of the usual kinds needs more
# More on each side than the traced picture, in multiples: odd ones, so that constants of the trace show.
_OTHER_SIZES = ((5, 11), (19, 2))
# Sizes that are tried: any, then multiples, for networks that pad a picture inside.
_MULTIPLES = (1, 4, 16)
# Largest difference from PyTorch, as a part of the largest value: float32 sums in another order.
TOLERANCE = 1e-4


def main(path: str, memory_bytes: int, out: str, exporter: str, tile: int) -> None:
    """Convert a file and print whether it computes the same.

    Args:
        path: of weights.
        memory_bytes: address space that the process may have.
        out: file to write.
        exporter: "legacy" or "dynamo".
        tile: side of the only size that the file takes; 0 is any size.
    """
    limit_memory(memory_bytes, memory_bytes)
    try:
        network = load_network(Path(path))
    except SrupError as error:
        say(error=one_line(error))
        return
    except MemoryError:
        say(error="refused, it needs more memory than is available")
        return
    say(phase="read its weights", share=0.0)
    try:
        for sides in traced_sides(network, tile):
            _export(network, Path(out), exporter, sides, free=not tile)
            if not (failure := _checked(network, Path(out), sides, free=not tile)):
                break
    except Exception as error:  # exporters raise anything
        failure = one_line(error)
    say(found={"failure": failure and f"{exporter} exporter: {failure}"})


def traced_sides(network: TorchNetwork, tile: int) -> list[tuple[int, int]]:
    """Return heights and widths of the pictures that are traced, one after the other until a file is right.

    A trace freezes how a network pads a picture inside. The second picture needs no padding, so that its file
    is right for multiples.
    """
    unit = network.multiple
    least = -(-max(tile or _LEAST, network.minimum) // unit) * unit
    if tile:
        return [(least, least)]
    coarse = math.lcm(unit, _MULTIPLES[-1])
    whole = -(-least // coarse) * coarse
    return [(least, least + 2 * unit), (whole, whole + coarse)]


def _checked(network: TorchNetwork, out: Path, sides: tuple[int, int], *, free: bool) -> str:
    """Find the sizes at which a file computes what PyTorch does, and note them in it.

    Returns:
        why there are none, or an empty string.
    """
    failure = ""
    for multiple in _MULTIPLES if free else _MULTIPLES[:1]:
        unit = math.lcm(network.multiple, multiple)
        try:
            difference = worst_difference(network, out, sides, free=free, unit=unit)
        except ModelError as error:
            failure = failure or one_line(error)
            continue
        if difference <= TOLERANCE:
            write_properties(out, network.properties() | {"multiple": str(unit)})
            return ""
        failure = failure or f"it differs from PyTorch by {difference:.2g}"
    return failure


def write_properties(path: Path, properties: dict[str, str]) -> None:
    """Write metadata into an ONNX file; names of files and lines that the exporter left go out."""
    import onnx

    model = onnx.load(path)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, path)


def _export(network: TorchNetwork, out: Path, exporter: str, sides: tuple[int, int], *, free: bool) -> None:
    example = torch.rand((1, network.channels, *sides), generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {
        "input_names": [INPUT],
        "output_names": [OUTPUT],
        "opset_version": _OPSETS[exporter],
        "dynamo": exporter == "dynamo",
    }
    if exporter == "dynamo":
        settings |= {"external_data": False, "verbose": False}
        if free:
            dim = torch.export.Dim.DYNAMIC
            settings["dynamic_shapes"] = ({2: dim, 3: dim},)
    elif free:
        axes = {0: "batch", 2: "height", 3: "width"}
        settings["dynamic_axes"] = {INPUT: axes, OUTPUT: dict(axes)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(network.module, (example,), str(out), **settings)


def worst_difference(
    network: TorchNetwork, out: Path, sides: tuple[int, int], *, free: bool, unit: int = 1
) -> float:
    """Return the largest difference between ONNX Runtime and PyTorch, relative to the largest value.

    Args:
        network: in PyTorch.
        out: the ONNX file.
        sides: height and width that were traced.
        free: compare at two other sizes.
        unit: these are multiples of this.

    Raises:
        ModelError: ONNX Runtime cannot run it.
    """
    session, ends = ForeignSession(out), Ends(input_name=INPUT, output_name=OUTPUT)
    rng, worst = np.random.default_rng(0), 0.0
    height, width = (-(-side // unit) for side in sides)
    sizes = [((height + more[0]) * unit, (width + more[1]) * unit) for more in _OTHER_SIZES]
    for height, width in sizes if free else [sides, sides]:
        fed = rng.random((1, network.channels, height, width), np.float32)
        with torch.no_grad():
            expected = network.module(torch.from_numpy(fed)).numpy()
        made = session.tensor(ends, fed)
        if made.shape != expected.shape or not np.isfinite(made).all():
            return float("inf")
        worst = max(worst, float(np.abs(made - expected).max() / max(1.0, np.abs(expected).max())))
    return worst


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
