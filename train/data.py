"""Training data: pair lists, pictures that are read, and the patches of a step.

Owns the pair-list format, `[{"HR": path, "LR": path}, ...]`, and which patch is drawn when. A
patch depends on nothing but seed, epoch and position, so resuming a run needs no sampler state.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sr.errors import DataError, ImageError


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


class PatchSource:
    """All pairs of a list, decoded once and held as uint8, and the patches drawn from them."""

    def __init__(self, pairs: list[Pair], *, scale: int, patch_size: int) -> None:
        """Decode every picture.

        Raises:
            DataError: pictures cannot be read or do not fit; all of them are named at once.
        """
        self.scale, self.patch_size = scale, patch_size
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            loaded = list(pool.map(self._load, pairs))
        problems = [item for item in loaded if isinstance(item, str)]
        if problems:
            raise DataError("; ".join(problems))
        self._pictures = [item for item in loaded if not isinstance(item, str)]

    def __len__(self) -> int:
        return len(self._pictures)

    def _load(self, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | str:
        try:
            hr, lr = read_rgb(pair.hr), read_rgb(pair.lr)
        except (DataError, ImageError) as error:
            return str(error)
        expected = (lr.shape[0] * self.scale, lr.shape[1] * self.scale)
        if hr.shape[:2] != expected:
            got = f"{hr.shape[1]}x{hr.shape[0]}"
            return f"{pair.hr}: is {got}, need {expected[1]}x{expected[0]} for scale {self.scale}"
        if min(lr.shape[:2]) < self.patch_size:
            return f"{pair.lr}: smaller than the patch size {self.patch_size}"
        return hr, lr

    def epoch(
        self, *, seed: int, epoch: int, batch_size: int, patches_per_picture: int
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Yield the batches of an epoch: lr (N, 3, P, P) and hr (N, 3, sP, sP), uint8.

        Each picture gives `patches_per_picture` patches, in shuffled order, each flipped and
        turned at random (the eight symmetries of the square). A last short batch is dropped.
        """
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(np.repeat(np.arange(len(self)), patches_per_picture))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            patches = [self._patch(index, rng) for index in order[start : start + batch_size]]
            yield np.stack([lr for lr, _ in patches]), np.stack([hr for _, hr in patches])

    def _patch(self, index: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        hr, lr = self._pictures[index]
        side, scale = self.patch_size, self.scale
        top = int(rng.integers(lr.shape[0] - side + 1))
        left = int(rng.integers(lr.shape[1] - side + 1))
        symmetry = int(rng.integers(8))
        lr_patch = lr[top : top + side, left : left + side]
        hr_patch = hr[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        return _turned(lr_patch, symmetry), _turned(hr_patch, symmetry)


def _turned(patch: NDArray[np.uint8], symmetry: int) -> NDArray[np.uint8]:
    """Apply one of the eight symmetries of the square and move channels first; a view."""
    planes = patch.transpose(2, 0, 1)
    if symmetry & 1:
        planes = planes[:, :, ::-1]
    if symmetry & 2:
        planes = planes[:, ::-1]
    return planes.transpose(0, 2, 1) if symmetry & 4 else planes
