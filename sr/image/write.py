"""Writing picture files whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from sr.errors import ImageError, one_line, printable
from sr.files import atomic_write
from sr.image.decode import PictureSequence
from sr.image.formats import fitting_format
from sr.image.formats.options import WriteOptions
from sr.image.formats.spec import FormatSpec, SequenceInfo
from sr.image.keeping import fitted_metadata
from sr.image.picture import Frame, MultiImage, Picture, to_8_bits
from sr.image.refusals import EncoderError
from sr.memory import require_address_space

_ROOM_BYTES = 32 * 2**20  # of the smallest AVIF's encoder: 20 MiB


class _CheckedFile(io.BufferedRandom):
    """A file whose descriptor Pillow cannot reach, so that every write goes through Python.

    Pillow's C code takes a short write for success, so a full disk could cut a file unnoticed.
    """

    def fileno(self) -> int:
        """Refuse."""
        raise io.UnsupportedOperation("Pillow is to write through Python")


def write_picture(
    path: Path, picture: Picture, *, options: WriteOptions | None = None, stream: BinaryIO | None = None
) -> tuple[str, ...]:
    """Write a picture whole or not at all; the suffix decides on the format.

    With `stream`, it goes there when it is encoded, and `path` is what messages call it.

    Metadata is kept where the format can hold it, see `FormatSpec.capacity`. Grey pixels with an RGB profile
    are written as RGB. 16 bits per channel are rounded to 8 where the format has no more; GIF has 256
    colours.

    Returns:
        What was reduced or lost, for the user to read.

    Raises:
        ImageError: as `check_output`, or the file cannot be written.
        MissingExtraError: 16 bits per channel and pyvips is not installed.
    """
    spec = fitting_format(
        path,
        printable(path),
        height=picture.height,
        width=picture.width,
        alpha=picture.transparent,
        sixteen_bit=picture.sixteen_bit,
    )
    picture, notes = _fitted(picture, spec)
    with _written(path, stream) as open_file:
        _require_room(picture, spec)
        _write_one(open_file, picture, spec, options or WriteOptions())
    return notes


def write_sequence(
    path: Path,
    sequence: PictureSequence,
    frames: Iterable[Frame],
    *,
    options: WriteOptions | None = None,
    stream: BinaryIO | None = None,
) -> tuple[str, ...]:
    """Write the frames of an animation, or pages, whole or not at all; `frames` is read one by one.

    Args:
        path: the suffix decides on the format: PNG, WebP, AVIF and GIF hold frames, TIFF pages.
        sequence: what the frames were made of; its count and number of plays are taken.
        frames: as many; frames of an animation all of one size.
        options: of the encoder.
        stream: as in `write_picture`.

    Returns:
        What was reduced, for the user to read.

    Raises:
        ImageError: the format cannot hold them, the file cannot be written, or what `frames` raises.
    """
    options = options or WriteOptions()
    name, notes = printable(path), dict[str, None]()
    spec = fitting_format(path, name, height=1, width=1, alpha=False, multi_image=sequence.kind)
    if not spec.states_plays and sequence.plays:
        notes[f"an animation in {spec.name} repeats without end"] = None

    def checked() -> Iterator[Frame]:
        for frame in frames:
            picture = frame.picture
            fitting_format(
                path,
                name,
                height=picture.height,
                width=picture.width,
                alpha=picture.transparent,
                sixteen_bit=picture.sixteen_bit,
            )
            fitted, lost = _fitted(picture, spec)
            notes.update(dict.fromkeys(picture.notes + lost))
            _require_room(fitted, spec)
            yield replace(frame, picture=fitted)

    assert spec.sequence_writer is not None  # `fitting_format` has looked
    with _written(path, stream) as open_file, open_file(_CheckedFile) as file:
        spec.sequence_writer(file, checked(), SequenceInfo(sequence.count, sequence.plays), options)
    return tuple(notes)


_OpenFile = Callable[[type[io.BufferedRandom]], AbstractContextManager[io.BufferedRandom]]


@contextmanager
def _written(path: Path, stream: BinaryIO | None) -> Iterator[_OpenFile]:
    """Give a function that opens the file to be written; what goes wrong becomes an `ImageError`."""
    try:
        if stream is None:
            with atomic_write(path) as temporary:
                yield lambda opener: opener(io.FileIO(temporary, "w+"))
        else:  # encoders go back in what they have written, and of what fails nothing is to arrive
            with TemporaryFile() as spool:
                yield lambda opener: opener(io.FileIO(os.dup(spool.fileno()), "w+"))
                spool.seek(0)
                shutil.copyfileobj(spool, stream)
                stream.flush()
    except BrokenPipeError:  # whoever was to read the stream has gone, which is no failure of ours
        raise
    except (OSError, MemoryError, EncoderError) as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: Exception) -> ImageError:
    if isinstance(error, EncoderError):
        return ImageError(f"{printable(path)}: {error}; choose another format (--format)")
    code = error.errno if isinstance(error, OSError) else None
    remedy = {
        errno.ENOENT: "create the folder first",
        errno.ENOSPC: "free some space or choose another folder",
        errno.EFBIG: "choose another folder or a smaller picture",
        errno.ENAMETOOLONG: "choose a shorter one (-o, or --suffix in a folder)",
    }.get(code or 0, "choose another folder or format")
    if isinstance(error, MemoryError):
        remedy = "free some memory, or choose a smaller size"
    return ImageError(f"{printable(path)}: cannot be written ({one_line(error)}); {remedy}")


def _write_one(open_file: _OpenFile, picture: Picture, spec: FormatSpec, options: WriteOptions) -> None:
    if picture.sixteen_bit and spec.sixteen_bit_writer is not None:
        with open_file(io.BufferedRandom) as file:
            spec.sixteen_bit_writer(file, picture, options)
    else:
        with open_file(_CheckedFile) as file:
            spec.writer(file, picture, options)


def _require_room(picture: Picture, spec: FormatSpec) -> None:
    require_address_space(_ROOM_BYTES + int(spec.encoder_copies * picture.bytes))


def _fitted(picture: Picture, spec: FormatSpec) -> tuple[Picture, tuple[str, ...]]:
    """Reduce a picture to what a format can hold; also say what the user may miss."""
    metadata, lost = fitted_metadata(picture.metadata, spec)
    notes = []
    if picture.sixteen_bit and not spec.sixteen_bit:
        notes.append(f"16 bits per channel, written as 8: {spec.name} holds no more here")
        alpha = None if picture.alpha is None else to_8_bits(picture.alpha)
        picture = replace(picture, pixels=to_8_bits(picture.pixels), alpha=alpha)
    if spec.colours is not None and not picture.grey:
        notes.append(f"reduced to the {spec.colours} colours that {spec.name} can hold")
    return replace(picture, metadata=metadata), (*notes, *lost)


def check_output(
    path: Path,
    *,
    height: int,
    width: int,
    alpha: bool,
    sixteen_bit: bool = False,
    multi_image: MultiImage = "",
    stream: BinaryIO | None = None,
) -> None:
    """Check, before the work starts, that a picture of this size could be written to `path`.

    Args:
        path: its folder may be missing if it can be created.
        height: rows of the result.
        width: columns of the result.
        alpha: whether the result has pixels that are not opaque.
        sixteen_bit: whether the result has 16 bits per channel.
        multi_image: "frames" or "pages" if the result has multi_image, else empty.
        stream: where it goes in place of `path`; only the suffix of `path` counts then.

    Raises:
        ImageError: the format is unknown, too small for the picture or has no transparency, or the
            folder cannot be written.
    """
    name = printable(path)
    fitting_format(
        path, name, height=height, width=width, alpha=alpha, sixteen_bit=sixteen_bit, multi_image=multi_image
    )
    if stream is not None:
        return
    try:
        if path.is_dir():
            raise ImageError(f"{name}: is a folder; give a file name")
        folder = path.absolute().parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise ImageError(f"{name}: {printable(folder)} is not a folder; choose another folder")
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise _unwritable(path, error) from error
    if not writable:
        raise ImageError(f"{name}: the folder {printable(folder)} cannot be written; choose another folder")
