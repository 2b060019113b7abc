"""Weights that other programs saved, read without executing anything: `.pth`, `.ckpt`, `.pt`, `.safetensors`.

Owns what is refused: pickles that call functions, TorchScript, files that unpack to more than they hold.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr.errors import ModelError, printable

if TYPE_CHECKING:
    from torch import Tensor

SAFETENSORS = ".safetensors"
PICKLED = (".pth", ".ckpt", ".pt")

# In our own files, see `sr.network.checkpoint`; a test compares.
_OWN_WEIGHTS, _OWN_CHECKPOINT = "srup-weights-", b"srup-training-"

_LONGEST_HEADER = 2**24  # bytes; safetensors itself allows 100 MB
_LARGEST_PICKLE = 2**26  # bytes; the names and shapes of a state dict take less than a megabyte
# Archives of torch.save are not compressed. Directory entries and padding are small.
_MOST_UNPACKED = 1.1

_REMEDY = "save its state dict (torch.save(model.state_dict(), FILE), or safetensors)"


def is_foreign_weights(path: Path) -> bool:
    """Say whether a file has weights of another program; nothing is executed, and torch is not needed."""
    suffix = path.suffix.lower()
    if not path.is_file():
        return False
    if suffix == SAFETENSORS:
        return not _header(path).get("format", "").startswith(_OWN_WEIGHTS)
    return suffix in PICKLED and _OWN_CHECKPOINT not in _pickle_of(path)


def stated_licence(path: Path) -> str:
    """Return the licence that a safetensors file states; empty if none."""
    header = _header(path) if path.suffix.lower() == SAFETENSORS else {}
    names = ("license", "licence", "modelspec.license")
    return next((header[name] for name in names if header.get(name)), "")


def read_state(path: Path) -> dict[str, Any]:
    """Return what a file of weights holds: tensors by name, perhaps inside other dicts.

    Raises:
        ModelError: it is damaged, would execute something, or claims tensors larger than what it stores.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    name = printable(path)
    if path.suffix.lower() == SAFETENSORS:
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{name}: not a readable safetensors file; download it again") from error
    _check_archive(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle raises anything: KeyError, IndexError, struct.error
        raise ModelError(
            f"{name}: refused, it holds more than plain tensors, or is damaged; nothing of it was executed; "
            f"{_REMEDY} in the program that made it"
        ) from error
    if not isinstance(found, Mapping):
        raise ModelError(f"{name}: holds a {type(found).__name__}, need a state dict; {_REMEDY}")
    _check_tensors(found, name)
    return dict(found)


def tensors_in(found: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors of a state dict, those inside other dicts included; each dict counts once."""
    import torch

    tensors: list[Tensor] = []
    dicts, seen = [found], {id(found)}
    while dicts:
        for value in dicts.pop().values():
            if isinstance(value, torch.Tensor):
                tensors.append(value)
            elif isinstance(value, Mapping) and id(value) not in seen:
                seen.add(id(value))
                dicts.append(value)
    return tensors


def _check_tensors(found: Mapping[str, Any], name: str) -> None:
    """Refuse tensors that repeat a few stored values to claim any size."""
    for tensor in tensors_in(found):
        if tensor.layout.is_sparse if hasattr(tensor.layout, "is_sparse") else tensor.is_sparse:
            raise ModelError(f"{name}: refused, it has sparse tensors; {_REMEDY}")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ModelError(f"{name}: refused, it claims a tensor larger than what it stores")


def _check_archive(path: Path) -> None:
    """Refuse TorchScript, and archives that unpack to more than they hold.

    Raises:
        ModelError: as said, or the file cannot be read.
    """
    name = printable(path)
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ModelError(f"{name}: not a readable file of weights; download it again") from error
    parts = {part for entry in entries for part in entry.filename.split("/")[1:2]}
    if "code" in parts or "constants.pkl" in parts:
        raise ModelError(f"{name}: refused, it is TorchScript, which is a program; {_REMEDY}")
    if sum(entry.file_size for entry in entries) > _MOST_UNPACKED * path.stat().st_size + 2**16:
        raise ModelError(f"{name}: refused, it unpacks to more than it holds")


def _header(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file; empty for what is none."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LONGEST_HEADER:
                return {}
            metadata = json.loads(file.read(length)).get("__metadata__", {})
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    return {key: value for key, value in metadata.items() if isinstance(value, str)} if metadata else {}


def _pickle_of(path: Path) -> bytes:
    """Return the pickle of an archive, unread; empty for what has none of a usual size."""
    try:
        if not zipfile.is_zipfile(path):
            return b""
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith("/data.pkl") and entry.file_size <= _LARGEST_PICKLE:
                    with archive.open(entry) as file:
                        return file.read(_LARGEST_PICKLE)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, RuntimeError):
        return b""
    return b""
