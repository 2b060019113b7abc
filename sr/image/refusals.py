"""Why a picture file is refused: told apart at the border to the decoders and encoders.

A decoder that fails means one of four things. The file is damaged; it is sound, but of a variant that is
not supported; it exceeds a limit of the decoder; or the file cannot be read at all, which is the
environment's fault. An encoder that fails has a limit that `FormatSpec` does not know, or the file cannot
be written. Whatever else is raised is a mistake of ours and stays a traceback. Texts of libraries
are not shown: they are the cause of the error (`__cause__`), see `SRUP_DEBUG`.
"""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from sr.errors import ImageError, SrupError, one_line

# What Pillow, libtiff and libvips say of sound files that they do not know.
_OF_VARIANTS = (
    *("unsupported", "not supported", "cannot handle", "unknown pixel mode", "not configured"),
    *("not implemented", "unknown raw mode", "no decoder", "decoder error -2", "unrecognized image mode"),
    "invalid palette size",  # a BMP with more colours than its pixels can name
)
_OF_LIMITS = ("max_text", "too much memory", "exceeds limit", "decompressed data too large")
_OF_DAMAGED_PARTS = re.compile(r"truncated \w+ chunk")  # of a PNG; behind it the file goes on
_OF_CUT_FILES = ("truncated", "premature end", "unexpected end", "ends too early", "end of file")
# Of a seek to where a damaged file points.
_OF_IMPOSSIBLE_POSITIONS = (errno.EINVAL, errno.EOVERFLOW)


@contextmanager
def decoding(name: str, format_name: str, *, by_library: bool = True) -> Iterator[None]:
    """Turn what a decoder raises into an `ImageError`.

    Args:
        name: of the file, for messages.
        format_name: e.g. "PNG".
        by_library: whether the block only calls a library, which may raise anything on damaged files. Our
            own parsers raise ValueError or struct.error on them, and all else is a mistake.

    Raises:
        ImageError: the file is damaged, of a variant that is not supported, or beyond a limit.
        OSError: the file cannot be read.
        MemoryError: the picture is too large.
    """
    try:
        yield
    except (SrupError, MemoryError):
        raise
    except Exception as error:
        of_file = isinstance(error, OSError) and error.errno not in (None, *_OF_IMPOSSIBLE_POSITIONS)
        of_data = by_library or isinstance(error, ValueError | struct.error)
        if of_file or not of_data:
            raise
        raise ImageError(f"{name}: {complaint(error, format_name)}") from error


def complaint(error: BaseException, format_name: str, subject: str = "") -> str:
    """Say what is wrong with a file, and the remedy, from what a decoder raised.

    `subject` is what is special about the file, if that is known.
    """
    reason = one_line(error).lower()
    if isinstance(error, NotImplementedError) or any(words in reason for words in _OF_VARIANTS):
        return unsupported(format_name, subject)
    if any(words in reason for words in _OF_LIMITS):
        return f"a {format_name} with more metadata than is read; remove it first, e.g. with exiftool -all="
    if any(words in reason for words in _OF_CUT_FILES) and not _OF_DAMAGED_PARTS.search(reason):
        return f"the file ends before the picture does (truncated {format_name}); get a whole copy"
    return f"damaged or truncated {format_name}; get an intact copy"


def unsupported(format_name: str, subject: str = "") -> str:
    """Say that a sound file is of a variant that no decoder here knows, and the remedy."""
    what = f"{format_name} with {subject}, which" if subject else f"variant of {format_name} that"
    return f"a {what} is not supported; convert it to an 8-bit PNG first"


def unreadable(error: OSError) -> str:
    """Say why a file cannot be read, and the remedy."""
    remedy = {
        errno.ENOENT: "check the name",
        errno.EISDIR: "give a picture file",
        errno.EACCES: "check its permissions",
    }.get(error.errno or 0, "give another file")
    return f"cannot be read ({one_line(error)}); {remedy}"


class EncoderError(Exception):
    """An encoder has refused a picture; its own words are the cause."""


@contextmanager
def encoding(format_name: str) -> Iterator[None]:
    """Turn what Pillow's encoders raise into an `EncoderError`; a mistake of ours stays what it is.

    Raises:
        EncoderError: the encoder refuses the picture.
        OSError: the file cannot be written.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        by_system = isinstance(error, OSError) and error.errno is not None
        if by_system or not _raised_by_pillow(error):
            raise
        raise EncoderError(refusal_of_encoder(format_name)) from error


def refusal_of_encoder(format_name: str) -> str:
    """Say that an encoder refuses a picture."""
    return f"the encoder of {format_name} refuses this picture"


def _raised_by_pillow(error: Exception) -> bool:
    last = [frame for frame, _ in walk_tb(error.__traceback__)][-1]
    return str(last.f_globals.get("__name__", "")).startswith("PIL.")
