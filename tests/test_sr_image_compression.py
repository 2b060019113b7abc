"""What a file says of its compression, and the block edges that a JPEG leaves in pixels."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks.lib.paths import EXAMPLES
from sr.image import open_picture
from sr.image.block_edges import block_edges
from sr.image.compression import LOSSLESS, Compression, compression_of, traces_in
from sr.image.dct_steps import stepped_quality
from sr.image.noise import colour_noise
from sr.network.pair import Restores
from sr.restoring import chosen
from tests.pairs import STRENGTHS
from train.drawings import drawing

RESTORES = Restores("", STRENGTHS, {"jpeg": 75.0})


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    with Image.open(EXAMPLES[0]) as opened:
        return opened.convert("RGB")


def encoded(image: Image.Image, kind: str, **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def said(data: bytes, name: str) -> Compression:
    return compression_of(io.BytesIO(data), name)


# --- JPEG ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_a_jpeg_states_quality_and_subsampling(photograph, subsampling):
    small = photograph.resize((48, 32))
    for quality in (1, 5, 20, 49, 50, 51, 75, 90, 99, 100):
        for progressive in (False, True):
            data = encoded(small, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
            assert said(data, "JPEG") == Compression("jpeg", quality, subsampling)


def test_a_grey_jpeg_has_no_subsampling(photograph):
    assert said(encoded(photograph.convert("L"), "JPEG", quality=60), "JPEG") == Compression("jpeg", 60)


@pytest.mark.parametrize("quality", [30, 60, 80, 95])
def test_scaled_tables_of_others_are_near_and_odd_ones_are_named(photograph, quality):
    known = Image.open(io.BytesIO(encoded(photograph, "JPEG", quality=quality))).quantization
    near = {
        number: [max(1, value + (at % 2)) for at, value in enumerate(table)]
        for number, table in known.items()
    }
    found = said(encoded(photograph, "JPEG", qtables=near), "JPEG")
    assert abs(found.quality - quality) <= 3
    flat = said(encoded(photograph, "JPEG", qtables=[[20] * 64, [20] * 64]), "JPEG")
    assert "not libjpeg's" in str(flat)
    assert flat.quality is not None


def test_tables_of_16_bits_are_read(photograph):
    data = encoded(photograph.convert("L"), "JPEG", quality=50)
    at = data.index(b"\xff\xdb")
    (length,) = struct.unpack_from(">H", data, at + 2)
    table = data[at + 5 : at + 2 + length]
    wide = b"\xff\xdb" + struct.pack(">HB", 2 + 1 + 128, 0x10) + b"".join(bytes((0, each)) for each in table)
    assert said(data[:at] + wide + data[at + 2 + length :], "JPEG").quality == 50


def test_a_jpeg_without_tables_is_taken_as_a_usual_one():
    found = said(b"\xff\xd8\xff\xda", "JPEG")
    assert found == Compression("jpeg")
    choice = chosen(RESTORES, found, np.zeros((8, 8, 3), np.uint8))
    assert choice.strength == RESTORES.strength("jpeg", 75)
    assert "unknown" in choice.why
    assert "75" in choice.why


# --- WebP ---------------------------------------------------------------------------------------


def test_a_lossy_webp_states_its_quantiser(photograph):
    small = photograph.resize((200, 120))
    for other in ({}, {"method": 0}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}):
        found = [
            said(encoded(small, "WEBP", quality=q, **other), "WebP").quality for q in (100, 90, 60, 30, 0)
        ]
        assert found == sorted(found)
        assert found[0] == 0
        assert found[-1] == 127
    with_alpha = said(encoded(small.convert("RGBA"), "WEBP", quality=60), "WebP")
    assert with_alpha.kind == "webp"


def test_lossless_files_say_so(photograph):
    assert said(encoded(photograph, "WEBP", lossless=True, method=0), "WebP") == LOSSLESS
    assert said(encoded(photograph, "PNG"), "PNG") == LOSSLESS


# --- AVIF ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("subsampling", ["4:0:0", "4:2:0", "4:4:4"])
def test_an_avif_states_its_quantiser(photograph, subsampling):
    """Of libaom's 64 steps (quantizer_to_qindex) all but the last three are multiples of four."""
    small = photograph.resize((97, 65))
    for quality in (100, 90, 75, 60, 20, 4):
        step = ((100 - quality) * 63 + 50) // 100  # libavif, from its quality to libaom's steps
        settings = {"quality": quality, "subsampling": subsampling, "speed": 10, "advanced": {"tune": "ssim"}}
        found = said(encoded(small, "AVIF", **settings), "AVIF")
        assert found == Compression("avif", 4 * step)


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((1, 1), {}),
        ((2200, 300), {"tile_rows": 1, "tile_cols": 2}),
        ((97, 65), {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}),
        ((97, 65), {"save_all": True}),
    ],
)
def test_the_quantiser_is_found_wherever_it_stands(photograph, size, settings):
    image = photograph.resize(size)
    for mode in ("RGB", "RGBA"):
        shown = image.convert(mode)
        more = {"append_images": [shown.rotate(9)]} if "save_all" in settings else {}
        files = [
            encoded(shown, "AVIF", quality=quality, speed=10, **settings, **more) for quality in (90, 60, 30)
        ]
        found = [said(each, "AVIF").quality for each in files]
        assert found == sorted(set(found))


