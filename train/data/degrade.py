"""Degradations that lr pictures have in practice: other filters, blur, noise, JPEG and WebP.

Owns how they are described (a table of shares and ranges) and how one is drawn and applied. What is
drawn depends on nothing but the random generator that the caller hands in.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr.errors import TrainingError
from train.data.shrink import FILTERS, shrink
from train.setting import suggestion

Pixels = NDArray[np.uint8]
Check = Callable[[Any], Any]  # returns the value, converted; raises ValueError that says what is needed

# Blocks of JPEG (16 px with 4:2:0), and filters, reach this far into a patch: so much is degraded with it.
MARGIN = 16
# The grid of JPEG's blocks; it may lie anywhere on a patch.
GRID = 8

_SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}  # Pillow's numbers
_MAX_BLUR, _MAX_NOISE = 4.0, 100.0  # lr pixels, levels of 255: nothing is left of a picture beyond
# Encoder effort 0 to 6: the fastest is as lossy as the others at the same quality.
_WEBP_METHOD = 0
# Share of compressed patches whose quality `Degradation.milder` keeps.
_KEPT = 0.25


def _share(value: Any) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError("need a number from 0 to 1")
    return float(value)


def _span(least: float, most: float) -> Check:
    def check(value: Any) -> tuple[float, float]:
        if not _are_numbers(value, count=2) or not least <= value[0] <= value[1] <= most:
            raise ValueError(f"need two numbers from {least:g} to {most:g}, the smaller one first")
        return float(value[0]), float(value[1])

    return check


def _positive(value: Any) -> float:
    if not _is_number(value) or not 0 < value <= _MAX_NOISE:
        raise ValueError(f"need a number above 0, up to {_MAX_NOISE:g}")
    return float(value)


def _weights(known: Sequence[str]) -> Check:
    def check(value: Any) -> dict[str, float]:
        if not isinstance(value, dict) or not value.keys() <= set(known):
            raise ValueError(f"need a table of weights for {', '.join(known)}")
        if (
            not _are_numbers(list(value.values()))
            or min(value.values(), default=0) < 0
            or not sum(value.values())
        ):
            raise ValueError("need weights of at least 0, one of them more")
        return {name: float(weight) for name, weight in value.items()}

    return check


def _qualities(value: Any) -> tuple[tuple[float, ...], ...]:
    rows = value if isinstance(value, list | tuple) else []
    fine = rows and all(_are_numbers(row, count=3) for row in rows)
    if not fine or any(not 1 <= low <= high <= 100 or weight <= 0 for low, high, weight in rows):
        raise ValueError("need rows [lowest, highest, weight] of qualities from 1 to 100")
    return tuple(tuple(float(number) for number in row) for row in rows)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _are_numbers(values: Any, *, count: int | None = None) -> bool:
    if not isinstance(values, list | tuple) or (count is not None and len(values) != count):
        return False
    return all(map(_is_number, values))


@dataclass(frozen=True)
class Degradation:
    """What may happen to an lr picture, in this order, and how often.

    Attributes:
        clean: share of patches that stay as they are; the others draw all that follows.
        shrink: weights of the filters that make lr from hr, see `train.data.shrink.FILTERS`.
        blur: share that is blurred by a Gaussian before shrinking.
        blur_sigma: its deviation in lr pixels, drawn evenly.
        noise: share that gets Gaussian noise.
        noise_sigma: its deviation in levels of 255, drawn exponentially between these two.
        noise_mean: mean of that exponential distribution above the smaller one, before it is cut off.
        noise_grey: share of it that is the same in all channels.
        noise_signal: share whose variance is proportional to the level, as of photons.
        jpeg: share that is compressed as JPEG.
        jpeg_quality: rows [lowest, highest, weight] of Pillow's quality, drawn evenly in a row.
        jpeg_subsampling: weights of 4:4:4, 4:2:2 and 4:2:0.
        webp: share that is compressed as lossy WebP instead.
        webp_quality: like `jpeg_quality`.
        again: share of the compressed ones that is compressed a second time, with another quality and
            its grid of blocks shifted.
    """

    clean: float = 0.0
    shrink: dict[str, float] = field(default_factory=lambda: {"bicubic": 1.0})
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.0, 0.7)
    noise: float = 0.0
    noise_sigma: tuple[float, float] = (0.0, 8.0)
    noise_mean: float = 3.0
    noise_grey: float = 0.5
    noise_signal: float = 0.5
    jpeg: float = 0.0
    jpeg_quality: tuple[tuple[float, ...], ...] = (
        (20.0, 40.0, 0.15),
        (40.0, 70.0, 0.25),
        (70.0, 95.0, 0.5),
        (95.0, 100.0, 0.1),
    )
    jpeg_subsampling: dict[str, float] = field(
        default_factory=lambda: {"4:4:4": 0.2, "4:2:2": 0.1, "4:2:0": 0.7}
    )
    webp: float = 0.0
    webp_quality: tuple[tuple[float, ...], ...] = ((40.0, 95.0, 1.0),)
    again: float = 0.0

    def __post_init__(self) -> None:
        if self.jpeg + self.webp > 1:
            raise TrainingError(
                f"degradation: jpeg {self.jpeg} and webp {self.webp} are more than 1 together"
            )

    def to_json(self) -> str:
        """Return the description as one line of JSON, which `degradation_from` reads."""
        return json.dumps(asdict(self), separators=(",", ":"))

    def milder(self, strength: float) -> Degradation:
        """Return the description with this share, 0 to 1, of noise's variance and what qualities lack to 100.

        Blur stays, as it can be told from sharp edges. Of the patches that would be damaged, half of what the
        share lacks to 1 stays clean instead. If more stay clean, heavy noise is removed worse; if fewer do,
        clean pictures lose more. Some compressed patches keep their quality, and heavy noise only gets rarer,
        as people also choose strengths that are weaker than a picture needs.
        """
        if strength == 1:
            return self

        def nearer(rows: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
            moved = (
                (*(100 - strength * (100 - quality) for quality in span), (1 - _KEPT) * weight)
                for *span, weight in rows
            )
            return (*moved, *((*span, _KEPT * weight) for *span, weight in rows))

        low, high = self.noise_sigma
        root = strength**0.5  # the deviation's share
        return replace(
            self,
            clean=self.clean + (1 - strength) / 2 * (1 - self.clean),
            noise_sigma=(root * low, high),
            noise_mean=root * self.noise_mean,
            jpeg_quality=nearer(self.jpeg_quality),
            webp_quality=nearer(self.webp_quality),
        )

    def degraded(self, hr: Pixels, lr: Pixels, *, scale: int, rng: np.random.Generator) -> Pixels:
        """Draw a degradation and return its lr picture.

        Args:
            hr: (scale * H, scale * W, 3).
            lr: `hr` shrunk by MATLAB's bicubic, (H, W, 3).
            rng: all that is drawn comes from here.
        """
        if rng.random() < self.clean:
            return lr
        name = _drawn(self.shrink, rng)
        sigma = float(rng.uniform(*self.blur_sigma)) if rng.random() < self.blur else 0.0
        picture = lr
        if sigma or name != "bicubic":
            # 64 steps: equal blurs share their weights.
            picture = _rounded(shrink(hr, name, scale=scale, sigma=round(sigma * 64) / 64))
        if rng.random() < self.noise:
            picture = self._noisy(picture, rng)
        return self._compressed(picture, rng)

    def _noisy(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        low, high = self.noise_sigma
        cut_off = 1 - np.exp((low - high) / self.noise_mean)
        sigma = low - self.noise_mean * np.log(1 - rng.random() * cut_off)
        grey, signal = rng.random() < self.noise_grey, rng.random() < self.noise_signal
        height, width, channels = picture.shape
        noise = rng.standard_normal((height, width, 1 if grey else channels), np.float32) * np.float32(sigma)
        level = picture.astype(np.float32)
        return _rounded(level + (noise * np.sqrt(level / 127.5) if signal else noise))

    def _compressed(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        kind = rng.random()
        if kind >= self.jpeg + self.webp:
            return picture
        compressed = self._as_jpeg if kind < self.jpeg else self._as_webp
        picture = compressed(picture, rng)
        if rng.random() >= self.again:
            return picture
        top, left = (
            int(min(shift, side - 1))
            for shift, side in zip(rng.integers(GRID, size=2), picture.shape, strict=False)
        )
        twice = picture.copy()  # what the shifted grid leaves out keeps its first compression
        twice[top:, left:] = compressed(picture[top:, left:], rng)
        return twice

    def _as_jpeg(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        quality = _quality(self.jpeg_quality, rng)
        subsampling = _SUBSAMPLINGS[_drawn(self.jpeg_subsampling, rng)]
        return _recoded(picture, "JPEG", quality=quality, subsampling=subsampling)

    def _as_webp(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        return _recoded(picture, "WEBP", quality=_quality(self.webp_quality, rng), method=_WEBP_METHOD)


# "restore" is mild, as pictures on the web are: a network trained with worse ones answers with blur.
PRESETS: dict[str, Degradation] = {
    "restore": Degradation(
        clean=0.1,
        shrink={
            "bicubic": 0.4,
            "lanczos": 0.12,
            "area": 0.12,
            "bilinear": 0.12,
            "mitchell": 0.12,
            "linear-light": 0.12,
        },
        blur=0.25,
        noise=0.3,
        jpeg=0.65,
        webp=0.1,
        again=0.15,
    )
}

_CHECKS: dict[str, Check] = {
    "clean": _share,
    "shrink": _weights(FILTERS),
    "blur": _share,
    "blur-sigma": _span(0, _MAX_BLUR),
    "noise": _share,
    "noise-sigma": _span(0, _MAX_NOISE),
    "noise-mean": _positive,
    "noise-grey": _share,
    "noise-signal": _share,
    "jpeg": _share,
    "jpeg-quality": _qualities,
    "jpeg-subsampling": _weights(tuple(_SUBSAMPLINGS)),
    "webp": _share,
    "webp-quality": _qualities,
    "again": _share,
}


def degradation_from(words: Sequence[str]) -> Degradation | None:
    """Return the degradation that is described, None if nothing is.

    Args:
        words: each a name of `PRESETS`, a TOML file, JSON as `Degradation.to_json` writes it, or
            KEY=VALUE, which changes what came before.

    Raises:
        TrainingError: a file cannot be read; a key is unknown or has an impossible value.
    """
    table: dict[str, Any] = {}
    for word in words:
        if word in PRESETS:
            table = asdict(PRESETS[word])
        elif word.startswith("{"):
            table |= _checked(json.loads(word), where="degradation")
        elif "=" in word:
            key, _, text = word.partition("=")
            table |= _checked(_toml(f"value = {text}", where=f"--degrade {word}"), where="--degrade", key=key)
        else:
            table |= _table_of_file(Path(word))
    return Degradation(**table) if words else None


def _table_of_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TrainingError(
            f"{path}: neither a degradation file ({error.strerror}) nor a preset ({', '.join(PRESETS)})"
        ) from error
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path}: not a TOML file ({error})") from error
    content = _toml(text, where=str(path))
    base = content.pop("preset", None)
    if base is not None and base not in PRESETS:
        raise TrainingError(f"{path}: preset is {base!r}, need {' or '.join(PRESETS)}")
    return (asdict(PRESETS[base]) if base else {}) | _checked(content, where=str(path))


def _toml(text: str, *, where: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"{where}: not TOML ({error})") from error


def _checked(content: dict[str, Any], *, where: str, key: str = "") -> dict[str, Any]:
    """Return the values by field name; `key` names the only one, if it is not in `content`."""
    table = {}
    for name, value in content.items():
        name = (key or name).strip().replace("_", "-")
        if name not in _CHECKS:
            raise TrainingError(f"{where}: unknown key {name!r}{suggestion(name, _CHECKS)}")
        try:
            table[name.replace("-", "_")] = _CHECKS[name](value)
        except ValueError as error:
            raise TrainingError(f"{where}: {name} is {value!r}, {error}") from error
    return table


def _drawn(weights: dict[str, float], rng: np.random.Generator) -> str:
    """Draw a name by its weight."""
    point = rng.random() * sum(weights.values())
    for name, weight in weights.items():
        point -= weight
        if point < 0:
            return name
    return name


def _quality(rows: tuple[tuple[float, ...], ...], rng: np.random.Generator) -> int:
    low, high, _ = rows[int(_drawn({str(i): row[2] for i, row in enumerate(rows)}, rng))]
    return int(rng.integers(int(low), int(high), endpoint=True))


def _recoded(picture: Pixels, kind: str, **settings: Any) -> Pixels:
    """Return what is left of a picture after a lossy format."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **settings)
    with Image.open(buffer, formats=(kind,)) as image:
        return np.asarray(image.convert("RGB"))


def _rounded(picture: NDArray[np.float32]) -> Pixels:
    return np.clip(np.floor(picture + 0.5), 0, 255).astype(np.uint8)
