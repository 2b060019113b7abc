"""Metadata for an output format: kept, moved to another place, or lost with a note.

This is the one mechanism for all formats. `FormatSpec.capacity` says what each can hold; writers write all
metadata that they get.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sr.image.comments import with_user_comment
from sr.image.formats.spec import FormatSpec
from sr.image.metadata import Metadata, is_grey_profile

# Programs write these where nobody has measured anything.
_MADE_UP_DPI = (72, 96)
# 1 / 2.2, in the unit of a PNG's gAMA chunk: near enough to sRGB's curve (PNG specification, section 13.13).
_SRGB_GAMMA = 45_455
COMMENT = "Comment"  # the keyword of texts without one, PNG specification, section 11.3.3.1


def fitted_metadata(metadata: Metadata, spec: FormatSpec) -> tuple[Metadata, tuple[str, ...]]:
    """Return the metadata that a format can hold, and notes about the rest."""
    lost: list[str] = []
    kept = _with_text_in_its_place(metadata, spec, lost)
    for kind, size, title, empty in _parts(kept, spec):
        capacity = spec.capacity.get(kind, 0)
        if size == 0 or size <= capacity:
            continue
        kept = replace(kept, **empty)
        reason = "" if capacity == 0 else f", which holds {capacity:,} bytes of it, not {size:,}"
        lost.append(f"{title} is lost in {spec.name}{reason}")
    if _colours_are_lost(metadata, spec):
        lost.append(f"the colour description of the PNG (gAMA or cICP) is lost in {spec.name}")
    return kept, tuple(lost)


def _parts(metadata: Metadata, spec: FormatSpec) -> list[tuple[str, int, str, dict[str, Any]]]:
    """Return each kind of metadata with its size in bytes, a name for people, and how it is emptied."""
    profile, dpi = metadata.icc_profile, metadata.dpi
    profile_size = len(profile or b"")
    if profile is not None and is_grey_profile(profile) and not spec.grey:
        profile_size = max(profile_size, spec.capacity.get("icc", 0) + 1)
    stated = dpi is not None and metadata.exif is None and any(round(x) not in _MADE_UP_DPI for x in dpi)
    return [
        ("icc", profile_size, "the colour profile (ICC)", {"icc_profile": None}),
        ("exif", len(metadata.exif or b""), "the EXIF data", {"exif": None}),
        ("xmp", len(metadata.xmp or b""), "the XMP data", {"xmp": None}),
        ("iptc", len(metadata.iptc or b""), "the IPTC data", {"iptc": None}),
        ("geo", int(metadata.geo is not None), "the georeference", {"geo": None}),
        ("aspect", int(metadata.aspect is not None), "the pixel aspect ratio", {"aspect": None}),
        ("dpi", int(stated), f"the resolution of {dpi and round(dpi[0])} dpi", {"dpi": None}),
    ]


def _with_text_in_its_place(metadata: Metadata, spec: FormatSpec, lost: list[str]) -> Metadata:
    """Leave texts where a format holds them, else put them into EXIF data."""
    size = sum(len(text.encode()) for _, text in metadata.text)
    if not metadata.text or size <= spec.capacity.get("text", 0):
        return metadata
    comments = tuple(text for keyword, text in metadata.text if keyword == COMMENT)
    others = tuple((keyword, text) for keyword, text in metadata.text if keyword != COMMENT)
    if comments and not others and sum(map(len, comments)) <= spec.capacity.get("comment", 0):
        return metadata
    joined = metadata.text[0][1]
    if len(metadata.text) > 1:
        joined = "\n".join(f"{keyword}: {text}" for keyword, text in metadata.text)
    exif = with_user_comment(metadata.exif, joined) if spec.capacity.get("exif", 0) else None
    if exif is not None and len(exif) <= spec.capacity["exif"]:
        return replace(metadata, exif=exif, text=())
    keywords = ", ".join(dict.fromkeys(keyword for keyword, _ in metadata.text))
    lost.append(f"text ({keywords}) is lost in {spec.name}")
    return replace(metadata, text=())


def _colours_are_lost(metadata: Metadata, spec: FormatSpec) -> bool:
    """Say whether a PNG stated other colours than sRGB in a way that a format has no place for."""
    if spec.capacity.get("png", 0):
        return False
    chunks = dict(metadata.png_chunks)
    gamma = int.from_bytes(chunks.get(b"gAMA", b""), "big") or _SRGB_GAMMA
    untagged = metadata.icc_profile is None and b"sRGB" not in chunks
    return b"cICP" in chunks or (untagged and abs(gamma - _SRGB_GAMMA) > 1000)
