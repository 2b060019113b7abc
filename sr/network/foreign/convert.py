"""Weights of other programs as ONNX files, converted once, in the user's cache folder.

The exporters of PyTorch are tried in turn, for any size, and then for one size.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from sr.errors import ModelError, printable, require_extra
from sr.files import atomic_write
from sr.network.foreign.apart import ApartError, Progress, found_apart
from sr.network.foreign.cache import cache_folder
from sr.network.modelfile import files_digest

# Raised when what conversion makes changes.
CONVERSION = 2

# Side of the pictures that a file for one size takes: multiples of all usual windows, and four halos of 64.
FIXED_TILE = 256

# Exporter and size in turn: the legacy exporter is quicker, and folds more.
ATTEMPTS = (("legacy", 0), ("dynamo", 0), ("legacy", FIXED_TILE), ("dynamo", FIXED_TILE))
# For reading the weights, and then for one attempt, with its runs; the slowest that worked took 100 s.
_READ_SECONDS, _SECONDS = 300.0, 300.0


def converted(path: Path, *, progress: Progress | None = None, cache: Path | None = None) -> Path:
    """Return an ONNX file that computes what the weights of another program do; converted at the first use.

    Args:
        path: of weights that `is_foreign_weights` accepts.
        progress: called with phase and share done.
        cache: folder; None is one in the user's cache folder.

    Raises:
        ModelError: the file is refused, or no exporter makes an ONNX file that computes the same.
        MissingExtraError: spandrel is not installed.
    """
    digest = files_digest([path])
    out = (cache or cache_folder()) / f"{digest[:32]}-{CONVERSION}" / f"{path.stem}.onnx"
    if out.is_file():
        return out
    require_extra(
        "models", "torch", "safetensors", "spandrel", "onnx", purpose=f"converting {printable(path)}"
    )
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="srup-") as folder:
        made = Path(folder) / out.name
        for exporter, tile in ATTEMPTS:
            if failure := _failure(path, made, exporter, tile, progress):
                failures.append(failure)
                continue
            out.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(out) as temporary:
                shutil.copyfile(made, temporary)
            return out
    raise ModelError(
        f"{printable(path)}: no exporter makes an ONNX file that computes the same ({failures[0]}); "
        "use --backend torch"
    )


def _failure(path: Path, made: Path, exporter: str, tile: int, progress: Progress | None) -> str:
    """Try one exporter; return why it failed, or an empty string.

    Raises:
        ModelError: the weights are refused, or reading them takes too long.
    """
    read = False

    def note_reading(phase: str, share: float) -> None:
        nonlocal read
        read = True

    if progress is not None:
        size = f", {tile}x{tile} only" if tile else ""
        progress(f"{path.name}: converting it to ONNX with PyTorch's {exporter} exporter{size}", 0.0)
    try:
        found = found_apart(
            "sr.network.foreign.exporting",
            (str(made), exporter, str(tile)),
            path,
            seconds=[_READ_SECONDS, _SECONDS],
            progress=note_reading,
        )
    except ApartError as error:
        if not read:  # the other exporters would get no further
            raise
        return f"{exporter} exporter: {str(error).removeprefix(f'{path}: ')}"
    failure: str = found["failure"]
    return failure
