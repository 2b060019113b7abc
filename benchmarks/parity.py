"""Difference of every backend and precision from PyTorch in float32, on real pictures, tiled and whole.

PICTURES are picture files, which are upscaled at every scale, or pair lists from `srup prepare`. The lr
pictures of a list are upscaled at their scale; the hr pictures are the truth for PSNR. PyTorch computes
the reference on the CPU, each picture whole. The exit status is 1 if a backend differs more, or loses
more PSNR, than `deploy.verify` allows its precision. Cases that cannot run here are listed. With --model, the
network in that file is compared in place of the shipped ones; where it is an ONNX file, ONNX Runtime computes
the reference.

    python -m benchmarks.parity
    python -m benchmarks.parity --backend onnx --precision fp16 pairs/val/Set5/x2.json
    python -m benchmarks.parity --model 4x_foo.pth photo.png
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.lib.models import NamedModel, model_option, model_row, named_model
from benchmarks.lib.options import Script, store_option
from benchmarks.lib.paths import EXAMPLES
from benchmarks.lib.results import store_result
from deploy.engines.build import build_engine
from deploy.verify import MAX_LOSS_DB, Difference, difference, tiles_match
from sr.backends import BACKENDS, BackendRequest, open_backend
from sr.backends.parity import MIN_PSNR_DB
from sr.errors import DataError, SrupError
from sr.image import read_picture
from sr.metrics import psnr_y
from sr.network.modelfile import shipped_scales
from sr.upscale import Upscaler
from train.data.pairs import load_pair_list, read_opaque

TILE_PX = 128  # cuts every example into several tiles, and is large enough for every shipped halo
NAMES = tuple(BACKENDS)
DEVICES = {
    name: tuple(device for device, kind in (("cpu", "cpu"), ("cuda", "gpu")) if kind in spec.devices)
    for name, spec in BACKENDS.items()
}

_NAMES = {"torch": "PyTorch", "onnx": "ONNX Runtime"}

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """A picture to upscale.

    Attributes:
        name: shown in the result.
        lr: uint8 RGB (H, W, 3).
        scale: to upscale by; None means every scale.
        hr: the truth, uint8 RGB (scale*H, scale*W, 3); None if unknown.
        of: name of its pair list.
    """

    name: str
    lr: Image
    scale: int | None = None
    hr: Image | None = None
    of: str = ""


@dataclass(frozen=True)
class Case:
    """A backend, device and precision to compare with the reference; `named` is not a shipped network."""

    backend: str
    device: str
    precision: str
    named: NamedModel | None = field(default=None, compare=False)

    def open(self, scale: int, tile: int) -> Upscaler:
        """Open the case at a scale.

        Raises:
            SrupError: the case cannot run here.
        """
        request = BackendRequest(
            scale, device=self.device, precision=self.precision, tile=tile, builder=build_engine
        )  # type: ignore[arg-type]
        if self.named is not None:
            tile = self.named.smallest_tile(tile)
            request = replace(request, model=self.named.path, tile=tile)
        return Upscaler(backend=open_backend(self.backend, request), tile=tile)


def run(
    paths: Sequence[Path] = EXAMPLES,
    *,
    backends: Sequence[str] = NAMES,
    precisions: Sequence[str] = (),
    scales: Sequence[int] = (),
    named: NamedModel | None = None,
) -> dict[str, Any]:
    """Compare every case that can run here.

    Args:
        paths: picture files, and pair lists (.json).
        backends: by name.
        precisions: empty means all that a backend has.
        scales: empty means all shipped ones.
        named: a network in place of the shipped ones; it has a scale of its own.

    Returns:
        "rows", one for each scale, case and tiling; "sets", Y-PSNR against the truth; "not_run" with
        reasons; "passed".

    Raises:
        SrupError: a file cannot be read, or the reference cannot run.
    """
    scales = list(scales) or shipped_scales()
    reference = Case("torch", "cpu", "fp32")
    if named is not None:
        scales = [named.descriptor.scale]
        of_weights = named.path.suffix.lower() != ".onnx"
        reference = Case("torch" if of_weights else "onnx", "cpu", named.descriptor.precision, named)
    samples = [sample for path in paths for sample in read_samples(path)]
    rows: list[dict[str, Any]] = []
    sets: list[dict[str, Any]] = []
    not_run: dict[Case, str] = {}
    for scale in scales:
        here = [sample for sample in samples if sample.scale in (None, scale)]
        if not here:
            continue
        expected = list(outputs(reference, scale, here, tiled=False))
        truth = scores(here, expected)
        sets += [{"set": of, "scale": scale, "case": "reference", "psnr_y": y} for of, y in truth.items()]
        for each in cases(backends, precisions):
            case = replace(each, named=named)
            if case in not_run:
                continue
            try:
                measured, reached = compare(case, scale, here, expected)
            except SrupError as error:
                not_run[case] = str(error)
                continue
            rows += measured
            sets += [score_row(case, scale, of, y, truth[of]) for of, y in reached.items()]
    return {
        "reference": f"{_NAMES[reference.backend]} {reference.precision} on the CPU, pictures whole",
        **({"model": model_row(named)} if named is not None else {}),
        "pictures": [sample.name for sample in samples],
        "min_psnr_db": MIN_PSNR_DB,
        "max_loss_db": MAX_LOSS_DB,
        "rows": rows,
        "sets": sets,
        "not_run": [
            {"backend": case.backend, "device": case.device, "precision": case.precision, "why": why}
            for case, why in not_run.items()
        ],
        "passed": bool(rows) and all(row.get("passed", True) for row in (*rows, *sets)),
    }


def read_samples(path: Path) -> Iterator[Sample]:
    """Yield the lr pictures of a pair list, or the picture of a picture file.

    Raises:
        SrupError: a file cannot be read or has a wrong size or depth.
    """
    if path.suffix != ".json":
        picture = read_picture(path)
        pixels = picture.pixels if picture.pixels.ndim == 3 else np.stack([picture.pixels] * 3, axis=2)
        if pixels.dtype != np.uint8:
            raise DataError(f"{path}: has 16 bits per channel, need 8")
        yield Sample(path.stem, pixels)
        return
    of = path.parent.name if re.fullmatch(r"x\d+", path.stem) else path.stem  # pairs/val/Set5/x2.json
    for pair in load_pair_list(path):
        lr, hr = read_opaque(pair.lr), read_opaque(pair.hr)
        scale = hr.shape[0] // lr.shape[0]
        if hr.shape[:2] != (lr.shape[0] * scale, lr.shape[1] * scale):
            raise DataError(f"{pair.hr}: its size is not a multiple of the size of {pair.lr}")
        yield Sample(pair.lr.stem, lr, scale, hr, of)


def cases(backends: Sequence[str], precisions: Sequence[str] = ()) -> Iterator[Case]:
    """Yield the cases to compare; empty precisions mean all that a backend has."""
    for backend in backends:
        for device in DEVICES.get(backend, ("cpu", "cuda")):
            for precision in BACKENDS[backend].precisions:
                if not precisions or precision in precisions:
                    yield Case(backend, device, precision)


def outputs(case: Case, scale: int, samples: Sequence[Sample], *, tiled: bool) -> Iterator[Image]:
    """Upscale all pictures, in tiles of `TILE_PX` or, as far as the backend allows, whole.

    Raises:
        SrupError: the case cannot run here, or fails.
    """
    whole = max(max(sample.lr.shape) for sample in samples)
    with case.open(scale, TILE_PX if tiled else whole) as upscaler:
        for sample in samples:
            yield upscaler(sample.lr)


def compare(
    case: Case, scale: int, samples: Sequence[Sample], expected: Sequence[Image]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return a row for whole and one for tiled pictures, and the scores of the tiled ones."""
    whole = list(outputs(case, scale, samples, tiled=False))
    tiled = list(outputs(case, scale, samples, tiled=True))
    rows = []
    for tiling, found in (("whole", whole), ("tiled", tiled)):
        apart = list(map(difference, found, expected))
        worst = min(range(len(apart)), key=lambda at: apart[at].psnr)
        row = {"scale": scale, "backend": case.backend, "device": case.device, "precision": case.precision}
        row |= {"tiling": tiling, **figures(apart), "worst": samples[worst].name}
        row["passed"] = apart[worst].psnr >= MIN_PSNR_DB[case.precision]
        if tiling == "tiled":
            seams = list(map(difference, tiled, whole))
            row |= {f"tiles_{name}": value for name, value in figures(seams).items()}
            if case.precision == "fp32":  # other precisions may use other kernels for another shape
                row["passed"] &= all(map(tiles_match, seams))
        rows.append(row)
    return rows, scores(samples, tiled)


