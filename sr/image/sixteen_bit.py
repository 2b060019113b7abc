"""Pictures of 16 bits per channel -> PNG and TIFF files, through libvips.

Pillow reduces 16-bit colour to 8 bits. Only the codecs of libvips are used; metadata are read and written
here, so that they stay byte for byte what they were.
"""

from __future__ import annotations

import errno
import os
from typing import Any, BinaryIO

import numpy as np

from sr.image.directories import Entry, TiffReader
from sr.image.formats.options import WriteOptions
from sr.image.formats.png_chunks import ChunkSplicer, metadata_chunks
from sr.image.formats.tiff_pages import (
    ICC_PROFILE,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    Y_RESOLUTION,
)
from sr.image.formats.tiff_tags import descriptive_tags
from sr.image.metadata import add_to_tiff, is_grey_profile, resized_exif
from sr.image.picture import Picture
from sr.image.refusals import EncoderError, refusal_of_encoder
from sr.image.vips import REDUCE, vips_library

TIFF_COMPRESSIONS_OF_VIPS = {"tiff_lzw": "lzw", "tiff_adobe_deflate": "deflate", None: "none"}
_ALL_PNG_FILTERS = 0xF8  # libvips takes each row's best; without filters 16 bits hardly compress
_UNDEFINED = 7


def write_sixteen_bit_tiff(file: BinaryIO, picture: Picture, options: WriteOptions) -> None:
    """Write a TIFF with 16 bits per channel and its metadata.

    Args:
        file: with a descriptor.
        picture: uint16.
        options: the compression is taken.

    Raises:
        MissingExtraError: pyvips is not installed.
        OSError: the file cannot be written.
        EncoderError: libvips refuses the picture.
    """
    vips = vips_library("writing 16 bits per channel", alternative=REDUCE)
    target = vips.Target.new_to_descriptor(file.fileno())
    compression = TIFF_COMPRESSIONS_OF_VIPS[options.tiff_compression]
    try:
        _vips_image(vips, picture).tiffsave_target(
            target, compression=compression, predictor="horizontal", keep="none"
        )
    except vips.Error as error:
        raise _failure(error, "TIFF") from error
    _add_tiff_metadata(file, picture)


def write_sixteen_bit_png(file: BinaryIO, picture: Picture, options: WriteOptions) -> None:
    """Write a PNG with 16 bits per channel and its metadata.

    Args:
        file: where to.
        picture: uint16.
        options: the level is taken.

    Raises:
        MissingExtraError: pyvips is not installed.
        OSError: the file cannot be written.
        EncoderError: libvips refuses the picture.
    """
    vips = vips_library("writing 16 bits per channel", alternative=REDUCE)
    chunks = metadata_chunks(picture.metadata, height=picture.height, width=picture.width)
    splicer = ChunkSplicer(file.write, chunks)
    failure: list[OSError] = []

    def on_write(data: Any) -> int:
        try:
            splicer.write(bytes(data))
        except OSError as error:  # an exception cannot pass through libvips
            failure.append(error)
            return -1
        return len(data)

    target = vips.TargetCustom()
    target.on_write(on_write)
    try:
        _vips_image(vips, picture).pngsave_target(
            target, compression=options.png_level, filter=_ALL_PNG_FILTERS, keep="none"
        )
    except vips.Error as error:
        raise failure[0] if failure else _failure(error, "PNG") from error
    if failure:
        raise failure[0]


def _failure(error: Exception, format_name: str) -> Exception:
    """Return why libvips could not write: what the system said, or that the encoder refuses the picture."""
    for number in errno.errorcode:
        if f"system error: {os.strerror(number)}\n" in f"{error}\n":
            return OSError(number, os.strerror(number))
    return EncoderError(refusal_of_encoder(format_name))


def _vips_image(vips: Any, picture: Picture) -> Any:
    """Wrap the arrays; grey with an RGB profile becomes RGB, as with 8 bits."""
    pixels, profile = picture.pixels, picture.metadata.icc_profile
    if picture.grey and profile is not None and not is_grey_profile(profile):
        pixels = np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
    samples = pixels if picture.alpha is None else np.dstack((pixels, picture.alpha))
    samples = np.ascontiguousarray(samples)
    bands = 1 if samples.ndim == 2 else samples.shape[2]
    image = vips.Image.new_from_memory(samples.data, picture.width, picture.height, bands, "ushort")
    return image.copy(interpretation="rgb16" if bands > 2 else "grey16")


def _add_tiff_metadata(file: Any, picture: Picture) -> None:
    """Put in what belongs to the picture in place of the resolution that libvips makes up."""
    metadata = picture.metadata
    exif = metadata.exif and resized_exif(metadata.exif, height=picture.height, width=picture.width)
    reader = TiffReader(file)
    tags = descriptive_tags(metadata, height=picture.height, width=picture.width, order=reader.order)
    if metadata.icc_profile is not None:
        tags[ICC_PROFILE] = Entry(_UNDEFINED, metadata.icc_profile)
    add_to_tiff(
        file,
        exif=exif,
        xmp=metadata.xmp,
        iptc=metadata.iptc,
        tags=tags,
        dropped=(X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT),
    )
