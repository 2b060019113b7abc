"""16 bits per channel: the pixels of PNG and TIFF files through libvips, the `vips` extra.

Pillow reduces 16-bit colour to 8 bits. Of libvips only its codecs are used; metadata are ours, so
that they stay byte for byte what they were.
"""

from __future__ import annotations

import logging
import os
from io import FileIO
from typing import Any, BinaryIO

import numpy as np

from sr.errors import ImageError, require_extra
from sr.image.formats import PNG, OutputFormat, WriteOptions
from sr.image.formats.png import ChunkSplicer, metadata_chunks
from sr.image.formats.tiff import (
    ICC_PROFILE,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    Y_RESOLUTION,
    TiffPage,
    resolution_tags,
)
from sr.image.metadata import Entry, TiffReader, add_to_tiff, is_grey_profile, resized_exif
from sr.image.picture import Picture, Samples

TIFF_COMPRESSIONS_OF_VIPS = {"tiff_lzw": "lzw", "tiff_adobe_deflate": "deflate", None: "none"}
_ALL_PNG_FILTERS = 0xF8  # libvips takes each row's best; without filters 16 bits hardly compress
_UNDEFINED = 7


def vips_library(purpose: str) -> Any:
    """Import pyvips, quiet and without a cache of what it has done."""
    require_extra("vips", "pyvips", purpose=purpose)
    logging.getLogger("pyvips").addHandler(logging.NullHandler())  # what matters comes as an exception
    try:
        import pyvips
    except (ImportError, OSError) as error:  # the Python package is there, the library is not
        reason = " ".join(str(error).split())
        raise ImageError(
            f'{purpose} needs libvips, which does not load ({reason}); pip install "srup[vips]"'
        ) from error
    pyvips.cache_set_max(0)
    return pyvips


def read_deep(file: BinaryIO, name: str, page: TiffPage | None) -> tuple[Samples, Samples | None]:
    """Read uint16 pixels (H, W, 3) or (H, W), and alpha (H, W) or None.

    Args:
        file: a PNG, or a TIFF of which `page` is read.
        name: of the file, for the error.
        page: of the TIFF, or None for a PNG.

    Raises:
        ImageError: the file is damaged.
        MissingExtraError: pyvips is not installed.
    """
    vips = vips_library(f"{name}: reading 16 bits per channel")
    descriptor = file.fileno()
    position = os.lseek(descriptor, 0, os.SEEK_CUR)  # on which what `file` has buffered goes on
    os.lseek(descriptor, 0, os.SEEK_SET)
    source = vips.Source.new_from_descriptor(descriptor)
    try:
        options = {"access": "sequential", "fail_on": "error"}
        if page is None:
            image = vips.Image.pngload_source(source, **options)
        else:
            image = vips.Image.tiffload_source(source, page=page.index, **options)
        if image.format != "ushort" or not 1 <= image.bands <= 4:
            raise ImageError(
                f"{name}: {image.bands} channels of type {image.format}, need 16-bit grey or RGB; "
                "convert it first"
            )
        samples = np.frombuffer(image.write_to_memory(), np.uint16)
    except vips.Error as error:
        reason = " ".join(str(error).split())
        kind = "PNG" if page is None else "TIFF"
        raise ImageError(f"{name}: damaged or truncated {kind} ({reason}); get an intact copy") from error
    finally:
        os.lseek(descriptor, position, os.SEEK_SET)
    samples = samples.reshape(image.height, image.width, image.bands)
    colours = 1 if image.bands < 3 else 3
    pixels = samples[..., :colours] if colours == 3 else samples[..., 0]
    alpha = np.ascontiguousarray(samples[..., -1]) if image.bands in (2, 4) else None
    return np.ascontiguousarray(pixels), alpha  # libvips has divided premultiplied colours by alpha


def write_deep(file: FileIO | BinaryIO, picture: Picture, kind: OutputFormat, options: WriteOptions) -> None:
    """Write a picture of 16 bits per channel as PNG or TIFF, with its metadata.

    Raises:
        MissingExtraError: pyvips is not installed.
        OSError: the file cannot be written.
    """
    vips = vips_library("writing 16 bits per channel")
    image = _vips_image(vips, picture)
    try:
        if kind is PNG:
            _write_png(vips, image, file, picture, options)
        else:
            target = vips.Target.new_to_descriptor(file.fileno())
            compression = TIFF_COMPRESSIONS_OF_VIPS[options.tiff_compression]
            image.tiffsave_target(target, compression=compression, predictor="horizontal", keep="none")
            _add_tiff_metadata(file, picture)
    except vips.Error as error:
        raise OSError(" ".join(str(error).split())) from error


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


def _write_png(vips: Any, image: Any, file: Any, picture: Picture, options: WriteOptions) -> None:
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
        image.pngsave_target(target, compression=options.png_level, filter=_ALL_PNG_FILTERS, keep="none")
    except vips.Error:
        if failure:
            raise failure[0] from None
        raise
    if failure:
        raise failure[0]


def _add_tiff_metadata(file: Any, picture: Picture) -> None:
    """Put in what belongs to the picture in place of the resolution that libvips makes up."""
    metadata = picture.metadata
    exif = metadata.exif and resized_exif(metadata.exif, height=picture.height, width=picture.width)
    reader = TiffReader(file)
    tags = resolution_tags(metadata.dpi, order=reader.order)
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
