"""Pairs of networks: a base, and a partner of the same structure that also undoes damage.

Between the two lies a line of networks: weights `(1 - a) * base + a * partner`, where `a` is the strength of
restoration (deep network interpolation, Wang et al. 2019). Owns how a partner is found and what its file
says, and the interpolation of ONNX files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sr.errors import ModelError, printable
from sr.files import atomic_write
from sr.network.descriptor import KEY_PREFIX, ModelDescriptor
from sr.network.foreign.graph import Constant, constants_of, read_graph

# Where each strength takes a file of its own (an engine, an int8 file) there are so many steps.
STEPS = 4
STRENGTHS = tuple(step / STEPS for step in range(STEPS + 1))

# Of ONNX files between two, in the folder of the engines that are built from them.
RESTORED_FOLDER = "restored"

_NAME = re.compile(r"(?P<name>.+?)(?P<rest>_x\d+(_.*)?)?")  # small_x2_fp32_uint8, or any other name
_FLOATS: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 10: np.dtype("<f2")}  # element types of onnx.proto3
_LONGEST_HEADER = 100_000_000  # bytes; safetensors allows no more


@dataclass(frozen=True)
class Restores:
    """What the file of a partner says of itself.

    Attributes:
        base_sha256: of the weights of its base, as `ModelDescriptor.weights_sha256` has it.
        strengths: for each kind of file, rows (quality, best strength), by quality. Between two rows the
            strength is interpolated; beyond them it is that of the last one.
        assumed: for each kind of file, the quality that is taken where a file does not tell its own.
        steps: from strength 0 to 1; with 1 there is nothing between the two, because networks there are worse
            than both.
    """

    base_sha256: str
    strengths: Mapping[str, tuple[tuple[float, float], ...]]
    assumed: Mapping[str, float]
    steps: int = STEPS

    @property
    def available(self) -> tuple[float, ...]:
        """The strengths of engines and int8 files, ascending; with one step, all that there are."""
        return tuple(step / self.steps for step in range(self.steps + 1))

    def strength(self, kind: str, quality: float | None) -> float:
        """Return the best strength for a file; 0 for kinds that the table lacks."""
        rows = self.strengths.get(kind, ())
        if not rows:
            return 0.0
        if quality is None:
            quality = self.assumed.get(kind, rows[0][0])
        qualities, strengths = zip(*rows, strict=True)
        return round(float(np.interp(quality, qualities, strengths)) * self.steps) / self.steps

    def to_dict(self) -> dict[str, Any]:
        """Return it as values of JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Any, *, source: str) -> Restores:
        """Read what `to_dict` returned.

        Raises:
            ModelError: it is something else; `source` names the file.
        """
        try:
            strengths = {
                str(kind): tuple((float(quality), float(strength)) for quality, strength in rows)
                for kind, rows in values["strengths"].items()
            }
            assumed = {str(kind): float(quality) for kind, quality in values["assumed"].items()}
            steps = values.get("steps", STEPS)
            fine = steps in (1, STEPS) and all(
                list(rows) == sorted(rows) and all(0 <= strength <= 1 for _, strength in rows)
                for rows in strengths.values()
            )
            if not fine:
                raise ValueError("rows out of order, strengths beyond 0 to 1, or an unknown number of steps")
            return Restores(str(values["base_sha256"]), strengths, assumed, steps)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{source}: damaged record of what it restores ({error})") from error


@dataclass(frozen=True)
class Partner:
    """The partner of a model file."""

    path: Path
    restores: Restores


def stepped(strength: float) -> float:
    """Return the nearest of `STRENGTHS`."""
    return round(strength * STEPS) / STEPS


def partner_path(model: Path, strength: float = 1.0) -> Path:
    """Return where the partner of a model file lies: `small-restore_x2.onnx` beside `small_x2.onnx`.

    A strength below 1 gives the file that was made for this strength alone, `small-restore-0.5_x2...`.
    """
    parts = _NAME.fullmatch(model.stem)
    name, rest = (parts["name"], parts["rest"] or "") if parts else (model.stem, "")
    return model.with_name(f"{restored_name(name, strength)}{rest}{model.suffix}")


def restored_name(name: str, strength: float = 1.0) -> str:
    """Return the name of a network of a pair, from that of the base."""
    return f"{name}-restore" if strength == 1 else f"{name}-restore-{strength:g}"


def partner_of(model: Path, strength: float = 1.0) -> Partner:
    """Return the partner of a model file, to restore with a strength.

    Raises:
        ModelError: it has none, or none for this strength, or the file in its place is damaged or the partner
            of other weights.
    """
    path, name = partner_path(model), printable(model)
    if model.suffix not in (".onnx", ".safetensors") or not path.is_file():
        raise ModelError(
            f"{name}: has no weights that restore (there is no {path.name} beside it); drop --restore"
        )
    said = _restores_in(path)
    if said is None:
        raise ModelError(f"{printable(path)}: does not say which weights it restores with; drop --restore")
    restores = Restores.from_dict(said, source=printable(path))
    if restores.base_sha256 != weights_sha256(model):
        raise ModelError(f"{printable(path)}: restores with other weights than {name}; drop --restore")
    if restores.steps == 1 and strength not in restores.available:
        raise ModelError(f"{name}: restores wholly or not at all, not by {strength:g}; give --restore 0 or 1")
    return Partner(path, restores)


