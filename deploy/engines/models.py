"""The ONNX files that engines are built from: shipped ones, a given one, or one exported from weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sr.backends.ort import read_metadata
from sr.errors import ModelError, require_extra
from sr.network.descriptor import Precision
from sr.network.modelfile import shipped_onnx, shipped_scales


def engine_models(
    name: str, scales: Sequence[int], precision: Precision, folder: Path
) -> list[tuple[int, Path]]:
    """Return scale and path of each ONNX file for `name`.

    Args:
        name: a preset with shipped files; an ONNX file; or trained weights, which are exported into
            `folder` and need torch.
        scales: empty means all that exist.
        precision: of the files.
        folder: made if need be.

    Raises:
        ModelError: there is no such file or preset, or not at this scale.
        MissingExtraError: weights are to be exported and torch is not installed.
    """
    path = Path(name)
    if path.suffix == ".onnx":
        has = read_metadata(path).scale
        if any(scale != has for scale in scales):
            raise ModelError(f"{name}: is for scale {has}, not {', '.join(map(str, scales))}")
        return [(has, path)]
    if not path.suffix:
        wanted = scales or shipped_scales(name) or [2]  # a preset without files is refused at any scale
        return [(scale, shipped_onnx(scale=scale, preset=name, precision=precision)) for scale in wanted]
    require_extra("torch", "torch", "safetensors", "onnx", "onnxscript", purpose=f"an engine of {name}")
    from deploy.export import ExportSpec, export_files

    files = list(export_files(name, scales, folder, ExportSpec(precision=precision)))
    return [(engine_models(str(file), (), precision, folder)[0][0], file) for file in files]
