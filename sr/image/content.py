"""What is a picture: told by a file's content; names tell system files and formats that are not read."""

from __future__ import annotations

import stat
import struct
from collections import Counter
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from sr.errors import ImageError, printable
from sr.image.formats import FORMATS, read_suffixes
from sr.image.formats.spec import HEAD_BYTES, FormatSpec
from sr.image.refusals import unreadable

# Kinds of files that are left out of folders, as summaries name them.
SYSTEM = "system file"
NOT_A_PICTURE = "not a picture"
UNREADABLE = "file that may not be read"

# Raw photographs. Many are TIFF files whose first page is a small preview; their first bytes do not tell.
_RAW_SUFFIXES = frozenset(
    {".dng", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".cr2", ".cr3", ".crw", ".pef", ".srw", ".raf", ".orf"}
    | {".rw2", ".raw", ".rwl", ".3fr", ".fff", ".iiq", ".erf", ".kdc", ".dcr", ".mrw", ".mos", ".mef", ".x3f"}
)
# Formats that cameras, phones and editors write, and that are not read.
_UNSUPPORTED_SUFFIXES = (
    _RAW_SUFFIXES
    | {".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".jxr"}
    | {".psd", ".psb", ".xcf", ".kra", ".svg", ".exr", ".hdr"}
    | {".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".pam", ".qoi", ".dds", ".ico", ".icns"}
)

# Files and folders of macOS, Windows, Linux desktops and network storage; some are named like pictures.
SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
    | {".thumbnails", ".AppleDouble", ".Trash", ".Trashes", ".Spotlight-V100", ".fseventsd", ".git"}
)
_SYSTEM_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", "ehthumbs.db", "Icon\r"})
_APPLE_DOUBLE = "._"  # the resource fork of a file, on file systems without forks


def identify(path: Path) -> FormatSpec | None:
    """Return the format of a picture file by its first bytes, or None if it is none that is read.

    Raises:
        ImageError: it is a pipe or a device.
        OSError: it cannot be opened.
    """
    if path.suffix.lower() in _RAW_SUFFIXES:
        return None
    with opened_file(path) as file:
        return recognised(file.read(HEAD_BYTES))


def kind_left_out(path: Path) -> str:
    """Return the kind of a file in a folder that is not to be taken for a picture; empty for pictures.

    The content decides. A file with the suffix of a picture is taken in any case, so that a damaged picture
    is reported.
    """
    suffix = path.suffix.lower()
    if path.name in _SYSTEM_FILES or path.name.startswith(_APPLE_DOUBLE):
        return SYSTEM
    if suffix in read_suffixes():
        return ""
    with suppress(OSError, ImageError):  # a pipe, a link to nothing
        try:
            if identify(path) is not None:
                return ""
        except PermissionError:
            return UNREADABLE
    return f"unsupported format {suffix}" if suffix in _UNSUPPORTED_SUFFIXES else NOT_A_PICTURE


def is_picture(path: Path) -> bool:
    """Say whether a path is a file that is to be taken for a picture, see `kind_left_out`."""
    return path.is_file() and not kind_left_out(path)


def left_out_words(left_out: Counter[str]) -> str:
    """Return what was left out of folders, by kind, to be appended to a sentence; empty if nothing was."""
    kinds = [f"{kind} ({number:,})" for kind, number in sorted(left_out.items())]
    return f"; left out: {', '.join(kinds)}" if kinds else ""


def refuse_raw(path: Path) -> None:
    """Refuse a raw photograph: what of it reads as a TIFF is a preview.

    Raises:
        ImageError: it is one by its name.
    """
    if path.suffix.lower() in _RAW_SUFFIXES:
        raise ImageError(f"{printable(path)}: a raw photograph; develop it into a TIFF or PNG first")


def check_content(path: Path) -> None:
    """Check that a file can be opened and begins like a picture.

    Raises:
        ImageError: it does not, or is empty, a pipe, a device or a folder.
    """
    name = printable(path)
    try:
        with opened_file(path) as file:
            refuse_raw(path)
            known_format(file.read(HEAD_BYTES), name)
    except OSError as error:
        raise ImageError(f"{name}: {unreadable(error)}") from error


def recognised(head: bytes) -> FormatSpec | None:
    """Return the format of a file that begins with these bytes, or None if it is none that is read."""
    return next((spec for spec in FORMATS.values() if spec.recognises(head)), None)


def known_format(head: bytes, name: str) -> FormatSpec:
    """Return the format of a file that begins with these bytes.

    Raises:
        ImageError: it is no picture, or none that is read; `name` names it.
    """
    if not head:
        raise ImageError(f"{name}: the file is empty; get an intact copy")
    spec = recognised(head)
    if spec is None:
        raise ImageError(
            f"{name}: unsupported or unrecognised image format; convert it to one of {', '.join(FORMATS)}"
        )
    return spec


def multi_image_suffix(path: Path, file: BinaryIO | None = None) -> str | None:
    """Return the suffix of the format that keeps all pictures of an animation or of pages; else None.

    Only headers are read. A damaged or unreadable file gives None too: reading the picture will say so.

    Args:
        path: of the picture; not opened if `file` is given.
        file: its content.
    """
    try:
        with opened_file(path) if file is None else nullcontext(file) as opened:
            opened.seek(0)
            head = opened.read(HEAD_BYTES)
            spec = recognised(head)
            several = (
                spec is not None
                and spec.holds_multi_image is not None
                and spec.holds_multi_image(opened, head)
            )
            return spec.write_suffixes[0] if spec is not None and several else None
    except (OSError, ValueError, LookupError, struct.error, ImageError):
        return None


def opened_file(path: Path) -> BinaryIO:
    """Open a file; not a pipe or a device, which may never begin, or never end.

    Raises:
        ImageError: it is one, or there can be no file of this name.
        OSError: it cannot be opened.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a null character
        raise ImageError(f"{printable(path)}: cannot be read ({error}); check the name") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ImageError(f"{printable(path)}: is a pipe or a device, not a file; pipe it into srup upscale -")
    return path.open("rb")
