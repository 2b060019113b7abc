"""Pictures that do not fit into memory: upscaled band by band into a tiled BigTIFF, and resumable.

A band is one row of tiles of the ordinary grid, so the pixels are those that `Upscaler.picture` makes.
Owns the way of these pixels: one band is read ahead while tiles of the one before are computed, and what
they add to the file is encoded and written meanwhile.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sr.errors import ImageError, OutOfDeviceMemoryError, one_line, printable
from sr.image import WriteOptions, check_output, within_neighbours
from sr.image.alpha import BLEED_ROWS, BleedByBands
from sr.image.bands import BandReader
from sr.image.compression import LOSSLESS, Compression
from sr.image.formats.bigtiff import TiledTiff, part_files
from sr.image.formats.tiff import TIFF
from sr.image.formats.tiles import TILE_PX, Mosaic, TiledLayout
from sr.image.keeping import fitted_metadata
from sr.image.metadata import Metadata, is_grey_profile
from sr.image.picture import Picture, Pixels, Restoration
from sr.image.source import Header
from sr.jobs.upscaler import BandUpscaler, Progress
from sr.processor import available_cores
from sr.tiling import Span, Tile
from sr.version import __version__

# Of the bytes of its pixels, what a compressed output is expected to take: photographs at x4 took a fifth.
_COMPRESSED_SHARE = 0.5


@dataclass(frozen=True)
class LargePicture:
    """A picture that is to be upscaled in bands; nothing is decoded yet."""

    source: Path
    target: Path
    header: Header


@dataclass(frozen=True)
class LargeResult:
    """What was made.

    Attributes:
        size: (width, height) of the input in pixels.
        output_size: (width, height) of the output.
        tiles: tiles run.
        seconds: it took, reading and writing included.
        notes: for the user to read.
        restored: how strongly damage was undone; None if the network cannot.
    """

    size: tuple[int, int]
    output_size: tuple[int, int]
    tiles: int
    seconds: float
    notes: tuple[str, ...]
    restored: Restoration | None = None


def upscale_large(
    picture: LargePicture,
    upscaler: BandUpscaler,
    *,
    options: WriteOptions | None = None,
    progress: Progress | None = None,
    tile: int = TILE_PX,
) -> LargeResult:
    """Upscale a picture by bands into a tiled BigTIFF, or continue one that was interrupted.

    The unfinished output lies beside the target as `.srup-unfinished-*` and stays there whatever happens,
    unless the source turns out to be damaged. Memory holds a few bands of the input and less than a
    row of tiles of the output.

    Args:
        picture: the files, and the source's header.
        upscaler: computes the bands.
        options: only the compression is used.
        progress: called with tiles done and tiles in all.
        tile: side of the output's tiles in pixels, a multiple of 16.

    Raises:
        ImageError: the source cannot be read, the target not be written, or the disk is full.
        BackendError: the device failed.
        KeyboardInterrupt: with what is left, in words.
    """
    started = time.perf_counter()
    target, begun = picture.target, None
    with ExitStack() as readers:
        reader = readers.enter_context(BandReader(picture.source, picture.header))
        plan = _planned(picture, reader, upscaler, options or WriteOptions(), tile)
        with _saying_what_is_kept(target):
            _refuse_full_disk(target, plan.layout)
            while True:
                with TiledTiff(target, plan.layout, made_of=plan.made_of, threads=available_cores()) as file:
                    begun = file.rows if begun is None else begun
                    if _finished(file, reader, plan, upscaler, progress):
                        break
                reader = readers.enter_context(BandReader(picture.source, picture.header))
        tiles = len(upscaler.grid(reader.height, reader.width))
    notes, layout = plan.notes, plan.layout
    if begun:
        notes += (f"continued an interrupted run at row {begun:,} of {layout.height:,}",)
    size, seconds = (reader.width, reader.height), time.perf_counter() - started
    return LargeResult(size, (layout.width, layout.height), tiles, seconds, notes, plan.restored)


@dataclass(frozen=True)
class _Plan:
    """What is settled before anything is written."""

    layout: TiledLayout
    metadata: Metadata
    bleed: BleedByBands | None
    made_of: dict[str, Any]
    notes: tuple[str, ...]
    restored: Restoration | None


def _planned(
    picture: LargePicture, reader: BandReader, upscaler: BandUpscaler, options: WriteOptions, tile: int
) -> _Plan:
    bleed = _bleed(picture, reader)
    output_size = (reader.width * upscaler.scale, reader.height * upscaler.scale)
    layout = _layout(reader, output_size, options, tile)
    check_output(picture.target, height=1, width=1, alpha=reader.channels % 2 == 0)  # BigTIFF holds any size
    metadata, lost = fitted_metadata(reader.metadata, TIFF)
    restored = _restoration(picture, reader, upscaler)
    made_of = _made_of(picture.source, upscaler, layout, restored)
    return _Plan(layout, metadata, bleed, made_of, reader.notes + lost, restored)


def _restoration(picture: LargePicture, reader: BandReader, upscaler: BandUpscaler) -> Restoration | None:
    """Choose the strength from what the file says; in the pixels, which come later, nothing is sought."""
    compression = picture.header.compression
    if compression == LOSSLESS:
        compression = Compression(detail="in bands")
    shape = (1, 1, 3) if reader.channels > 2 else (1, 1)
    return upscaler.restoration(Picture(np.zeros(shape, reader.dtype), compression=compression))


@contextmanager
def _saying_what_is_kept(target: Path) -> Iterator[None]:
    """Add to what ends the work that the finished part stays."""
    try:
        yield
    except OSError as error:
        raise ImageError(
            f"{printable(target)}: cannot be written ({one_line(error)}); free some space or choose "
            "another folder; the finished part is kept, and the same command continues it"
        ) from error
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            f"{printable(target)}: the finished part is kept, and the same command continues it"
        ) from error


def _finished(
    file: TiledTiff, reader: BandReader, plan: _Plan, upscaler: BandUpscaler, progress: Progress | None
) -> bool:
    """Compute and write what is missing; return False where memory ran out and smaller tiles may do."""
    try:
        _upscale(reader, plan, upscaler, file, progress)
        file.finish(plan.metadata)
    except ImageError:
        file.discard()
        raise
    except OutOfDeviceMemoryError:
        if not upscaler.shrink_to_limits():
            raise
        return False
    return True


def _layout(
    reader: BandReader, output_size: tuple[int, int], options: WriteOptions, tile: int
) -> TiledLayout:
    width, height = output_size
    grey, profile = reader.channels < 3, reader.metadata.icc_profile
    channels = reader.channels
    if grey and profile is not None and not is_grey_profile(profile):  # which describes RGB alone
        channels += 2
    return TiledLayout(height, width, channels, reader.dtype, options.tiff_compression, tile)


def _made_of(
    source: Path, upscaler: BandUpscaler, layout: TiledLayout, restored: Restoration | None
) -> dict[str, Any]:
    """Return what the file's bytes depend on, but for the device."""
    state, model = source.stat(), upscaler.backend.info.model
    return {
        "source": str(source.resolve()),
        "bytes": state.st_size,
        "mtime_ns": state.st_mtime_ns,
        "scale": upscaler.scale,
        "weights": model.weights_sha256,
        "precision": model.precision,
        "backend": upscaler.backend.info.name,
        "tile": upscaler.spec.tile,
        "halo": upscaler.spec.halo,
        "version": __version__,
        "layout": vars(layout),
    } | ({} if restored is None else {"restore": restored.strength})


