"""libvips, through the package pyvips of the extra `vips`."""

from __future__ import annotations

import importlib.util
import logging
import os
from typing import Any, BinaryIO

import numpy as np

from sr.errors import ImageError, require_extra
from sr.image.picture import Pixels
from sr.image.refusals import complaint
from sr.memory import require_address_space

REDUCE = "reduce the picture to 8 bits per channel with --depth 8"

# GLib ends the process where it cannot allocate a few bytes. Each thread of libvips may take 64 MiB (glibc).
_ROOM_BYTES = 256 * 2**20

_DTYPES = {"uchar": np.uint8, "ushort": np.uint16}
_INTERPRETATIONS = ("b-w", "grey16", "srgb", "rgb16", "rgb", "multiband")


def vips_library(purpose: str, *, alternative: str = "") -> Any:
    """Import pyvips without its log messages and its cache of operations.

    Raises:
        MissingExtraError: it is not installed.
        ImageError: it is installed, but libvips does not load.
        MemoryError: a limit of the address space leaves too little for it.
    """
    require_extra("vips", "pyvips", purpose=purpose, alternative=alternative)
    logging.getLogger("pyvips").addHandler(logging.NullHandler())  # errors come as exceptions
    try:
        import pyvips
    except (ImportError, OSError) as error:  # without the library
        reason = " ".join(str(error).split())
        raise ImageError(
            f'{purpose} needs libvips, which does not load ({reason}); pip install "srup[vips]"'
            + (f", or {alternative}" if alternative else "")
        ) from error
    pyvips.cache_set_max(0)
    require_address_space(_ROOM_BYTES)
    return pyvips


def vips_is_installed() -> bool:
    """Say whether pyvips can be imported, without doing so."""
    return importlib.util.find_spec("pyvips") is not None


def read_with_vips(
    file: BinaryIO,
    name: str,
    format_name: str,
    *,
    loader: str,
    subject: str,
    alternative: str = "",
    **options: Any,
) -> tuple[Pixels, Pixels | None]:
    """Read uint8 or uint16 pixels (H, W, 3) or (H, W), and alpha (H, W) or None; not turned upright.

    Args:
        file: with a descriptor.
        name: of the file, for messages.
        format_name: e.g. "TIFF".
        loader: libvips' function.
        subject: what is special about the file, e.g. "16 bits per channel".
        alternative: what to do if pyvips is not installed, for the message.
        options: of the loader.

    Raises:
        ImageError: the file is damaged, or of a variant that libvips does not know.
        MissingExtraError: pyvips is not installed.
    """
    vips = vips_library(f"{name}: reading {subject}", alternative=alternative)
    descriptor = file.fileno()
    position = os.lseek(descriptor, 0, os.SEEK_CUR)  # where the buffer of `file` continues
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        source = vips.Source.new_from_descriptor(descriptor)
        image = getattr(vips.Image, loader)(source, access="sequential", fail_on="error", **options)
        if (
            image.format not in _DTYPES
            or image.interpretation not in _INTERPRETATIONS
            or not 1 <= image.bands <= 4
        ):
            raise ImageError(
                f"{name}: {image.bands} channels of type {image.format}, need grey or RGB of 8 or 16 bits; "
                "convert it first"
            )
        samples = np.frombuffer(image.write_to_memory(), _DTYPES[image.format])
    except vips.Error as error:
        raise ImageError(f"{name}: {complaint(error, format_name, subject)}") from error
    finally:
        os.lseek(descriptor, position, os.SEEK_SET)
    samples = samples.reshape(image.height, image.width, image.bands)
    pixels = samples[..., :3] if image.bands > 2 else samples[..., 0]
    alpha = np.ascontiguousarray(samples[..., -1]) if image.bands in (2, 4) else None
    return np.ascontiguousarray(pixels), alpha  # libvips has divided premultiplied colours by alpha
