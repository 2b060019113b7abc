"""Sheets of patches as pictures, to look at what a network is trained with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from sr.errors import TrainingError
from sr.files import atomic_write
from train.data.pairs import load_pair, load_pair_list
from train.data.patches import Epoch, Pixels

_GAP = 4  # white pixels between pictures


def degradation_sheet(epoch: Epoch, *, patches: int = 12) -> Pixels:
    """Return a sheet (H, W, 3) of an epoch's first patches: hr, lr as it is, lr degraded.

    lr is enlarged by repeating pixels. Two such triples stand side by side.
    """
    scale = epoch.source.scale
    clean = replace(epoch, sampling=replace(epoch.sampling, degradation=None))
    triples = []
    for index in range(min(patches, len(epoch.order))):
        (lr, hr), (degraded, _) = clean.patch(index), epoch.patch(index)
        triples.append(beside([hr, *(one.repeat(scale, 0).repeat(scale, 1) for one in (lr, degraded))]))
    rows = [beside(triples[i : i + 2]) for i in range(0, len(triples) - len(triples) % 2, 2)] or triples[:1]
    return below(rows)


def pair_sheet(pair_list: Path, scale: int, *, pairs: int = 12, side: int = 48) -> Path:
    """Write a sheet of hr and lr crops of `side` lr pixels beside a pair list; return its path.

    Raises:
        DataError: a picture cannot be read.
        TrainingError: the sheet cannot be written.
    """
    listed = load_pair_list(pair_list)
    rows = []
    for pair in listed[:: max(1, len(listed) // pairs)][:pairs]:
        hr, lr = load_pair(pair, scale=scale)
        top, left = ((n - min(side, n)) // 2 for n in lr.shape[:2])
        crop = lr[top : top + side, left : left + side].repeat(scale, 0).repeat(scale, 1)
        same = hr[top * scale :, left * scale :][: crop.shape[0], : crop.shape[1]]
        row = beside([same, crop])
        full = np.full((side * scale, 2 * side * scale + 3 * _GAP, 3), 255, np.uint8)
        full[: row.shape[0], : row.shape[1]] = row
        rows.append(full)
    path = pair_list.with_name(f"{pair_list.stem}-degraded.png")
    save_png(path, below(rows))
    return path


def beside(pictures: list[Pixels]) -> Pixels:
    """Return pictures of one height in a row, framed in white."""
    height = pictures[0].shape[0]
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    return np.concatenate([part for picture in pictures for part in (gap, picture)] + [gap], axis=1)


def below(rows: list[Pixels]) -> Pixels:
    """Return pictures of one width in a column, framed in white."""
    return beside([row.transpose(1, 0, 2) for row in rows]).transpose(1, 0, 2)


def save_png(path: Path, picture: Pixels) -> None:
    """Write uint8 RGB (H, W, 3) atomically.

    Raises:
        TrainingError: the file cannot be written.
    """
    try:
        with atomic_write(path) as temporary:
            Image.fromarray(picture).save(temporary, "PNG")
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written ({error.strerror or error})") from error
