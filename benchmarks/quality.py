"""Quality of the shipped networks by the protocol of record, beside bicubic and published figures.

Each SET is NAME=FOLDER with hr pictures. MATLAB-exact bicubic makes lr pictures at each scale; the shipped
networks (uint8, tiled, as users run them) and bicubic upscale them. The result has Y-PSNR, Y-SSIM and the
same of RGB with `scale` pixels shaved, parameters, multiply-adds for an output of 1280x720, seconds per
megapixel of output, and the published figures of the fixed peers with their sources. With --plane, the
quality-speed plane (`benchmarks.plane`) is measured as well. With --model, the network in that file, or
several in turn, are measured in place of the shipped ones.

    python -m benchmarks.quality Set5=PATH/TO/Set5/HR Set14=PATH/TO/Set14/HR --store
    python -m benchmarks.quality Set5=PATH/TO/Set5/HR --model 4x_foo.onnx
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks import plane
from benchmarks.lib.front import BICUBIC
from benchmarks.lib.models import NamedModel, model_row, models_option, named_model
from benchmarks.lib.options import Script, click_sets, store_option
from benchmarks.lib.peers import NETWORKS, published
from benchmarks.lib.plane_plot import draw
from benchmarks.lib.results import store_result
from sr.backends.ort import read_metadata
from sr.errors import ModelError
from sr.network.config import PRESETS
from sr.network.descriptor import Precision
from sr.network.modelfile import shipped_onnx, shipped_scales
from sr.resize import bicubic_resize
from sr.sized.chained import opened
from sr.upscale import Upscaler
from train.evaluate import Upscale, evaluate
from train.prepare.make import PrepareSpec, prepare

_720P = 1280 * 720


def run(
    sets: Mapping[str, Path] | None = None, *, with_plane: bool = True, named: Sequence[NamedModel] = ()
) -> dict[str, Any]:
    """Measure on test sets; without any, only the plane, with the stored quality of the shipped weights.

    Args:
        sets: folder with hr pictures by name of the set.
        with_plane: measure the quality-speed plane too.
        named: networks in place of the shipped ones, one after the other; there is no plane of them.

    Raises:
        DataError: a folder has no usable pictures, or there are neither sets nor a stored quality.
    """
    rows = [row for name, folder in (sets or {}).items() for row in measure(name, folder, named)]
    if named:
        return {"rows": rows, "models": [model_row(each) for each in named], "published": []}
    result: dict[str, Any] = {"rows": rows, "published": published_rows()}
    if with_plane:
        result |= plane.run(ours=psnr_of(rows) if rows else None)
    return result


def measure(name: str, hr_folder: Path, named: Sequence[NamedModel] = ()) -> Iterator[dict[str, Any]]:
    """Yield one row for each scale and method.

    Raises:
        DataError: the folder has no usable pictures.
        ModelError: networks that are named keep the size of a picture.
    """
    scales = tuple(shipped_scales())
    if named:
        scales = (math.prod(each.descriptor.scale for each in named),)
        if scales == (1,):
            raise ModelError(
                f"{named[0].path}: keeps the size, so it is measured on damaged pictures: "
                "srup prepare --degrade, then srup eval --list"
            )
    with tempfile.TemporaryDirectory() as scratch:
        spec = PrepareSpec(hr_folder, scales=scales, output=Path(scratch), whole=True)
        for prepared in prepare(spec).without_problems().lists:
            scale, pairs = prepared.scale, prepared.path
            bicubic = _Timed(partial(bicubic_resize, scale=scale))
            quality = evaluate(bicubic, pairs, scale=scale)
            yield {"set": name, "scale": scale, "method": BICUBIC, **asdict(quality)}
            if named:
                yield {"set": name, "scale": scale} | _measured(named, pairs, scale)
                continue
            for model in shipped_models(scale):
                metadata = read_metadata(model)
                with Upscaler(model=model, backend="onnx", device="cpu") as upscaler:
                    timed = _Timed(upscaler)
                    quality = evaluate(timed, pairs, scale=scale)
                yield {
                    "set": name,
                    "scale": scale,
                    "method": f"srup {metadata.name} {metadata.precision}",
                    "preset": metadata.name,
                    "precision": metadata.precision,
                    "weights": metadata.weights_sha256[:12],
                    **asdict(quality),
                    "params": metadata.params,
                    "macs_720p_g": round(metadata.macs_per_lr_px / scale**2 * _720P / 1e9, 2),
                    "s_per_megapixel": round(timed.seconds / timed.megapixels, 4),
                }


def _measured(named: Sequence[NamedModel], pairs: Path, scale: int) -> dict[str, Any]:
    """Return the quality of networks in turn."""
    with opened([each.path for each in named], backend="auto", device="cpu") as upscaler:
        timed = _Timed(upscaler)
        quality = evaluate(timed, pairs, scale=scale)
    seconds = round(timed.seconds / timed.megapixels, 4)
    return {
        "method": " + ".join(each.path.name for each in named),
        **asdict(quality),
        "s_per_megapixel": seconds,
    }


class _Timed:
    """An upscaler that counts its seconds and its megapixels of output."""

    def __init__(self, upscale: Upscale) -> None:
        self._upscale = upscale
        self.seconds = self.megapixels = 0.0

    def __call__(self, lr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        started = time.perf_counter()
        sr = self._upscale(lr)
        self.seconds += time.perf_counter() - started
        self.megapixels += sr.shape[0] * sr.shape[1] / 1e6
        return sr


def shipped_models(scale: int) -> Iterator[Path]:
    """Yield the shipped files with uint8 input and output for a scale."""
    for preset in PRESETS:
        for precision in get_args(Precision):
            try:
                yield shipped_onnx(scale=scale, preset=preset, precision=precision)
            except ModelError:
                continue


def published_rows() -> list[dict[str, Any]]:
    """Return the published figures, one row for each peer and scale."""
    return [
        {"method": peer, "scale": scale, **asdict(published(peer, scale=scale))}
        for scale in shipped_scales()
        for peer in NETWORKS
    ]


def psnr_of(rows: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, dict[str, float]]]:
    """Return Y-PSNR of bicubic and our fp32 networks by scale, method and test set."""
    found: dict[int, dict[str, dict[str, float]]] = {}
    for row in rows:
        if row.get("precision", "fp32") == "fp32":
            method = row.get("preset", BICUBIC)
            found.setdefault(row["scale"], {}).setdefault(method, {})[row["set"]] = row["psnr_y"]
    return found


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the result as text."""
    for row in result["rows"]:
        yield f"{row['set']:6} x{row['scale']} {row['method']:16} {row['psnr_y']:.3f} dB {row['ssim_y']:.4f}"
    for row in result["published"]:
        if row["set14"] is not None:
            figures = f"Set5 {row['set5']:.2f} dB, Set14 {row['set14']:.2f} dB"
            yield f"x{row['scale']} {row['method']:16} {figures} as published: {row['source']}"
    if "planes" in result:
        yield from plane.lines(result)


@click.command(cls=Script, help=__doc__)
@click.argument("sets", nargs=-1, required=True, metavar="SET...", callback=click_sets)
@click.option("--plane", "with_plane", is_flag=True, help="Measure the quality-speed plane too.")
@models_option
@store_option
def main(sets: dict[str, Path], with_plane: bool, models: tuple[Path, ...], store: bool) -> None:
    if models and with_plane:
        raise click.UsageError("--plane is of the shipped networks; drop --model or --plane")
    result = run(sets, with_plane=with_plane, named=[named_model(each) for each in models])
    for line in lines(result):
        click.echo(line)
    if store:
        path = store_result("quality", result)
        if with_plane:
            draw(
                result["planes"], path.with_name(path.name.replace("quality", "plane", 1)).with_suffix(".svg")
            )


if __name__ == "__main__":
    main()
