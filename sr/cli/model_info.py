"""What `srup info --model` prints: one column for each scale, on one screen."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sr.backends.choice import runnable_model
from sr.backends.specs import model_suffixes
from sr.cli.progress import phase_lines
from sr.errors import require_extra
from sr.network.descriptor import ModelDescriptor
from sr.network.ends import Conventions
from sr.network.history import training_runs
from sr.network.modelfile import DEFAULT_SCALE, shipped_onnx, shipped_scales, ships
from sr.network.modelkind import check_model_file
from sr.network.pair import restored_name
from sr.restoring import pair_for

_LABEL_WIDTH, _WIDTH = 30, 80
_NO_LICENCE, _NOTE = "none stated", "note"
_QUALITIES = (90, 75)  # of JPEGs, for which the strength is shown
# Shown as sums, or of little use: "pictures" are patches, and the data are described in words.
_NOT_SHOWN = ("started_from", "beside", "device", "seed", "steps", "hours", "pictures")


def model_lines(
    name: str, *, scale: int | None, stated: Conventions | None = None, patience: float | None = None
) -> Iterator[str]:
    """Yield parameters, multiply-adds and origin of a preset or of a model file, in lines.

    Args:
        name: of the preset or file.
        scale: of a preset; None is all that ship.
        stated: conventions of a network of another program.
        patience: seconds that measuring the halo of one may take; None is five minutes.

    Raises:
        ModelError: there is no such preset or file.
    """
    columns = [
        dict(_rows(model)) | dict(_partner_rows(path, model.name))
        for model, path in _described(name, scale, stated, patience)
    ]
    for label in dict.fromkeys(label for column in columns for label in column):
        yield from _row(label, [str(column.get(label, "")) for column in columns])


def _row(label: str, values: Sequence[str]) -> Iterator[str]:
    """Yield a row: one value where all columns agree, else one for each, shortened to its column."""
    distinct = list(dict.fromkeys(values))
    width = (_WIDTH - _LABEL_WIDTH) // len(distinct if len(distinct) == 1 else values)
    shown = distinct if len(distinct) == 1 else values
    if any(len(value) >= width for value in shown):  # a text: one line each
        fitting = [text for value in distinct for text in _fitting(value, whole=label == _NOTE)]
        for text in dict.fromkeys(fitting):  # what differs behind its end would look the same
            yield f"{label:{_LABEL_WIDTH}}{text}"
            label = ""
        return
    yield f"{label:{_LABEL_WIDTH}}{''.join(f'{value:<{width}}' for value in shown)}".rstrip()


def _fitting(text: str, *, whole: bool) -> list[str]:
    """Return the lines of a text beside a label; all of it, or what fits into one."""
    width = _WIDTH - _LABEL_WIDTH
    return textwrap.wrap(text, width) if whole else [textwrap.shorten(text, width, placeholder=" ...")]


def _foreign_rows(model: ModelDescriptor) -> Iterator[tuple[str, Any]]:
    """Yield what small runs found about a network that is not ours."""
    ends = model.ends
    yield "model", f"{model.name} x{model.scale}"
    yield "input and output", f"{ends.dtype} {ends.layout}"
    assumed = " (assumed unless stated)" if ends.order == "RGB" else ""
    colours = f"{ends.order}{assumed}" if ends.channels == 3 else "one at a time"
    yield "channels, range", f"{colours}, {ends.black:g} to {ends.white:g}"
    yield "sizes", _sizes(model)
    yield "pictures at once", "any" if ends.batch is None else ends.batch
    if ends.border:
        yield "border that it crops, lr px", ends.border
    yield "halo of tiles, lr px", model.halo
    yield "tiles equal the whole picture", "yes" if model.tiles_exact else "no"
    yield "precision", model.precision
    yield "licence of the weights", model.licence or _NO_LICENCE
    yield "sha256 of the file", model.weights_sha256[:12]
    if model.notes:
        yield _NOTE, "; ".join(model.notes)


def _sizes(model: ModelDescriptor) -> str:
    return model.sizes if model.any_size else f"{model.sizes}; pictures are cut into tiles, or continued"


def _rows(model: ModelDescriptor) -> Iterator[tuple[str, Any]]:
    if not model.ours:
        yield from _foreign_rows(model)
        return
    yield "model", f"{model.name} x{model.scale}"
    yield "parameters", f"{model.params:,}"
    yield "multiply-adds per lr pixel", f"{model.macs_per_lr_px:,}"
    yield "receptive-field radius, lr px", model.receptive_field_radius
    if model.weights_sha256:
        yield "default halo, lr px", model.halo
        yield "precision, IO, colours", f"{model.precision}, {model.io}, {model.colour}"
        yield "attention", model.attention
        if not model.any_size:
            yield "sizes", _sizes(model)
        yield "licence of the weights", model.licence or _NO_LICENCE
        yield "sha256 of the weights", model.weights_sha256[:12]
    if model.restores:
        yield "restores, sha256 of the base", str(model.restores.get("base_sha256"))[:12]
    yield from _training_rows(model.training)


def _partner_rows(path: Path | None, network: str) -> Iterator[tuple[str, Any]]:
    """Yield the partner with which a model file restores, if it has one."""
    partner = None if path is None else pair_for(path, None)
    if partner is not None:
        yield "restores with", restored_name(network)
        strengths = (f"{partner.restores.strength('jpeg', quality):g}" for quality in _QUALITIES)
        yield f"strengths at JPEG {', '.join(map(str, _QUALITIES))}", ", ".join(strengths)


def _training_rows(training: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the settings of the last run, and the sums over all runs behind the weights."""
    stages = str(training.get("stages", ""))
    replaced = [f"{name}_size" for name in ("batch", "patch") if f":{name}=" in stages]
    for key, value in training.items():
        if key == "average_of":
            yield "training: weights averaged", len(str(value).split(", "))
        elif key not in (*_NOT_SHOWN, *replaced) and value != "":
            yield f"training: {key.replace('_', ' ')}", value
    if training:
        runs = training_runs(training)
        steps, hours = (sum(run.get(key, 0) for run in runs) for key in ("steps", "hours"))
        yield "training: runs, steps, hours", f"{len(runs)}, {steps:,}, {hours:.1f}"


