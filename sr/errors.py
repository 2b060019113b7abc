"""The errors that a user of `srup` can meet, and what their messages are put together with.

    SrupError                 shown as one line, exit status 1
    ├── ImageError            a picture cannot be read, represented or written
    │   └── TooLargeError     it has more pixels than are allowed
    ├── ModelError            a model file or checkpoint is missing, foreign or damaged
    ├── BackendError          a backend or device is missing or failed
    │   ├── EngineError       an engine cannot be built, or cannot be what was asked for
    │   ├── MissingExtraError a Python package is not installed; names the pip extra
    │   └── OutOfDeviceMemoryError  a GPU's memory ran out; smaller batches may do
    ├── TilingError           tile, halo or batch cannot work together
    ├── DataError             a pair list or a picture in it does not fit
    └── TrainingError         a training run cannot start, go on or be resumed

A message says what is wrong, where, what was expected and what to do about it. A programming
mistake is not a `SrupError` and stays a traceback.
"""

import importlib.util


class SrupError(Exception):
    """Base of every error that is the input's or the environment's fault, not the program's."""


class ImageError(SrupError):
    """A picture cannot be read, represented or written."""


class TooLargeError(ImageError):
    """A picture has more pixels than are allowed, and was not decoded."""


class ModelError(SrupError):
    """A model file or checkpoint is missing, foreign or damaged."""


class BackendError(SrupError):
    """A backend or device is missing, or failed while running."""


class EngineError(BackendError):
    """An engine cannot be built, or would not be what was asked for."""


class MissingExtraError(BackendError):
    """A package that only an extra installs is missing."""

    def __init__(self, package: str, extra: str, purpose: str, alternative: str = "") -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed; "
            f'install it with: pip install "srup[{extra}]"' + (f", or {alternative}" if alternative else "")
        )


class OutOfDeviceMemoryError(BackendError):
    """A GPU's memory ran out.

    The backend that raises it from `run` has already lowered the `max_batch` and `max_tile` of its
    `info`; with those, the same picture can be run again.
    """


class TilingError(SrupError):
    """Tile, halo or batch cannot work together."""


class DataError(SrupError):
    """A pair list, or a picture that it names, does not fit."""


class TrainingError(SrupError):
    """A training run cannot start, go on or be resumed."""


def require_extra(extra: str, *packages: str, purpose: str, alternative: str = "") -> None:
    """Check that packages of a pip extra are installed, without importing them.

    Args:
        extra: that installs them.
        packages: their names.
        purpose: what needs them, for the message.
        alternative: what to do without them, for the message.

    Raises:
        MissingExtraError: for the first that is not.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, extra, purpose, alternative)


def printable(path: object) -> str:
    """Return a path as given, with line breaks and other control characters escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(path)
    )


_LONGEST_QUOTE = 300  # characters of another library's message inside one of ours


def one_line(message: BaseException | str) -> str:
    """Return the beginning of an exception's message, or of a text, on one line."""
    text = message.strerror if isinstance(message, OSError) and message.strerror else str(message)
    line = " ".join(text.split())[:_LONGEST_QUOTE]
    return line or (type(message).__name__ if isinstance(message, BaseException) else "")
