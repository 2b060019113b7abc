"""The settings of `srup prepare`, and the work that is left to do.

Owns where patches lie, how their files are named, and which files of an earlier run stay valid. Writes
nothing; opens pictures for their headers only, unless one is damaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sr.errors import DataError
from train.data.degrade import Degradation
from train.data.pairs import upright_size
from train.prepare.layout import Source, distributed_lr
from train.prepare.manifest import Manifest, Record, Stamp

KINDS = ("HR", "LR")  # keys in a list and names of folders
# A worker on a picture of 2040x1356 holds 140 MB: the picture, its luma and its resizing in float64.
MAX_WORKERS = 8


@dataclass(frozen=True)
class PrepareSpec:
    """What to prepare: patches for training, or with `whole` the pictures of a test set.

    Raises:
        DataError: the settings cannot work together.
    """

    hr_folder: Path  # or the folder of a data set that holds one hr folder
    scales: tuple[int, ...] = (2, 3, 4)
    output: Path | None = None  # None: pairs/train, or pairs/val/NAME with `whole`
    exclude: frozenset[str] = frozenset()  # file names without suffix
    patch_size: int = 192  # hr pixels; 48 of lr at x4, as EDSR trains (arXiv 1707.02921)
    stride: int | None = None  # hr pixels; None: the patch size
    min_variance: float = 0.0  # of luma, levels^2; flatter patches are dropped
    min_detail: float = 0.0  # variance of what bicubic does not restore of luma, levels^2; likewise
    whole: bool = False
    overwrite: bool = False
    shrink: tuple[float, ...] = ()  # factors below 1 of copies that are taken besides each picture
    degradation: Degradation | None = None  # of the lr pictures
    seed: int = 0  # of what is drawn for it

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) < 1:
            raise DataError(f"scales {self.scales}: need one at least, and none less than 1")
        for label, number in (("min variance", self.min_variance), ("min detail", self.min_detail)):
            if not 0 <= number < math.inf:
                raise DataError(f"{label} {number}: need a number of at least 0")
        if any(not 0 < factor < 1 for factor in self.shrink):
            raise DataError(
                f"shrink {', '.join(f'{f:g}' for f in self.shrink)}: need factors between 0 and 1"
            )
        if self.shrink and self.whole:
            raise DataError("shrunk copies are for training; give either --whole or --shrink")
        step = math.lcm(*self.scales)
        for label, value in (("patch size", self.patch_size), ("stride", self.hr_stride)):
            if value < 1 or (value % step and not self.whole):
                raise DataError(
                    f"{label} {value}: need a multiple of every scale ({', '.join(map(str, self.scales))}), "
                    f"for example {max(1, round(value / step)) * step}"
                )

    @property
    def hr_stride(self) -> int:
        """The stride in hr pixels, whether given or not."""
        return self.patch_size if self.stride is None else self.stride


@dataclass(frozen=True)
class Piece:
    """A part of the picture cut to a multiple of the scale: a patch, or all of it. In hr pixels."""

    file: str
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Job:
    """A source and the scales to make; existing files of `kept` scales are valid and stay."""

    source: Source
    record: Record  # without the scales to make from nothing
    lr: dict[int, tuple[Path, Stamp]]  # distributed, by scale
    scales: tuple[int, ...]
    kept: frozenset[int]


def patch_starts(length: int, *, patch_size: int, stride: int) -> list[int]:
    """Return where patches begin along an axis; the last one is shifted inwards to end at `length`."""
    if length < patch_size:
        return []
    last = length - patch_size
    return [*range(0, last, stride), last]


def pieces(spec: PrepareSpec, record: Record, name: str, scale: int) -> list[Piece]:
    """Return the parts that a source is cut into for a scale, row by row."""
    height, width = (side // scale * scale for side in (record.height, record.width))
    if spec.whole:
        return [Piece(f"{name}.png", 0, 0, height, width)]
    size = spec.patch_size
    return [
        Piece(f"{name}_y{top:05d}_x{left:05d}.png", top, left, size, size)
        for top in patch_starts(height, patch_size=size, stride=spec.hr_stride)
        for left in patch_starts(width, patch_size=size, stride=spec.hr_stride)
    ]


def files_of(spec: PrepareSpec, record: Record, name: str, scale: int) -> list[str]:
    """Return the files that a record says were made for a scale."""
    flat = set(record.scales[scale].flat)
    parts = pieces(spec, record, name, scale)
    return [piece.file for index, piece in enumerate(parts) if index not in flat]


def is_large_enough(record: Record, spec: PrepareSpec) -> bool:
    """Say whether a patch fits into the picture."""
    return spec.whole or min(record.height, record.width) >= spec.patch_size


def plan_jobs(
    spec: PrepareSpec, hr_folder: Path, output: Path, manifest: Manifest, sources: Sequence[Source]
) -> tuple[dict[str, Record], list[Job], dict[str, str]]:
    """Compare each source with its record: return records, the jobs that are left, and problems.

    Returns:
        The record of each readable source, without outdated parts; jobs; problems by source name.
    """
    distributed = {scale: distributed_lr(hr_folder, scale=scale) for scale in spec.scales}
    present = {scale: _present(output / f"x{scale}") for scale in spec.scales}
    records: dict[str, Record] = {}
    jobs: list[Job] = []
    problems: dict[str, str] = {}

    def plan(source: Source) -> None:
        file, stamp = source.path.relative_to(hr_folder), Stamp.of(source.path)
        old = manifest.records.get(source.name)
        if old is None or (old.file, old.stamp) != (file.as_posix(), stamp):
            try:
                height, width = upright_size(source.path)
            except DataError as error:
                problems[source.name] = str(error)
                return
            old = Record(file.as_posix(), stamp, *source.size(height, width))
        lr = {
            scale: (path, Stamp.of(path))
            for scale in spec.scales
            if source.shrink == 1 and (path := distributed[scale].get(file.with_suffix("")))
        }
        same = {
            s for s in spec.scales if s in old.scales and old.scales[s].lr == (lr[s][1] if s in lr else None)
        }
        complete = {s for s in same if present[s].issuperset(files_of(spec, old, source.name, s))}
        todo = tuple(scale for scale in spec.scales if scale not in complete)
        rest = {scale: made for scale, made in old.scales.items() if scale not in todo or scale in same}
        record = Record(old.file, old.stamp, old.height, old.width, rest)
        if todo and is_large_enough(record, spec):
            job = Job(source, record, lr, todo, frozenset(same))
            if misfit := _misfit(job):
                problems[source.name] = misfit
                return
            jobs.append(job)
        records[source.name] = record

    with ThreadPoolExecutor(MAX_WORKERS) as pool:  # reads headers: waits for the disk, not for a core
        list(pool.map(plan, sources))
    return records, sorted(jobs, key=lambda job: job.source.name), problems


def _present(folder: Path) -> set[str]:
    """Return the names that both HR and LR have in the folder of a scale."""
    hr, lr = (
        {p.name for p in one.iterdir()} if one.is_dir() else set() for one in map(folder.joinpath, KINDS)
    )
    return hr & lr


def _misfit(job: Job) -> str:
    """Return what is wrong with the sizes of a source and of its lr pictures; "" if nothing is."""
    height, width = job.record.height, job.record.width
    for scale in job.scales:
        need = (height // scale, width // scale)
        if 0 in need:
            return f"{job.source.path}: is {width}x{height}, smaller than the scale {scale}"
        if scale in job.lr:
            path = job.lr[scale][0]
            try:
                got = upright_size(path)
            except DataError as error:
                return str(error)
            if got != need:
                expected = f"{need[1]}x{need[0]} for {job.source.path} at x{scale}"
                return f"{path}: is {got[1]}x{got[0]}, need {expected}"
    return ""
