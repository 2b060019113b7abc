"""Speed of a folder when inference costs nothing: srup's own work against Pillow's encoders.

Pixel repetition replaces the network, so `srup upscale FOLDER` only decodes, cuts and stitches tiles, and
encodes. Its rate is compared, in turn, with the rate of Pillow saving the same outputs from memory on all
cores, in the same quality or at the same level.

    python -m benchmarks.ceiling PHOTOGRAPHS --count 50 --store
    python -m benchmarks.ceiling PHOTOGRAPHS --format png --png-level 6
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import click
from PIL import Image

from benchmarks.lib.options import Script, store_option
from benchmarks.lib.pictures import photographs, save_inputs
from benchmarks.lib.repetition import Repetition
from benchmarks.lib.results import store_result
from benchmarks.lib.timing import spent
from benchmarks.pipeline import PipelineSpec
from sr.image import Picture, WriteOptions, format_of_suffix, read_picture, write_options
from sr.image.formats.png import PNG
from sr.jobs.pipeline import FileJob, RunSettings, upscale_files
from sr.processor import available_cores
from sr.upscale import Upscaler

FORMATS = ("png", "jpg", "webp", "bmp")


def run(
    folder: Path | None = None,
    *,
    formats: Iterable[str] = FORMATS,
    scales: Iterable[int] = (PipelineSpec.scale,),
    spec: PipelineSpec | None = None,
    png_level: int | None = None,
) -> dict[str, Any]:
    """Return megapixels of output a second of a folder run and of Pillow, by format and scale."""
    spec = spec or PipelineSpec()
    pictures = photographs(folder, count=spec.count, long_side=spec.long_side)
    rows = []
    for scale, suffix in product(scales, formats):
        options = write_options(f".{suffix}", png_level=png_level if suffix == "png" else None)
        with Upscaler(backend=Repetition(scale)) as upscaler, tempfile.TemporaryDirectory() as scratch:
            measured = _measure(pictures, suffix, options, Path(scratch), upscaler, spec)
        rows.append({"format": suffix, "scale": scale, **measured})
    settings = {"count": len(pictures), "png_level": png_level}
    return {**settings, "cores": available_cores(), "rounds": spec.rounds, "rows": rows}


def _measure(
    pictures: list[Image.Image],
    suffix: str,
    options: WriteOptions,
    scratch: Path,
    upscaler: Upscaler,
    spec: PipelineSpec,
) -> dict[str, Any]:
    sources = [scratch / f"{index:04}.{suffix}" for index in range(len(pictures))]
    save_inputs(pictures, sources)
    outputs, target = scratch / "out", format_of_suffix(f".{suffix}")
    outputs.mkdir()
    upscaled = [upscaler.picture(read_picture(path)) for path in sources]
    targets = [outputs / path.name for path in sources]

    def save(picture: Picture, path: Path) -> None:
        if target is PNG:  # of which `srup` has an encoder of its own
            Image.fromarray(picture.pixels).save(path, "PNG", compress_level=options.png_level)
            return
        assert target is not None
        with path.open("w+b") as file:
            target.writer(file, picture, options)

    def pillow(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(save, upscaled, targets))

    def folder_run() -> None:
        jobs = [FileJob(path, target) for path, target in zip(sources, targets, strict=True)]
        for result in upscale_files(jobs, upscaler, settings=RunSettings(options)):
            if result.error is not None:
                raise result.error

    actions: dict[str, Callable[[], object]] = {
        "pillow": lambda: pillow(available_cores()),
        "pillow, one thread": lambda: pillow(1),
        "folder": folder_run,
    }
    rounds = [{name: spent(action) for name, action in actions.items()} for _ in range(spec.rounds + 1)][1:]
    megapixels = sum(picture.width * picture.height for picture in upscaled) / 1e6
    share = statistics.median(one["pillow"].wall / one["folder"].wall for one in rounds)
    return {
        "megapixels_out_per_second": {
            name: round(megapixels / statistics.median(one[name].wall for one in rounds), 1)
            for name in actions
        },
        "core_seconds_per_megapixel": {
            name: round(statistics.median(one[name].cores for one in rounds) / megapixels, 4)
            for name in actions
        },
        "share_of_pillow": round(share, 3),
    }


@click.command(cls=Script, help=__doc__)
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--format", "formats", type=click.Choice(FORMATS), multiple=True, help="Format to measure; repeatable."
)
@click.option("--scale", "scales", type=int, multiple=True, default=(PipelineSpec.scale,), show_default=True)
@click.option("--count", type=click.IntRange(1), default=PipelineSpec.count, show_default=True)
@click.option("--long-side", type=click.IntRange(8), default=1024, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--png-level", type=click.IntRange(0, 9), help="Compression of PNG.  [default: that of srup upscale]"
)
@store_option
def main(
    folder: Path | None,
    formats: tuple[str, ...],
    scales: tuple[int, ...],
    png_level: int | None,
    store: bool,
    **settings: Any,
) -> None:
    spec = replace(PipelineSpec(), **settings)
    result = run(folder, formats=formats or FORMATS, scales=scales, spec=spec, png_level=png_level)
    for row in result["rows"]:
        rates = row["megapixels_out_per_second"]
        click.echo(f"{row['format']:5} x{row['scale']} {rates}  share {row['share_of_pillow']}")
    if store:
        store_result("ceiling", result)


if __name__ == "__main__":
    main()
