"""What is a picture: told by the content of a file, not by its name."""

from __future__ import annotations

import stat
import struct
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

from sr.errors import ImageError, printable
from sr.image.formats import FORMATS, read_suffixes
from sr.image.formats.spec import HEAD_BYTES, FormatSpec

# Raw photographs are TIFF files whose first page is a small preview; nothing in the first bytes tells them.
_RAW_SUFFIXES = frozenset(
    {".dng", ".nef", ".nrw", ".arw", ".sr2", ".cr2", ".pef", ".srw", ".3fr", ".iiq", ".erf", ".kdc"}
)
_APPLE_DOUBLE = b"\0\5\x16\7"  # RFC 1740, appendix A: what macOS writes beside a file on foreign disks


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


def is_picture(path: Path) -> bool:
    """Say whether a file in a folder is to be taken for a picture.

    It is if its content is, and if it is named like one: of a damaged picture the user is to hear. What
    macOS keeps in files like `._a.jpg` is none.

    Raises:
        OSError: it cannot be opened.
    """
    if path.suffix.lower() in _RAW_SUFFIXES or not path.is_file():
        return False
    with opened_file(path) as file:
        head = file.read(HEAD_BYTES)
    if recognised(head) is not None:
        return True
    return path.suffix.lower() in read_suffixes() and not head.startswith(_APPLE_DOUBLE)


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
