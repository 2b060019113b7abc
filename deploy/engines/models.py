"""The ONNX files that engines are built from: shipped ones, a given one, or one exported from weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sr.backends.ort import read_metadata
from sr.errors import ModelError, require_extra
from sr.network.descriptor import Precision
from sr.network.ends import Conventions
from sr.network.foreign.describe import is_foreign
from sr.network.modelfile import shipped_onnx, shipped_scales
from sr.network.pair import RESTORED_FOLDER, restored_file, stepped


def engine_models(
    name: str,
    scales: Sequence[int],
    precision: Precision,
    folder: Path,
    *,
    restore: float = 0.0,
    conventions: Conventions | None = None,
) -> list[tuple[int, Path]]:
    """Return scale and path of each ONNX file for `name`.

    Args:
        name: a preset with shipped files; an ONNX file; or trained weights, which are exported into
            `folder` and need torch.
        scales: empty means all that exist.
        precision: of the files.
        folder: made if need be.
        restore: strength of restoration; rounded to the nearest of `sr.network.pair.STRENGTHS`.
        conventions: stated of a network of another program.

    Raises:
        ModelError: there is no such file or preset, or not at this scale.
        MissingExtraError: weights are to be exported and torch is not installed.
    """
    path = Path(name)
    if path.suffix == ".onnx" and not is_foreign(path):
        has = read_metadata(path).scale
        if any(scale != has for scale in scales):
            raise ModelError(f"{name}: is for scale {has}, not {', '.join(map(str, scales))}")
        return [(has, _restored(path, restore, folder))]
    if not path.suffix:
        wanted = scales or shipped_scales(name) or [2]  # a preset without files is refused at any scale
        shipped = [shipped_onnx(scale=scale, preset=name, precision=precision) for scale in wanted]
        return [
            (scale, _restored(path, restore, folder)) for scale, path in zip(wanted, shipped, strict=True)
        ]
    if path.suffix != ".onnx":
        require_extra("torch", "torch", "safetensors", "onnx", "onnxscript", purpose=f"an engine of {name}")
    from deploy.export import ExportSpec, export_files

    spec = ExportSpec(precision=precision, restore=stepped(restore), conventions=conventions)
    files = list(export_files(name, scales, folder, spec))
    return [(engine_models(str(file), (), precision, folder)[0][0], file) for file in files]


def _restored(onnx: Path, restore: float, folder: Path) -> Path:
    """Return the file to build from: where `--backend trt` finds or writes it, too."""
    return restored_file(onnx, stepped(restore), folder / RESTORED_FOLDER)
