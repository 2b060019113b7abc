"""Metadata from each format to each: kept, put into another place, or its loss is noted."""

import struct
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sr.cli import main
from sr.image import FORMATS, Metadata, Picture, open_picture, read_picture, write_picture
from sr.image.claims import without_claims
from sr.image.geo import GEO_TAGS
from tests.pictures import PNG_RGB, encoded, exif_block, icc_profile, png, png_chunk, tiff, xmp_packet

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
SUFFIXES = [spec.write_suffixes[0] for spec in FORMATS.values()]
IPTC = b"\x1c\x02\x78\0\x0bA headline!"
USER_COMMENT = 0x9286


def doubled(picture: Picture) -> Picture:
    return replace(picture, pixels=picture.pixels.repeat(2, 0).repeat(2, 1))


def through(folder: Path, content: bytes, suffix: str) -> tuple[Picture, tuple[str, ...]]:
    """Read a file, double the picture, write it and read that; also return all notes."""
    (folder / "in").write_bytes(content)
    picture = read_picture(folder / "in")
    notes = picture.notes + write_picture(folder / f"out{suffix}", doubled(picture))
    return read_picture(folder / f"out{suffix}"), notes


def profile(size: int) -> bytes:
    """Return an RGB profile of so many bytes that do not compress."""
    head = bytearray(icc_profile(b"RGB "))
    noise = np.random.default_rng(size).bytes(max(0, size - len(head)))
    struct.pack_into(">I", head, 0, len(head) + len(noise))
    return bytes(head) + noise


PROFILES = [None, profile(200), profile(1 << 20), profile((1 << 20) + 1)]
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=50), st.just("long \u4e2d" * 200_000)
)
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
METADATA = st.builds(
    Metadata,
    icc_profile=st.sampled_from(PROFILES),
    exif=st.sampled_from([None, exif_block(1), exif_block(1, order=">"), exif_block(1) + bytes(70_000)]),
    xmp=st.sampled_from([None, xmp_packet(), xmp_packet() + b" " * 65_000, xmp_packet() + b" " * (1 << 20)]),
    iptc=st.sampled_from([None, IPTC, IPTC * 4_000, IPTC * 100_000]),
    dpi=st.sampled_from([None, (300.0, 300.0), (72.0, 72.0), (65_535.0, 1.0)]),
    aspect=st.sampled_from([None, (2.0, 1.0), (1.0, 3.0), (1e9, 1.0)]),
    text=st.lists(
        st.tuples(st.sampled_from(["Comment", "parameters", "Title"]), TEXTS),
        max_size=3,
    ).map(tuple),
)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=20, deadline=None, suppress_health_check=QUIET)
@given(metadata=METADATA)
def test_what_is_written_can_be_read_and_every_loss_is_noted(
    tmp_path: Path, suffix: str, metadata: Metadata
) -> None:
    """Whatever the metadata, the file opens here and in Pillow, which limits what it takes."""
    path = tmp_path / f"out{suffix}"
    notes = " ".join(write_picture(path, Picture(PIXELS, metadata=metadata)))
    with Image.open(path) as image:
        image.load()
    kept = read_picture(path).metadata
    for name, title in (("icc_profile", "ICC"), ("xmp", "XMP"), ("iptc", "IPTC")):
        stored = getattr(metadata, name)
        if stored is not None and f"{title} data" not in notes and f"({title})" not in notes:
            assert getattr(kept, name) == stored, name
    if metadata.exif is not None and "EXIF" not in notes:
        assert kept.exif is not None
        assert b"NOTE with an offset" in kept.exif
    if metadata.aspect is not None and metadata.dpi is None and "aspect" not in notes:
        assert kept.aspect is not None
        ratios = [min(max(x / y, 1e-4), 1e4) for x, y in (kept.aspect, metadata.aspect)]
        assert ratios[0] == pytest.approx(ratios[1], rel=0.7 if metadata.aspect[0] > 1e6 else 0.01)
    texts = [text for _, text in metadata.text if text.strip(" \0")]
    if texts and "text" not in notes:
        stored_text = " ".join(text for _, text in kept.text) or user_comment(kept.exif)
        assert all(part[:20] in stored_text for text in texts for part in text.split("\0") if part.isascii())