def _refuse_full_disk(target: Path, layout: TiledLayout) -> None:
    folder = target.absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = part_files(target)[0]
    there = unfinished.stat().st_size if unfinished.exists() else 0
    needed = int(layout.raw_bytes * (_COMPRESSED_SHARE if layout.compression else 1)) - there
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ImageError(
            f"{printable(target)}: takes about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free in its "
            "folder; free some space or choose another folder (-o)"
        )


def _bleed(picture: LargePicture, reader: BandReader) -> BleedByBands | None:
    """Look through a picture with alpha; None if nothing of it is transparent."""
    if reader.channels % 2:
        return None
    with BandReader(picture.source, picture.header) as first:
        bleed = BleedByBands(_split(band) for band in first.bands(4 * BLEED_ROWS))
    return bleed if bleed.transparent else None


def _split(samples: Pixels) -> tuple[Pixels, Pixels]:
    """Return colours (H, W, 3) or (H, W), and the last channel."""
    colours = samples[..., 0] if samples.shape[2] < 3 else samples[..., :3]
    return colours, samples[..., -1]


@dataclass
class _Alpha:
    """Rows of alpha of a band and around it."""

    samples: Pixels
    first: int

    def limit(self, upscaled: Pixels, tile: Tile, scale: int) -> Pixels:
        """Clip what a tile owns of the upscaled alpha to what its neighbourhood spans."""
        rows, columns = (slice(span.keep_start, span.keep_stop) for span in (tile.rows, tile.columns))
        top, left = max(0, rows.start - 1), max(0, columns.start - 1)
        around = self.samples[top - self.first : rows.stop + 1 - self.first, left : columns.stop + 1]
        inside = [slice(span.start - at, span.stop - at) for span, at in ((rows, top), (columns, left))]
        return within_neighbours(upscaled, around, scale=scale, rows=inside[0], columns=inside[1])


