"""Where answers about files of other programs are kept."""

from __future__ import annotations

from pathlib import Path


def cache_folder() -> Path:
    """Return the folder in the user's cache folder."""
    import platformdirs

    return Path(platformdirs.user_cache_path("srup")) / "models"
