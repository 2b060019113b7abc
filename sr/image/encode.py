"""Pictures of 8 bits -> Pillow's encoders, with the metadata that the format can hold."""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from sr.image.formats import AVIF, GIF, JPEG, PNG, TIFF, WEBP, OutputFormat, WriteOptions
from sr.image.formats.png import metadata_chunks, write_png
from sr.image.metadata import add_to_tiff, is_grey_profile, resized_exif, without_orientation
from sr.image.picture import Picture, Samples

# A bicubic x3 of Kodak's kodim05 (1530x1017) as lossless WebP, Pillow 13, one core: method 0 at effort 0:
# 1.68 MB in 0.11 s, method 4 at 0: 1.28 MB in 0.35 s, method 4 at 80, which Pillow takes: 1.27 MB in 1.4 s.
_WEBP_LOSSLESS = {"lossless": True, "exact": True, "method": 0, "quality": 0}
_WEBP_LOSSY_METHOD = 2  # at quality 95 half the time of method 4, for the same size
_AVIF_SPEED = 8  # see DEFAULT_AVIF_QUALITY

# The same picture as TIFF: uncompressed 4.67 MB, LZW with differences 2.47 MB in 0.08 s (5.09 MB without),
# deflate with differences 2.29 MB in 0.36 s.
_TIFF_PREDICTOR, _DIFFERENCES = 317, 2
# libtiff's result is held in memory before it is written, and its size is not known beforehand.
_LARGEST_COMPRESSED_TIFF = 1 << 30

_APP13 = b"\xff\xed"
_PHOTOSHOP, _IPTC_RESOURCE = b"Photoshop 3.0\0", 0x0404
_LARGEST_SEGMENT = 65_533


def encode(file: BinaryIO, picture: Picture, kind: OutputFormat, options: WriteOptions) -> None:
    """Encode a picture of 8 bits per channel."""
    samples = _samples(picture, kind)
    if kind is PNG:
        chunks = metadata_chunks(picture.metadata, height=picture.height, width=picture.width)
        write_png(file, samples, chunks, compress_level=options.png_level)
        return
    arguments, exif, xmp = save_arguments(kind, picture, options)
    image = Image.fromarray(samples)
    if kind is GIF:
        image = quantised(image)
    image.save(file, kind.name, **arguments)
    if kind is TIFF:
        add_to_tiff(file, exif=exif, xmp=xmp, iptc=picture.metadata.iptc)


def quantised(image: Image.Image) -> Image.Image:
    """Reduce to a palette of 256 colours, of which the last means transparent if anything is."""
    if image.mode in ("L", "P"):
        return image
    opacity = np.asarray(image.getchannel("A")) if image.mode in ("RGBA", "LA") else None
    hidden = None if opacity is None else opacity < 128  # GIF knows opaque and transparent
    colours = image.convert("RGB")
    if hidden is None or not hidden.any():
        return _dithered(colours, 256)
    visible = np.asarray(colours).copy()
    visible[hidden] = visible[~hidden][0] if not hidden.all() else 0  # no colour of its own
    result = _dithered(Image.fromarray(visible), 255)
    indices = np.asarray(result).copy()
    indices[hidden] = 255
    reduced = Image.fromarray(indices, "P")
    palette = (result.getpalette("RGB") or [])[: 255 * 3]
    reduced.putpalette(palette + [0] * (256 * 3 - len(palette)))
    reduced.info["transparency"] = 255
    return reduced


def _dithered(colours: Image.Image, number: int) -> Image.Image:
    if colours.getcolors(number) is not None:
        return _exact(colours)
    palette = colours.quantize(number, method=Image.Quantize.MEDIANCUT)
    return colours.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def _exact(colours: Image.Image) -> Image.Image:
    """Give a picture of few colours the palette of just these."""
    pixels = np.asarray(colours).astype(np.uint32)
    packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    used, indices = np.unique(packed, return_inverse=True)
    result = Image.fromarray(indices.reshape(packed.shape).astype(np.uint8), "P")
    result.putpalette(np.stack([used >> 16, used >> 8 & 255, used & 255], axis=1).astype(np.uint8).tobytes())
    return result


def _samples(picture: Picture, kind: OutputFormat) -> Samples:
    """Join the arrays to what is saved, (H, W) or (H, W, C)."""
    pixels, profile = picture.pixels, picture.metadata.icc_profile
    if picture.grey and kind.icc and profile is not None and not is_grey_profile(profile):
        pixels = np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
    if picture.alpha is not None and kind.alpha:
        pixels = np.dstack((pixels, picture.alpha))
    return pixels


def save_arguments(
    kind: OutputFormat, picture: Picture, options: WriteOptions
) -> tuple[dict[str, Any], bytes | None, bytes | None]:
    """Return Pillow's arguments; and the EXIF and XMP data that fit, which for TIFF are added after."""
    metadata = picture.metadata
    exif, xmp = metadata.exif or b"", metadata.xmp or b""
    exif = exif if len(exif) <= kind.largest_exif else b""
    xmp = xmp if len(xmp) <= kind.largest_xmp else b""
    exif = exif and resized_exif(exif, height=picture.height, width=picture.width)
    arguments: dict[str, Any] = {} if metadata.dpi is None else {"dpi": metadata.dpi}
    profile = metadata.icc_profile
    if profile is not None and kind.icc and (kind.grey or not is_grey_profile(profile)):
        arguments["icc_profile"] = profile
    if kind is JPEG:
        extra = _iptc_segment(metadata.iptc) if metadata.iptc else b""
        subsampling = options.subsampling if picture.pixels.ndim == 3 else "4:4:4"
        arguments |= {"quality": options.jpeg_quality, "subsampling": subsampling, "extra": extra}
        arguments |= {"exif": exif, "xmp": xmp}
    elif kind is WEBP:
        arguments |= {**webp_arguments(options), "exif": exif, "xmp": xmp}
    elif kind is AVIF:
        # Pillow would write a block anew that states the orientation, which moves what maker notes point to.
        exif = exif and without_orientation(exif)
        arguments |= {**avif_arguments(options, grey=picture.grey), "exif": exif, "xmp": xmp}
    elif kind is TIFF and options.tiff_compression and picture.pixels.nbytes <= _LARGEST_COMPRESSED_TIFF:
        arguments |= {"compression": options.tiff_compression, "tiffinfo": {_TIFF_PREDICTOR: _DIFFERENCES}}
    return arguments, exif, xmp


def webp_arguments(options: WriteOptions) -> dict[str, Any]:
    """Return how WebP is encoded."""
    lossy = {"quality": options.webp_quality, "method": _WEBP_LOSSY_METHOD}
    return dict(_WEBP_LOSSLESS if options.webp_lossless else lossy)


def avif_arguments(options: WriteOptions, *, grey: bool) -> dict[str, Any]:
    """Return how AVIF is encoded."""
    subsampling = "4:0:0" if grey else options.subsampling
    return {"quality": options.avif_quality, "subsampling": subsampling, "speed": _AVIF_SPEED}


def _iptc_segment(iptc: bytes) -> bytes:
    """Return a JPEG segment with IPTC data, as Photoshop writes it; empty if it is too large."""
    padded = iptc + b"\0" * (len(iptc) % 2)
    resource = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + padded
    data = _PHOTOSHOP + resource
    return b"" if len(data) > _LARGEST_SEGMENT else _APP13 + struct.pack(">H", len(data) + 2) + data
