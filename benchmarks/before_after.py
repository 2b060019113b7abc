"""Make the README's pictures: parts of examples, enlarged by repetition, by bicubic, by srup.

python -m benchmarks.before_after
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks.lib.paths import ROOT
from sr.image import read_picture
from sr.resize import bicubic_resize
from sr.upscale import Upscaler

Pixels = NDArray[np.uint8]

FOLDER = ROOT / "examples"
CAPTION_PX, GAP_PX = 22, 6
JPEG_QUALITY = 50


@dataclass(frozen=True)
class Part:
    """A part of a picture, in lr pixels, and the scale at which it is shown."""

    scale: int
    top: int
    left: int
    height: int
    width: int


OSPREY = Part(3, 30, 110, 110, 100)
KITTEN = Part(4, 95, 150, 80, 68)


def enlarged(path: Path, scale: int, strengths: Mapping[str, float | None]) -> dict[str, Pixels]:
    """Return a picture with its pixels repeated, by bicubic, and by srup with each strength, by caption."""
    lr = read_picture(path).pixels
    panels = {
        "input, pixels repeated": lr.repeat(scale, axis=0).repeat(scale, axis=1),
        "bicubic": bicubic_resize(lr, scale=scale),
    }
    for caption, strength in strengths.items():
        with Upscaler(scale=scale, restore=strength) as upscaler:
            panels[caption] = upscaler(lr)
    return panels


def write_sheet(path: Path, panels: Mapping[str, Pixels], part: Part) -> None:
    """Write the part of each panel, side by side, under its caption."""
    rows = slice(part.top * part.scale, (part.top + part.height) * part.scale)
    columns = slice(part.left * part.scale, (part.left + part.width) * part.scale)
    step = part.width * part.scale + GAP_PX
    size = (step * len(panels) - GAP_PX, part.height * part.scale + CAPTION_PX)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for index, (caption, image) in enumerate(panels.items()):
        sheet.paste(Image.fromarray(np.ascontiguousarray(image[rows, columns])), (index * step, CAPTION_PX))
        draw.text((index * step + 2, 2), caption, fill="black", font=font)
    sheet.save(path, optimize=True)


def main() -> None:
    """Write examples/before-after.png and examples/jpeg-restored.png."""
    osprey = enlarged(FOLDER / "osprey.png", OSPREY.scale, {"srup upscale --scale 3": None})
    write_sheet(FOLDER / "before-after.png", osprey, OSPREY)
    with tempfile.TemporaryDirectory() as folder:
        jpeg = Path(folder) / "kitten.jpg"
        Image.open(FOLDER / "kitten.png").convert("RGB").save(jpeg, quality=JPEG_QUALITY)
        kitten = enlarged(jpeg, KITTEN.scale, {"srup, --restore 0": 0, "srup, --restore 1": 1})
    write_sheet(FOLDER / "jpeg-restored.png", kitten, KITTEN)


if __name__ == "__main__":
    main()
