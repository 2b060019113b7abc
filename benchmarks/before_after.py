"""Make the README's picture: a part of an example, enlarged by repetition, by bicubic, by srup.

python -m benchmarks.before_after
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.lib.paths import ROOT
from sr.image import read_picture
from sr.resize import bicubic_resize
from sr.upscale import Upscaler

PICTURE = ROOT / "examples" / "osprey.png"
TOP, LEFT, HEIGHT, WIDTH = 30, 110, 110, 100  # lr pixels
SCALE = 3
CAPTION_PX, GAP_PX = 22, 6


def main() -> None:
    """Write examples/before-after.png."""
    lr = read_picture(PICTURE).pixels
    with Upscaler(scale=SCALE) as upscaler:
        panels = {
            "input, pixels repeated": lr.repeat(SCALE, axis=0).repeat(SCALE, axis=1),
            "bicubic": bicubic_resize(lr, scale=SCALE),
            "srup upscale --scale 3": upscaler(lr),
        }
    rows = slice(TOP * SCALE, (TOP + HEIGHT) * SCALE)
    columns = slice(LEFT * SCALE, (LEFT + WIDTH) * SCALE)
    width = WIDTH * SCALE * len(panels) + GAP_PX * (len(panels) - 1)
    sheet = Image.new("RGB", (width, HEIGHT * SCALE + CAPTION_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for index, (caption, image) in enumerate(panels.items()):
        left = index * (WIDTH * SCALE + GAP_PX)
        sheet.paste(Image.fromarray(np.ascontiguousarray(image[rows, columns])), (left, CAPTION_PX))
        draw.text((left + 2, 2), caption, fill="black", font=font)
    sheet.save(ROOT / "examples" / "before-after.png", optimize=True)


if __name__ == "__main__":
    main()
