"""Colour and what describes it: CMYK, AVIF, IPTC, PNG chunks, encoder options, cut-outs."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from sr.cli import main
from sr.errors import ImageError
from sr.image import Metadata, Picture, WriteOptions, read_picture, write_options, write_picture
from sr.image.arrays import BY_COMPLEMENT, BY_PROFILE
from sr.upscale import Upscaler
from tests.pictures import (
    MAKER_NOTE,
    PNG_GREY,
    PNG_RGB,
    cmyk_profile,
    encoded,
    exif_block,
    icc_profile,
    png,
    png_chunk,
    xmp_packet,
)

Pixels = NDArray[np.uint8]


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# CMYK

INKS = np.array(
    [
        [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0)],
        [(0, 0, 0, 255), *[(60, 20, 90, 0)] * 3],
    ],
    np.uint8,
)


def inked(size: int = 8) -> Image.Image:
    return Image.fromarray(INKS.repeat(size, 0).repeat(size, 1), "CMYK")


def srgb_from_lab(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert CIE L*a*b* (D50) to sRGB in [0, 255], after CIE 15, Bradford and IEC 61966-2-1."""
    y = (lab[..., 0] + 16) / 116
    xyz = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    xyz = np.where(xyz > 6 / 29, xyz**3, (xyz - 4 / 29) * 3 * (6 / 29) ** 2) * (0.9642, 1.0, 0.8249)
    rgb_from_xyz_d50 = np.array(
        [[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]]
    )
    linear = (xyz @ rgb_from_xyz_d50.T).clip(0, 1)
    return 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_through_its_profile(tmp_path: Path, kind: str) -> None:
    """The profile is ours: four inks, each taking its part of a colour that no formula would guess."""
    profile, lab_from_inks = cmyk_profile()
    arguments = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    picture = read_picture(saved(tmp_path / "in", encoded(inked(), kind, icc_profile=profile, **arguments)))
    expected = srgb_from_lab(lab_from_inks(INKS / 255))
    # lcms compensates the black point: the profile's darkest, L* 0, is black already.
    assert np.abs(picture.pixels[4::8, 4::8] - expected).max() <= 4
    assert picture.notes == (BY_PROFILE,)
    assert picture.metadata.icc_profile is None  # it would not describe these pixels


@pytest.mark.parametrize("profile", [None, b"damaged", icc_profile(b"RGB "), icc_profile(b"CMYK")])
def test_cmyk_without_a_usable_profile_is_complemented(tmp_path: Path, profile: bytes | None) -> None:
    file = encoded(inked(), "TIFF", icc_profile=profile)
    picture = read_picture(saved(tmp_path / "in.tif", file))
    inks = INKS / 255
    expected = 255 * (1 - inks[..., :3]) * (1 - inks[..., 3:])
    assert np.abs(picture.pixels[::8, ::8] - expected).max() <= 1
    assert BY_COMPLEMENT in picture.notes


def test_a_photoshop_jpeg_with_inverted_inks_is_not_inverted(tmp_path: Path) -> None:
    file = encoded(inked(), "JPEG", quality=100)  # Pillow writes Adobe's marker and inverts, as Adobe does
    assert b"Adobe" in file
    picture = read_picture(saved(tmp_path / "in.jpg", file))
    assert (picture.pixels[2, 2] > 250).all()  # paper
    assert (picture.pixels[-6, 2] < 5).all()  # black ink


