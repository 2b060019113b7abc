"""The discrete cosine transform of blocks, as JPEG has it.

Without BLAS: its first call takes 32 MiB of address space, and a tile may need them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 8  # px of a block


def block_dct(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the coefficients of blocks, (N, 64), in the scale of a JPEG's tables; noise keeps its size.

    Args:
        blocks: (N, 8, 8).
    """
    at = np.arange(SIDE)
    cosines = np.cos((2 * at + 1) * at[:, None] * np.pi / (2 * SIDE)) / 2
    cosines[0] /= np.sqrt(2)
    basis = cosines.astype(np.float32)
    rows = np.einsum("nyx,fx->nyf", blocks, basis)
    coefficients: NDArray[np.float32] = np.einsum("nyf,gy->ngf", rows, basis).reshape(-1, SIDE * SIDE)
    return coefficients
