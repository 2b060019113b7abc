"""A page to look at: each picture under a slider between nearest, bicubic and what `srup` made of it.

Owns the page: one HTML file that loads nothing. `compare.html` is its frame and `compare.js` its
script; here the pictures are read again from their files, cut to what fits, and embedded.
"""

from __future__ import annotations

import base64
import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from sr.errors import ImageError, SrupError, one_line, printable
from sr.files import atomic_write
from sr.image import DEFAULT_MAX_PIXELS, Picture, PictureSequence, open_picture
from sr.image.picture import to_8_bits
from sr.version import __version__

PAGE_SUFFIXES = (".html", ".htm")

# What a page may weigh: it is sent by mail and opened on phones. An output of 1401x789 with its two rivals
# takes 2.7 MB (examples/osprey.png, x3), so that ten such pictures are shown whole.
LARGEST_PAGE_BYTES = 32_000_000
_FRAME_BYTES = 1_000_000  # of it are kept for text, which is that much where names are absurdly long
MOST_PICTURES = 24  # where names and choice are still one look; with each the others' share shrinks
# Of an output. A browser holds three such pictures decoded, which is 48 MB.
LARGEST_CROP_PX = 4_000_000
_LONGEST_CROP_SIDE = 8_192  # WebP has 16,383 (RFC 9649, section 2.6), textures on phones often half of it
_SMALLEST_CROP_PX = 64 * 64  # fits any share
_MOST_NAMED = 50  # pictures that are not shown, by name

# Lossless, so that what is compared is what was made. Nearest and bicubic of examples/osprey.png, x3:
# 1.01 MB in 0.7 s; PNG at level 6 takes 1.51 MB, WebP at method 6 and effort 100 1.00 MB in 14 s.
_ENCODER = {"lossless": True, "exact": True, "method": 4, "quality": 50}

_DETAIL_SIDE_PX = 1024  # at which detail is searched for


# Upscale a picture, by name.
Variants = Mapping[str, Callable[[Picture], Picture]]
_RIVALS = ("nearest", "bicubic")


class Compared(NamedTuple):
    """A picture and what became of it."""

    source: Path
    target: Path
    note: str = ""  # shown with it


@dataclass
class PageSummary:
    """What came of a page.

    Attributes:
        shown: pictures on it.
        size: bytes; 0 if there was nothing to show and no page was written.
        left_out: why other pictures are not on it, a line each.
    """

    shown: int = 0
    size: int = 0
    left_out: list[str] = field(default_factory=list)


class _Box(NamedTuple):
    """A part of an output, in its pixels."""

    left: int
    top: int
    width: int
    height: int


class _Figure(NamedTuple):
    """A picture as it stands on the page."""

    name: str
    pair: str
    facts: str


def check_page(path: Path, *, overwrite: bool) -> None:
    """Check, before the work starts, that a page could be written to `path`.

    Args:
        path: its folder may be missing if it can be created.
        overwrite: whether an existing file may be replaced.

    Raises:
        ImageError: it has another suffix than a page, exists, or its folder cannot be written.
    """
    name = printable(path)
    if path.suffix.lower() not in PAGE_SUFFIXES:
        raise ImageError(f"{name}: the page to compare with is HTML; name it {path.stem or 'compare'}.html")
    try:
        if path.is_dir():
            raise ImageError(f"{name}: is a folder; give a file name")
        try:
            path.lstat()
        except FileNotFoundError:
            pass
        else:
            if not overwrite:
                raise ImageError(f"{name}: exists already; name another page, or --overwrite replaces it")
        folder = path.absolute().parent
        while not folder.exists():
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):  # rights alone do not tell: the disk may be read-only
            pass
    except OSError as error:
        raise ImageError(f"{name}: cannot be written ({one_line(error)}); choose another folder") from error


