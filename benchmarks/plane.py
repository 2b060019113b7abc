"""The quality-speed plane: Set14 PSNR against time per megapixel of output, ours among fixed peers.

The rule is the same for all: one lr picture, whole, uint8 in and uint8 out, one engine with its default
threads, interleaved rounds. Luma networks (FSRCNN, ECBSR) get luma alone; the time for chroma is not
charged to them. Our quality is measured, the peers' is published (`benchmarks.lib.peers`). A peer without a
published figure at a scale is timed and listed, but has no point on the plane.

One picture of Set14, `bridge`, is a grey file. Our protocol takes it as RGB like all others, as the
PyTorch code of the field does. MATLAB scripts take it as luma, which costs 20 log10(255 / 219) dB there and
0.094 dB of the mean (bicubic: 30.32 dB at x2, published as 30.24). Papers do not say which way they
took, so each gap is given both ways.

    python -m benchmarks.plane --store
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from PIL import Image

from benchmarks.lib.front import BICUBIC, Point, front, gap, gap_in_words
from benchmarks.lib.options import Script
from benchmarks.lib.paths import RESULTS
from benchmarks.lib.peers import LUMA, NETWORKS, peer_onnx, published
from benchmarks.lib.plane_plot import draw
from benchmarks.lib.results import store_result
from benchmarks.lib.runners import Runner, onnxruntime_runner, openvino_runner
from benchmarks.lib.timing import interleaved
from benchmarks.lib.work import counted_work
from sr.errors import DataError, SrupError
from sr.network.config import PRESETS
from sr.network.modelfile import SHIPPED_DIR, onnx_name, shipped_scales

# Divisible by 8, which SAFMN's pooling is exported for; 1280x704 at x4.
LR_HEIGHT, LR_WIDTH = 176, 320
ROUNDS = 15
ENGINES: dict[str, Callable[[bytes], Runner]] = {
    "onnxruntime": onnxruntime_runner,
    "openvino": openvino_runner,
}


def run(
    *,
    ours: Mapping[int, Mapping[str, Mapping[str, float]]] | None = None,
    scales: Sequence[int] = (),
    engine: str = "onnxruntime",
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Measure the planes of all scales.

    Args:
        ours: Y-PSNR by scale, method and test set; None means the stored figures of the shipped weights.
        scales: empty means all shipped ones.
        engine: a name of `ENGINES`.
        rounds: number of timed runs of each.

    Raises:
        DataError: no quality of the shipped weights is stored.
        BackendError: the engine is not installed.
    """
    planes = []
    for scale in scales or shipped_scales():
        known = stored_psnr(scale) if ours is None else ours[scale]
        planes.append(measure_plane(scale, known, engine=engine, rounds=rounds))
    return {"planes": planes}


def stored_psnr(scale: int, folder: Path = RESULTS) -> dict[str, dict[str, float]]:
    """Return Y-PSNR by method and test set from the newest stored quality of the shipped weights.

    Raises:
        DataError: none is stored.
    """
    digests = {preset: weights_digest(preset, scale) for preset in _trained(scale)}
    for path in sorted(folder.glob("quality-*.json"), key=lambda path: path.stem[-10:], reverse=True):
        rows = [row for row in json.loads(path.read_text(encoding="utf-8"))["rows"] if row["scale"] == scale]
        found: dict[str, dict[str, float]] = {}
        for row in rows:
            preset = row.get("preset")
            current = preset in digests and row["weights"] == digests[preset] and row["precision"] == "fp32"
            if current or row["method"] == BICUBIC:
                found.setdefault(preset or BICUBIC, {})[row["set"]] = row["psnr_y"]
        if digests.keys() <= found.keys():
            return found
    raise DataError(
        f"no stored quality of the shipped x{scale} weights; "
        "measure it: python -m benchmarks.quality Set5=FOLDER Set14=FOLDER --store"
    )


def weights_digest(preset: str, scale: int) -> str:
    """Return the first 12 digits of the sha256 of shipped weights, from their ONNX file."""
    properties = {entry.key: entry.value for entry in onnx.load(_shipped(preset, scale)).metadata_props}
    digest: str = json.loads(properties["srup.weights_sha256"])
    return digest[:12]