def user_comment(exif: bytes | None) -> str:
    """Read the comment in EXIF data with Pillow alone."""
    values = Image.Exif()
    values.load(exif or b"")
    comment = values.get_ifd(0x8769).get(USER_COMMENT, b"")
    return comment[8:].decode("ascii" if comment.startswith(b"ASCII") else "utf-16-be")


@pytest.mark.parametrize("target", [".jpg", ".tif", ".png"])
@pytest.mark.parametrize("source", [".jpg", ".tif", ".png"])
def test_iptc_data_go_where_there_is_a_place(tmp_path: Path, source: str, target: str) -> None:
    write_picture(tmp_path / f"first{source}", Picture(PIXELS, metadata=Metadata(iptc=IPTC)))
    kept, notes = through(tmp_path, (tmp_path / f"first{source}").read_bytes(), target)
    assert kept.metadata.iptc == IPTC
    assert notes == ()


def test_profiles_that_imagemagick_hides_in_text_are_read(tmp_path: Path) -> None:
    def hidden(kind: str, data: bytes) -> bytes:
        text = f"\n{kind}\n{len(data):8}\n{data.hex()}\n"
        return png_chunk(
            b"zTXt", f"Raw profile type {kind}".encode() + b"\0\0" + zlib.compress(text.encode())
        )

    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC
    chunks = (
        hidden("APP1", exif_block(6))
        + hidden("8bim", b"8BIM\x03\xed\0\0" + struct.pack(">I", 4) + bytes(4) + resource)
        + hidden("xmp", xmp_packet())
        + hidden("icc", icc_profile(b"RGB "))
    )
    content = png([bytes(6)] * 3, width=2, bits=8, colour=PNG_RGB, after=chunks)
    (tmp_path / "in.png").write_bytes(content)
    picture = read_picture(tmp_path / "in.png")
    assert (picture.height, picture.width) == (2, 3)  # turned, as the EXIF data say
    assert picture.metadata.iptc == IPTC
    assert picture.metadata.xmp == xmp_packet()
    assert picture.metadata.icc_profile == icc_profile(b"RGB ")
    assert picture.metadata.text == ()


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif", ".tif"])
@pytest.mark.parametrize("text", ["a castle, steps: 20", "\u57ce"])
@pytest.mark.parametrize("exif", [None, exif_block(1), exif_block(1, order=">")], ids=["none", "II", "MM"])
def test_text_of_a_png_goes_into_the_user_comment(
    tmp_path: Path, suffix: str, text: str, exif: bytes | None
) -> None:
    metadata = Metadata(text=(("parameters", text),), exif=exif)
    assert write_picture(tmp_path / f"out{suffix}", Picture(PIXELS, metadata=metadata)) == ()
    kept = read_picture(tmp_path / f"out{suffix}").metadata.exif
    assert user_comment(kept) == text
    if exif is not None:
        assert b"NOTE with an offset" in kept


@pytest.mark.parametrize("suffix", [".bmp", ".gif"])
def test_text_without_a_place_is_noted(tmp_path: Path, suffix: str) -> None:
    notes = write_picture(
        tmp_path / f"out{suffix}", Picture(PIXELS, metadata=Metadata(text=(("parameters", "castle"),)))
    )
    assert any("parameters" in note for note in notes)


def test_comments_and_xmp_data_of_a_gif_are_kept(tmp_path: Path) -> None:
    grey = Picture(PIXELS[..., 0], metadata=Metadata(text=(("Comment", "Größe " * 100),), xmp=xmp_packet()))
    write_picture(tmp_path / "a.gif", grey)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["comment"].decode() == "Größe " * 100
    for suffix in (".gif", ".png", ".jpg"):
        kept, _ = through(tmp_path, (tmp_path / "a.gif").read_bytes(), suffix)
        assert kept.metadata.text == grey.metadata.text
        assert kept.metadata.xmp == xmp_packet()


