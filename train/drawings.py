"""Pictures that are drawn: text, diagrams, line art. What photographs lack, for training; under no licence.

What they are worth at which scale was measured: "Drawings" in benchmarks/README.md.

    python -m train.drawings -o photographs/drawn --count 24
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sr.errors import require_extra

WIDTH, HEIGHT = 1200, 900
SMOOTHING = 4  # shapes are drawn so many times as large and averaged
_LETTERS = "etaoinshrdlucmfwypvbgkjqxzETAOINSRLCDPMBFGHW0123456789.,:;-()%&/+'\""
_WORD = (1, 9)
_CONTRAST = 90  # of luma between text and its ground, at least

Colour = tuple[int, int, int]


def drawing(seed: int) -> Image.Image:
    """Draw an RGB picture; the seed decides on all of it."""
    random = np.random.default_rng(seed)
    kinds: tuple[Callable[[np.random.Generator], Image.Image], ...] = (text_page, diagram, line_art)
    return kinds[seed % len(kinds)](random)


def text_page(random: np.random.Generator) -> Image.Image:
    """Draw columns of text in several sizes and fonts, one ground for each column."""
    image = Image.new("RGB", (WIDTH, HEIGHT))
    draw, fonts = ImageDraw.Draw(image), _fonts()
    columns = int(random.integers(2, 5))
    for column in range(columns):
        left, right = (WIDTH * edge // columns for edge in (column, column + 1))
        ground, ink = _two_colours(random)
        draw.rectangle((left, 0, right, HEIGHT), fill=ground)
        y = 6.0
        while y < HEIGHT:
            size = int(random.choice((9, 10, 11, 12, 13, 14, 16, 18, 22, 28, 40)))
            font = ImageFont.truetype(fonts[random.integers(len(fonts))], size)
            for _ in range(int(random.integers(1, 7))):
                draw.text(
                    (left + 8, y), _words(random, (right - left) // max(4, size // 2)), fill=ink, font=font
                )
                y += size * 1.3
            draw.rectangle((right - 8, 0, right, HEIGHT), fill=ground)
    return image


def diagram(random: np.random.Generator) -> Image.Image:
    """Draw flat and shaded shapes over each other, with outlines, grids and labels."""
    large = Image.new("RGB", (WIDTH * SMOOTHING, HEIGHT * SMOOTHING), _colour(random))
    draw = ImageDraw.Draw(large)
    for _ in range(60):
        x, y = random.integers(0, large.width), random.integers(0, large.height)
        w, h = (random.integers(12, 400, 2) * SMOOTHING).tolist()
        box = (int(x), int(y), int(x) + w, int(y) + h)
        outline, width = _colour(random), int(random.integers(0, 5)) * SMOOTHING
        match random.integers(5):
            case 0:
                draw.rectangle(box, fill=_colour(random), outline=outline, width=width)
            case 1:
                draw.ellipse(box, fill=_colour(random), outline=outline, width=width)
            case 2:
                corners = np.add((x, y), random.integers(0, (w, h), (int(random.integers(3, 7)), 2)))
                draw.polygon([tuple(corner) for corner in corners.tolist()], fill=_colour(random))
            case 3:
                step = int(random.integers(3, 16)) * SMOOTHING
                for offset in range(0, w, step):
                    draw.line((box[0] + offset, box[1], box[0] + offset, box[3]), outline, SMOOTHING)
                for offset in range(0, h, step):
                    draw.line((box[0], box[1] + offset, box[2], box[1] + offset), outline, SMOOTHING)
            case _:
                ramp = Image.linear_gradient("L").rotate(int(random.integers(4)) * 90).resize((w, h))
                large.paste(Image.new("RGB", (w, h), outline), box[:2], ramp)
    image = large.reduce(SMOOTHING)
    draw, fonts = ImageDraw.Draw(image), _fonts()
    for _ in range(40):
        font = ImageFont.truetype(fonts[random.integers(len(fonts))], int(random.integers(9, 30)))
        place = (int(random.integers(WIDTH)), int(random.integers(HEIGHT)))
        draw.text(place, _words(random, 12), fill=_colour(random), font=font)
    return image


def line_art(random: np.random.Generator) -> Image.Image:
    """Draw curves of several widths, some of them filled or hatched, in ink on paper."""
    ground, ink = _two_colours(random)
    large = Image.new("RGB", (WIDTH * SMOOTHING, HEIGHT * SMOOTHING), ground)
    draw = ImageDraw.Draw(large)
    for _ in range(90):
        centre = random.integers(0, (large.width, large.height))
        radius = random.uniform(10, 260) * SMOOTHING
        turns = np.linspace(0, 2 * math.pi * random.uniform(0.2, 1), 120)
        waves = 1 + sum(
            random.normal(0, 0.2 / k) * np.sin(k * turns + random.uniform(0, 6)) for k in range(1, 7)
        )
        curve = centre + radius * np.stack((waves * np.cos(turns), waves * np.sin(turns)), axis=1)
        points = [(float(x), float(y)) for x, y in curve]
        if random.random() < 0.25:
            draw.polygon(points, fill=_colour(random) if random.random() < 0.5 else ground)
        draw.line(points, ink, int(random.integers(1, 5 * SMOOTHING)), joint="curve")
        if random.random() < 0.3:
            step, slope = random.uniform(3, 9) * SMOOTHING, random.uniform(-1, 1)
            for offset in np.arange(0, radius, step):
                start = (centre[0] + offset, centre[1])
                end = (start[0] + slope * radius, centre[1] + radius)
                draw.line((*map(float, start), *map(float, end)), ink, SMOOTHING)
    return large.reduce(SMOOTHING)


def _fonts() -> list[str]:
    """Return the font files that come with Matplotlib, but for those of mathematical signs."""
    require_extra("train", "matplotlib", purpose="drawing text")
    from matplotlib import get_data_path

    files = sorted(Path(get_data_path(), "fonts", "ttf").glob("*.ttf"))
    return [
        str(file) for file in files if file.stem.startswith(("DejaVu", "STIXGeneral", "cmr", "cmss", "cmtt"))
    ]


def _words(random: np.random.Generator, length: int) -> str:
    words: list[str] = []
    while sum(len(word) for word in words) < length:
        words.append("".join(random.choice(list(_LETTERS), int(random.integers(*_WORD)))))
    return " ".join(words)


def _colour(random: np.random.Generator) -> Colour:
    """Return a colour; a third of the time a grey, a third one of the cube's corners."""
    match random.integers(3):
        case 0:
            level = int(random.integers(256))
            return level, level, level
        case 1:
            red, green, blue = (int(each) * 255 for each in random.integers(0, 2, 3))
        case _:
            red, green, blue = (int(each) for each in random.integers(0, 256, 3))
    return red, green, blue


def _two_colours(random: np.random.Generator) -> tuple[Colour, Colour]:
    """Return ground and ink; half of the time black on white."""
    if random.random() < 0.5:
        return (255, 255, 255), (0, 0, 0)
    while True:
        ground, ink = _colour(random), _colour(random)
        if abs(_luma(ground) - _luma(ink)) >= _CONTRAST:
            return ground, ink


def _luma(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def write_drawings(folder: Path, *, count: int, seed: int = 0) -> list[Path]:
    """Write `count` drawings with seeds from `seed` on into a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"drawn-{number:04}.png" for number in range(seed, seed + count)]
    for number, path in enumerate(paths, seed):
        drawing(number).save(path)
    return paths


def _main() -> None:
    parser = argparse.ArgumentParser(
        description="Draw pictures of text, diagrams and line art, to train with."
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder")
    parser.add_argument("--count", type=int, default=24, help="default: 24")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture; default: 0")
    given = parser.parse_args()
    print(*write_drawings(given.output, count=given.count, seed=given.seed), sep="\n")


if __name__ == "__main__":
    _main()