def _described(
    name: str, scale: int | None, stated: Conventions | None, patience: float | None
) -> Iterator[tuple[ModelDescriptor, Path | None]]:
    """Yield the description of each model, and its file if it has one."""
    path = Path(name)
    path = runnable_model("auto", path, progress=phase_lines()) or path
    if path.suffix == ".onnx":
        yield _onnx_metadata(path, stated, patience), path
    elif path.suffix in (".safetensors", ".pth", ".pt"):
        require_extra("torch", "torch", "safetensors", purpose=f"describing {name}")
        from sr.network.checkpoint import descriptor_from_weights, load_weights

        yield descriptor_from_weights(load_weights(path)), path
    elif ships(scale or DEFAULT_SCALE, name):
        for one in shipped_scales(name) if scale is None else [scale]:
            file = shipped_onnx(scale=one, preset=name)
            yield _onnx_metadata(file), file
    else:
        if path.suffix or path.exists():  # the name of a file, not of a preset
            check_model_file(path, model_suffixes())
        require_extra(
            "torch", "torch", "safetensors", purpose=f"describing {name!r}, which ships no weights,"
        )
        from sr.network.checkpoint import Weights, descriptor_from_weights
        from sr.network.config import preset_config

        weights = Weights(preset_config(name, scale=scale or 2), {}, preset=name)
        yield descriptor_from_weights(weights), None


def _onnx_metadata(
    path: Path, stated: Conventions | None = None, patience: float | None = None
) -> ModelDescriptor:
    from sr.backends.ort import read_metadata

    return read_metadata(path, progress=phase_lines(), stated=stated, patience=patience)
