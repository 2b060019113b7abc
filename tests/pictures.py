"""Odd picture files and metadata, put together byte by byte from the formats' specifications."""

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PNG_GREY, PNG_RGB, PNG_PALETTE, PNG_GREY_ALPHA, PNG_RGBA = 0, 2, 3, 4, 6  # colour types


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    rows: list[bytes], *, width: int, bits: int, colour: int, before: bytes = b"", after: bytes = b""
) -> bytes:
    """Assemble a PNG from unfiltered rows; `before` and `after` are chunks round the image data."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = png_chunk(b"IHDR", header) + before + png_chunk(b"IDAT", data) + after
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


def apng(frames: int) -> bytes:
    """Assemble an animated PNG of 1x1 grey frames."""
    control = png_chunk(b"acTL", struct.pack(">II", frames, 0))
    data = zlib.compress(b"\0\x80")
    number = 0
    body = b""
    for frame in range(frames):
        body += png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 1, 1, 0, 0, 1, 10, 0, 0))
        number += 1
        if frame == 0:
            body += png_chunk(b"IDAT", data)
        else:
            body += png_chunk(b"fdAT", struct.pack(">I", number) + data)
            number += 1
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + control + body + png_chunk(b"IEND", b"")


def encoded(pixels: NDArray | Image.Image, kind: str, **arguments: object) -> bytes:
    """Encode with Pillow alone."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = BytesIO()
    image.save(buffer, kind, **arguments)
    return buffer.getvalue()


def icc_profile(space: bytes) -> bytes:
    """Return the header of an ICC profile (ICC.1:2022, section 7.2) with an empty table of tags."""
    header = bytearray(128)
    header[0:4] = struct.pack(">I", 132)
    header[8:12] = b"\x02\x10\0\0"
    header[12:16], header[16:20], header[20:24], header[36:40] = b"mntr", space, b"XYZ ", b"acsp"
    return bytes(header) + bytes(4)


def xmp_packet(orientation: int | None = None) -> bytes:
    """Return a small XMP packet with a title that is not ASCII."""
    attribute = "" if orientation is None else f' tiff:Orientation="{orientation}"'
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
        f' xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"{attribute}>'
        "<dc:title>Übergröße</dc:title></rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    ).encode()


ARTIST = "José Müller".encode()
MAKER_NOTE = b"NOTE with an offset: " + bytes(range(40))
THUMBNAIL = b"\xff\xd8\xff\xdbTHUMBNAIL" * 20 + b"\xff\xd9"
TIFF_ASCII, TIFF_SHORT, TIFF_LONG, TIFF_RATIONAL, TIFF_UNDEFINED = 2, 3, 4, 5, 7


