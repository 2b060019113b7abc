"""Writes a Triton model repository: for each scale the engines, and the model that cuts tiles."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.engines.models import engine_models
from deploy.triton.config import onnx_config, plan_config, tiled_config
from deploy.triton.plans import ServedPlans, served_plans
from sr.backends.ort import read_metadata
from sr.errors import EngineError, ModelError
from sr.files import atomic_write
from sr.image import DEFAULT_MAX_PIXELS
from sr.network.descriptor import ModelDescriptor, Precision
from sr.network.ends import Conventions
from sr.network.modelfile import DEFAULT_PRESET
from sr.tiling import TileSpec
from sr.version import __version__

# Tiles batch only with tiles of the same shape, so pictures with a side below this seldom do. Halos of 14 px
# cost 1.26 pixels for each at 256 px a side, 1.12 at 512. Both are assumptions until measured on a GPU.
DEFAULT_TILE, DEFAULT_BATCH = 256, 8

# Of a picture file. gRPC itself takes 2 GiB; the largest stills of cameras are some 400 MB, uncompressed.
DEFAULT_MAX_BYTES = 512 * 2**20

_LOADER = Path(__file__).with_name("model.py")


@dataclass(frozen=True)
class RepositorySpec:
    """What to serve, and how.

    Attributes:
        weights: a preset with shipped files, an ONNX file in fp32 with uint8 IO, or trained weights.
        scales: of a preset; empty is all there are.
        plans: TensorRT plans with their manifests beside them, for any of the scales.
        tile: side in lr pixels of the tiles; None takes `DEFAULT_TILE`, or less where a plan takes less.
        batch: tiles that the ONNX file runs at once.
        halo: lr pixels; None takes the model's own, -1 the receptive-field radius.
        max_pixels, max_bytes: limits of a request.
        conventions: stated of a network of another program.
    """

    weights: str = DEFAULT_PRESET
    scales: tuple[int, ...] = ()
    plans: tuple[Path, ...] = ()
    tile: int | None = None
    batch: int = DEFAULT_BATCH
    halo: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_bytes: int = DEFAULT_MAX_BYTES
    conventions: Conventions | None = None


@dataclass(frozen=True)
class ServedModel:
    """One model of a repository, as it was written.

    Attributes:
        folder: of the model; its name is the model's.
        note: what the server needs to run it, else empty.
    """

    folder: Path
    note: str = ""


def write_repository(spec: RepositorySpec, folder: Path) -> Iterator[ServedModel]:
    """Write the models of a repository; yield each when it is there. Models of other names stay.

    Raises:
        ModelError: there are no such weights, or they cannot be served in tiles.
        EngineError: a plan does not fit.
        TilingError: tile and halo do not fit together.
        MissingExtraError: trained weights are to be exported and PyTorch is not installed.
        OSError: a file cannot be written.
    """
    plans = {each.scale: each for each in served_plans(spec.plans)}
    with TemporaryDirectory() as exported:
        models = engine_models(
            spec.weights, spec.scales, "fp32", Path(exported), conventions=spec.conventions
        )
        served = dict(models)
        if unused := plans.keys() - served.keys():
            raise EngineError(
                f"a plan is for x{min(unused)}, and no model of that scale is exported (--scale)"
            )
        described = {scale: _described(path, scale) for scale, path in models}
        for scale, path in models:
            if scale in plans:
                _check_weights(plans[scale], spec.weights)
            yield from _written(spec, scale, path, described[scale], plans.get(scale), folder)


def _described(path: Path, scale: int) -> ModelDescriptor:
    descriptor = read_metadata(path)
    if (descriptor.precision, descriptor.io) != ("fp32", "uint8"):
        raise ModelError(
            f"{path}: is {descriptor.precision} with {descriptor.io} IO, need fp32 with uint8 IO; "
            f"export one with: srup export --onnx --scale {scale}"
        )
    if not descriptor.tiles_exact:
        raise ModelError(
            f"{path}: an output pixel depends on the whole picture, so tiles would not match; "
            "export it with --attention frozen"
        )
    if not descriptor.any_size or descriptor.ends.batch is not None:
        raise ModelError(
            f"{path}: takes pictures of these sizes: {descriptor.sizes}, perhaps one at a time; a server's "
            "tiles have any size, and share batches"
        )
    return descriptor


def _written(
    spec: RepositorySpec,
    scale: int,
    onnx: Path,
    descriptor: ModelDescriptor,
    plans: ServedPlans | None,
    folder: Path,
) -> Iterator[ServedModel]:
    prefix = _prefix(spec.weights)
    exact = engine = f"{prefix}_x{scale}"
    tile = spec.tile or min(DEFAULT_TILE, plans.tile if plans else DEFAULT_TILE)
    halo = (
        descriptor.receptive_field_radius
        if spec.halo == -1
        else descriptor.halo
        if spec.halo is None
        else spec.halo
    )
    TileSpec(tile=tile, halo=halo)  # raises what is wrong with them
    config = onnx_config(exact, batch=spec.batch, finite=False)
    yield ServedModel(_model(folder / exact, config, {"model.onnx": onnx.read_bytes()}))
    batch = spec.batch
    if plans is not None:
        if tile > plans.tile:
            raise EngineError(
                f"tiles of {tile} px, and the plans take up to {plans.tile}; use a smaller --tile"
            )
        engine, batch = f"{exact}_trt", plans.batch
        yield _write_plans(folder / engine, plans, tile)
    settings = {
        "engine": engine,
        "exact": exact if engine != exact else "",
        "tile": str(tile),
        "halo": str(halo),
        "in_flight": str(2 * batch),  # one batch computes while the next one gathers
        "max_pixels": str(spec.max_pixels),
        "max_bytes": str(spec.max_bytes),
        "version": __version__,
    }
    name = f"{prefix}_tiled_x{scale}"
    config = tiled_config(name, parameters=settings)
    note = f"needs srup {__version__} in the server's Python"
    described = replace(descriptor, precision=_precision(plans), training={}).to_properties()
    contents = {"model.py": _LOADER.read_bytes(), "model.json": json.dumps(described, indent=1).encode()}
    yield ServedModel(_model(folder / name, config, contents), note)


def _write_plans(folder: Path, plans: ServedPlans, tile: int) -> ServedModel:
    names = {key: f"sm{key.replace('.', '')}.plan" if key else "model.plan" for key in plans.files}
    config = plan_config(
        folder.name,
        batch=plans.batch,
        tile=tile,
        finite=plans.precision == "fp16",
        files=names,
        parameters={"tensorrt": plans.tensorrt, "container": plans.container},
    )
    _model(folder, config, {names[key]: path.read_bytes() for key, path in plans.files.items()})
    note = f"needs TensorRT {plans.tensorrt}: {plans.container}"
    if plans.compatible:
        note += "; start the server with --backend-config=tensorrt,version-compatible=true"
    return ServedModel(folder, note)


def _model(folder: Path, config: str, files: dict[str, bytes]) -> Path:
    """Write the files of a model, its configuration last, and return its folder."""
    version = folder / "1"
    version.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with atomic_write(version / name) as temporary:
            temporary.write_bytes(content)
    with atomic_write(folder / "config.pbtxt") as temporary:
        temporary.write_text(config, encoding="utf-8")
    return folder


def _precision(plans: ServedPlans | None) -> Precision:
    return "fp16" if plans is not None and plans.precision == "fp16" else "fp32"


def _check_weights(plans: ServedPlans, weights: str) -> None:
    """Check that plans were built from the shipped file that belongs to a preset; others cannot be told."""
    if Path(weights).suffix:
        return
    ((_, onnx),) = engine_models(weights, (plans.scale,), _precision(plans), Path())
    if hashlib.sha256(onnx.read_bytes()).hexdigest() != plans.onnx_sha256:
        path = next(iter(plans.files.values()))
        raise EngineError(
            f"{path}: built from another file than {onnx.name}; build it with: srup export --trt"
        )


def _prefix(weights: str) -> str:
    """Return what the names of models begin with: "srup" for the weights that ship."""
    if weights == DEFAULT_PRESET:
        return "srup"
    stem = re.sub(r"_x\d+(_fp32_uint8)?$", "", Path(weights).stem)
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", stem).strip("._") or "model"
