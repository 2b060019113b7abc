"""Pairs from hr pictures: lr made by MATLAB-exact bicubic or taken as distributed, cut into patches.

Owns what `srup prepare` does. Lists are written last, when all files that they name exist. In Python:

    from train.prepare.make import PrepareSpec, prepare
    prepared = prepare(PrepareSpec(Path("DIV2K/DIV2K_train_HR"), scales=(2,), min_variance=100))
    prepared.lists[0].path                                    # pairs/train/x2.json
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr.errors import DataError
from sr.files import atomic_write
from sr.image.content import left_out_words
from sr.metrics import y_channel
from sr.processor import available_cores
from sr.resize import bicubic_resize, modulo_crop
from train.data.pairs import read_opaque
from train.data.patches import named
from train.data.samples import pair_sheet
from train.prepare.layout import Source, find_hr_folder, find_sources, named_sources, set_name, with_copies
from train.prepare.manifest import MadeScale, Manifest, Record, open_manifest, write_text
from train.prepare.plan import (
    KINDS,
    MAX_WORKERS,
    Job,
    Piece,
    PrepareSpec,
    files_of,
    is_large_enough,
    pieces,
    plan_jobs,
)

__all__ = ["PrepareSpec", "Prepared", "PreparedList", "prepare"]

Progress = Callable[[int, int], None]  # pictures done, pictures to do


@dataclass(frozen=True)
class PreparedList:
    """A pair list that was written, and what it holds."""

    path: Path
    scale: int
    pairs: int
    pictures: int  # that have a pair in the list
    flat: int  # patches dropped
    taken: int  # pictures whose lr was distributed
    computed: int  # pictures whose lr was computed


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did."""

    spec: PrepareSpec
    hr_folder: Path
    lists: tuple[PreparedList, ...]
    pictures: int
    made: int  # of these, in this run
    complete: int  # of these, from before
    too_small: tuple[Source, ...]  # left out
    not_found: tuple[str, ...]  # names to exclude that no picture has
    removed: int  # files that the lists do not name any more
    problems: tuple[str, ...] = ()  # pictures that were left out because they are bad
    samples: tuple[Path, ...] = ()  # sheets of degraded pairs
    left_out: Counter[str] = field(default_factory=Counter)  # files that are no pictures, by kind

    def without_problems(self) -> Prepared:
        """Return itself, for callers that need every picture.

        Raises:
            DataError: bad pictures were left out.
        """
        if self.problems:
            raise DataError(named(list(self.problems)))
        return self

    def lines(self) -> Iterator[str]:
        """Yield the summary, line by line."""
        factors = len(self.spec.shrink)
        pictures = _count(self.pictures // (1 + factors), "picture")
        pictures += f", {_count(factors, 'smaller copy', 'smaller copies')} of each" if factors else ""
        complete = f", {self.complete:,} complete from before" if self.complete else ""
        yield f"{self.hr_folder}: {pictures}{complete}{left_out_words(self.left_out)}"
        if self.not_found:
            yield f"no picture to exclude is named {', '.join(self.not_found)}"
        if self.too_small:
            side = self.spec.patch_size
            names = ", ".join(one.label(self.hr_folder) for one in self.too_small)
            yield f"left out as smaller than {side}x{side}: {_count(len(self.too_small), 'picture')}: {names}"
        for one in self.lists:
            what = (
                _count(one.pairs, "pair")
                if self.spec.whole
                else f"{_count(one.pairs, 'patch', 'patches')} of {_count(one.pictures, 'picture')}, "
                f"{one.flat:,} flat {'one' if one.flat == 1 else 'ones'} dropped"
            )
            yield f"{one.path}  {what}; lr: {one.taken:,} taken as distributed, {one.computed:,} computed"
        if self.removed:
            yield f"{_count(self.removed, 'stale file')} removed"
        if self.samples:
            yield f"{', '.join(map(str, self.samples))}  hr and degraded lr of some pairs"


def prepare(spec: PrepareSpec, *, progress: Progress | None = None) -> Prepared:
    """Write pairs as PNG under OUT/x<scale>/{HR,LR} and the lists OUT/x<scale>.json.

    hr pictures are cut to a multiple of the scale at the right and the bottom; lr is the whole of
    that, shrunk, and patches are cut from both at the same place. Files of an earlier run with the
    same settings stay where nothing is missing and the source has not changed.

    Bad pictures are left out and named in the result. `progress` is called after each that was made.

    Raises:
        DataError: no picture is left, OUT holds pairs that were made otherwise, or the disk is full.
    """
    spec = replace(spec, scales=tuple(sorted(set(spec.scales))))
    hr_folder = find_hr_folder(spec.hr_folder)
    output = spec.output or Path("pairs", *(("val", set_name(hr_folder)) if spec.whole else ("train",)))
    manifest = open_manifest(
        output, settings=_settings(spec, hr_folder), scales=spec.scales, overwrite=spec.overwrite
    )
    folders = {s: [output / f"x{s}" / kind for kind in KINDS] for s in manifest.scales | set(spec.scales)}
    found = find_sources(hr_folder, made=[path for two in folders.values() for path in two])
    not_found = sorted(spec.exclude - {path.stem for path in found.pictures})
    pictures = [path for path in found.pictures if path.stem not in spec.exclude]
    sources = with_copies(named_sources(pictures, hr_folder), spec.shrink)
    records, jobs, problems = plan_jobs(spec, hr_folder, output, manifest, sources)
    too_small = tuple(s for s in sources if s.name in records and not is_large_enough(records[s.name], spec))
    _require_pictures(hr_folder, spec, sources, too_small, problems)
    _make_folders(spec, output, folders)
    manifest.scales |= set(spec.scales)
    manifest.records = {n: r for n, r in manifest.records.items() if n not in problems} | records
    manifest.save()
    problems |= _run(spec, output, manifest, jobs, progress)
    left_out = {source.name for source in too_small} | problems.keys()
    kept = [source for source in sources if source.name not in left_out]
    _require_pictures(hr_folder, spec, sources, too_small, problems)
    lists = _write_lists(spec, output, {source.name: manifest.records[source.name] for source in kept})
    removed = sum(_remove_stale(one) for one in lists) if spec.overwrite else 0
    samples = () if spec.degradation is None else tuple(pair_sheet(one.path, one.scale) for one in lists)
    made = sum(job.source.name not in problems for job in jobs)
    return Prepared(
        spec,
        hr_folder,
        tuple(lists),
        pictures=len(sources),
        made=made,
        complete=len(kept) - made,
        too_small=too_small,
        not_found=tuple(not_found),
        removed=removed,
        problems=tuple(sorted(set(problems.values()))),
        samples=samples,
        left_out=found.left_out,
    )


def _make_folders(spec: PrepareSpec, output: Path, folders: Mapping[int, Sequence[Path]]) -> None:
    """Make the folders of the scales to make; remove lists that are to be replaced."""
    for scale in spec.scales:
        for folder in folders[scale]:
            folder.mkdir(parents=True, exist_ok=True)
        if spec.overwrite:  # half replaced, it would name what does not fit
            (output / f"x{scale}.json").unlink(missing_ok=True)


def _require_pictures(
    hr_folder: Path,
    spec: PrepareSpec,
    sources: Sequence[Source],
    too_small: Sequence[Source],
    problems: Mapping[str, str],
) -> None:
    if len(too_small) + len(problems) < len(sources):
        return
    if problems:
        raise DataError(named(sorted(set(problems.values()))))
    reason = f"all are smaller than {spec.patch_size}x{spec.patch_size}" if sources else "all are excluded"
    raise DataError(f"{hr_folder}: no pictures are left, {reason}")


def _settings(spec: PrepareSpec, hr_folder: Path) -> dict[str, Any]:
    whole = spec.whole
    chosen: dict[str, Any] = {}
    if spec.degradation is not None:
        chosen |= {"degrade": spec.degradation.to_json(), "seed": spec.seed}
    if spec.shrink:
        chosen["shrink"] = list(spec.shrink)
    return chosen | {
        "mode": "whole" if whole else "patches",
        "patch_size": None if whole else spec.patch_size,
        "stride": None if whole else spec.hr_stride,
        "min_variance": None if whole else float(spec.min_variance),
        "min_detail": None if whole else float(spec.min_detail),
        "source_folder": str(hr_folder.resolve()),
    }


# --- making ---------------------------------------------------------------------------------------


def _run(
    spec: PrepareSpec, output: Path, manifest: Manifest, jobs: Sequence[Job], progress: Progress | None
) -> dict[str, str]:
    """Run all jobs and record each when it is done; return problems by source name.

    Raises:
        DataError: the disk is full.
    """
    problems = {}
    pool = ThreadPoolExecutor(min(available_cores(), MAX_WORKERS))  # numpy and Pillow release the GIL
    try:
        futures = {pool.submit(_make, spec, output, job): job.source.name for job in jobs}
        for done, future in enumerate(as_completed(futures), 1):
            outcome = future.result()
            if isinstance(outcome, Record):
                manifest.records[futures[future]] = outcome
                manifest.save(lazily=True)
            else:
                problems[futures[future]] = outcome
                manifest.records.pop(futures[future], None)
            if progress is not None:
                progress(done, len(jobs))
    except BaseException:  # Ctrl-C as well: what is done stays done
        pool.shutdown(cancel_futures=True)
        with contextlib.suppress(DataError):
            manifest.save()
        raise
    pool.shutdown()
    manifest.save()
    return problems


def _make(spec: PrepareSpec, output: Path, job: Job) -> Record | str:
    """Make the files of a source; return its new record, or the reason why it cannot be read."""
    try:
        hr = _shrunk(read_opaque(job.source.path), job.source)
        taken = {scale: read_opaque(job.lr[scale][0]) for scale in job.scales if scale in job.lr}
    except DataError as error:
        return str(error)
    scales = dict(job.record.scales)
    for scale in job.scales:
        cropped = modulo_crop(hr, scale=scale)
        lr = taken[scale] if scale in taken else bicubic_resize(cropped, scale=Fraction(1, scale))
        is_flat = _flatness(spec, cropped, lr, scale)
        if spec.degradation is not None:
            rng = np.random.default_rng([spec.seed, zlib.crc32(job.source.name.encode()), scale])
            lr = spec.degradation.degraded(cropped, lr, scale=scale, rng=rng)
        flat = []
        for index, piece in enumerate(pieces(spec, job.record, job.source.name, scale)):
            if is_flat(piece):
                flat.append(index)
                continue
            for kind, image, factor in (("HR", cropped, 1), ("LR", lr, scale)):
                path = output / f"x{scale}" / kind / piece.file
                if scale not in job.kept or not path.exists():
                    _save(path, _cut(image, piece, factor))
        scales[scale] = MadeScale(tuple(flat), job.lr[scale][1] if scale in job.lr else None)
    record = job.record
    return Record(record.file, record.stamp, record.height, record.width, scales)


def _shrunk(hr: NDArray[np.uint8], source: Source) -> NDArray[np.uint8]:
    """Return the picture, or the copy of it that a source is, by Pillow's antialiased Lanczos filter."""
    if source.shrink == 1:
        return hr
    height, width = source.size(*hr.shape[:2])
    return np.asarray(Image.fromarray(hr).resize((width, height), Image.Resampling.LANCZOS))


def _flatness(spec: PrepareSpec, hr: NDArray, lr: NDArray, scale: int) -> Callable[[Piece], bool]:
    """Return a function that tells whether a patch varies too little in luma or in detail.

    Detail is what a network has to add: hr luma less lr luma enlarged by the bicubic filter.
    """
    maps = []
    if spec.min_variance > 0 and not spec.whole:
        maps.append((y_channel(hr), spec.min_variance))
    if spec.min_detail > 0 and not spec.whole:
        maps.append((y_channel(hr) - bicubic_resize(y_channel(lr), scale=scale), spec.min_detail))
    return lambda piece: any(_cut(image, piece).var() < least for image, least in maps)


def _cut(image: NDArray, piece: Piece, factor: int = 1) -> NDArray:
    """Return the piece of a picture that is `factor` times smaller than hr; a view."""
    top, left = piece.top // factor, piece.left // factor
    return image[top : top + piece.height // factor, left : left + piece.width // factor]


def _save(path: Path, image: NDArray[np.uint8]) -> None:
    try:
        with atomic_write(path) as temporary:
            Image.fromarray(image).save(temporary, compress_level=1)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error


# --- lists ----------------------------------------------------------------------------------------


def _write_lists(spec: PrepareSpec, output: Path, records: dict[str, Record]) -> list[PreparedList]:
    """Write the list of each scale, sorted by name.

    Raises:
        DataError: all patches are flat.
    """
    lists, contents = [], []
    for scale in spec.scales:
        files = {name: files_of(spec, record, name, scale) for name, record in records.items()}
        names = sorted(file for several in files.values() for file in several)
        made = [record.scales[scale] for record in records.values()]
        flat = sum(len(one.flat) for one in made)
        if not names:
            raise DataError(
                f"{output}: no patch is left, all {flat:,} have less variance than {spec.min_variance:g}"
                + (f" or less detail than {spec.min_detail:g}" if spec.min_detail else "")
            )
        taken = sum(one.lr is not None for one in made)
        lists.append(
            PreparedList(
                output / f"x{scale}.json",
                scale,
                pairs=len(names),
                pictures=sum(bool(several) for several in files.values()),
                flat=flat,
                taken=taken,
                computed=len(made) - taken,
            )
        )
        contents.append([{kind: f"x{scale}/{kind}/{name}" for kind in KINDS} for name in names])
    for one, entries in zip(lists, contents, strict=True):
        write_text(one.path, json.dumps(entries, indent=1))
    return lists


def _remove_stale(made: PreparedList) -> int:
    """Remove the pictures in the folders of a scale that its list does not name; return how many."""
    folder = made.path.with_suffix("")
    named = {entry["HR"] for entry in json.loads(made.path.read_text(encoding="utf-8"))}
    removed = 0
    for kind in KINDS:
        for path in (folder / kind).glob("*.png"):
            if f"x{made.scale}/HR/{path.name}" not in named:
                path.unlink()
                removed += 1
    return removed


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