def write_page(
    path: Path,
    compared: Sequence[Compared],
    *,
    about: str,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    variants: Variants | None = None,
) -> PageSummary:
    """Write the page whole or not at all; nothing if no picture can be shown.

    Pictures are shown whole as far as `LARGEST_PAGE_BYTES` and `LARGEST_CROP_PX` allow, else the part
    with the most detail, and the page says so. Colours are converted to sRGB.

    Args:
        path: of the page; it is replaced.
        compared: the pictures, of which the first `MOST_PICTURES` that can be read are shown.
        about: which network made the outputs, in words.
        max_pixels: an input with more is not read, nor an output with more than this and the default.
        variants: what else upscales inputs to the size of the outputs, by the name that the page shows.

    Raises:
        ImageError: the page cannot be written.
    """
    summary = PageSummary()
    figures: list[_Figure] = []
    names = _names([one.source for one in compared])
    room = LARGEST_PAGE_BYTES - _FRAME_BYTES
    for index, (one, name) in enumerate(zip(compared, names, strict=True)):
        if len(figures) == MOST_PICTURES:
            more = len(compared) - index
            summary.left_out.append(f"{more:,} more: a page shows at most {MOST_PICTURES} pictures")
            break
        share = room // min(MOST_PICTURES - len(figures), len(compared) - index)
        try:
            figure = _figure(one, name, share=share, max_pixels=max_pixels, variants=variants or {})
        except SrupError as error:
            why = str(error)
            for file in one[:2]:
                why = why.removeprefix(f"{file}: ").removeprefix(f"{printable(file)}: ")
            summary.left_out.append(f"{name}: {' '.join(why.splitlines())}")
            continue
        room -= len(figure.pair)
        figures.append(figure)
    if figures:
        kinds = [*_RIVALS, *(variants or {}), "srup"]
        page = _page(figures, about, summary.left_out, kinds).encode("utf-8", "replace")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                temporary.write_bytes(page)
        except OSError as error:
            raise ImageError(
                f"{printable(path)}: cannot be written ({one_line(error)}); choose another folder"
            ) from error
        summary.shown, summary.size = len(figures), len(page)
    return summary


def _names(paths: Sequence[Path]) -> list[str]:
    """Name files, with as many folders as tell them apart: the rest is nobody's business."""
    parts = [path.absolute().parts for path in paths]
    names = [Path(own[-1]) for own in parts]
    for length in range(2, max(map(len, parts), default=0) + 1):
        count = Counter(names)
        if len(count) == len(names):
            break
        names = [
            name if count[name] == 1 else Path(*own[-length:]) for name, own in zip(names, parts, strict=True)
        ]
    return [printable(Path(name.as_posix())) for name in names]


# --- pixels -------------------------------------------------------------------------------------


def _figure(one: Compared, name: str, *, share: int, max_pixels: int, variants: Variants) -> _Figure:
    """Read a picture and its output, and cut them until their encoded form takes `share` bytes at most."""
    source, several = _first(one.source, max_pixels=max_pixels)
    target, _ = _first(one.target, max_pixels=max(max_pixels, DEFAULT_MAX_PIXELS))
    lr, sr = _image(source), _image(target)
    others = {kind: upscale(source) for kind, upscale in variants.items()}
    notes = [note for note in (several, one.note) if note]
    area = LARGEST_CROP_PX
    while True:
        box = _crop(lr, sr.size, area=area)
        images = {
            kind: _encoded(_srgb(image, picture.metadata.icc_profile))
            for kind, image, picture in (
                ("nearest", _enlarged(lr, sr.size, box, Image.Resampling.NEAREST), source),
                ("bicubic", _enlarged(lr, sr.size, box, Image.Resampling.BICUBIC), source),
                *((kind, _cut(_image(other), box), other) for kind, other in others.items()),
                ("srup", _cut(sr, box), target),
            )
        }
        pair = _pair(name, box, images, alpha=source.transparent or target.transparent)
        if len(pair) <= share or area <= _SMALLEST_CROP_PX:
            return _Figure(name, pair, _facts(name, lr.size, sr.size, box, notes))
        area = max(_SMALLEST_CROP_PX, int(0.9 * box.width * box.height * share / len(pair)))


