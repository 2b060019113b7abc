"""How strongly a picture is restored: as asked for, or chosen from what its file and its pixels say."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sr.errors import ModelError
from sr.image.compression import LOSSLESS, Compression, traces_in
from sr.image.picture import Pixels, Restoration
from sr.network.pair import Partner, Restores, partner_of

Restore = float | Literal["auto"]


def pair_for(model: Path, restore: Restore | None) -> Partner | None:
    """Return the partner with which a model file restores, or None.

    Args:
        model: ONNX or safetensors.
        restore: strength, or "auto"; None is "auto" for models that have a partner.

    Raises:
        ModelError: the strength is not from 0 to 1; or restoration is asked for, and there is no partner
            for it.
    """
    if restore is not None and restore != "auto" and not 0 <= restore <= 1:
        raise ModelError(f"restore is {restore:g}, need a strength from 0 to 1, or auto")
    if restore == 0:
        return None
    try:
        return partner_of(model, restore if isinstance(restore, float | int) else 1.0)
    except ModelError:
        if restore is None:
            return None
        raise


def chosen(restores: Restores, compression: Compression | None, pixels: Pixels) -> Restoration:
    """Return the strength for a picture, and the reason.

    Args:
        restores: the measured table of a pair.
        compression: what its file says; None if there is no file.
        pixels: (H, W) or (H, W, 3).
    """
    found = LOSSLESS if compression is None else compression
    if found == LOSSLESS:
        found = traces_in(pixels)
    why = str(found)
    if found.quality is None and found.kind in restores.assumed:
        why += f", taken as {restores.assumed[found.kind]:g}"
    kind = "jpeg" if found.kind == "blocks" else found.kind
    return Restoration(restores.strength(kind, found.quality), why)
