"""libvips, through the package pyvips of the extra `vips`."""

from __future__ import annotations

import logging
from typing import Any

from sr.errors import ImageError, require_extra


def vips_library(purpose: str) -> Any:
    """Import pyvips without its log messages and its cache of operations.

    Raises:
        MissingExtraError: it is not installed.
        ImageError: it is installed, but libvips does not load.
    """
    require_extra("vips", "pyvips", purpose=purpose)
    logging.getLogger("pyvips").addHandler(logging.NullHandler())  # errors come as exceptions
    try:
        import pyvips
    except (ImportError, OSError) as error:  # without the library
        reason = " ".join(str(error).split())
        raise ImageError(
            f'{purpose} needs libvips, which does not load ({reason}); pip install "srup[vips]"'
        ) from error
    pyvips.cache_set_max(0)
    return pyvips
