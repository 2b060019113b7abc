"""Tags of a TIFF that describe a picture beside EXIF, XMP and IPTC data."""

from __future__ import annotations

import struct

from sr.image.directories import Entry, Tags
from sr.image.formats.tiff_pages import RESOLUTION_UNIT, X_RESOLUTION, Y_RESOLUTION, resolution_tags
from sr.image.geo import resized_geo_tags
from sr.image.metadata import Metadata, whole_ratio

_SHORT, _RATIONAL = 3, 5
_MOST = (1 << 32) - 1  # of a LONG
_NO_UNIT = 1  # of ResolutionUnit: only the ratio counts


def descriptive_tags(metadata: Metadata, *, height: int, width: int, order: str) -> Tags:
    """Return resolution or aspect, and georeference, for a picture of this size."""
    tags = resolution_tags(metadata.dpi, order=order)
    if metadata.aspect is not None and metadata.dpi is None:
        x, y = (
            Entry(_RATIONAL, struct.pack(order + "II", number, 1))
            for number in whole_ratio(metadata.aspect, most=_MOST)
        )
        unit = Entry(_SHORT, struct.pack(order + "H", _NO_UNIT))
        tags = {X_RESOLUTION: x, Y_RESOLUTION: y, RESOLUTION_UNIT: unit}
    if metadata.geo is not None:
        tags |= resized_geo_tags(metadata.geo, height=height, width=width, order=order)
    return tags