def exif_block(
    orientation: int | None = None, *, order: str = "<", size: tuple[int, int] | None = None
) -> bytes:
    """Assemble an EXIF block as a camera does, with maker note, GPS position and thumbnail.

    Args:
        orientation: 1 to 8, or None to leave it out.
        order: "<" (Intel) or ">" (Motorola).
        size: width and height, for PixelXDimension (SHORT) and PixelYDimension (LONG).
    """

    def short(value: int) -> bytes:
        return struct.pack(order + "H", value)

    def long(value: int) -> bytes:
        return struct.pack(order + "I", value)

    def rationals(*values: int) -> bytes:
        return b"".join(struct.pack(order + "II", value, 1) for value in values)

    def directory(entries: dict[int, tuple[int, int, bytes]], offset: int, behind: int = 0) -> bytes:
        records, values = struct.pack(order + "H", len(entries)), b""
        start = offset + 2 + 12 * len(entries) + 4
        for tag, (kind, count, data) in sorted(entries.items()):
            place = data.ljust(4, b"\0") if len(data) <= 4 else long(start + len(values))
            records += struct.pack(order + "HHI", tag, kind, count) + place
            values += data + b"\0" * (len(data) % 2) if len(data) > 4 else b""
        return records + long(behind) + values

    main = {
        0x010F: (TIFF_ASCII, 6, b"Maker\0"),
        0x013B: (TIFF_ASCII, len(ARTIST) + 1, ARTIST + b"\0"),
        0x8769: (TIFF_LONG, 1, long(0)),
        0x8825: (TIFF_LONG, 1, long(0)),
    }
    if orientation is not None:
        main[0x0112] = (TIFF_SHORT, 1, short(orientation))
    photo = {
        0x9003: (TIFF_ASCII, 20, b"2024:02:29 12:34:56\0"),
        0x829A: (TIFF_RATIONAL, 1, struct.pack(order + "II", 1, 250)),
        0x927C: (TIFF_UNDEFINED, len(MAKER_NOTE), MAKER_NOTE),
    }
    if size is not None:
        photo[0xA002] = (TIFF_SHORT, 1, short(size[0]))
        photo[0xA003] = (TIFF_LONG, 1, long(size[1]))
    gps = {1: (TIFF_ASCII, 2, b"N\0"), 2: (TIFF_RATIONAL, 3, rationals(48, 12, 30))}
    photo_at = 8 + len(directory(main, 8))
    gps_at = photo_at + len(directory(photo, photo_at))
    thumbnail_at = gps_at + len(directory(gps, gps_at))
    main[0x8769] = (TIFF_LONG, 1, long(photo_at))
    main[0x8825] = (TIFF_LONG, 1, long(gps_at))
    data_at = thumbnail_at + 2 + 2 * 12 + 4
    thumbnail = {
        0x0201: (TIFF_LONG, 1, long(data_at)),
        0x0202: (TIFF_LONG, 1, long(len(THUMBNAIL))),
    }
    return (
        b"Exif\0\0"
        + (b"II*\0" if order == "<" else b"MM\0*")
        + long(8)
        + directory(main, 8, behind=thumbnail_at)
        + directory(photo, photo_at)
        + directory(gps, gps_at)
        + directory(thumbnail, thumbnail_at)
        + THUMBNAIL
    )