def geo_tiff(*, point: bool = False, orientation: int = 1) -> bytes:
    tags = {
        256: (4, [4]),
        257: (4, [2]),
        258: (3, [8, 8, 8]),
        259: (3, [1]),
        262: (3, [2]),
        274: (3, [orientation]),
        277: (3, [3]),
        278: (4, [2]),
        33550: (12, [10.0, 20.0, 0.0]),
        33922: (12, [1.0, 1.0, 0.0, 500_000.0, 4_000_000.0, 0.0]),
        34735: (3, [1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, 2 if point else 1]),
    }
    return tiff(tags, [bytes(24)])  # type: ignore[arg-type]


@pytest.mark.parametrize("point", [False, True])
def test_the_georeference_is_that_of_the_larger_picture(tmp_path: Path, point: bool) -> None:
    """The same place on the ground is at the same relative place of the picture."""
    kept, notes = through(tmp_path, geo_tiff(point=point), ".tif")
    assert notes == ()
    with Image.open(tmp_path / "out.tif") as image:
        tags = image.tag_v2  # type: ignore[attr-defined]
        assert tags[33550] == (5.0, 10.0, 0.0)
        i, j = tags[33922][:2]
        assert tags[33922][3:] == (500_000.0, 4_000_000.0, 0.0)
    # Corners of pixels scale by 2; a centre is half a pixel from its corner.
    assert (i, j) == ((2.5, 2.5) if point else (2.0, 2.0))
    assert kept.metadata.geo is not None
    assert set(kept.metadata.geo.tags) <= GEO_TAGS


def test_a_lost_georeference_is_noted(tmp_path: Path) -> None:
    assert any("georeference" in note for note in through(tmp_path, geo_tiff(), ".png")[1])
    assert any("georeference" in note for note in through(tmp_path, geo_tiff(orientation=6), ".tif")[1])


