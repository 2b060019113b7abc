"""Where on Earth the pixels of a GeoTIFF lie. OGC GeoTIFF 1.1, sections 7 and 8."""

from __future__ import annotations

import struct

import numpy as np

from sr.image.directories import Entry, Tags, TiffReader, swapped
from sr.image.metadata import GeoReference

_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _GEO_KEYS = 33550, 33922, 34264, 34735
# The parameters of the keys, and what GDAL keeps beside them.
GEO_TAGS = frozenset({_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _GEO_KEYS, 34736, 34737, 42112, 42113})
_DOUBLE = 12
_RASTER_TYPE, _PIXEL_IS_POINT = 1025, 2  # a key: coordinates mean centres of pixels, not their corners


def geo_reference(reader: TiffReader, tags: Tags, *, height: int, width: int) -> GeoReference | None:
    """Return the georeference of a page of this size from its tags; None if there is none."""
    found = {tag: entry for tag, entry in tags.items() if tag in GEO_TAGS and isinstance(entry, Entry)}
    if not {_PIXEL_SCALE, _TRANSFORMATION, _GEO_KEYS} & found.keys():
        return None
    return GeoReference(reader.order, found, height, width)


def resized_geo_tags(geo: GeoReference, *, height: int, width: int, order: str) -> Tags:
    """Return the tags for a picture that was enlarged to this size, in the byte order of its file.

    The size of a pixel is divided by the factor, and tie points move with their pixels.
    """
    across, down = width / geo.width, height / geo.height
    half = 0.5 if _is_point(geo) else 0.0
    changed: dict[int, Entry] = {}
    for tag, values in ((tag, _doubles(geo, tag)) for tag in (_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION)):
        if tag == _PIXEL_SCALE and len(values) >= 2:
            values[:2] /= across, down
        elif tag == _TIE_POINTS and len(values) % 6 == 0:
            values[0::6] = (values[0::6] + half) * across - half
            values[1::6] = (values[1::6] + half) * down - half
        elif tag == _TRANSFORMATION and len(values) == 16:
            matrix = values.reshape(4, 4)
            # What was at (i, j) is at ((i + half) * across - half, (j + half) * down - half).
            matrix[:, 3] += matrix[:, 0] * (half / across - half) + matrix[:, 1] * (half / down - half)
            matrix[:, 0] /= across
            matrix[:, 1] /= down
        else:
            continue
        changed[tag] = Entry(_DOUBLE, struct.pack(f"{geo.order}{len(values)}d", *values))
    return swapped({**geo.tags, **changed}, source=geo.order, order=order)


def _doubles(geo: GeoReference, tag: int) -> np.ndarray:
    entry = geo.tags.get(tag)
    if entry is None or entry.kind != _DOUBLE:
        return np.empty(0)
    return np.frombuffer(entry.data, f"{geo.order}f8").astype(float)


def _is_point(geo: GeoReference) -> bool:
    keys = geo.tags.get(_GEO_KEYS)
    if keys is None or keys.kind != 3:
        return False
    numbers = np.frombuffer(keys.data, f"{geo.order}u2")[4:]
    rows = numbers[: len(numbers) // 4 * 4].reshape(-1, 4).tolist()
    return [_RASTER_TYPE, 0, 1, _PIXEL_IS_POINT] in rows