def weights_sha256(model: Path) -> str:
    """Return what tells the weights in a file from others: as `ModelDescriptor.weights_sha256`.

    Raises:
        ModelError: the file cannot be read.
    """
    if model.suffix == ".onnx":
        return str(json.loads(read_graph(model).metadata.get(f"{KEY_PREFIX}weights_sha256", '""')))
    return hashlib.sha256(_content(model)).hexdigest()


def _restores_in(path: Path) -> Any:
    """Return what a file says that it restores, as values of JSON; None if it says nothing."""
    try:
        if path.suffix == ".onnx":
            return json.loads(read_graph(path).metadata.get(f"{KEY_PREFIX}restores", "null"))
        with path.open("rb") as file:  # safetensors: length of a header, and the header as JSON
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, _LONGEST_HEADER)))
        return json.loads(header["__metadata__"].get("restores", "null"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{printable(path)}: the model file cannot be read") from error


def restored_descriptor(said: ModelDescriptor, base: Path, strength: float) -> ModelDescriptor:
    """Describe the network that `restored_onnx` returns, from what its metadata say.

    Its halo is the larger one of the two networks between which it lies.
    """
    if strength == 0 or said.precision == "int8":  # a file of its own, which describes itself
        return said
    partner = partner_path(base)
    properties = read_graph(partner).metadata
    other = ModelDescriptor.from_properties(properties, source=printable(partner))
    return replace(
        said,
        name=restored_name(said.name, strength),
        weights_sha256=between_sha256(said.weights_sha256, other.weights_sha256, strength),
        halo=max(said.halo, other.halo),
    )


def between_sha256(base: str, partner: str, strength: float) -> str:
    """Return what tells the weights between two from all others."""
    return hashlib.sha256(f"{base} {partner} {strength:g}".encode()).hexdigest()


def restored_onnx(base: Path, strength: float) -> bytes | Path:
    """Return the network between an ONNX file and its partner, as the content of a file or as a path.

    Constants of integers cannot be interpolated, so of quantised files those of one strength are taken.

    Args:
        base: the file of strength 0, whose metadata the result has.
        strength: from 0 to 1.

    Raises:
        ModelError: there is no partner, or it has another structure.
    """
    if strength == 0:
        return base
    if _is_quantised(base):
        return _of_one_strength(base, stepped(strength))
    return blended(base, partner_of(base, strength).path, strength)


def restored_file(base: Path, strength: float, folder: Path) -> Path:
    """Return an ONNX file with the network of `restored_onnx`, written into `folder` unless it is there.

    Raises:
        ModelError: as `restored_onnx`.
        OSError: it cannot be written.
    """
    made = restored_onnx(base, strength)
    if isinstance(made, Path):
        return made
    path = folder / partner_path(base, strength).name
    if not path.is_file() or path.read_bytes() != made:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_bytes(made)
    return path


def blended(base: Path, partner: Path, strength: float) -> bytes:
    """Return the content of `base` with its constants of floating-point numbers interpolated.

    Raises:
        ModelError: the two files differ in more than these constants.
    """
    content = bytearray(_content(base))
    graph, other = (
        constants_of(memoryview(content), base),
        constants_of(memoryview(_content(partner)), partner),
    )
    if graph.structure != other.structure or graph.layout != other.layout:
        raise ModelError(
            f"{printable(partner)}: has another structure than {printable(base)}; export both again with "
            "srup export --onnx"
        )
    for mine, theirs in zip(graph.constants, other.constants, strict=True):
        if mine.element in _FLOATS:
            mine.raw[:] = _between(mine, theirs, strength)
    return bytes(content)


def _between(mine: Constant, theirs: Constant, strength: float) -> bytes:
    dtype = _FLOATS[mine.element]
    low, high = (np.frombuffer(each.raw, dtype).astype(np.float64) for each in (mine, theirs))
    return ((1 - strength) * low + strength * high).astype(dtype).tobytes()


def _is_quantised(model: Path) -> bool:
    return json.loads(read_graph(model).metadata.get(f"{KEY_PREFIX}precision", "null")) == "int8"


def _of_one_strength(base: Path, strength: float) -> Path:
    path = partner_path(base, strength) if strength else base
    if not path.is_file():
        raise ModelError(
            f"{printable(base)}: int8 needs a file for each strength, and {path.name} is not beside it; make "
            f"one with: srup export --onnx --precision int8 --restore {strength:g} --calibrate FOLDER"
        )
    return path


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{printable(path)}: the model file cannot be read ({error.strerror})") from error
