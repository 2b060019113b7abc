"""Finds the conventions of a foreign network by small runs: sizes, scale, range.

Nothing is taken from names. What runs cannot tell apart counts as the usual convention, RGB from 0 to 1. They
cannot tell the order of channels: colours in a wrong order come back in that order, nearly as good.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sr.errors import ModelError
from sr.network.content import contents
from sr.network.ends import Conventions, Ends, Order, TensorType
from sr.network.foreign.graph import Graph
from sr.network.foreign.session import PictureSession

_TYPES: dict[int, TensorType] = {1: "float32", 2: "uint8", 10: "float16"}  # onnx.proto3, TensorProto.DataType
_LARGEST_SCALE = 16

# Sizes may have to be multiples of one of these, the usual one first.
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
_BASE = 32  # side of pictures; small ones keep large networks quick
# Sides tried in turn for networks that need larger pictures.
_BASES = (32, 64, 128, 256)

_ORDERS: tuple[Order, ...] = ("RGB", "BGR")
RANGES = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))  # the usual one first
# A less usual convention must leave less than this part of the error that a more usual one leaves. Strokes
# on white tell ranges apart: over Real-ESRGAN's networks a wrong -1 to 1 leaves 1.5 times the error or more,
# the right one at most 0.52 of it.
_BETTER_RANGE = 0.7
_STATED_RANGE = re.compile(r"(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)")  # LOW..HIGH
_WARM = (1.0, 0.8, 0.5)  # factors of red, green and blue
# Flat pictures far outside all ranges show where a network clips.
_FAR_BELOW, _FAR_ABOVE = -300.0, 600.0
_CLIPPED_WITHIN = 0.05  # of a range


@dataclass(frozen=True)
class Probed:
    """What small runs tell.

    Attributes:
        ends: how the network takes and gives images.
        scale: upscaling factor.
        minimum: smallest side that was run, where small ones fail; else 1.
        multiple: sides must be multiples of this.
        likeness_db: PSNR of the output against pixel repetition; low for what does not upscale its input.
    """

    ends: Ends
    scale: int
    minimum: int
    multiple: int
    likeness_db: float


@dataclass(frozen=True)
class Said:
    """What the metadata of a file say; `sr.network.foreign.torchnet` writes them into what it converts."""

    value_range: tuple[float, float] | None = None
    order: Order | None = None
    minimum: int = 1
    multiple: int = 1

    @staticmethod
    def of(metadata: Mapping[str, str]) -> Said:
        """Read metadata; what does not read is as if it were not there."""
        order: Order | None = next((each for each in _ORDERS if metadata.get("order") == each), None)
        counts = {
            name: int(text)
            for name in ("minimum", "multiple")
            if (text := metadata.get(name, "")).isdecimal() and 0 < int(text) <= _BASES[-1]
        }
        match = _STATED_RANGE.fullmatch(metadata.get("range", ""))
        black, white = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
        return Said(value_range=(black, white) if black < white else None, order=order, **counts)


def probe(session: PictureSession, path: Path, stated: Conventions, *, small: bool = True) -> Probed:
    """Find the conventions of a file.

    Args:
        session: of the file.
        path: of the file, for messages.
        stated: conventions that are not to be found out.
        small: find the smallest picture that the network takes; else pictures are as large as in other runs.

    Raises:
        ModelError: it does not map one image to one larger one.
    """
    fitting, said = None, Said.of(session.graph.metadata)
    stated = Conventions(stated.value_range or said.value_range, stated.order or said.order)
    reason = ""
    for ends in _layouts(session.graph, path):
        try:
            fitting = _sizes(session, ends, said.multiple)
            if fitting.minimum == 1 and ends.size is None:
                least = max(said.minimum, fitting.multiple)
                smallest = _smallest(session, fitting, least) if small else _BASE
                fitting = replace(fitting, minimum=smallest)
            break
        except ModelError as error:
            reason = reason or str(error)
    if fitting is None:
        raise ModelError(f"{path}: does not upscale a picture when run: {reason}")
    fitting = replace(fitting, ends=_with_batches(session, fitting))
    fitting = replace(fitting, ends=_with_range(session, fitting, stated))
    off = _error(session, fitting.ends, fitting.scale, _picture(fitting))
    return replace(fitting, likeness_db=round(-20 * math.log10(max(off, 1e-5)), 1))


def _layouts(graph: Graph, path: Path) -> Iterator[Ends]:
    """Yield the ends that the shape of the input allows, the most usual first."""
    if len(graph.inputs) != 1:
        names = ", ".join(info.name for info in graph.inputs) or "none"
        raise ModelError(f"{path}: has {len(graph.inputs)} inputs ({names}), need one image")
    (image,), output = graph.inputs, graph.outputs[0]
    if image.element not in _TYPES or output.element not in (0, image.element):
        raise ModelError(f"{path}: its tensors are not float32, float16 or uint8 on both ends")
    if len(image.axes) != 4:
        raise ModelError(f"{path}: its input has {len(image.axes)} axes, need 4: a batch of images")
    ends = Ends(dtype=_TYPES[image.element], input_name=image.name, output_name=output.name)
    if ends.dtype == "uint8":
        ends = replace(ends, white=255.0)
    batch, first, second, third = image.axes
    ends = replace(ends, batch=batch)
    if first in (1, 3, None):
        size = None if second is None or third is None else (second, third)
        for channels in (3, 1) if first is None else (first,):
            yield replace(ends, channels=channels, size=size)
    if third in (1, 3, None):
        size = None if first is None or second is None else (first, second)
        for channels in (3, 1) if third is None else (third,):
            yield replace(ends, layout="NHWC", channels=channels, size=size)
    if 4 in (first, third) and not {first, third} & {1, 3}:
        raise ModelError(f"{path}: takes four channels (RGBA), need three or one")


def _run_sides(session: PictureSession, ends: Ends, height: int, width: int) -> tuple[int, int]:
    """Return height and width of the output for a picture of this size."""
    shape = (height, width, ends.channels) if ends.layout == "NHWC" else (ends.channels, height, width)
    flat = np.full((ends.batch or 1, *shape), (ends.black + ends.white) / 2, ends.dtype)
    result = session.tensor(ends, flat)
    channels, sides = (3, (1, 2)) if ends.layout == "NHWC" else (1, (2, 3))
    if result.ndim != 4 or result.shape[channels] != ends.channels:
        raise ModelError(f"its output has the shape {result.shape}, need an image as the input is one")
    return result.shape[sides[0]], result.shape[sides[1]]


def _sizes(session: PictureSession, ends: Ends, unit: int) -> Probed:
    """Find scale, cropped border and allowed sizes, which are multiples of `unit`."""
    if ends.size is not None:
        return _fixed(session, ends)
    reason = "no size works"
    for base in _BASES:
        try:
            first = _run_sides(session, ends, base, base)
        except ModelError as error:
            reason = str(error)
            continue
        for multiple in (each for each in _MULTIPLES if each <= base and each % unit == 0):
            height, width = base + multiple, base + 3 * multiple
            try:
                second = _run_sides(session, ends, height, width)
            except ModelError as error:
                reason = str(error)
                continue
            scale, rest = divmod(second[0] - first[0], multiple)
            lost = scale * base - first[0]
            even = rest == 0 and 1 <= scale <= _LARGEST_SCALE and lost >= 0 and lost % 2 == 0
            if even and second == (scale * height - lost, scale * width - lost) and first[0] == first[1]:
                least = 1 if base == _BASE else base
                return _with_border(ends, scale, lost, least, multiple)
            reason = f"{height}x{width} becomes {second[0]}x{second[1]}, which is no whole factor"
    raise ModelError(reason)


def _with_border(ends: Ends, scale: int, lost: int, minimum: int, multiple: int) -> Probed:
    border = -(-lost // (2 * scale))
    border += -border % multiple
    ends = replace(ends, border=border, crop=border * scale - lost // 2)
    return Probed(ends, scale, minimum, multiple, 0.0)


def _smallest(session: PictureSession, probed: Probed, least: int) -> int:
    """Return the smallest side that the network takes, from `least` on by powers of two."""
    ends, side = probed.ends, least
    while side < _BASE:
        try:
            _run_sides(session, ends, side + 2 * ends.border, side + 2 * ends.border)
            return side
        except ModelError:
            side *= 2
    return _BASE


def _fixed(session: PictureSession, ends: Ends) -> Probed:
    """Find the scale of a network that takes one size: the smallest factor that covers the picture."""
    assert ends.size is not None
    height, width = ends.size
    out_height, out_width = _run_sides(session, ends, height, width)
    scale = -(-out_height // height)
    lost = scale * height - out_height
    if not 1 <= scale <= _LARGEST_SCALE or scale * width - out_width != lost or lost % 2:
        raise ModelError(f"{height}x{width} becomes {out_height}x{out_width}, which is no whole factor")
    border = -(-lost // (2 * scale))
    inner = (height - 2 * border, width - 2 * border)
    if min(inner) < 1:
        raise ModelError(f"{height}x{width} becomes {out_height}x{out_width}, which leaves nothing")
    ends = replace(ends, border=border, crop=border * scale - lost // 2, size=inner)
    return Probed(ends, scale, 1, 1, 0.0)


def _with_batches(session: PictureSession, probed: Probed) -> Ends:
    """Let batches be of any size only if two images at once give what one at a time gives."""
    if probed.ends.batch is not None:
        return probed.ends
    picture = _picture(probed)
    batch, single = np.stack([picture, picture[::-1]]), replace(probed.ends, batch=1)
    alone = session.pictures(single, batch).astype(np.float32)
    try:
        together = session.pictures(probed.ends, batch).astype(np.float32)
    except ModelError:
        return single
    same = together.shape == alone.shape and np.allclose(together, alone, rtol=1e-2, atol=1e-2)
    return probed.ends if same else single


def _picture(probed: Probed, kind: str = "shapes") -> NDArray[np.uint8]:
    """Return a picture of a size that the network takes, in warm colours, as of most photographs."""
    height, width = probed.ends.size or (max(_BASE, probed.minimum),) * 2
    picture = contents(height=height, width=width)[kind].astype(np.float32)
    warm: NDArray[np.uint8] = (picture * _WARM).astype(np.uint8)
    return warm


def _error(session: PictureSession, ends: Ends, scale: int, picture: NDArray[np.uint8]) -> float:
    """Return the root mean square by which the output differs from repeated pixels, in shares of the range.

    Values beyond the range are not clipped, so that a wrong range cannot pass for a right one.
    """
    made = ends.shares_from_tensor(session.pictures(ends, picture[None]))[0]
    expected = picture.repeat(scale, 0).repeat(scale, 1) / np.float32(255)
    error = float(np.sqrt(((made - expected).astype(np.float64) ** 2).mean()))
    return error if np.isfinite(error) else np.inf


def _with_range(session: PictureSession, probed: Probed, stated: Conventions) -> Ends:
    """Find the range: where the network clips, else the most usual one that no other beats clearly."""
    ends = replace(probed.ends, order=stated.order or _ORDERS[0])
    ranges = _ranges(session, probed, stated)
    candidates = [replace(ends, black=black, white=white) for black, white in ranges]
    if len(candidates) == 1:
        return candidates[0]
    picture = _picture(probed, "text")
    errors = [_error(session, each, probed.scale, picture) for each in candidates]
    fitting = zip(candidates, errors, strict=True)
    return next(each for each, off in fitting if off * _BETTER_RANGE <= min(errors))


def _ranges(session: PictureSession, probed: Probed, stated: Conventions) -> Sequence[tuple[float, float]]:
    """Return the ranges that the network may have, the most usual first."""
    if stated.value_range is not None:
        return [stated.value_range]
    if not probed.ends.floats:
        return [(0.0, 255.0)]
    low, high = (_flat(session, probed, value) for value in (_FAR_BELOW, _FAR_ABOVE))
    for black, white in RANGES:
        slack = _CLIPPED_WITHIN * (white - black)
        if abs(low - black) <= slack and abs(high - white) <= slack:
            return [(black, white)]
    return RANGES


def _flat(session: PictureSession, probed: Probed, value: float) -> float:
    """Return the median of the output for an input in which all values are equal."""
    tensor = probed.ends.tensor_from_batch(_picture(probed)[None])
    full = np.full((probed.ends.batch or 1, *tensor.shape[1:]), value, tensor.dtype)
    result = session.tensor(probed.ends, full).astype(np.float64)
    return float(np.median(result)) if np.isfinite(result).all() else np.nan
