"""Claims in XMP data about parts of a file that are lost when its picture is upscaled.

Gain maps, the film of a motion photo, depth maps, previews and extended XMP data lie beside the picture and
are not upscaled. XMP data that still name them lead programs astray. XMP: ISO 16684-1.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class _Claim(NamedTuple):
    name: str  # what is claimed, in words
    namespace: bytes
    properties: bytes  # a pattern of their names


_ANY = rb"[\w.-]+"
_CLAIMS = (
    _Claim("a gain map", b"http://ns.adobe.com/hdr-gain-map/1.0/", _ANY),
    _Claim("a gain map", b"http://ns.apple.com/HDRGainMap/1.0/", _ANY),
    _Claim("further pictures", b"http://ns.google.com/photos/1.0/container/", _ANY),
    _Claim(
        "a motion photo", b"http://ns.google.com/photos/1.0/camera/", rb"(?:MotionPhoto|MicroVideo)[\w.-]*"
    ),
    _Claim("a depth map", b"http://ns.google.com/photos/1.0/depthmap/", _ANY),
    _Claim("a further picture", b"http://ns.google.com/photos/1.0/image/", _ANY),
    _Claim("extended XMP data", b"http://ns.adobe.com/xmp/note/", b"HasExtendedXMP"),
    _Claim("previews", b"http://ns.adobe.com/xap/1.0/", b"Thumbnails"),
)


def without_claims(xmp: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Remove properties that name such parts; also return the parts, in words.

    All other bytes stay as they are.
    """
    claimed: dict[str, None] = {}
    for claim in _CLAIMS:
        declared = re.findall(
            rb"""xmlns:([\w.-]+)\s*=\s*["']""" + re.escape(claim.namespace) + rb"""["']""", xmp
        )
        for prefix in dict.fromkeys(declared):
            name = re.escape(prefix) + b":" + claim.properties
            for pattern in (
                rb"\s+" + name + rb"""\s*=\s*(?:"[^"]*"|'[^']*')""",  # an attribute
                rb"<(" + name + rb")(?:\s[^<>]*)?/>\s*",
                rb"<(" + name + rb")(?:\s[^<>]*)?>.*?</\1\s*>\s*",
            ):
                xmp, count = re.subn(pattern, b"", xmp, flags=re.DOTALL)
                if count:
                    claimed[claim.name] = None
    return xmp, tuple(claimed)
