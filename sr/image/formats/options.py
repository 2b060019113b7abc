"""`WriteOptions`: how pictures are encoded, with defaults and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# zlib level. Level 1 is made by `sr.image.deflate`, which has its figures. The others are Pillow's: of a
# bicubic x3 of Kodak's kodim05 (1530x1017), Pillow 13 with zlib-ng, one core, it makes at level 2: 2.16 MB
# in 0.17 s, 3: 2.10 MB in 0.22 s, 6: 2.00 MB in 0.63 s, 9: 1.96 MB in 2.2 s.
DEFAULT_PNG_LEVEL = 1

# The same picture as lossy WebP: 0.32 MB in 0.10 s.
DEFAULT_QUALITY = 95
# AV1 at 90 without chroma subsampling differs from its source by 46 dB, as JPEG does at 95
# (1401x789, libavif 1.4.2 with aom, speed 8: 0.17 MB in 0.6 s; speed 6: 0.15 MB in 2.0 s).
DEFAULT_AVIF_QUALITY = 90

SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
# Name on the command line -> Pillow's.
TIFF_COMPRESSIONS: Mapping[str, str | None] = {
    "lzw": "tiff_lzw",
    "deflate": "tiff_adobe_deflate",
    "none": None,
}


@dataclass(frozen=True)
class WriteOptions:
    """How pictures are encoded; each format takes what concerns it."""

    png_level: int = DEFAULT_PNG_LEVEL  # 0 (fast) to 9 (small)
    jpeg_quality: int = DEFAULT_QUALITY  # 0 to 100
    webp_lossless: bool = True
    webp_quality: int = DEFAULT_QUALITY  # 0 to 100, if not lossless
    avif_quality: int = DEFAULT_AVIF_QUALITY  # 0 to 100
    subsampling: str = "4:4:4"  # of the chroma in JPEG and AVIF, one of SUBSAMPLINGS
    tiff_compression: str | None = "tiff_lzw"  # or "tiff_adobe_deflate", or None
    # 8 reduces 16 bits per channel, None keeps them. Not in the text of the options: ledgers of runs before
    # it was an option hold that.
    depth: int | None = field(default=None, repr=False)
