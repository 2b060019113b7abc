"""A tiled BigTIFF that is written piece by piece, and continued after a kill.

Owns the unfinished file and its journal; `sr.image.formats.tiles` makes its tiles. Layout: TIFF 6.0, sections
2 and 15; BigTIFF as libtiff has it.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import IO, Any, BinaryIO, Self

import numpy as np

from sr.errors import ImageError, printable
from sr.files import TEMPORARY_PREFIX, atomic_write
from sr.image.directories import Entry, Tags, directory
from sr.image.formats.tiff_pages import ICC_PROFILE, RESOLUTION_UNIT, X_RESOLUTION, Y_RESOLUTION
from sr.image.formats.tiff_tags import descriptive_tags
from sr.image.formats.tiles import TILE_BYTES, TILE_OFFSETS, PlacedTile, TiledLayout, encoded_tile
from sr.image.metadata import Metadata, metadata_tags, resized_exif

_WIDTH, _LENGTH = 256, 257
_LONG, _UNDEFINED, _LONG8 = 4, 7, 16
_ORDER = "<" if np.little_endian else ">"  # libtiff writes in the machine's own
_HEADER = (b"II" if np.little_endian else b"MM") + struct.pack(_ORDER + "HHH", 43, 8, 0)
_TILES_WAITING = 64  # to be encoded and written; 12 MB of RGB


class TiledTiff:
    """The file that is being written, beside its target and under a temporary name; a context manager.

    Tiles are encoded on threads and appended in the order in which they come. `commit` records the
    progress in a journal. Whoever opens the same target again with the same `made_of` continues after
    the last commit; a file made of something else is begun anew. Leaving the context keeps the file and
    its journal.
    """

    def __init__(
        self, target: Path, layout: TiledLayout, *, made_of: Mapping[str, Any], threads: int = 1
    ) -> None:
        """Begin, or go on.

        Args:
            target: the name that the file will have.
            layout: of the pixels.
            made_of: what they and their layout depend on; JSON.
            threads: that encode tiles.

        Raises:
            ImageError: another process is writing the same file.
            OSError: the file cannot be written.
        """
        self._target, self._layout = target, layout
        self.part, self._journal_path = part_files(target)
        self._made_of = json.loads(json.dumps(made_of))
        self._sizes: dict[int, tuple[int, int]] = {}  # tile -> offset, bytes
        self._file = self.part.open("r+b" if self.part.exists() else "w+b")
        self._journal: IO[Any] = self._file  # until that is read
        self._threads = ThreadPoolExecutor(threads, "tiles")
        self._writer = ThreadPoolExecutor(1, "write")
        try:
            _lock(self._file, target)
            self.rows = self._end = 0
            self._resume()
        except BaseException:
            self._close()
            raise
        self._queue: Queue[tuple[int, Future[tuple[Tags, bytes]]] | int | None] = Queue(_TILES_WAITING)
        self._failure: BaseException | None = None
        self._fresh: list[tuple[int, int]] = []
        self._writing = self._writer.submit(self._write)

    def _resume(self) -> None:
        """Read how far it is, and cut off what came after."""
        size = os.fstat(self._file.fileno()).st_size
        try:
            first, *lines = self._journal_path.read_text(encoding="utf-8").split("\n")
            known = json.loads(first) == self._made_of
        except (OSError, ValueError):
            known, lines = False, []
        kept = [first] if known else [json.dumps(self._made_of)]
        for line in lines if known else ():
            try:
                entry = json.loads(line)
            except ValueError:  # cut off by a crash
                break
            if entry["end"] > size:
                break
            kept.append(line)
            at = self._end or len(_HEADER) + 8
            for index, length in entry["tiles"]:
                self._sizes[index] = at, length
                at += length
            self.rows, self._end = entry["rows"], entry["end"]
        with atomic_write(self._journal_path) as temporary:
            temporary.write_text("\n".join(kept) + "\n", encoding="utf-8")
        if not self._end:
            self._end = len(_HEADER) + 8
            self._file.write(_HEADER + bytes(8))
        self._file.truncate(self._end)
        self._file.seek(self._end)
        self._journal = self._journal_path.open("a", encoding="utf-8")

    def add(self, tile: PlacedTile) -> None:
        """Append a tile; waits while many are being encoded.

        Raises:
            OSError: what came before could not be written.
        """
        self._raise()
        encoding = self._threads.submit(encoded_tile, tile.pixels, self._layout)
        self._queue.put((tile.number, encoding))

    def commit(self, rows: int) -> None:
        """Say that all tiles of the first `rows` rows of pixels have been added."""
        self._raise()
        self._queue.put(rows)

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _write(self) -> None:
        """Write queued tiles; after a failure only empty the queue."""
        while (item := self._queue.get()) is not None:
            if self._failure is not None:
                continue
            try:
                if isinstance(item, int):
                    self._commit(item)
                else:
                    self._file.write(item[1].result()[1])
                    self._fresh.append((item[0], len(item[1].result()[1])))
            except BaseException as error:
                self._failure = error

    def _commit(self, rows: int) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        for index, length in self._fresh:
            self._sizes[index] = self._end, length
            self._end += length
        entry = {"rows": rows, "end": self._end, "tiles": self._fresh}
        self._journal.write(json.dumps(entry, separators=(",", ":")) + "\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self._fresh = []
        self.rows = rows

    def finish(self, metadata: Metadata) -> None:
        """Write the directory and give the file its name.

        Args:
            metadata: what stands beside the pixels.

        Raises:
            OSError: something could not be written.
        """
        self._drain()
        self._raise()
        if len(self._sizes) != self._layout.count:
            raise ValueError(f"{len(self._sizes)} tiles of {self._layout.count}")
        self._file.write(b"\0" * (self._end % 2))
        offset = self._end + self._end % 2
        self._file.write(directory(self._tags(metadata), order=_ORDER, offset=offset, big=True))
        self._file.seek(len(_HEADER))
        self._file.write(struct.pack(_ORDER + "Q", offset))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self.part.replace(self._target)
        self._journal_path.unlink()

    def _tags(self, metadata: Metadata) -> Tags:
        """Return the directory that libtiff has made for one tile, changed to be that of all."""
        layout = self._layout
        one = np.zeros((layout.tile, layout.tile, layout.channels), layout.dtype)
        tags = dict(encoded_tile(one, layout)[0])
        for tag in (X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT):
            tags.pop(tag, None)
        places = [self._sizes[index] for index in range(layout.count)]
        tags[_WIDTH] = Entry(_LONG, struct.pack(_ORDER + "I", layout.width))
        tags[_LENGTH] = Entry(_LONG, struct.pack(_ORDER + "I", layout.height))
        tags[TILE_OFFSETS] = Entry(_LONG8, np.array([at for at, _ in places], "u8").tobytes())
        tags[TILE_BYTES] = Entry(_LONG8, np.array([size for _, size in places], "u8").tobytes())
        if metadata.icc_profile is not None:
            tags[ICC_PROFILE] = Entry(_UNDEFINED, metadata.icc_profile)
        exif = metadata.exif and resized_exif(metadata.exif, height=layout.height, width=layout.width)
        tags |= descriptive_tags(metadata, height=layout.height, width=layout.width, order=_ORDER)
        return tags | metadata_tags(
            exif=exif, xmp=metadata.xmp, iptc=metadata.iptc, order=_ORDER, present=tags
        )

    def discard(self) -> None:
        """Remove what was written."""
        self._drain()
        self._close()
        self.part.unlink(missing_ok=True)
        self._journal_path.unlink(missing_ok=True)

    def _drain(self) -> None:
        """Wait until all queued tiles are written; no more can be added."""
        if not self._writing.done():
            self._queue.put(None)
            self._writing.result()

    def _close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._writer.shutdown()
        for file in (self._file, self._journal):
            with suppress(OSError):  # a full disk has been reported
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._drain()
        self._close()


def part_files(target: Path) -> tuple[Path, Path]:
    """Return the names of an unfinished file and of its journal: the same ones each time."""
    stem = f"{TEMPORARY_PREFIX}unfinished-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}"
    return target.with_name(f"{stem}.part"), target.with_name(f"{stem}.journal")


def _lock(file: BinaryIO, target: Path) -> None:
    """Keep other processes from writing the same file; the lock ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ImageError(
            f"{printable(target)}: another process is writing it; wait for it, or name another output (-o)"
        ) from error
    except OSError:  # no locks on this file system
        return
