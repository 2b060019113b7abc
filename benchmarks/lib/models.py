"""A network that the user names: loaded as `srup upscale --model` loads it, ours or another program's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sr.backends.choice import runnable_model
from sr.backends.specs import model_suffixes
from sr.errors import ModelError
from sr.fitting import fitted_size
from sr.network.descriptor import ModelDescriptor
from sr.network.modelkind import check_model_file
from sr.tiling import MIN_HALOS_PER_TILE

_HELP = "Model file in place of the shipped networks, of any program, as srup upscale takes it."

model_option = click.option("--model", type=click.Path(path_type=Path), help=_HELP)
models_option = click.option(
    "--model",
    "models",
    type=click.Path(path_type=Path),
    multiple=True,
    help=f"{_HELP} Several are run one after the other.",
)


@dataclass(frozen=True)
class NamedModel:
    """A network in a file.

    Attributes:
        path: as the user named it.
        runnable: what backends other than PyTorch run: the file itself, or what weights were converted to.
        descriptor: what is known of the network.
    """

    path: Path
    runnable: Path
    descriptor: ModelDescriptor

    @property
    def onnx(self) -> Path:
        """The ONNX file.

        Raises:
            ModelError: there is none: the file has trained weights of ours.
        """
        if self.runnable.suffix.lower() != ".onnx":
            raise ModelError(f"{self.path}: holds trained weights, need ONNX; use srup export --onnx first")
        return self.runnable

    def smallest_tile(self, wanted: int) -> int:
        """Return the smallest tile in lr pixels, from `wanted` on, that the halo of the network allows."""
        return max(wanted, MIN_HALOS_PER_TILE * self.descriptor.halo)

    def check_size(self, *, height: int, width: int) -> None:
        """Check that the network takes pictures of this size as they are.

        Raises:
            ModelError: it does not.
        """
        fitting = fitted_size(height, width, self.descriptor)
        if (height, width) != fitting or self.descriptor.ends.size not in (None, fitting):
            size = f"{fitting[1]}x{fitting[0]}"
            raise ModelError(f"{self.path}: takes no pictures of {width}x{height}; use --size {size}")


def named_model(path: Path) -> NamedModel:
    """Load what is known of a file; conversion and small runs, at the first use, say what they do.

    Raises:
        ModelError: there is no such file, or it is refused.
        MissingExtraError: a package is missing that its kind needs.
    """
    said: set[str] = set()

    def progress(phase: str, _share: float) -> None:
        if phase not in said:
            said.add(phase)
            click.echo(phase, err=True)

    check_model_file(path, model_suffixes())
    runnable = runnable_model("auto", path, progress=progress) or path
    if runnable.suffix.lower() == ".onnx":
        from sr.backends.ort import read_metadata

        return NamedModel(path, runnable, read_metadata(runnable, progress=progress))
    from sr.network.checkpoint import descriptor_from_weights, load_weights

    return NamedModel(path, runnable, descriptor_from_weights(load_weights(path)))


def model_row(model: NamedModel) -> dict[str, Any]:
    """Return what a stored result says of the network."""
    found = model.descriptor
    return {"name": model.path.name, "sha256": found.weights_sha256[:12], "scale": found.scale}