_Band = tuple[Span, list[Pixels], _Alpha | None]


class _Bands:
    """What the tiles of a row read of the picture; the next row is read ahead."""

    def __init__(self, reader: BandReader, bleed: BleedByBands | None, rows: Sequence[Span]) -> None:
        self._reader, self._bleed = reader, bleed
        self._following = iter(rows)
        self._thread = ThreadPoolExecutor(1, "read")
        self._next = self._submitted()
        self.alpha: dict[int, _Alpha] = {}  # by the first row of the band

    def __call__(self, rows: Span) -> list[Pixels]:
        assert self._next is not None
        read, items, alpha = self._next.result()
        assert read == rows
        if alpha is not None:
            self.alpha[rows.start] = alpha
        self._next = self._submitted()
        return items

    def _submitted(self) -> Future[_Band] | None:
        rows = next(self._following, None)
        return None if rows is None else self._thread.submit(self._read, rows)

    def _read(self, rows: Span) -> _Band:
        start, stop, bleed = rows.start, rows.start + rows.length, self._bleed
        if bleed is None:
            return rows, [_split(self._reader.rows(start, stop))[0]], None
        first, last = BleedByBands.around(start, stop, height=self._reader.height)
        colours, alpha = _split(self._reader.rows(first, last))
        inside = slice(start - first, stop - first)
        return rows, [bleed.rows(colours, alpha, first=first)[inside], alpha[inside]], _Alpha(alpha, first)

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)


def _upscale(
    reader: BandReader,
    plan: _Plan,
    upscaler: BandUpscaler,
    file: TiledTiff,
    progress: Progress | None,
) -> None:
    """Compute and add all tiles that the file does not have yet."""
    bleed, layout = plan.bleed, plan.layout
    grid, scale, begun = upscaler.grid(reader.height, reader.width), upscaler.scale, file.rows
    first = sum(rows.keep_stop * scale <= begun for rows in grid.rows)
    if first == len(grid.rows):
        return
    items = 1 if bleed is None else 2
    done, total = first * len(grid.columns) * items, len(grid) * items
    bands, mosaic = _Bands(reader, bleed, grid.rows[first:]), Mosaic(layout)
    like = np.empty(0, layout.dtype)
    strength = None if plan.restored is None else plan.restored.strength
    rows = upscaler.upscale_rows(grid, like, bands, first=first, restore=strength)
    with closing(bands), closing(rows) as batches:
        for part, tile, results in _joined(batches, bands, layout, scale):
            row = tile.rows.keep_start * scale
            part = part[max(0, begun - row) :]
            for piece in mosaic.add(part, row=max(row, begun), column=tile.columns.keep_start * scale):
                file.add(piece)
            if tile.columns is grid.columns[-1]:
                bottom = tile.rows.keep_stop * scale
                file.commit(bottom if bottom == layout.height else bottom // layout.tile * layout.tile)
            done += results
            if progress is not None:
                progress(done, total)


def _joined(
    batches: Iterator[list[tuple[Tile, int, Pixels]]], bands: _Bands, layout: TiledLayout, scale: int
) -> Iterator[tuple[Pixels, Tile, int]]:
    """Join what tiles own of colours and alpha to (h, w, C); also say from how many results."""
    colours = np.empty(0)
    for batch in batches:
        for tile, index, part in batch:
            if index == 0:
                colours = part
            if bands.alpha and index == 0:
                continue
            if bands.alpha:
                alpha = bands.alpha[tile.rows.start].limit(part, tile, scale)
                for passed in [start for start in list(bands.alpha) if start < tile.rows.start]:
                    del bands.alpha[passed]
            else:
                alpha = np.full(part.shape[:2], np.iinfo(part.dtype).max, part.dtype)
            shown = colours.reshape(*colours.shape[:2], -1)  # (h, w, 1 or 3)
            opaque = layout.channels % 2 == 1
            shown = np.broadcast_to(shown, (*shown.shape[:2], layout.channels - (not opaque)))
            yield shown if opaque else np.dstack((shown, alpha)), tile, index + 1
