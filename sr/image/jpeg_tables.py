"""The luma quantisation tables of libjpeg, and which of them another table is like."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# ISO 10918-1, table K.1, in the order of its rows; libjpeg scales it.
_LUMA = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ]
)
QUALITIES = np.arange(1, 101)
_PERCENT = np.where(QUALITIES < 50, 5000 // QUALITIES, 200 - 2 * QUALITIES)  # jcparam.c, jpeg_quality_scaling
LUMA_TABLES = np.clip((_PERCENT[:, None] * _LUMA + 50) // 100, 1, 255)  # (100, 64), by quality
# Tables that fit worse than this, as a share of their size, are not libjpeg's (Photoshop's, cameras' own).
_FITTING = 0.1


def libjpeg_quality(table: NDArray[np.int64]) -> tuple[float, bool]:
    """Return the quality whose luma table is nearest by least squares, and whether it is near.

    Args:
        table: 64 values in rows.
    """
    errors = ((LUMA_TABLES - np.minimum(table, 255)) ** 2).sum(1)
    best = len(errors) - 1 - int(errors[::-1].argmin())  # of equal ones the finest
    return float(QUALITIES[best]), bool(errors[best] <= _FITTING**2 * (table.astype(float) ** 2).sum())
