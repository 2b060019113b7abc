"""Pictures to measure with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from benchmarks.lib.paths import EXAMPLES
from sr.errors import DataError
from sr.image import is_picture, read_picture

_QUALITY = 92  # about what cameras write
_FORMATS = (".png", ".jpg", ".webp", ".tif", ".gif", ".bmp")


def photographs(folder: Path | None, *, count: int, long_side: int) -> list[Image.Image]:
    """Return RGB pictures spread evenly over a folder, each reduced to at most `long_side` px.

    Without a folder, return crops of the examples.

    Raises:
        DataError: the folder has none, or one cannot be read.
    """
    if folder is None:
        return _crops(count, long_side)
    found = sorted(path for path in folder.rglob("*") if is_picture(path))
    if not found:
        raise DataError(f"{folder}: no pictures in this folder; name a folder of photographs")
    number = min(count, len(found))
    chosen = [found[i * len(found) // number] for i in range(number)]
    pictures = []
    for path in chosen:
        try:
            with Image.open(path) as opened:
                picture = ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, SyntaxError) as error:
            raise DataError(f"{path}: cannot read the picture ({error})") from error
        picture.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
        pictures.append(picture)
    return pictures


def save_inputs(pictures: Sequence[Image.Image], paths: Sequence[Path]) -> None:
    """Save pictures in the formats that their paths name, lossy ones in the quality of cameras."""
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path, **({"quality": _QUALITY} if path.suffix in (".jpg", ".webp") else {}))


def _crops(count: int, long_side: int) -> list[Image.Image]:
    """Return crops at different places of the examples, two thirds of their sides long."""
    sources = [Image.fromarray(read_picture(path).pixels) for path in EXAMPLES]
    pictures = []
    for index in range(count):
        source = sources[index % len(sources)]
        width, height = (min(long_side, 2 * side // 3) for side in source.size)
        left, top = (index * 17 % (source.width - width), index * 11 % (source.height - height))
        pictures.append(source.crop((left, top, left + width, top + height)))
    return pictures


def make_pictures(folder: Path, number: int, *, seed: int) -> None:
    """Write crops of the examples in several sizes and formats; one in eight has two frames or pages."""
    chance = random.Random(seed)
    photographs = [Image.open(path).convert("RGB") for path in EXAMPLES]
    for index in range(number):
        photograph, suffix = photographs[index % len(photographs)], _FORMATS[index % len(_FORMATS)]
        width, height = chance.randint(40, 160), chance.randint(40, 160)
        left = chance.randint(0, photograph.width - width)
        top = chance.randint(0, photograph.height - height)
        crop = photograph.crop((left, top, left + width, top + height))
        path = folder / f"part {index % 3}" / f"{index:04}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        several = {"save_all": True, "append_images": [crop.rotate(180)]} if index % 8 == 4 else {}
        crop.save(path, **(several if suffix in (".gif", ".webp", ".tif", ".png") else {}))
