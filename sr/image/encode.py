"""Pictures of 8 bits -> Pillow's encoders, with the metadata that the format can hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from sr.image.formats.spec import FormatSpec
from sr.image.metadata import is_grey_profile, resized_exif, without_orientation
from sr.image.picture import Picture, Pixels
from sr.image.refusals import encoding


def save_with_pillow(
    file: BinaryIO,
    picture: Picture,
    spec: FormatSpec,
    *,
    prepare: Callable[[Image.Image], Image.Image] | None = None,
    **arguments: Any,
) -> None:
    """Encode a picture of 8 bits per channel.

    Args:
        file: where to.
        picture: pixels and metadata.
        spec: the format.
        prepare: changes the image before it is encoded.
        arguments: of Pillow's encoder, which take precedence over those for metadata.
    """
    image = Image.fromarray(joined_samples(picture, spec))
    if prepare is not None:
        image = prepare(image)
    with encoding(spec.name):
        image.save(file, spec.pillow_name, **(metadata_arguments(picture, spec) | arguments))


def metadata_arguments(picture: Picture, spec: FormatSpec) -> dict[str, Any]:
    """Return Pillow's arguments for metadata that fit into the format."""
    metadata = picture.metadata
    arguments: dict[str, Any] = {} if metadata.dpi is None else {"dpi": metadata.dpi}
    if metadata.icc_profile is not None:
        arguments["icc_profile"] = metadata.icc_profile
    if "exif" in spec.capacity:
        arguments["exif"] = sized_exif(picture, spec) or b""
    if "xmp" in spec.capacity:
        arguments["xmp"] = metadata.xmp or b""
    return arguments


def sized_exif(picture: Picture, spec: FormatSpec) -> bytes | None:
    """Return the EXIF data with the picture's size, None if there are none."""
    exif = picture.metadata.exif
    if exif is None:
        return None
    exif = resized_exif(exif, height=picture.height, width=picture.width)
    return exif if spec.exif_orientation else without_orientation(exif)


def joined_samples(picture: Picture, spec: FormatSpec) -> Pixels:
    """Join pixels and alpha to one array, (H, W) or (H, W, C), as the format can hold them."""
    pixels, profile = picture.pixels, picture.metadata.icc_profile
    if picture.grey and profile is not None and not is_grey_profile(profile):
        pixels = np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
    if picture.alpha is not None and spec.alpha:
        pixels = np.dstack((pixels, picture.alpha))
    return pixels


def quantised(image: Image.Image) -> Image.Image:
    """Reduce to a palette of 256 colours; the last one means transparent if any pixel is."""
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