# AVIF


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3), (40, 50, 4), (1, 1, 3)])
def test_avif_is_read_and_written(tmp_path: Path, shape: tuple[int, ...]) -> None:
    ramp = np.add.outer(np.arange(shape[0]) * 3, np.arange(shape[1]) * 2).astype(np.uint8)
    pixels = ramp if len(shape) == 2 else np.dstack([ramp, 255 - ramp, ramp // 2])
    alpha = ramp if shape[2:] == (4,) else None
    write_picture(tmp_path / "out.avif", Picture(pixels, alpha))
    picture = read_picture(tmp_path / "out.avif")
    assert picture.pixels.shape == pixels.shape
    assert np.abs(picture.pixels.astype(int) - pixels).mean() < 3
    assert (picture.alpha is None) == (alpha is None)
    assert picture.notes == ()


def test_avif_keeps_metadata_byte_for_byte(tmp_path: Path) -> None:
    block = exif_block(1, size=(7, 5))
    source = encoded(np.zeros((5, 7, 3), np.uint8), "PNG", exif=block, icc_profile=icc_profile(b"RGB "))
    picture = read_picture(saved(tmp_path / "in.png", source))
    metadata = Metadata(icc_profile(b"RGB "), picture.metadata.exif, xmp_packet(1))
    write_picture(tmp_path / "out.avif", Picture(np.zeros((15, 21, 3), np.uint8), None, metadata))
    again = read_picture(tmp_path / "out.avif").metadata
    assert (again.icc_profile, again.xmp) == (icc_profile(b"RGB "), xmp_packet(1))
    assert again.exif is not None
    assert again.exif.index(MAKER_NOTE) == block.index(MAKER_NOTE)  # to which offsets may point
    with Image.open(tmp_path / "out.avif") as image:
        exif = image.getexif()
        assert exif[0x010F] == "Maker"
        assert exif.get(0x0112, 1) == 1
        assert (exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003]) == (21, 15)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_avif_is_applied_once(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((32, 48), np.uint8)
    upright[:16, :16], upright[:16, 16:] = 255, 128
    turns = {1: [], 2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}  # inverse Transpose operations
    image = Image.fromarray(upright)
    for turn in turns[orientation]:
        image = image.transpose(Image.Transpose(turn))
    path = saved(tmp_path / "in.avif", encoded(image, "AVIF", quality=100, exif=exif_block(orientation)))
    picture = read_picture(path)
    assert picture.pixels.shape == upright.shape
    assert np.abs(picture.pixels.astype(int) - upright).max() <= 2


def patched_avif(transfer: int = 13, primaries: int = 1, flags: int | None = None) -> bytes:
    file = bytearray(encoded(np.zeros((8, 8, 3), np.uint8), "AVIF"))
    struct.pack_into(">HH", file, file.index(b"colrnclx") + 8, primaries, transfer)
    if flags is not None:
        file[file.index(b"av1C") + 6] |= flags
    return bytes(file)


def test_avif_of_more_than_8_bits_or_another_gamut_is_told(tmp_path: Path) -> None:
    vips = pytest.importorskip("pyvips")
    deep = vips.Image.new_from_array(np.zeros((8, 8, 3), np.uint16)).copy(interpretation="rgb16")
    file = deep.heifsave_buffer(compression="av1", bitdepth=10)
    assert read_picture(saved(tmp_path / "in.avif", file)).notes == ("10 bits per channel, read as 8",)
    notes = read_picture(saved(tmp_path / "in.avif", patched_avif(primaries=12))).notes
    assert "primaries 12" in notes[0]
    for transfer in (16, 18):
        with pytest.raises(ImageError, match="high dynamic range"):
            read_picture(saved(tmp_path / "in.avif", patched_avif(transfer=transfer)))


# What travels along


def test_iptc_goes_between_jpeg_and_tiff(tmp_path: Path) -> None:
    iptc = b"\x1c\x02\x78\x00\x07Caption" + b"\x1c\x02\x50\x00\x06Author"  # IIM data sets 2:120 and 2:80
    pixels = np.zeros((8, 8, 3), np.uint8)
    write_picture(tmp_path / "a.jpg", Picture(pixels, None, Metadata(iptc=iptc, xmp=xmp_packet(1))))
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.metadata.iptc == iptc
    write_picture(tmp_path / "b.tif", picture)
    with Image.open(tmp_path / "b.tif") as image:
        assert image.tag_v2[33723] == iptc
    picture = read_picture(tmp_path / "b.tif")
    write_picture(tmp_path / "c.jpg", picture)
    from PIL import IptcImagePlugin

    with Image.open(tmp_path / "c.jpg") as image:
        assert IptcImagePlugin.getiptcinfo(image) == {(2, 120): b"Caption", (2, 80): b"Author"}
        assert image.info["xmp"] == xmp_packet(1)
    write_picture(tmp_path / "d.jpg", Picture(pixels, None, Metadata(iptc=b"x" * 70_000)))
    assert read_picture(tmp_path / "d.jpg").metadata.iptc is None


@pytest.mark.parametrize("bits", [8, 16])
def test_text_and_colour_chunks_of_a_png_are_kept(tmp_path: Path, bits: int) -> None:
    if bits == 16:
        pytest.importorskip("pyvips")
    kept = [
        (b"gAMA", struct.pack(">I", 100_000)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        (b"cICP", bytes([1, 8, 0, 1])),
        (b"tEXt", b"Software\0a program"),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"a comment " * 50)),
        (b"iTXt", b"Title\0\0\0de\0Titel\0" + "Übergröße".encode()),
    ]
    dropped = [(b"tIME", bytes(7)), (b"sBIT", bytes([5] * 3)), (b"tEXt", b"Raw profile type exif\0junk")]
    before = b"".join(png_chunk(*chunk) for chunk in kept[:4] + dropped)
    after = b"".join(png_chunk(*chunk) for chunk in kept[4:])
    row = bytes(range(2 * 3 * bits // 8))
    file = png([row], width=2, bits=bits, colour=PNG_RGB, before=before, after=after)
    picture = read_picture(saved(tmp_path / "in.png", file))
    assert write_picture(tmp_path / "out.png", picture) == ()
    written = (tmp_path / "out.png").read_bytes()
    for chunk in kept:
        assert written.count(png_chunk(*chunk)) == 1, chunk
    assert not any(png_chunk(*chunk) in written for chunk in dropped)
    Image.open(BytesIO(written)).load()
    assert "colour description" in write_picture(tmp_path / "out.webp", picture)[-1]


def test_a_usual_gamma_is_not_worth_a_note(tmp_path: Path) -> None:
    for gamma in (45_455, 45_460):
        chunk = png_chunk(b"gAMA", struct.pack(">I", gamma))
        file = png([b"\0\1"], width=2, bits=8, colour=PNG_GREY, before=chunk)
        assert write_picture(tmp_path / "out.jpg", read_picture(saved(tmp_path / "in.png", file))) == ()


# Options


def sampling(path: Path) -> list[tuple[int, int]]:
    with Image.open(path) as image:
        return [(h, v) for _, h, v, _ in image.layer]  # type: ignore[attr-defined]


def test_options_do_what_they_say(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(noise).resize((300, 220), Image.Resampling.BICUBIC)) // 8 * 8

    def size(suffix: str, **given: object) -> int:
        path = tmp_path / f"out{suffix}"
        write_picture(path, Picture(smooth), options=write_options(suffix, **given))
        return path.stat().st_size

    for suffix in (".jpg", ".webp", ".avif"):
        assert size(suffix, quality=30) < size(suffix, quality=60) < size(suffix)
    size(".webp")
    np.testing.assert_array_equal(read_picture(tmp_path / "out.webp").pixels, smooth)
    assert size(".webp", lossless=False) == size(".webp", quality=95) < size(".webp", lossless=True)
    for name, layers in (("4:4:4", (1, 1)), ("4:2:2", (2, 1)), ("4:2:0", (2, 2))):
        size(".jpg", subsampling=name)
        assert sampling(tmp_path / "out.jpg")[0] == layers
    assert size(".avif", subsampling="4:2:0") < size(".avif")
    assert size(".tif", tiff_compression="deflate") < size(".tif") < size(".tif", tiff_compression="none")
    assert size(".png", png_level=9) < size(".png", png_level=0)
    assert write_options(".gif") == WriteOptions()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--quality", "80"], "--quality concerns JPEG, WebP and AVIF, but the output is PNG"),
        (["-o", "out.tif", "--quality", "80"], "but the output is TIFF"),
        (["--format", "webp", "--subsampling", "4:2:0"], "--subsampling concerns JPEG and AVIF"),
        (["--format", "avif", "--lossless"], "--lossless concerns WebP, but the output is AVIF"),
        (["--format", "jpg", "--tiff-compression", "none"], "--tiff-compression concerns TIFF"),
        (["--format", "jpg", "--png-level", "3"], "--png-level concerns PNG"),
        (["--format", "webp", "--lossless", "--quality", "80"], "contradict each other"),
        (["--format", "jpg", "--quality", "101"], "not in the range"),
        (["--format", "jpg", "--subsampling", "4:1:1"], "is not one of"),
        (["--format", "jxl"], "is not one of"),
    ],
)
def test_options_that_do_not_fit_are_wrong_usage(tmp_path: Path, arguments: list[str], says: str) -> None:
    path = saved(tmp_path / "in.png", encoded(np.zeros((4, 4), np.uint8), "PNG"))
    result = CliRunner().invoke(main, ["upscale", str(path), *arguments])
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.png"]


def test_help_begins_with_the_five_options_that_matter() -> None:
    text = CliRunner().invoke(main, ["upscale", "--help"]).output
    first, *others = text.partition("\nOptions:\n")[2].split("\n\n")
    flags = [line for line in first.splitlines() if line.startswith("  -")]
    assert len(flags) == 5
    for flag, line in zip(("--scale", "-o", "--format", "--backend", "--overwrite"), flags, strict=True):
        assert flag in line
    command = main.commands["upscale"]
    shown = text.replace("\n", " ")
    assert all(
        f"{option.opts[-1]} " in shown for option in command.params if option.param_type_name == "option"
    )
    assert any(other.startswith("Encoding of the output:") for other in others)


# Transparency


def cut_out(size: int, *, sub: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Render a disc with a soft texture: colour (H, W, 3), and coverage, of `sub` x `sub` samples."""
    y, x = (np.mgrid[0 : size * sub, 0 : size * sub] + 0.5) / (size * sub) - 0.5
    inside = (np.hypot(x, y) < 0.33).astype(float)
    coverage = inside.reshape(size, sub, size, sub).mean(axis=(1, 3))
    v, u = (np.mgrid[0:size, 0:size] + 0.5) / size - 0.5
    colour = np.stack([0.85 + 0.1 * np.sin(9 * u), 0.55 + 0.1 * np.cos(7 * v), 0.25 + 0.1 * u], axis=-1)
    return colour, coverage


def over(colour: NDArray, alpha: NDArray, ground: float) -> NDArray[np.float64]:
    return colour * alpha[..., None] + ground * (1 - alpha[..., None])


@pytest.mark.parametrize("deep", [False, True])
def test_a_cut_out_has_no_halo(deep: bool) -> None:
    """What is black under transparency must not show, whatever it is put on."""
    largest, dtype = (65535, np.uint16) if deep else (255, np.uint8)
    colour, coverage = cut_out(64, sub=8)
    stored = np.where(coverage[..., None] > 0, colour, 0)  # as most programs save it
    lr = Picture(np.rint(stored * largest).astype(dtype), np.rint(coverage * largest).astype(dtype))
    with Upscaler(scale=3, backend="onnx", device="cpu") as upscaler:
        result = upscaler.picture(lr)
        careless = upscaler(lr.pixels) / largest
    assert result.alpha is not None
    pixels, alpha = result.pixels / largest, result.alpha / largest
    truth, true_alpha = cut_out(192, sub=8)
    assert np.abs(alpha - true_alpha).mean() < 0.005
    assert ((alpha == 0) | (alpha == 1)).mean() > 0.9
    # The colour itself is right wherever anything of it is seen.
    visible = alpha > 0.02
    assert np.abs(pixels - truth)[visible].max() < 0.08
    assert np.abs(careless - truth)[visible].max() > 0.3  # which is the halo
    for ground in (0.0, 1.0):
        shown = over(pixels, alpha, ground)
        # Between the ground and the cut-out there is nothing darker or lighter than both.
        low = np.minimum(truth, ground) - 0.08
        high = np.maximum(truth, ground) + 0.08
        assert ((shown >= low) & (shown <= high)).all()
        assert np.abs(shown - over(truth, true_alpha, ground)).mean() < 0.01
