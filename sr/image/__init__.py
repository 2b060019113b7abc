"""Picture file <-> array.

`file` reads and writes whole files. `picture` is what a picture is, `decode` and `arrays` make it from a
file, `formats` says what an output format can hold, `encode`, `animate` and `deep` write stills,
animations and 16 bits, `metadata` keeps EXIF, XMP and ICC data right, `alpha` prepares transparency.
`png`, `gif`, `tiff` and `avif` know what only those formats have.
"""

from sr.image.alpha import bleed_under_transparency, within_neighbours
from sr.image.decode import PictureSequence
from sr.image.file import (
    DEFAULT_MAX_PIXELS,
    PICTURE_SUFFIXES,
    check_output,
    open_picture,
    read_picture,
    spooled,
    suffix_for_several,
    write_picture,
    write_sequence,
)
from sr.image.formats import (
    OUTPUT_FORMATS,
    OutputFormat,
    WriteOptions,
    refuse_unconcerned,
    write_options,
)
from sr.image.metadata import Metadata
from sr.image.picture import Frame, Picture

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "OUTPUT_FORMATS",
    "PICTURE_SUFFIXES",
    "Frame",
    "Metadata",
    "OutputFormat",
    "Picture",
    "PictureSequence",
    "WriteOptions",
    "bleed_under_transparency",
    "check_output",
    "open_picture",
    "read_picture",
    "refuse_unconcerned",
    "spooled",
    "suffix_for_several",
    "within_neighbours",
    "write_options",
    "write_picture",
    "write_sequence",
]
