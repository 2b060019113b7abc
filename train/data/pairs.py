"""Pair lists, `[{"HR": path, "LR": path}, ...]`, and the pictures that they name."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sr.errors import DataError


@dataclass(frozen=True)
class Pair:
    """One hr picture and its lr counterpart; the hr size is `scale` times the lr size."""

    hr: Path
    lr: Path


def load_pair_list(path: Path) -> list[Pair]:
    """Read a pair list; relative paths are taken from the list's folder.

    Lists written with single quotes (a Python literal) are accepted too.

    Raises:
        DataError: the list is missing, empty or malformed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot read the pair list ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a JSON pair list (not UTF-8 text)") from error
    try:
        entries = json.loads(text)
    except json.JSONDecodeError:
        try:
            entries = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError) as error:
            raise DataError(f"{path}: not a JSON pair list ({error})") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f'{path}: need a non-empty list of {{"HR": path, "LR": path}}')
    try:
        return [Pair(hr=path.parent / entry["HR"], lr=path.parent / entry["LR"]) for entry in entries]
    except (TypeError, KeyError) as error:
        raise DataError(f'{path}: every entry needs the keys "HR" and "LR"') from error


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read a picture as uint8 RGB (H, W, 3).

    Raises:
        DataError: the picture is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise DataError(f"{path}: cannot read the picture ({error})") from error