def measure_plane(
    scale: int,
    ours: Mapping[str, Mapping[str, float]],
    *,
    engine: str = "onnxruntime",
    rounds: int = ROUNDS,
    height: int = LR_HEIGHT,
    width: int = LR_WIDTH,
    peers: Sequence[str] = tuple(NETWORKS),
) -> dict[str, Any]:
    """Time everything at one scale and return points, front and gaps.

    Args:
        scale: of all networks.
        ours: Y-PSNR by method ("bicubic" and presets) and test set ("Set5", "Set14").
        engine: a name of `ENGINES`.
        rounds: number of timed runs of each.
        height: of the lr picture.
        width: of the lr picture.
        peers: names of `benchmarks.lib.peers.NETWORKS`.

    Raises:
        BackendError: the engine is not installed.
    """
    lr = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    picture = Image.fromarray(lr[0])
    actions: dict[str, Callable[[], object]] = {
        BICUBIC: partial(picture.resize, (width * scale, height * scale), Image.Resampling.BICUBIC)
    }
    points = {BICUBIC: Point(BICUBIC, 0.0, *_psnr(ours.get(BICUBIC, {})))}
    missing = []
    for name in (*_trained(scale), *peers):
        try:
            model = _model(name, scale, height, width)
        except SrupError as error:
            missing.append({"method": name, "why": str(error)})
            continue
        work = counted_work(model, height=height, width=width)
        points[name] = replace(_named(name, scale, ours), macs_per_output_px=work.macs // work.output_px)
        fed = lr[..., :1] if name in LUMA else lr
        actions[name] = partial(ENGINES[engine](model.SerializeToString()), np.ascontiguousarray(fed))
    timings = interleaved(actions, rounds=rounds)
    # Each method's share of a round, which holds while the machine's speed varies, times the median round.
    seconds = np.array([timings.seconds[name] for name in points])  # (methods, rounds)
    rounds_s, megapixels = seconds.sum(axis=0), height * width * scale**2 / 1e6
    timed = []
    for point, shares in zip(points.values(), seconds / rounds_s, strict=True):
        low, median, high = np.percentile(shares, (10, 50, 90))
        ms = float(median * np.median(rounds_s)) * 1e3 / megapixels
        spread = (round(low / median, 3), round(high / median, 3))
        timed.append(replace(point, ms_per_megapixel=round(ms, 2), spread=spread))
    others = [point for point in timed if not point.ours]
    return {
        "scale": scale,
        "engine": engine,
        "size": f"{width}x{height}",
        "rounds": rounds,
        "points": [asdict(point) for point in timed],
        "front": [point.name for point in front(timed)],
        "gaps": [asdict(gap(point, others)) for point in timed if point.ours and point.set14 is not None],
        "no_figure": [point.name for point in timed if point.set14 is None],
        "missing": missing,
        "warnings": timings.warnings(),
    }


def _trained(scale: int) -> list[str]:
    """Return our shipped presets at a scale."""
    return [preset for preset in PRESETS if _shipped(preset, scale).is_file()]


def _shipped(preset: str, scale: int) -> Path:
    name = onnx_name(preset=preset, scale=scale, precision="fp32", io="uint8", attention="frozen")
    return SHIPPED_DIR / name


def _model(name: str, scale: int, height: int, width: int) -> onnx.ModelProto:
    if name in NETWORKS:
        return peer_onnx(name, scale=scale, height=height, width=width)
    return onnx.load(_shipped(name, scale))


def _named(name: str, scale: int, ours: Mapping[str, Mapping[str, float]]) -> Point:
    if name in NETWORKS:
        figures = published(name, scale=scale)
        params = sum(parameter.numel() for parameter in NETWORKS[name](scale).parameters())
        return Point(name, 0.0, figures.set14, figures.set5, params, source=figures.source)
    metadata = {entry.key: entry.value for entry in onnx.load(_shipped(name, scale)).metadata_props}
    psnr = _psnr(ours.get(name, {}))
    return Point(f"srup {name}", 0.0, *psnr, params=int(metadata["srup.params"]), ours=True)


def _psnr(by_set: Mapping[str, float]) -> tuple[float | None, float | None]:
    return by_set.get("Set14"), by_set.get("Set5")


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the result as text."""
    for plane in result["planes"]:
        yield f"x{plane['scale']}, {plane['size']} whole, {plane['engine']}, {plane['rounds']} rounds:"
        for point in sorted(plane["points"], key=lambda point: point["ms_per_megapixel"]):
            quality = "no figure" if point["set14"] is None else f"{point['set14']:.2f} dB"
            mark = "on the front" if point["name"] in plane["front"] else ""
            yield (
                f"  {point['name']:14} {point['ms_per_megapixel']:8.1f} ms/MP  Set14 {quality:9} "
                f"{point['params']:9,} parameters {point['macs_per_output_px']:8,} multiply-adds/px  {mark}"
            )
        for entry in plane["gaps"]:
            yield "  " + gap_in_words(entry)
        yield from (f"  {entry['method']}: {entry['why']}" for entry in plane["missing"])
        yield from (f"  warning: {text}" for text in plane["warnings"])


@click.command(cls=Script, help=__doc__)
@click.option(
    "--scale",
    "scales",
    type=click.Choice(shipped_scales()),
    multiple=True,
    help="Scale to measure; repeatable.",
)
@click.option("--engine", default="onnxruntime", show_default=True, type=click.Choice(list(ENGINES)))
@click.option("--rounds", default=ROUNDS, show_default=True, type=click.IntRange(1))
@click.option("--store", is_flag=True, help="Keep result and plot in benchmarks/results/.")
def main(store: bool, engine: str, **what: Any) -> None:
    result = run(engine=engine, **what)
    for line in lines(result):
        click.echo(line)
    if store:
        theme = "plane" if engine == "onnxruntime" else f"plane-{engine}"
        path = store_result(theme, result)
        draw(result["planes"], path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