def header_bombs() -> dict[str, bytes]:
    """Return small files whose headers claim billions of pixels (WebP: the 268 million that it can)."""
    huge = 60_000
    jpeg = bytearray(encoded(np.zeros((8, 8), np.uint8), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", huge, huge)
    gif = bytearray(encoded(np.zeros((8, 8), np.uint8), "GIF"))
    gif[6:10] = struct.pack("<HH", huge, huge)
    bmp = bytearray(encoded(np.zeros((8, 8), np.uint8), "BMP"))
    bmp[18:26] = struct.pack("<II", huge, huge)
    tiff = encoded(np.zeros((8, 8), np.uint8), "TIFF")
    for tag in (256, 257):
        tiff = tiff.replace(struct.pack("<HHIHH", tag, 4, 1, 8, 0), struct.pack("<HHII", tag, 4, 1, huge))
        tiff = tiff.replace(struct.pack("<HHIHH", tag, 3, 1, 8, 0), struct.pack("<HHII", tag, 4, 1, huge))
    header = struct.pack(">IIBBBBB", huge, huge, 8, PNG_RGB, 0, 0, 0)
    webp = encoded(np.zeros((16_383, 1), np.uint8), "WEBP", lossless=True)
    lossless = bytearray(webp)
    bits = lossless.index(b"VP8L") + 9
    packed = struct.unpack_from("<I", lossless, bits)[0]
    struct.pack_into("<I", lossless, bits, packed & ~0x3FFF | 16_382)
    return {
        "PNG": b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0")),
        "JPEG": bytes(jpeg),
        "GIF": bytes(gif),
        "BMP": bytes(bmp),
        "TIFF": tiff,
        "WebP": bytes(lossless),
    }


def gif(
    frames: list[tuple[NDArray, tuple[int, int], int, int | None, int]],
    *,
    size: tuple[int, int],
    palette: bytes,
    loop: int | None = None,
) -> bytes:
    """Assemble a GIF: for each frame indices (H, W), place (left, top), disposal, key, centiseconds.

    LZW without compression: 7-bit pixels as 8-bit codes, a clear code before the table grows.
    """
    bits = (len(palette) // 3 - 1).bit_length()
    result = struct.pack("<6sHHBBB", b"GIF89a", *size, 0xF0 | bits - 1, 0, 0) + palette
    if loop is not None:
        result += b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", loop, 0)
    for indices, place, disposal, key, delay in frames:
        height, width = indices.shape
        result += b"!\xf9\x04" + struct.pack("<BHBB", disposal << 2 | (key is not None), delay, key or 0, 0)
        result += struct.pack("<BHHHHBB", ord(","), *place, width, height, 0, 7)
        flat = indices.tobytes()
        codes = b"".join(b"\x80" + flat[at : at + 100] for at in range(0, len(flat), 100)) + b"\x81"
        blocks = [codes[at : at + 255] for at in range(0, len(codes), 255)]
        result += b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    return result + b";"


def unfiltered_png(file: bytes) -> NDArray:
    """Decode a PNG that is not interlaced, as the specification has it: (H, W, channels) of its depth."""
    width, height, bits, colour = struct.unpack_from(">IIBB", file, 16)
    data, at = b"", 8
    while at < len(file):
        length, kind = struct.unpack_from(">I4s", file, at)
        data += file[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    channels = {PNG_GREY: 1, PNG_RGB: 3, PNG_GREY_ALPHA: 2, PNG_RGBA: 4}[colour]
    step = channels * bits // 8
    raw, stride = zlib.decompress(data), width * step
    above = bytearray(stride)
    rows = []
    for number in range(height):
        start = number * (stride + 1)
        kind, row = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
        for x in range(stride):
            left, up = (row[x - step] if x >= step else 0), above[x]
            corner = above[x - step] if x >= step else 0
            estimate = left + up - corner
            distances = abs(estimate - left), abs(estimate - up), abs(estimate - corner)
            paeth = (left, up, corner)[distances.index(min(distances))]
            row[x] = row[x] + (0, left, up, (left + up) // 2, paeth)[kind] & 255
        rows.append(bytes(row))
        above = row
    return np.frombuffer(b"".join(rows), f">u{bits // 8}").reshape(height, width, channels)


def tiff(
    tags: dict[int, tuple[int, list[int]]],
    parts: list[bytes],
    *,
    order: str = ">",
    big: bool = False,
    offsets: int = 273,
) -> bytes:
    """Assemble a TIFF, or BigTIFF, of strips or tiles that are already encoded.

    Args:
        tags: tag -> field type (3 SHORT, 4 LONG, 1 and 7 bytes, 12 DOUBLE) and values, without the parts.
        parts: the strips or tiles.
        order: "<" or ">".
        big: whether it is a BigTIFF.
        offsets: the tag that lists where the parts are, 273 for strips or 324 for tiles.
    """
    header = 16 if big else 8
    starts = [header + sum(map(len, parts[:index])) for index in range(len(parts))]
    counts = 279 if offsets == 273 else 325
    tags = {**tags, offsets: (4, starts), counts: (4, [len(part) for part in parts])}
    at = header + sum(map(len, parts))
    room, count_code, place_code = (8, "Q", "Q") if big else (4, "H", "I")
    behind = at + struct.calcsize(order + count_code) + (4 + 2 * room) * len(tags) + room
    records, data = struct.pack(order + count_code, len(tags)), b""
    for tag, (kind, numbers) in sorted(tags.items()):
        packed = struct.pack(
            f"{order}{len(numbers)}{ {1: 'B', 3: 'H', 4: 'I', 7: 'B', 12: 'd'}[kind] }", *numbers
        )
        place = struct.pack(order + place_code, behind + len(data))
        records += struct.pack(f"{order}HH{place_code}", tag, kind, len(numbers))
        records += packed.ljust(room, b"\0") if len(packed) <= room else place
        data += packed if len(packed) > room else b""
    first = (b"II" if order == "<" else b"MM") + (
        struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    )
    return first + b"".join(parts) + records + bytes(room) + data


def tiff_16(samples: NDArray, *, photometric: int, extra: int | None = None, planar: bool = False) -> bytes:
    """Assemble an uncompressed TIFF of (H, W, C); `extra` says what the last channel is."""
    height, width, channels = samples.shape
    stored = samples.transpose(2, 0, 1) if planar else samples
    pixels = stored.astype(">u2").tobytes()
    planes = channels if planar else 1
    length = len(pixels) // planes
    tags = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [16] * channels),
        259: (3, [1]),
        262: (3, [photometric]),
        277: (3, [channels]),
        278: (4, [height]),
        284: (3, [2 if planar else 1]),
    }
    if extra is not None:
        tags[338] = (3, [extra])
    return tiff(tags, [pixels[n * length : (n + 1) * length] for n in range(planes)])


def cmyk_profile() -> tuple[bytes, Callable[[NDArray], NDArray]]:
    """Return a CMYK profile (ICC.1:2022: an output profile with lut8), and what it does as a function.

    The function takes inks in [0, 1], (..., 4), and returns L*a*b* (..., 3): between the corners, which
    are all that the table has, it interpolates. lightness falls with the inks, C turns a* down, M up,
    Y turns b* up. Multilinear and tetrahedral interpolation agree, because it is linear but for K.
    """

    def lab(inks: NDArray) -> NDArray:
        c, m, y, k = np.moveaxis(np.asarray(inks, float), -1, 0)
        light = (100 - 30 * c - 35 * m - 10 * y) * (1 - k)
        return np.stack([light, (-40 * c + 60 * m) * (1 - k), (-30 * c + 70 * y) * (1 - k)], axis=-1)

    corners = np.array(list(np.ndindex(2, 2, 2, 2)), float)  # the last channel varies fastest
    table = np.rint(lab(corners) * (2.55, 1, 1) + (0, 128, 128)).clip(0, 255).astype(np.uint8)
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + table.tobytes() + identity * 3
    lut += bytes(-len(lut) % 4)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"A2B0": lut, b"A2B1": lut, b"wtpt": white}
    offset, places, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        places += name + struct.pack(">II", offset + len(data), len(content))
        data += content
    header = bytearray(icc_profile(b"CMYK")[:128])
    header[12:16], header[20:24] = b"prtr", b"Lab "
    header[68:80] = struct.pack(">3i", 63190, 65536, 54061)  # the illuminant, D50
    struct.pack_into(">I", header, 0, offset + len(data))
    return bytes(header) + struct.pack(">I", len(tags)) + places + data, lab


def avif_with_aperture(
    content: bytes, *, left: int, top: int, height: int, width: int, size: tuple[int, int]
) -> bytes:
    """Give the primary item of an AVIF, which Pillow has written, a clean aperture (ISO 14496-12, 12.1.4).

    Args:
        content: the file.
        left: columns that are cut off.
        top: rows that are cut off.
        height: rows that stay.
        width: columns that stay.
        size: rows and columns of the whole.
    """
    across, down = (
        2 * left - (size[1] - width),
        2 * top - (size[0] - height),
    )  # twice the offset of the centre
    clap = struct.pack(">I4sIIIIiIiI", 40, b"clap", width, 1, height, 1, across, 2, down, 2)

    def changed(data: bytes, added: int) -> bytes:
        result, at = b"", 0
        while at < len(data):
            size, kind = struct.unpack_from(">I4s", data, at)
            body, at = data[at + 8 : at + size], at + size
            if kind == b"meta":
                body = body[:4] + changed(body[4:], added)
            elif kind == b"iprp":
                body = changed(body, added)
            elif kind == b"ipco":
                count = sum(1 for _ in boxes(body))
                body += clap
                numbers.append(count + 1)
            elif kind == b"ipma":
                assert body[:4] == bytes(4)
                count = body[10]
                known, others = body[11 : 11 + count], body[11 + count :]
                body = body[:10] + bytes([count + 1]) + known + bytes([numbers[0] | 0x80]) + others
            elif kind == b"iloc":
                assert body[:6] == bytes(4) + b"\x44\0"
                (items,) = struct.unpack_from(">H", body, 6)
                place, changed_body = 8, bytearray(body)
                for _ in range(items):
                    (extents,) = struct.unpack_from(">H", body, place + 4)
                    for extent in range(extents):
                        offset = place + 6 + 8 * extent
                        (old,) = struct.unpack_from(">I", body, offset)
                        struct.pack_into(">I", changed_body, offset, old + added)
                    place += 6 + 8 * extents
                body = bytes(changed_body)
            result += struct.pack(">I4s", len(body) + 8, kind) + body
        return result

    def boxes(data: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            (length,) = struct.unpack_from(">I", data, at)
            yield data[at : at + length]
            at += length

    numbers: list[int] = []
    return changed(content, len(clap) + 1)
