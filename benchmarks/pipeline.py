"""Files to files: decoding, inference and encoding alone, and a whole folder.

A pipeline is no faster than its slowest stage, and no faster than its total work on all cores: the bound is
max(slowest stage, core-seconds / cores). The result is the share of the bound that `srup upscale FOLDER`
reaches. Decoding alone and encoding alone run on all cores. FOLDER holds photographs; the default is crops
of the examples. The photographs are reduced to one size and written in each format first, so that every
format decodes and encodes the same pictures. The four measurements run in turn.

    python -m benchmarks.pipeline PHOTOGRAPHS --count 50
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from PIL import Image

from benchmarks.lib.options import Script, store_option
from benchmarks.lib.pictures import photographs, save_inputs
from benchmarks.lib.results import store_result
from benchmarks.lib.timing import Spent, spent
from deploy.engines.build import build_engine
from sr.image import Picture, read_picture, write_options, write_picture
from sr.jobs.pipeline import FileJob, RunSettings, upscale_files
from sr.jobs.upscaler import Capabilities
from sr.processor import available_cores
from sr.upscale import Upscaler

FORMATS = ("png", "jpg", "webp")
STAGES = ("decode", "infer", "encode")


@dataclass(frozen=True)
class PipelineSpec:
    """What to measure.

    Attributes:
        scale: of the network.
        count: pictures.
        long_side: in lr pixels; larger pictures are reduced to it.
        rounds: number of runs of each measurement.
        backend: as of `srup upscale`.
        device: as of `srup upscale`.
    """

    scale: int = 2
    count: int = 50
    long_side: int = 480
    rounds: int = 3
    backend: str = "auto"
    device: str = "auto"


def run(
    folder: Path | None = None, *, formats: Sequence[str] = FORMATS, spec: PipelineSpec | None = None
) -> dict[str, Any]:
    """Measure a folder of photographs in each format.

    Raises:
        SrupError: the folder has no pictures, one cannot be read, or the backend cannot run.
    """
    spec = spec or PipelineSpec()
    pictures = photographs(folder, count=spec.count, long_side=spec.long_side)
    settings = {"backend": spec.backend, "device": spec.device, "builder": build_engine}
    with Upscaler(scale=spec.scale, **settings) as upscaler:
        info = upscaler.backend.info
        rows = []
        for suffix in formats:
            with tempfile.TemporaryDirectory() as scratch:
                rows.append({"format": suffix, **measure(pictures, suffix, Path(scratch), upscaler, spec)})
    return {
        "photographs": "crops of examples/" if folder is None else folder.name,
        "count": len(pictures),
        "scale": spec.scale,
        "megapixels_in": round(sum(p.width * p.height for p in pictures) / 1e6, 2),
        "backend": f"{info.name} {info.model.precision}, {info.device}",
        "cores": available_cores(),
        "rounds": spec.rounds,
        "rows": rows,
    }


def measure(
    pictures: Sequence[Image.Image], suffix: str, scratch: Path, upscaler: Upscaler, spec: PipelineSpec
) -> dict[str, Any]:
    """Return the time of each stage and of the whole, the bound, and the share reached."""
    sources = [scratch / "in" / f"{index:04}.{suffix}" for index in range(len(pictures))]
    alone, together = scratch / "alone", scratch / "together"
    for made in (sources[0].parent, alone, together):
        made.mkdir()
    save_inputs(pictures, sources)
    options, able = write_options(f".{suffix}"), Capabilities(pictures=upscaler.pictures)
    decoded = [read_picture(path) for path in sources]
    upscaled = [upscaler.picture(picture) for picture in decoded]
    jobs = [FileJob(path, together / path.name) for path in sources]

    targets = [alone / path.name for path in sources]
    encode = partial(write_picture, options=options)

    def end_to_end() -> None:
        for result in upscale_files(jobs, upscaler, capabilities=able, settings=RunSettings(options)):
            if result.error is not None:
                raise result.error

    actions: dict[str, Callable[[], object]] = {
        "decode": lambda: on_all_cores(read_picture, sources),
        "infer": lambda: [upscaler.picture(picture) for picture in decoded],
        "encode": lambda: on_all_cores(encode, targets, upscaled),
        "end to end": end_to_end,
    }
    rounds = [{name: spent(action) for name, action in actions.items()} for _ in range(spec.rounds)]
    figures = summary(rounds, cores=available_cores())
    megapixels = _megapixels(upscaled)
    return {
        **figures,
        "pictures_per_second": round(len(pictures) / figures["seconds"]["end to end"], 2),
        "megapixels_out_per_second": round(megapixels / figures["seconds"]["end to end"], 2),
        "megabytes_in": round(sum(path.stat().st_size for path in sources) / 1e6, 2),
        "megabytes_out": round(sum(job.target.stat().st_size for job in jobs) / 1e6, 2),
    }


def _megapixels(pictures: Sequence[Picture]) -> float:
    return sum(picture.width * picture.height for picture in pictures) / 1e6


def on_all_cores(action: Callable[..., object], *arguments: Iterable[Any]) -> None:
    """Call an action with each of the arguments, on one thread for each core."""
    with ThreadPoolExecutor(available_cores()) as pool:
        for _ in pool.map(action, *arguments):
            pass


def summary(rounds: Sequence[dict[str, Spent]], *, cores: int) -> dict[str, Any]:
    """Return medians over rounds; bound and share are computed within each round.

    Args:
        rounds: the time of each stage and of "end to end".
        cores: number that the process may use.
    """
    bounds, shares = [], []
    for one in rounds:
        slowest = max(one[stage].wall for stage in STAGES)
        work = sum(one[stage].cores for stage in STAGES) / cores
        bounds.append(max(slowest, work))
        shares.append(bounds[-1] / one["end to end"].wall)
    seconds = {name: statistics.median(one[name].wall for one in rounds) for name in rounds[0]}
    core_seconds = {name: statistics.median(one[name].cores for one in rounds) for name in rounds[0]}
    bottleneck = max(STAGES, key=lambda stage: seconds[stage])
    work = sum(core_seconds[stage] for stage in STAGES) / cores
    return {
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "core_seconds": {name: round(value, 4) for name, value in core_seconds.items()},
        "bottleneck": bottleneck,
        "bound_by": f"{bottleneck} alone" if seconds[bottleneck] >= work else f"{cores} cores",
        "bound_seconds": round(statistics.median(bounds), 4),
        "share_of_bound": round(statistics.median(shares), 4),
        "share_of_bound_by_round": [round(share, 4) for share in shares],
    }


def lines(result: dict[str, Any]) -> list[str]:
    """Return the result as text."""
    said = [
        f"{result['count']} pictures ({result['photographs']}), {result['megapixels_in']} megapixels, "
        f"x{result['scale']}, {result['backend']}"
    ]
    for row in result["rows"]:
        took = ", ".join(
            f"{name} {row['seconds'][name]:.2f} s ({row['core_seconds'][name]:.2f} core-s)"
            for name in row["seconds"]
        )
        said.append(f"{row['format']:4} {took}")
        said.append(
            f"     bottleneck {row['bottleneck']}; bound {row['bound_seconds']:.2f} s by {row['bound_by']}, "
            f"{100 * row['share_of_bound']:.1f} % reached; {row['pictures_per_second']} pictures a second"
        )
    return said


@click.command(cls=Script, help=__doc__)
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--format", "formats", type=click.Choice(FORMATS), multiple=True, help="Format to measure; repeatable."
)
@click.option("--scale", type=int, default=PipelineSpec.scale, show_default=True)
@click.option("--count", type=click.IntRange(1), default=PipelineSpec.count, show_default=True)
@click.option("--long-side", type=click.IntRange(8), default=PipelineSpec.long_side, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=PipelineSpec.rounds, show_default=True)
@click.option("--backend", default=PipelineSpec.backend, show_default=True)
@click.option("--device", default=PipelineSpec.device, show_default=True)
@store_option
def main(folder: Path | None, formats: tuple[str, ...], store: bool, **settings: Any) -> None:
    result = run(folder, formats=formats or FORMATS, spec=PipelineSpec(**settings))
    click.echo("\n".join(lines(result)))
    if store:
        store_result("pipeline", result)


if __name__ == "__main__":
    main()
