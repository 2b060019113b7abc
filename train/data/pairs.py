"""Pair lists, `[{"HR": path, "LR": path}, ...]`, and the pictures that they name."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sr.errors import DataError, ImageError, SrupError
from sr.image.decode import read_header
from sr.image.rgb import read_rgb
from sr.resize import bicubic_resize, modulo_crop


@dataclass(frozen=True)
class Pair:
    """One hr picture and its lr counterpart; the hr size is `scale` times the lr size.

    Without an lr picture, the hr picture is cut to a multiple of the scale and shrunk by MATLAB's bicubic.
    """

    hr: Path
    lr: Path | None


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


def load_pair(pair: Pair, *, scale: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the hr and the lr picture as uint8 RGB, (scale * H, scale * W, 3) and (H, W, 3).

    Raises:
        DataError: one cannot be read, has transparent pixels, or their sizes do not fit.
    """
    if pair.lr is None:
        try:
            hr = modulo_crop(read_opaque(pair.hr), scale=scale)
        except ImageError as error:
            raise DataError(f"{pair.hr}: {error}") from error
        return hr, bicubic_resize(hr, scale=Fraction(1, scale))
    hr, lr = read_opaque(pair.hr), read_opaque(pair.lr)
    height, width = (scale * side for side in lr.shape[:2])
    if hr.shape[:2] != (height, width):
        raise DataError(
            f"{pair.hr}: is {hr.shape[1]}x{hr.shape[0]}, need {width}x{height}, {scale} times its lr picture"
        )
    return hr, lr


def upright_size(path: Path) -> tuple[int, int]:
    """Return height and width that `read_opaque` will give, from the file's header.

    Raises:
        DataError: it is no picture that can be read.
    """
    try:
        header = read_header(path)
    except (OSError, SrupError) as error:
        raise DataError(str(error)) from error
    return header.upright_size


def read_opaque(path: Path) -> NDArray[np.uint8]:
    """Read a picture as `srup upscale` does, as uint8 RGB (H, W, 3).

    Raises:
        DataError: it cannot be read, or has transparent pixels.
    """
    try:
        return read_rgb(path)
    except SrupError as error:
        raise DataError(str(error)) from error
