"""Picture file <-> array.

`read` and `write` handle whole files, `rgb` any picture as 8-bit RGB. `formats` has one `FormatSpec` for
each file format, `content` tells it from the first bytes. `decode` makes `picture`s from a `source`,
`encode` and `animate` write through Pillow, `sixteen_bit` through libvips. `metadata` keeps EXIF, XMP and
ICC data right, `alpha` prepares transparency, `bands` reads pictures that exceed the memory.

Names are loaded when they are first used: numpy and Pillow take longer to import than `srup --help` may.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sr.image.alpha import bleed_under_transparency, within_neighbours
    from sr.image.content import identify, is_picture, multi_image_suffix
    from sr.image.decode import PictureSequence
    from sr.image.formats import (
        FORMATS,
        format_of_suffix,
        read_suffixes,
        refuse_unconcerned,
        write_options,
        write_suffixes,
    )
    from sr.image.formats.options import WriteOptions
    from sr.image.formats.spec import FormatSpec
    from sr.image.metadata import Metadata
    from sr.image.picture import Frame, Picture, Pixels
    from sr.image.read import DEFAULT_MAX_PIXELS, open_picture, read_picture, spooled
    from sr.image.rgb import read_rgb
    from sr.image.write import check_output, write_picture, write_sequence

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "FORMATS",
    "FormatSpec",
    "Frame",
    "Metadata",
    "Picture",
    "PictureSequence",
    "Pixels",
    "WriteOptions",
    "bleed_under_transparency",
    "check_output",
    "format_of_suffix",
    "identify",
    "is_picture",
    "multi_image_suffix",
    "open_picture",
    "read_picture",
    "read_rgb",
    "read_suffixes",
    "refuse_unconcerned",
    "spooled",
    "within_neighbours",
    "write_options",
    "write_picture",
    "write_sequence",
    "write_suffixes",
]

_MODULES = {
    "alpha": ("bleed_under_transparency", "within_neighbours"),
    "decode": ("PictureSequence",),
    "formats": (
        *("FORMATS", "format_of_suffix", "read_suffixes", "refuse_unconcerned"),
        *("write_options", "write_suffixes"),
    ),
    "formats.options": ("WriteOptions",),
    "formats.spec": ("FormatSpec",),
    "content": ("identify", "is_picture", "multi_image_suffix"),
    "metadata": ("Metadata",),
    "picture": ("Frame", "Picture", "Pixels"),
    "read": ("DEFAULT_MAX_PIXELS", "open_picture", "read_picture", "spooled"),
    "rgb": ("read_rgb",),
    "write": ("check_output", "write_picture", "write_sequence"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load what is asked for."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value  # not asked for again
        return value