def _first(path: Path, *, max_pixels: int) -> tuple[Picture, str]:
    """Read a picture; of an animation or of pages the first, and say so."""
    picture = open_picture(path, max_pixels=max_pixels)
    if isinstance(picture, PictureSequence):
        return next(picture.frames()).picture, f"the first of {picture.count} {picture.kind}"
    return picture, ""


def _image(picture: Picture) -> Image.Image:
    """Return a picture as an image of mode L, LA, RGB or RGBA; 16 bits are rounded to 8."""
    pixels = to_8_bits(picture.pixels)
    if picture.alpha is not None:
        pixels = np.dstack((pixels, to_8_bits(picture.alpha)))
    return Image.fromarray(pixels)


def _crop(lr: Image.Image, size: tuple[int, int], *, area: int) -> _Box:
    """Choose the part of an output of `size` that is shown: all, or where `lr` has the most detail.

    It has the shape of the picture, at most `area` pixels, and begins with a whole pixel of `lr`
    where the output is a multiple of it.
    """
    width, height = size
    shrink = min(1.0, (area / (width * height)) ** 0.5)
    part = tuple(
        min(length, _LONGEST_CROP_SIDE, max(1, round(length * shrink))) for length in (width, height)
    )
    if part == size:
        return _Box(0, 0, width, height)
    x, y = _most_detail(lr, part[0] / width, part[1] / height)
    left, top = (
        _aligned(round(at * length), side, length, small)
        for at, length, side, small in zip((x, y), size, part, lr.size, strict=True)
    )
    return _Box(left, top, *part)


def _aligned(start: int, side: int, length: int, small: int) -> int:
    step = length // small if length % small == 0 else 1
    return min(start, length - side) // step * step


def _most_detail(image: Image.Image, width: float, height: float) -> tuple[float, float]:
    """Return left and top of the part with the steepest luma; everything as shares of the picture.

    Of equal parts it is the one nearest to the centre.
    """
    small = image.convert("L")
    small.thumbnail((_DETAIL_SIDE_PX, _DETAIL_SIDE_PX), Image.Resampling.BOX)
    luma = np.asarray(small).astype(np.int64)
    steep = np.zeros((luma.shape[0] + 1, luma.shape[1] + 1), np.int64)
    steep[2:, 1:] += np.abs(np.diff(luma, axis=0))
    steep[1:, 2:] += np.abs(np.diff(luma, axis=1))
    total = steep.cumsum(0).cumsum(1)  # (H + 1, W + 1): of all above and to the left
    rows, columns = (
        max(1, round(part * length)) for part, length in zip((height, width), luma.shape, strict=True)
    )
    sums = (
        total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns] + total[:-rows, :-columns]
    )
    best = np.argwhere(sums == sums.max())
    nearest = np.abs(best - (np.array(sums.shape) - 1) / 2).sum(1).argmin()
    return best[nearest, 1] / luma.shape[1], best[nearest, 0] / luma.shape[0]


def _cut(image: Image.Image, box: _Box) -> Image.Image:
    return image.crop((box.left, box.top, box.left + box.width, box.top + box.height))


