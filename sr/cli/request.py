"""What a command line of `srup upscale` asks for: options as they were given, and checks of their usage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from sr.cli.stated import stated_conventions
from sr.cli.types import STREAM, OutputPath
from sr.errors import ImageError
from sr.network.ends import Conventions
from sr.sizing import SizeRequest

if TYPE_CHECKING:
    from sr.jobs.run import FailureLimit
    from sr.jobs.shards import Shard

Stream = Literal["-"]


@dataclass(frozen=True)
class UpscaleRequest:
    """The options of `srup upscale`, each as its help describes it; None was not given."""

    inputs: tuple[Path | Stream, ...]
    output: OutputPath | Stream | None
    scale: int | float | None
    size: SizeRequest | None
    long_side: int | None
    linear: bool
    backend: str
    precision: Literal["fp32", "fp16", "bf16", "int8"] | None
    device: str
    tile: int | None
    halo: int | None
    batch: int | None
    models: tuple[Path, ...]
    model_range: tuple[float, float] | None
    model_order: Literal["RGB", "BGR"] | None
    restore: float | Literal["auto"] | None
    format_: str | None
    quality: int | None
    lossless: bool | None
    subsampling: str | None
    png_level: int | None
    tiff_compression: str | None
    depth: int | None
    max_pixels: int | None
    low_memory: bool
    engine_dir: Path | None
    skip_existing: bool
    overwrite: bool
    suffix: str | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    dry_run: bool
    as_json: bool
    compare: Path | None
    shard: Shard | None
    files_from: Path | Stream | None
    nul: bool
    failures: Path | None
    max_failures: FailureLimit | None
    ray: str | None

    @property
    def conventions(self) -> Conventions | None:
        """What is stated of a network of another program."""
        return stated_conventions(self.model_range, self.model_order)

    @property
    def to_stdout(self) -> bool:
        """Whether standard output is the picture's."""
        return self.output == STREAM or (self.output is None and STREAM in self.inputs)

    @property
    def files(self) -> list[Path]:
        """The inputs that are no stream."""
        return [each for each in self.inputs if isinstance(each, Path)]

    @property
    def folder(self) -> Path | None:
        """The folder that files are named relative to, if there is one."""
        if self.files_from is not None:
            return self.files[0] if self.files else Path()
        return self.files[0] if len(self.files) == 1 and self.files[0].is_dir() else None

    def check(self) -> None:
        """Check that options go together.

        Raises:
            UsageError: two do not.
        """
        if sum(given is not None for given in (self.scale, self.size, self.long_side)) > 1:
            raise click.UsageError("--scale, --size and --long-side exclude each other")
        if self.files_from is None and not self.inputs:
            raise click.UsageError("name a picture or a folder (INPUT), or a list of files (--files-from)")
        if self.files_from is not None and (len(self.inputs) > 1 or STREAM in self.inputs):
            raise click.UsageError("--files-from lists files of one folder; name that folder only")
        if self.nul and self.files_from is None:
            raise click.UsageError("--null needs --files-from")
        if self.skip_existing and self.overwrite:
            raise click.UsageError("--skip-existing and --overwrite exclude each other")
        if self.ray is not None and STREAM in (*self.inputs, self.output):
            raise click.UsageError("--ray reads and writes files on all nodes; name files, not a stream")
        if self.ray is not None and self.device not in ("auto", "cpu", "cuda"):
            raise click.UsageError("--ray gives each worker a GPU of its own; leave out --device N")
        if self.compare is not None and self.dry_run:
            raise click.UsageError("--compare shows what was written, and --dry-run writes nothing")
        if self.compare is not None and STREAM in (*self.inputs, self.output):
            raise click.UsageError(
                "--compare reads the pictures again, which a stream does not allow; name files"
            )


@contextmanager
def image_error_is_wrong_usage() -> Iterator[None]:
    """Report an `ImageError` about options as wrong usage."""
    try:
        yield
    except ImageError as error:
        raise click.UsageError(str(error)) from error
