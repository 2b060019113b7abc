"""Pictures as people have them: each kind of damage, upscaled by filters and by a pair of networks.

Each SET is NAME=FOLDER with hr pictures. They are shrunk and damaged as `benchmarks/lib/damage.py` says.
Bicubic, Lanczos and the model upscale them; a model with a partner does so with five strengths, and with the
one that `auto` chooses. Each row is written to --rows once it is measured; later runs measure the rest.

    python -m benchmarks.real Set5=PATH/TO/Set5/HR --rows real.jsonl --scale 2
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.lib.damage import CONDITIONS, Damaged
from benchmarks.lib.fidelity import fidelity
from benchmarks.lib.options import Script, click_sets, store_option
from benchmarks.lib.results import store_result
from sr.errors import DataError
from sr.image import is_picture, read_picture
from sr.network.modelfile import shipped_onnx, shipped_scales
from sr.network.pair import Partner
from sr.resize import bicubic_resize
from sr.restoring import chosen, pair_for
from sr.upscale import Upscaler
from train.drawings import drawing

Pixels = NDArray[np.uint8]
Upscale = Callable[[Pixels], Pixels]

DRAWINGS, _DRAWINGS_SEED, _DRAWN = "drawings", 1000, 6  # seeds that no training uses
_DRAWN_CONDITIONS = ("clean", "JPEG 75")


@dataclass(frozen=True)
class RealSpec:
    """What is measured.

    Attributes:
        scales: of the shipped networks; empty means all.
        conditions: names of `CONDITIONS`; empty means all.
        drawings: measure on drawings, too, which are made for it.
        perceptual: with SSIMULACRA2, which takes most time.
    """

    scales: tuple[int, ...] = ()
    conditions: tuple[str, ...] = ()
    drawings: bool = True
    perceptual: bool = True


@dataclass(frozen=True)
class Compared:
    """What upscales by one scale: filters and the strengths of a model, by name, and its partner."""

    scale: int
    weights: str
    methods: dict[str, Upscale]
    partner: Partner | None


def measure(compared: Compared, hr: Pixels, lr: Damaged, *, perceptual: bool) -> dict[str, dict[str, float]]:
    """Return the metrics of each method on a picture; "auto" is the strength that it chooses."""
    found = {
        name: fidelity(upscale(lr.pixels), hr, scale=compared.scale, perceptual=perceptual)
        for name, upscale in compared.methods.items()
    }
    if compared.partner is not None:
        choice = chosen(compared.partner.restores, lr.compression, lr.pixels)
        found["auto"] = {**found[f"{choice.strength:g}"], "strength": choice.strength}
    return found


def rows(
    compared: Compared,
    name: str,
    pictures: Sequence[Pixels],
    done: Mapping[tuple[Any, ...], Any],
    *,
    conditions: Sequence[str],
    perceptual: bool,
) -> Iterator[dict[str, Any]]:
    """Yield one row for each condition and method that is not in `done`: the means over the pictures."""
    for condition in conditions:
        key = (compared.weights, name, compared.scale, condition)
        if key in done:
            continue
        measured = [
            measure(compared, hr, CONDITIONS[condition](hr, compared.scale), perceptual=perceptual)
            for hr in pictures
        ]
        yield {
            "weights": compared.weights,
            "set": name,
            "scale": compared.scale,
            "condition": condition,
            "pictures": len(pictures),
            "methods": {method: _means([each[method] for each in measured]) for method in measured[0]},
        }


def _means(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([each[name] for each in figures])), 4) for name in figures[0]}


def opened(model: Path, stack: ExitStack) -> Compared:
    """Open a model with all its strengths.

    Raises:
        ModelError: the file is missing or damaged.
    """
    partner = pair_for(model, None)
    strengths = partner.restores.available if partner is not None else (0.0,)
    networks = {
        f"{strength:g}": stack.enter_context(Upscaler(model=model, backend="onnx", restore=strength))
        for strength in strengths
    }
    scale = networks["0"].scale
    ends = dict.fromkeys((networks["0"], networks[f"{strengths[-1]:g}"]))
    weights = "+".join(each.backend.info.model.weights_sha256[:12] for each in ends)
    filters: dict[str, Upscale] = {
        "bicubic": partial(bicubic_resize, scale=scale),
        "Lanczos": _lanczos(scale),
    }
    return Compared(scale, weights, {**filters, **networks}, partner)


def _lanczos(scale: int) -> Upscale:
    def upscale(lr: Pixels) -> Pixels:
        size = (lr.shape[1] * scale, lr.shape[0] * scale)
        return np.asarray(Image.fromarray(lr).resize(size, Image.Resampling.LANCZOS))

    return upscale


def pictures_in(folder: Path, scale: int) -> list[Pixels]:
    """Return the pictures of a folder as RGB, cut to multiples of the scale.

    Raises:
        DataError: there are none.
    """
    found = [read_picture(path).pixels for path in sorted(folder.iterdir()) if is_picture(path)]
    if not found:
        raise DataError(f"{folder}: no pictures in this folder; name a folder with hr pictures")
    return [cut(pixels, scale) for pixels in found]


def cut(pixels: Pixels, scale: int) -> Pixels:
    """Return a picture as RGB, cut to a multiple of the scale."""
    pixels = np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels
    return pixels[: len(pixels) // scale * scale, : pixels.shape[1] // scale * scale]


def _read_rows(path: Path | None) -> dict[tuple[Any, ...], dict[str, Any]]:
    lines = path.read_text("utf-8").splitlines() if path is not None and path.exists() else []
    found = [json.loads(line) for line in lines]
    return {_key(row): row for row in found}


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["weights"], row["set"], row["scale"], row["condition"]


def new_rows(
    sets: Mapping[str, Path],
    spec: RealSpec,
    done: Mapping[tuple[Any, ...], Any],
    *,
    model: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows that are not in `done`, of the shipped networks or of a `model`."""
    scales = spec.scales or shipped_scales()
    for each in [model] if model else [shipped_onnx(scale=scale) for scale in scales]:
        with ExitStack() as stack:
            compared = opened(each, stack)
            jobs = [
                (name, pictures_in(folder, compared.scale), spec.conditions or tuple(CONDITIONS))
                for name, folder in sets.items()
            ]
            if spec.drawings:
                drawn = [np.asarray(drawing(_DRAWINGS_SEED + seed)) for seed in range(_DRAWN)]
                drawn = [cut(pixels, compared.scale) for pixels in drawn]
                jobs.append((DRAWINGS, drawn, spec.conditions or _DRAWN_CONDITIONS))
            for name, pictures, wanted in jobs:
                yield from rows(compared, name, pictures, done, conditions=wanted, perceptual=spec.perceptual)