def _enlarged(lr: Image.Image, size: tuple[int, int], box: _Box, method: Image.Resampling) -> Image.Image:
    """Return the part `box` of `lr` resized to `size`; the filter sees what lies around it."""
    across, down = lr.width / size[0], lr.height / size[1]
    part = (
        box.left * across,
        box.top * down,
        min(lr.width, (box.left + box.width) * across),
        min(lr.height, (box.top + box.height) * down),
    )
    return lr.resize((box.width, box.height), method, box=part)


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert colours to sRGB, which is what an image without a profile is shown as."""
    if profile is None:
        return image
    try:
        own = ImageCms.ImageCmsProfile(BytesIO(profile))
        if ImageCms.getProfileDescription(own).startswith("sRGB"):
            return image
        grey = own.profile.xcolor_space.strip() == "GRAY"
        colours = image.convert("L" if grey else "RGB")
        converted = ImageCms.profileToProfile(colours, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):  # a profile that other programs ignore, too
        return image
    assert converted is not None
    if image.mode in ("LA", "RGBA"):
        converted.putalpha(image.getchannel("A"))
    return converted


def _encoded(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, "WEBP", **_ENCODER)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


# --- text ---------------------------------------------------------------------------------------


def _pair(name: str, box: _Box, images: Mapping[str, str], *, alpha: bool) -> str:
    title, board = escape(name), " data-alpha" if alpha else ""
    lines = [f'  <div class="pair" data-width="{box.width}" data-height="{box.height}"{board} hidden>']
    lines += [
        f'    <img data-kind="{kind}" alt="{title}, {kind}" decoding="sync" draggable="false" src="{uri}">'
        for kind, uri in images.items()
    ]
    return "\n".join([*lines, "  </div>"])


def _facts(name: str, lr: tuple[int, int], sr: tuple[int, int], box: _Box, notes: Sequence[str]) -> str:
    """Return the line below a picture."""
    factor = max(large / small for large, small in zip(sr, lr, strict=True))
    words = [f"{lr[0]}&times;{lr[1]} &rarr; {sr[0]}&times;{sr[1]} pixels (&times;{factor:.4g})"]
    if (box.width, box.height) != sr:
        words.append(
            f"shown is the part with the most detail, {box.width}&times;{box.height} from "
            f"({box.left}, {box.top}), to keep this page small"
        )
    words += [escape(note) for note in notes]
    return f'  <p class="facts" hidden><b><bdi>{escape(name)}</bdi></b> &ensp;{"; ".join(words)}</p>'


def _page(figures: Sequence[_Figure], about: str, left_out: Sequence[str], kinds: Sequence[str]) -> str:
    several = len(figures) > 1
    script = "\n" + _resource("compare.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    title = f"{len(figures)} pictures" if several else figures[0].name
    return _filled(
        _resource("compare.html"),
        {
            "title": f"{escape(title)} - srup",
            "about": escape(about),
            "version": escape(__version__),
            "script-hash": f"sha256-{digest}",
            "script": script,
            "one-picture": "" if several else " hidden",
            "keys": " Page Up and Page Down change the picture." if several else "",
            "list": "".join(f"<button><bdi>{escape(figure.name)}</bdi></button>" for figure in figures),
            "pairs": "\n".join(figure.pair for figure in figures),
            "facts": "\n".join(figure.facts for figure in figures),
            "left-out": _left_out(left_out),
            "left-kinds": _buttons("left", kinds),
            "right-kinds": _buttons("right", kinds),
        },
    )


def _buttons(side: str, kinds: Sequence[str]) -> str:
    lines = [f'<button data-side="{side}" data-kind="{kind}">{kind}</button>' for kind in kinds]
    return "\n".join(f"        {line}" for line in lines)


def _left_out(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    more = [f"and {len(lines) - _MOST_NAMED:,} more"] if len(lines) > _MOST_NAMED else []
    items = "".join(f"<li>{escape(line)}</li>" for line in [*lines[:_MOST_NAMED], *more])
    return f"  <details><summary>Not shown</summary><ul>{items}</ul></details>"


def _filled(frame: str, parts: Mapping[str, str]) -> str:
    """Put the parts in at their marks, in one pass: a file may be named like a mark."""
    return re.sub("@@([a-z-]+)@@", lambda mark: parts[mark[1]], frame)


def _resource(name: str) -> str:
    return files("sr.cli").joinpath(name).read_text(encoding="utf-8")