def test_an_avif_of_unknown_quality_is_taken_as_a_usual_one():
    assert said(b"", "AVIF") == Compression("avif")
    restores = Restores("", {"avif": ((0.0, 0.0), (100.0, 1.0))}, {"avif": 75.0})
    choice = chosen(restores, Compression("avif"), np.zeros((8, 8, 3), np.uint8))
    assert choice.strength == 0.75
    assert "75" in choice.why


@pytest.mark.parametrize("offset", [1 << 31, (1 << 32) - 1])
def test_a_picture_beyond_the_end_of_an_avif_is_unknown(photograph, tmp_path, offset):
    content = encoded(photograph.resize((24, 16)), "AVIF", speed=10)
    at = content.index(b"iloc") + 4
    (stored,) = struct.unpack_from(">I", content, at + 14)
    assert content[stored:].startswith(b"\x12\x00") or content[stored] >> 3 in (1, 2)
    path = tmp_path / "a.avif"
    path.write_bytes(content[: at + 14] + struct.pack(">I", offset) + content[at + 18 :])
    with path.open("rb") as file:
        assert compression_of(file, "AVIF") == Compression("avif")


# --- damage -------------------------------------------------------------------------------------


@given(data=st.data())
def test_damaged_headers_never_raise(data):
    image = Image.new("RGB", (24, 16), (9, 99, 200))
    kind, name = data.draw(st.sampled_from([("JPEG", "JPEG"), ("WEBP", "WebP"), ("AVIF", "AVIF")]))
    content = bytearray(encoded(image, kind, quality=60))
    for _ in range(data.draw(st.integers(0, 8))):
        content[data.draw(st.integers(0, min(len(content), 400) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    assert isinstance(str(said(bytes(content[:cut]), name)), str)


# --- block edges --------------------------------------------------------------------------------


def resaved(image: Image.Image, quality: int) -> np.ndarray:
    """Return the pixels of a JPEG."""
    with Image.open(io.BytesIO(encoded(image, "JPEG", quality=quality))) as opened:
        return np.asarray(opened.convert("RGB"))


@pytest.mark.parametrize(("top", "left"), [(0, 0), (1, 0), (4, 3), (7, 5)])
def test_a_picture_that_was_a_jpeg_is_found_wherever_its_blocks_begin(photograph, top, left):
    for quality in (30, 75):
        pixels = resaved(photograph, quality)[top:, left:]
        assert traces_in(pixels).quality == quality
        assert block_edges(pixels).quality == pytest.approx(quality, abs=20)
        assert block_edges(pixels).corner == (-top % 8, -left % 8)
        deep = pixels.astype(np.uint16) * 257
        assert block_edges(deep).lead == pytest.approx(block_edges(pixels).lead, abs=1e-3)
        choice = chosen(RESTORES, LOSSLESS, pixels)
        assert choice.strength == RESTORES.strength("jpeg", traces_in(pixels).quality)
        assert "from a JPEG" in choice.why


@pytest.mark.parametrize("quality", [20, 50, 75, 90, 96])
def test_steps_of_coefficients_tell_the_quality(photograph, quality):
    pixels = resaved(photograph, quality)
    cropped, grey = pixels[3:, 5:], resaved(photograph.convert("L"), quality)[..., 0]
    for same in (pixels, pixels[:64, :64], pixels.astype(np.uint16) * 257, np.rot90(pixels[:, :464]), grey):
        assert stepped_quality(same, [(0, 0)]) == quality
    assert stepped_quality(cropped, [(5, 3)]) == quality
    assert stepped_quality(cropped, [(0, 0)]) is None


def test_changed_pixels_have_edges_but_no_steps(photograph):
    brighter = np.asarray(Image.fromarray(resaved(photograph, 40)).point(lambda level: 16 * level**0.5))
    assert stepped_quality(brighter, [(0, 0)]) is None
    assert traces_in(brighter).quality == pytest.approx(40, abs=20)


@pytest.mark.parametrize("sigma", [4, 8, 16])
def test_noise_that_differs_between_channels_is_measured(photograph, sigma):
    clean = np.asarray(photograph).astype(float)
    normal = np.random.default_rng(sigma).standard_normal
    noisy = np.clip(np.round(clean + sigma * normal(clean.shape)), 0, 255).astype(np.uint8)
    for pixels in (noisy, noisy[:96, :96], noisy.astype(np.uint16) * 257):
        found = traces_in(pixels)
        assert found.kind == "noise"
        assert found.quality == pytest.approx(sigma, rel=0.15)
    assert "noise of about" in str(found)
    choice = chosen(Restores("", {"noise": ((2.0, 0.5), (6.0, 1.0))}, {}), LOSSLESS, noisy)
    assert choice.strength == (0.75 if sigma == 4 else 1.0)
    grey = np.clip(np.round(clean[..., 1] + sigma * normal(clean.shape[:2])), 0, 255).astype(np.uint8)
    assert traces_in(grey) == LOSSLESS  # there, noise and texture look alike
    assert traces_in(np.dstack([grey] * 3)) == LOSSLESS


def test_noise_is_measured_where_most_colours_are_clipped(photograph):
    clean = np.asarray(photograph).astype(float)[:48, :48]
    noisy = clean + 5 * np.random.default_rng(5).standard_normal(clean.shape)
    noisy[:, 16:, 2] = 0
    found = traces_in(np.clip(np.round(noisy), 0, 255).astype(np.uint8))
    assert found.kind == "noise"
    assert found.quality == pytest.approx(5, rel=0.3)


def test_texture_is_no_noise(photograph):
    random = np.random.default_rng(3)
    texture = random.integers(60, 190, (200, 200)).repeat(3).reshape(200, 200, 3).astype(np.uint8)
    assert traces_in(texture) == LOSSLESS
    assert colour_noise(np.zeros((4, 90, 3), np.uint8)) == 0
    assert colour_noise(np.full((90, 90, 3), 255, np.uint8)) == 0
    half = np.asarray(photograph).copy()  # flat parts count as free of noise
    half[:, : half.shape[1] // 2] = 90
    noise = random.normal(0, 8, (*half.shape[:2], 3))
    noise[:, : half.shape[1] // 2] = 0
    assert traces_in(np.clip(half + noise, 0, 255).astype(np.uint8)) == LOSSLESS


def test_the_edges_tell_how_fine_the_jpeg_was(photograph):
    found = [block_edges(resaved(photograph, quality)).lead for quality in (10, 30, 50, 70, 90)]
    assert found == sorted(found, reverse=True)
    assert found[-1] > 0


def test_clean_pictures_have_no_block_edges(photograph):
    for pixels in (np.asarray(photograph), np.asarray(photograph.reduce(2)), np.asarray(drawing(7))):
        assert traces_in(pixels) == LOSSLESS
    assert chosen(RESTORES, LOSSLESS, np.asarray(photograph)).strength == 0


def test_a_jpeg_that_was_shrunk_has_no_block_edges(photograph):
    shrunk = Image.fromarray(resaved(photograph, 40)).resize(
        (photograph.width * 3 // 4, photograph.height // 2)
    )
    assert traces_in(np.asarray(shrunk)) == LOSSLESS


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (300, 5), (200, 200)])
def test_small_and_flat_pictures_have_none(size):
    for pixels in (np.full((*size, 3), 77, np.uint8), np.full(size, 0, np.uint16)):
        assert block_edges(pixels).lead == 0
        assert traces_in(pixels) == LOSSLESS


def patterns() -> dict[str, np.ndarray]:
    """Return patterns of the period of a JPEG's blocks, with a little noise."""
    y, x = np.mgrid[:320, :320]
    noise = np.random.default_rng(5).normal(0, 3, x.shape)
    return {
        "vertical stripes": np.where(x % 8 < 4, 60, 190) + noise,
        "thin lines both ways": np.where((x % 8 == 0) | (y % 8 == 0), 90, 200) + noise,
        "bricks": np.where((y % 8 < 1) | ((x + 8 * (y // 8 % 2)) % 16 < 1), 80, 180) + noise,
        "waves": 128 + 60 * np.sin(x * np.pi / 4) * np.sin(y * np.pi / 4) + noise,
        "one column of edges": np.where(x < 160, 90, 150) + np.where(y < 160, 0, 40) + noise,
        "blocks in one corner": np.where((x < 96) & (y < 96), (x // 8 + y // 8) % 2 * 60, 0) + 90 + noise,
    }


@pytest.mark.parametrize("name", patterns())
def test_patterns_of_the_same_period_are_no_blocks_of_a_jpeg(name):
    assert traces_in(np.clip(patterns()[name], 0, 255).astype(np.uint8)) == LOSSLESS


def test_repeated_pixels_are_no_blocks_of_a_jpeg(photograph):
    mosaic = np.asarray(photograph)[::8, ::8].repeat(8, 0).repeat(8, 1)
    assert block_edges(mosaic).lead == 0
    ramp = np.add.outer(np.arange(len(mosaic)), np.arange(mosaic.shape[1])) * 40
    assert block_edges((mosaic.astype(np.uint16) * 128 + ramp[..., None]).astype(np.uint16)).lead == 0
    assert traces_in(resaved(photograph, 1)).kind == "blocks"


def test_frames_of_an_animation_are_not_searched(photograph, tmp_path):
    frames = [photograph.crop((at, 0, at + 80, 60)).quantize(64) for at in (0, 8)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    for frame in open_picture(tmp_path / "a.gif").frames():
        assert frame.picture.compression != LOSSLESS
        assert chosen(RESTORES, frame.picture.compression, frame.picture.pixels).strength == 0