def run(*, sets: Mapping[str, Path], spec: RealSpec) -> dict[str, Any]:
    """Measure the shipped networks on sets of hr pictures.

    Returns:
        rows, one for each set, scale and condition: the means of each method's metrics.
    """
    return {"rows": list(new_rows(sets, spec, {}))}


def _line(row: Mapping[str, Any]) -> str:
    figures = "  ".join(f"{name} {each['psnr_y']:.2f}" for name, each in row["methods"].items())
    return f"{row['set']} x{row['scale']}  {row['condition']:14} {figures}"


@click.command(cls=Script, help=__doc__)
@click.argument("sets", nargs=-1, callback=click_sets)
@click.option("--model", type=click.Path(path_type=Path), help="ONNX file in place of the shipped ones.")
@click.option("--scale", "scales", type=int, multiple=True, help="Of the shipped models; default is all.")
@click.option("--condition", "conditions", type=click.Choice(list(CONDITIONS)), multiple=True)
@click.option("--drawings", is_flag=True, help="Measure on drawings, too, which are made for it.")
@click.option("--perceptual/--no-perceptual", default=True, help="With SSIMULACRA2, which takes most time.")
@click.option(
    "--rows", "kept", type=click.Path(path_type=Path, dir_okay=False), help="JSON lines to go on with."
)
@store_option
def main(
    sets: dict[str, Path],
    model: Path | None,
    scales: tuple[int, ...],
    conditions: tuple[str, ...],
    drawings: bool,
    perceptual: bool,
    kept: Path | None,
    store: bool,
) -> None:
    done = _read_rows(kept)
    spec = RealSpec(scales, conditions, drawings=drawings, perceptual=perceptual)
    for row in new_rows(sets, spec, done, model=model):
        done[_key(row)] = row
        if kept is not None:
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        click.echo(_line(row))
    if store:
        store_result("real", {"rows": list(done.values())})


if __name__ == "__main__":
    main()