def figures(apart: Sequence[Difference]) -> dict[str, float | int | None]:
    """Return the lowest PSNR (None if all are equal), the largest difference and share over pictures."""
    least = min(one.psnr for one in apart)
    return {
        "psnr_db": None if math.isinf(least) else round(least, 2),
        "max_levels": max(one.max_levels for one in apart),
        "share": float(f"{max(one.share for one in apart):.3g}"),
    }


def scores(samples: Sequence[Sample], found: Sequence[Image]) -> dict[str, float]:
    """Return the mean Y-PSNR against the truth for each list."""
    by_list: dict[str, list[float]] = {}
    for sample, sr in zip(samples, found, strict=True):
        if sample.hr is not None and sample.scale is not None:
            by_list.setdefault(sample.of, []).append(psnr_y(sr, sample.hr, scale=sample.scale))
    return {of: float(np.mean(values)) for of, values in by_list.items()}


def score_row(case: Case, scale: int, of: str, reached: float, reference: float) -> dict[str, Any]:
    """Return the row of a case on a list."""
    return {
        "set": of,
        "scale": scale,
        "case": f"{case.backend} {case.device} {case.precision}",
        "psnr_y": round(reached, 4),
        "loss_db": round(reference - reached, 5),
        "passed": reference - reached <= MAX_LOSS_DB[case.precision],
    }


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield the result as text."""
    for row in result["rows"]:
        name = f"x{row['scale']} {row['backend']:7} {row['device']:4} {row['precision']} {row['tiling']}"
        if row["psnr_db"] is None:
            yield f"{name}  equal"
            continue
        verdict = "" if row["passed"] else "  TOO FAR OFF"
        most = f"off by {row['max_levels']} at most, in {100 * row['share']:.4f} % of values"
        yield f"{name}  {row['psnr_db']:6.2f} dB, {most}{verdict}"
    for row in result["sets"]:
        loss = f", {row['loss_db']:+.5f} dB lost" if "loss_db" in row else ""
        verdict = "" if row.get("passed", True) else "  TOO MUCH"
        yield f"{row['set']} x{row['scale']} {row['case']:18} {row['psnr_y']:.4f} dB{loss}{verdict}"
    for row in result["not_run"]:
        yield f"not run: {row['backend']} {row['device']} {row['precision']}: {row['why']}"


@click.command(cls=Script, help=__doc__)
@click.argument("pictures", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--backend", "backends", type=click.Choice(NAMES), multiple=True, help="Backend to compare; repeatable."
)
@click.option(
    "--precision", "precisions", type=click.Choice(list(MIN_PSNR_DB)), multiple=True, help="Repeatable."
)
@click.option("--scale", "scales", type=click.Choice(shipped_scales()), multiple=True)
@model_option
@store_option
def main(
    pictures: tuple[Path, ...],
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    scales: tuple[int, ...],
    model: Path | None,
    store: bool,
) -> None:
    if model is not None and scales:
        raise click.UsageError("--model has a scale of its own; drop --scale")
    result = run(
        pictures or EXAMPLES,
        backends=backends or NAMES,
        precisions=precisions,
        scales=scales,
        named=None if model is None else named_model(model),
    )
    for line in lines(result):
        click.echo(line)
    if store:
        store_result("parity", result)
    sys.exit(0 if result["passed"] else 1)


if __name__ == "__main__":
    main()