@pytest.mark.parametrize("target", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("source", [".png", ".jpg", ".tif"])
def test_the_shape_of_pixels_is_kept(tmp_path: Path, source: str, target: str) -> None:
    write_picture(tmp_path / f"first{source}", Picture(PIXELS, metadata=Metadata(aspect=(2.0, 1.0))))
    kept, notes = through(tmp_path, (tmp_path / f"first{source}").read_bytes(), target)
    assert notes == ()
    assert kept.metadata.aspect is not None
    assert kept.metadata.aspect[0] / kept.metadata.aspect[1] == pytest.approx(2)


GAIN_MAP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:gain="http://ns.adobe.com/hdr-gain-map/1.0/" gain:Version="1.0"'
    b' xmlns:C="http://ns.google.com/photos/1.0/container/" xmlns:G="http://ns.google.com/photos/1.0/camera/"'
    b' xmlns:note="http://ns.adobe.com/xmp/note/" note:HasExtendedXMP="ABC" G:MotionPhoto="1" G:Other="2"'
    b" xmlns:dc='http://purl.org/dc/elements/1.1/'><C:Directory><rdf:Seq><rdf:li>2</rdf:li></rdf:Seq>"
    b"</C:Directory><dc:title>Castle</dc:title></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def test_claims_of_what_is_not_there_are_removed_and_noted(tmp_path: Path) -> None:
    kept, notes = through(tmp_path, encoded(PIXELS, "JPEG", xmp=GAIN_MAP), ".jpg")
    assert kept.metadata.xmp is not None
    for gone in (b"gain:Version", b"Directory", b"MotionPhoto", b"HasExtendedXMP"):
        assert gone not in kept.metadata.xmp
    for stays in (b"<dc:title>Castle</dc:title>", b'G:Other="2"'):
        assert stays in kept.metadata.xmp
    for named in ("gain map", "motion photo", "extended XMP"):
        assert any(named in note for note in notes)


@given(st.binary(max_size=300), st.integers(0, len(GAIN_MAP)))
def test_other_xmp_data_stay_byte_for_byte(noise: bytes, at: int) -> None:
    assert without_claims(xmp_packet(3)) == (xmp_packet(3), ())
    without_claims(GAIN_MAP[:at] + noise + GAIN_MAP[at:])  # whatever is damaged, it ends


def test_what_lies_behind_the_first_picture_of_a_jpeg_is_noted(tmp_path: Path) -> None:
    first = Image.fromarray(PIXELS)
    first.encoderinfo = {}
    content = encoded(first, "MPO", save_all=True, append_images=[Image.fromarray(PIXELS[::2])])
    assert any("further picture" in note for note in through(tmp_path, content, ".png")[1])
    name = b"http://ns.adobe.com/xmp/extension/\0"
    segment = b"\xff\xe1" + struct.pack(">H", len(name) + 50) + name + bytes(48)
    plain = encoded(PIXELS, "JPEG")
    assert any(
        "extended XMP" in note for note in through(tmp_path, plain[:2] + segment + plain[2:], ".png")[1]
    )


@pytest.mark.parametrize(
    ("metadata", "named"),
    [({"exif": b"Exif\0\0II*\0 nothing"}, "EXIF"), ({"icc_profile": icc_profile(b"GRAY")}, "ICC")],
)
def test_what_is_damaged_or_does_not_fit_is_left_out_with_a_note(
    tmp_path: Path, metadata: dict[str, bytes], named: str
) -> None:
    notes = through(tmp_path, encoded(PIXELS, "JPEG", **metadata), ".png")[1]
    assert any(named in note for note in notes)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_long_compressed_text_is_kept_in_a_form_that_others_open(tmp_path: Path, kind: bytes) -> None:
    text = zlib.compress(b"steps " * 300_000)
    data = b"workflow\0\0" + text if kind == b"zTXt" else b"workflow\0\1\0\0\0" + text
    content = png([bytes(6)], width=2, bits=8, colour=PNG_RGB, before=png_chunk(kind, data))
    kept, notes = through(tmp_path, content, ".png")
    assert notes == ()
    assert kept.metadata.text == (("workflow", "steps " * 300_000),)
    with Image.open(tmp_path / "out.png") as image:
        image.load()
        assert image.text["workflow"] == "steps " * 300_000  # type: ignore[attr-defined]


def test_text_beyond_all_measure_is_left_out_with_a_note(tmp_path: Path) -> None:
    data = b"bomb\0\0" + zlib.compress(bytes(17 << 20))
    content = png([bytes(6)], width=2, bits=8, colour=PNG_RGB, before=png_chunk(b"zTXt", data))
    kept, notes = through(tmp_path, content, ".png")
    assert kept.metadata.text == ()
    assert any("text" in note for note in notes)


def test_a_picture_stated_late_in_a_png_is_turned_in_every_way(tmp_path: Path) -> None:
    """EXIF data behind the pixels count for what reads the header alone, too."""
    from sr.image.decode import read_header
    from sr.image.source import upright_metadata

    late = png_chunk(b"eXIf", exif_block(6).removeprefix(b"Exif\0\0"))
    (tmp_path / "in.png").write_bytes(png([bytes(6)] * 3, width=2, bits=8, colour=PNG_RGB, after=late))
    picture = open_picture(tmp_path / "in.png")
    assert isinstance(picture, Picture)
    assert (picture.height, picture.width) == (2, 3)
    header = read_header(tmp_path / "in.png")
    assert upright_metadata(header.metadata, grey=False)[1] == 6


def test_low_memory_turns_what_late_exif_data_turn(tmp_path: Path) -> None:
    pytest.importorskip("pyvips")
    late = png_chunk(b"eXIf", exif_block(6).removeprefix(b"Exif\0\0"))
    rows = [np.random.default_rng(n).bytes(3 * 20) for n in range(30)]
    (tmp_path / "in.png").write_bytes(png(rows, width=20, bits=8, colour=PNG_RGB, after=late))
    arguments = ["upscale", str(tmp_path / "in.png"), "--overwrite", "-o", str(tmp_path / "out.tif")]
    outputs = []
    for more in ([], ["--low-memory"]):
        result = CliRunner().invoke(main, [*arguments, *more])
        assert result.exit_code == 0, result.output
        outputs.append(read_picture(tmp_path / "out.tif").pixels)
    assert outputs[0].shape == (40, 60, 3)
    np.testing.assert_array_equal(*outputs)


def test_a_picture_is_opened_from_memory_too() -> None:
    content = BytesIO(encoded(PIXELS, "PNG"))
    picture = open_picture(Path("name.png"), content)
    assert isinstance(picture, Picture)
