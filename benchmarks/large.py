"""Upscale a picture of gigapixels: time, peak memory, and resuming after kills.

A process of its own upscales a mosaic of photographs into a tiled BigTIFF, with pixel repetition in place
of the network (which shows the cost of our own work) or with the network. `--kill SECONDS` kills the
process (SIGKILL) after that time and starts it again.

    python -m benchmarks.large PHOTOGRAPHS --store
    python -m benchmarks.large PHOTOGRAPHS --network --kill 600 --store
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.lib.memory import largest_resident_mib
from benchmarks.lib.options import Script, store_option
from benchmarks.lib.paths import ROOT
from benchmarks.lib.repetition import Repetition
from benchmarks.lib.results import store_result
from sr.errors import DataError, ImageError
from sr.image import is_picture, write_options
from sr.image.decode import read_header
from sr.image.formats.bigtiff import part_files
from sr.image.vips import vips_library
from sr.jobs.large import LargePicture, upscale_large
from sr.processor import available_cores
from sr.upscale import Upscaler

CELL_PX = 500  # side of a photograph in the mosaic


@dataclass(frozen=True)
class LargeSpec:
    """What is measured; by default 300 megapixels of input and 4.8 gigapixels of output.

    Attributes:
        width: of the mosaic.
        height: of the mosaic.
        scale: of the network.
        network: run the network instead of repeating pixels.
        compression: of the output.
    """

    width: int = 20_000
    height: int = 15_000
    scale: int = 4
    network: bool = False
    compression: str = "lzw"


def run(photographs: Path, spec: LargeSpec, *, kills: Sequence[float] = (), folder: Path) -> dict[str, Any]:
    """Make the mosaic in `folder`, upscale it there, and return the figures.

    Raises:
        DataError: the folder has no photographs.
        ImageError: a run failed.
    """
    source, target = folder / "mosaic.tif", folder / "upscaled.tif"
    make_mosaic(photographs, source, height=spec.height, width=spec.width)
    runs = [upscaled_in_a_process(source, target, spec, seconds=seconds) for seconds in (*kills, None)]
    result = {
        **asdict(spec),
        "cores": available_cores(),
        "runs": runs,
        "peak_rss_mib": max(each["peak_rss_mib"] for each in runs),
        "seconds": round(sum(each["seconds"] for each in runs), 1),
        "core_seconds": round(sum(each["core_seconds"] for each in runs), 1),
        "gigabytes_out": round(target.stat().st_size / 1e9, 3),
    }
    megapixels = spec.width * spec.height * spec.scale**2 / 1e6
    result["megapixels_out_per_second"] = round(megapixels / result["seconds"], 2)
    check(source, target, spec)
    return result


def make_mosaic(photographs: Path, path: Path, *, height: int, width: int) -> None:
    """Write a TIFF of photographs in rows, repeated as needed.

    Raises:
        DataError: the folder has no photographs.
    """
    vips = vips_library("making a large picture")
    files = sorted(each for each in photographs.rglob("*") if is_picture(each))
    if not files:
        raise DataError(f"{photographs}: no pictures in this folder; name one that has some")
    across, down = -(-width // CELL_PX), -(-height // CELL_PX)
    cells = []
    for index in range(min(len(files), across * down)):
        cell = vips.Image.thumbnail(str(files[index]), CELL_PX, height=CELL_PX, crop="centre")
        cell = cell.flatten() if cell.hasalpha() else cell
        cell = cell.colourspace("srgb").gravity("centre", CELL_PX, CELL_PX, extend="mirror")
        cells.append(cell.cast("uchar").copy_memory())
    mosaic = vips.Image.arrayjoin([cells[i % len(cells)] for i in range(across * down)], across=across)
    mosaic.crop(0, 0, width, height).tiffsave(str(path))


def upscaled_in_a_process(
    source: Path, target: Path, spec: LargeSpec, *, seconds: float | None
) -> dict[str, Any]:
    """Run to the end, or kill after `seconds`; return time, memory, and the output of the process."""
    words = [sys.executable, "-m", "benchmarks.large", "--child", str(source), str(target)]
    words += ["--scale", str(spec.scale), "--compression", spec.compression]
    started, used = time.perf_counter(), _core_seconds()
    process = subprocess.Popen(
        [*words, *(["--network"] if spec.network else [])], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, largest_resident_mib(process.pid))
        if seconds is not None and time.perf_counter() - started > seconds:
            process.kill()
        time.sleep(0.2)
    said, _ = process.communicate()
    if process.returncode != 0 and seconds is None:
        raise ImageError(f"{source}: the run ended with exit status {process.returncode}")
    journal = part_files(target)[1]
    return {
        "killed": process.returncode != 0,
        "seconds": round(time.perf_counter() - started, 1),
        "core_seconds": round(_core_seconds() - used, 1),
        "peak_rss_mib": round(peak),
        "said": said.strip(),
        "bands_in_journal": journal.read_text().count("\n") - 1 if journal.exists() else None,
    }


def _core_seconds() -> float:
    """Return the processor time of ended child processes."""
    ended = os.times()
    return ended.children_user + ended.children_system


def child(source: Path, target: Path, spec: LargeSpec) -> None:
    """Upscale in this process."""
    backend: Any = "auto" if spec.network else Repetition(spec.scale)
    with Upscaler(scale=spec.scale, backend=backend) as upscaler:
        picture = LargePicture(source, target, read_header(source))
        options = write_options(".tif", tiff_compression=spec.compression)
        made = upscale_large(picture, upscaler, options=options)
    click.echo("; ".join(made.notes))


def check(source: Path, target: Path, spec: LargeSpec) -> None:
    """Compare the output as libvips reads it with the input: every pixel if pixels were repeated.

    Raises:
        ImageError: they differ.
    """
    vips = vips_library("reading the output")
    lr = vips.Image.new_from_file(str(source), access="sequential")
    hr = vips.Image.new_from_file(str(target), access="sequential", fail_on="warning")
    if (hr.width, hr.height) != (lr.width * spec.scale, lr.height * spec.scale):
        raise ImageError(f"{target}: is {hr.width}x{hr.height}, not {spec.scale} times the input")
    if spec.network:
        hr.avg()  # all tiles are read
    elif (lr.zoom(spec.scale, spec.scale) - hr).abs().max() != 0:
        raise ImageError(f"{target}: differs from the repeated input")


@click.command(cls=Script, help=__doc__)
@click.argument("photographs", type=click.Path(exists=True, path_type=Path))
@click.argument("target", required=False, type=click.Path(path_type=Path))
@click.option("--child", "is_child", is_flag=True, hidden=True)
@click.option("--width", type=click.IntRange(1), default=LargeSpec.width, show_default=True)
@click.option("--height", type=click.IntRange(1), default=LargeSpec.height, show_default=True)
@click.option("--scale", type=click.IntRange(1), default=LargeSpec.scale, show_default=True)
@click.option("--compression", type=click.Choice(["lzw", "deflate", "none"]), default=LargeSpec.compression)
@click.option("--network", is_flag=True, help="Run the network instead of repeating pixels.")
@click.option(
    "--kill", "kills", type=float, multiple=True, help="Kill the process after this many seconds; repeatable."
)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Folder for the pictures.  [default: temporary]"
)
@store_option
def main(
    photographs: Path,
    target: Path | None,
    is_child: bool,
    kills: tuple[float, ...],
    folder: Path | None,
    store: bool,
    **settings: Any,
) -> None:
    spec = LargeSpec(**settings)
    if is_child and target is not None:
        child(photographs, target, spec)
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        result = run(photographs, spec, kills=kills, folder=Path(scratch))
    for each in result["runs"]:
        end = "killed" if each["killed"] else "done"
        click.echo(f"{end} after {each['seconds']} s, {each['peak_rss_mib']} MiB at most. {each['said']}")
    click.echo(
        f"{result['megapixels_out_per_second']} megapixels of output a second, {result['core_seconds']} "
        f"core-seconds, {result['gigabytes_out']} GB, {result['peak_rss_mib']} MiB at most"
    )
    if store:
        store_result("large-network" if spec.network else "large", result)


if __name__ == "__main__":
    main()
