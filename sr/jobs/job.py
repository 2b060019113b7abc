"""One file to upscale, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sr.errors import SrupError
from sr.image.picture import Restoration


@dataclass(frozen=True)
class FileJob:
    """One file to upscale, and where the result goes.

    Attributes:
        source: the input file.
        target: the output file.
        ledger: folder whose record the output belongs to, see `sr.jobs.ledger`; None if none.
        stdin: seekable; read in place of `source`, which then is only its name.
        stdout: where the result goes in place of `target`, whose suffix says in which format.
    """

    source: Path
    target: Path
    ledger: Path | None = None
    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None


@dataclass(frozen=True)
class FileResult:
    """The result of a job.

    Attributes:
        job: the job.
        error: why it failed, or None.
        size: (width, height) of the input in pixels; None if it could not be read.
        output_size: (width, height) of the output.
        tiles: tiles run.
        seconds: of inference.
        frames: frames of an animation or pages, else 1.
        notes: sentences for the user about what was reduced or converted.
        stages: seconds of "decode", "infer" and "write"; without those that overlap others of one file, as
            in animations and in bands.
        host: where it was upscaled, and
        device: by what; both empty for this process.
        restored: how strongly damage was undone; None if the model cannot.
    """

    job: FileJob
    error: SrupError | None = None
    size: tuple[int, int] | None = None
    output_size: tuple[int, int] | None = None
    tiles: int = 0
    seconds: float = 0.0
    frames: int = 1
    notes: tuple[str, ...] = ()
    stages: dict[str, float] = field(default_factory=dict)
    host: str = ""
    device: str = ""
    restored: Restoration | None = None
