"""The comparison page: its contents, refused pages, and its behaviour in a browser."""

import base64
import errno
import hashlib
import json
import os
import struct
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from pictures import icc_profile
from PIL import Image, ImageCms
from test_sr_cli import assert_nothing_left, assert_refused, srup

from sr.cli import compare
from sr.cli.compare import Compared, check_page, write_page
from sr.errors import ImageError
from sr.resize import bicubic_resize

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
KINDS = ["nearest", "bicubic", "srup"]
TIMES = "\N{MULTIPLICATION SIGN}"  # "x" in what the tests read
NASTY = """a "b" <img src=x onerror=alert(1)> & 'c' @@script@@ $x \N{CAT} e\N{COMBINING ACUTE ACCENT}\n.png"""


class Page(HTMLParser):
    """A parsed page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.scripts, self.tags = "", [], []
        self.pairs: list[dict[str, str]] = []
        self.images: list[dict[str, Image.Image]] = []
        self.alts: list[str] = []
        self._inside = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.tags.append((tag, values))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")
        if values.get("class") == "pair":
            self.pairs.append(values)
            self.images.append({})
        if tag == "img":
            head, _, data = values["src"].partition(",")
            assert head == "data:image/webp;base64"
            self.images[-1][values["data-kind"]] = Image.open(BytesIO(base64.b64decode(data, validate=True)))
            self.alts.append(values["alt"])

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data.replace(TIMES, "x")

    def pictures(self) -> list[str]:
        return [alt.removesuffix(", nearest") for alt in self.alts if alt.endswith(", nearest")]

    def arrays(self, index: int = 0) -> dict[str, np.ndarray]:
        return {kind: np.asarray(image) for kind, image in self.images[index].items()}


def noise(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def pair(folder: Path, lr: np.ndarray, *, scale: int = 2, name: str = "a.png", **saved: object) -> Compared:
    """Write a picture, and as its output one of the right size with other pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    source, target = folder / name, folder / f"output of {name}"
    Image.fromarray(lr).save(source, **saved)
    channels = lr.shape[2] if lr.ndim == 3 else 1
    Image.fromarray(noise(lr.shape[0] * scale, lr.shape[1] * scale, channels, seed=1)).save(target, **saved)
    return Compared(source, target)


def pixels(path: Path, mode: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert(mode))


# --- what is embedded ---------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pixels_are_those_of_the_files(tmp_path, mode, scale):
    one = pair(tmp_path, noise(15, 22, len(mode)), scale=scale)
    summary = write_page(tmp_path / "page.html", [one], about="")
    assert (summary.shown, summary.left_out) == (1, [])
    assert summary.size == (tmp_path / "page.html").stat().st_size
    page = Page(tmp_path / "page.html")
    assert (page.pairs[0]["data-width"], page.pairs[0]["data-height"]) == (str(22 * scale), str(15 * scale))
    assert ("data-alpha" in page.pairs[0]) == ("A" in mode)  # a chequered ground
    shown, wide = page.arrays(), "RGBA" if "A" in mode else "RGB"
    assert list(shown) == KINDS
    np.testing.assert_array_equal(shown["srup"], pixels(one.target, wide))
    lr = pixels(one.source, wide)
    np.testing.assert_array_equal(shown["nearest"], lr.repeat(scale, 0).repeat(scale, 1))
    with Image.open(one.source) as image:
        bicubic = image.resize((22 * scale, 15 * scale), Image.Resampling.BICUBIC).convert(wide)
    np.testing.assert_array_equal(shown["bicubic"], np.asarray(bicubic))


def test_bicubic_is_the_filter_of_the_quality_figures(tmp_path):
    """Pillow's has the same kernel; it rounds between the passes, and treats the border otherwise."""
    one = pair(tmp_path, noise(15, 22, 3) // 2 + 64, scale=3)
    write_page(tmp_path / "page.html", [one], about="")
    shown = Page(tmp_path / "page.html").arrays()["bicubic"]
    exact = bicubic_resize(pixels(one.source, "RGB").astype(np.float64), scale=3).clip(0, 255)
    inner = (slice(6, -6), slice(6, -6))
    assert np.abs(shown[inner] - exact[inner]).max() < 1.2  # two roundings, of which one is weighted


def test_outputs_whose_size_is_not_a_multiple_are_shown(tmp_path):
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    lr, sr = noise(13, 19, 3), noise(30, 50, 3)  # no pixel in the middle between two
    Image.fromarray(lr).save(source)
    Image.fromarray(sr).save(target)
    write_page(tmp_path / "page.html", [Compared(source, target)], about="")
    page = Page(tmp_path / "page.html")
    rows, columns = ((np.arange(n) + 0.5) * m / n for n, m in ((30, 13), (50, 19)))
    np.testing.assert_array_equal(page.arrays()["nearest"], lr[rows.astype(int)][:, columns.astype(int)])
    np.testing.assert_array_equal(page.arrays()["srup"], sr)
    assert page.arrays()["bicubic"].shape == sr.shape
    assert "19x13 → 50x30 pixels (x2.632)" in page.text


def test_a_large_picture_is_cut_to_its_detail(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "LARGEST_CROP_PX", 90 * 60)
    lr = np.full((80, 120, 3), 90, np.uint8)
    lr[50:70, 80:110] = noise(20, 30, 3)
    one = pair(tmp_path, lr, scale=3)
    write_page(tmp_path / "page.html", [one], about="")
    page = Page(tmp_path / "page.html")
    shown = page.arrays()
    assert {array.shape for array in shown.values()} == {(60, 90, 3)}
    whole = lr.repeat(3, 0).repeat(3, 1)
    tops, lefts = range(0, 240 - 60 + 1, 3), range(0, 360 - 90 + 1, 3)  # whole pixels of the input
    places = [
        (left, top)
        for top in tops
        for left in lefts
        if (shown["nearest"] == whole[top : top + 60, left : left + 90]).all()
    ]
    assert len(places) == 1
    ((left, top),) = places
    assert abs(left - 240) <= 9
    assert abs(top - 150) <= 9
    np.testing.assert_array_equal(shown["srup"], pixels(one.target, "RGB")[top : top + 60, left : left + 90])
    with Image.open(one.source) as image:
        bicubic = np.asarray(image.resize((360, 240), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(shown["bicubic"], bicubic[top : top + 60, left : left + 90])
    assert f"90x60 from ({left}, {top})" in page.text


def test_the_middle_of_a_flat_picture_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "LARGEST_CROP_PX", 40 * 20)
    one = pair(tmp_path, np.full((40, 80), 90, np.uint8))
    write_page(tmp_path / "page.html", [one], about="")
    assert "40x20 from (60, 30)" in Page(tmp_path / "page.html").text


def test_a_very_long_picture_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "_LONGEST_CROP_SIDE", 50)
    one = pair(tmp_path, noise(1, 40, 3))
    write_page(tmp_path / "page.html", [one], about="")
    assert Page(tmp_path / "page.html").images[0]["srup"].size == (50, 2)


# --- colours ------------------------------------------------------------------------------------


def swapped_profile() -> bytes:
    """Return sRGB with red and green changed places, under another name."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"-XYZ").replace(b"gXYZ", b"rXYZ").replace(b"-XYZ", b"gXYZ")
    return profile.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))


def linear_grey_profile() -> bytes:
    """Return a grey profile without gamma (ICC.1:2022, sections 7 and 10)."""
    header = bytearray(icc_profile(b"GRAY")[:128])
    header[68:80] = struct.pack(">3i", 63190, 65536, 54061)  # D50
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)
    words = b"linear\0"
    name = (b"desc\0\0\0\0" + struct.pack(">I", len(words)) + words).ljust(96, b"\0") + bytes(12)
    tags = [(b"desc", name), (b"wtpt", white), (b"kTRC", curve)]
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for signature, data in tags:
        table += signature + struct.pack(">II", at + len(body), len(data))
        body += data
    header[0:4] = struct.pack(">I", at + len(body))
    return bytes(header) + table + body


def test_colours_are_converted_to_srgb(tmp_path):
    lr = noise(9, 9, 4) | np.uint8([0, 0, 0, 128])
    one = pair(tmp_path, lr, icc_profile=swapped_profile())
    write_page(tmp_path / "page.html", [one], about="")
    shown = Page(tmp_path / "page.html").arrays()
    for kind, stored in (("srup", pixels(one.target, "RGBA")), ("nearest", lr.repeat(2, 0).repeat(2, 1))):
        changed = shown[kind].astype(int) - stored[..., [1, 0, 2, 3]]
        assert np.abs(changed).max() <= 2, kind
        assert not changed[..., 3].any()


def test_a_grey_profile_is_applied(tmp_path):
    one = pair(tmp_path, np.full((9, 9), 128, np.uint8), icc_profile=linear_grey_profile())
    write_page(tmp_path / "page.html", [one], about="")
    assert abs(int(Page(tmp_path / "page.html").arrays()["nearest"][0, 0, 0]) - 188) <= 1


@pytest.mark.parametrize("profile", ["sRGB", "unusable"])
def test_srgb_stays_as_it_is(tmp_path, profile):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    one = pair(tmp_path, noise(9, 9, 3), icc_profile=srgb if profile == "sRGB" else icc_profile(b"RGB "))
    write_page(tmp_path / "page.html", [one], about="")
    np.testing.assert_array_equal(Page(tmp_path / "page.html").arrays()["srup"], pixels(one.target, "RGB"))


def test_the_first_frame_of_an_animation_is_shown(tmp_path):
    one = Compared(tmp_path / "a.png", tmp_path / "b.png")
    for path, size in ((one.source, 8), (one.target, 16)):
        first, second = (Image.fromarray(noise(size, size, 3, seed=seed)) for seed in (1, 2))
        first.save(path, save_all=True, append_images=[second], duration=100)
    write_page(tmp_path / "page.html", [one], about="")
    page = Page(tmp_path / "page.html")
    np.testing.assert_array_equal(page.arrays()["srup"], noise(16, 16, 3, seed=1))
    assert "the first of 2 frames" in page.text


def test_16_bits_are_rounded(tmp_path):
    pytest.importorskip("pyvips")
    one = Compared(tmp_path / "a.png", tmp_path / "b.png")
    for path, size in ((one.source, 8), (one.target, 16)):
        Image.fromarray(np.full((size, size), 25828, np.uint16)).save(path)  # 100.498 of 255
    write_page(tmp_path / "page.html", [one], about="")
    assert (Page(tmp_path / "page.html").arrays()["srup"] == 100).all()


# --- what is said -------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_are_text_and_nothing_else(tmp_path):
    one = pair(tmp_path, noise(4, 4, 3), name=NASTY)
    write_page(tmp_path / "page.html", [one], about="<b>about</b> & @@list@@")
    page = Page(tmp_path / "page.html")
    seen = NASTY.replace("\n", "\\n")
    assert page.alts == [f"{seen}, {kind}" for kind in KINDS]
    assert page.text.count(seen) == 3  # title, list, facts
    assert "<b>about</b> & @@list@@" in page.text
    assert len(page.scripts) == 1
    assert [tag for tag, _ in page.tags].count("img") == 3


def test_the_page_loads_nothing(tmp_path):
    write_page(tmp_path / "page.html", [pair(tmp_path, noise(4, 4, 3))], about="")
    page = Page(tmp_path / "page.html")
    for tag, values in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not {"href", "srcset", "action"} & values.keys()
        assert values.get("src", "data:").startswith("data:")
        assert not any(name.startswith("on") for name in values), "handlers stand in the script"
    assert "url(" not in page.source
    assert "//" not in page.source.split("<script>")[0].replace("base64", "").partition("<body>")[0]
    (policy,) = [v["content"] for _, v in page.tags if v.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


def test_the_page_names_no_parent_folder(tmp_path):
    compared = [
        pair(tmp_path / "in", noise(4, 4, 3)),
        pair(tmp_path / "in" / "deep", noise(4, 4, 3)),
        Compared(tmp_path / "in" / "gone.png", tmp_path / "out.png"),
    ]
    summary = write_page(tmp_path / "page.html", compared, about="small x2")
    page = Page(tmp_path / "page.html")
    assert page.pictures() == ["in/a.png", "deep/a.png"]
    assert str(tmp_path) not in page.source
    (line,) = summary.left_out
    assert line.startswith("gone.png: ")
    assert line in page.text
    assert "small x2" in page.text


# --- limits -------------------------------------------------------------------------------------


def test_the_size_of_a_page_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "LARGEST_PAGE_BYTES", 400_000)
    monkeypatch.setattr(compare, "_FRAME_BYTES", 40_000)
    compared = [pair(tmp_path / str(i), noise(60, 100, 3)) for i in range(4)]
    compared.append(pair(tmp_path / "flat", np.full((60, 100, 3), 7, np.uint8)))
    summary = write_page(tmp_path / "page.html", compared, about="")
    assert summary.shown == 5
    assert 200_000 < summary.size <= 400_000
    page = Page(tmp_path / "page.html")
    assert page.text.count("to keep this page small") == 5  # the output of the last is noise, too
    for images in page.images:
        assert len({image.size for image in images.values()}) == 1
        width, height = images["srup"].size
        assert width / height == pytest.approx(100 / 60, rel=0.05)


def test_the_number_of_pictures_on_a_page_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "MOST_PICTURES", 2)
    compared = [pair(tmp_path / str(i), noise(4, 4, 3)) for i in range(5)]
    compared[0].target.unlink()
    summary = write_page(tmp_path / "page.html", compared, about="")
    assert summary.shown == 2
    assert "2 more" in summary.left_out[1]
    page = Page(tmp_path / "page.html")
    assert page.pictures() == ["1/a.png", "2/a.png"]
    assert "2 more" in page.text


def test_too_many_pixels_are_not_read(tmp_path):
    compared = [pair(tmp_path / "1", noise(4, 4, 3)), pair(tmp_path / "2", noise(5, 4, 3))]
    summary = write_page(tmp_path / "page.html", compared, about="", max_pixels=16)
    assert summary.shown == 1
    assert "--max-pixels" in summary.left_out[0]


def test_nothing_to_show_writes_nothing(tmp_path):
    path = tmp_path / "page.html"
    assert write_page(path, [], about="").shown == 0
    summary = write_page(path, [Compared(tmp_path / "a.png", tmp_path / "b.png")], about="")
    assert (summary.shown, summary.size, len(summary.left_out)) == (0, 0, 1)
    assert_nothing_left(tmp_path)


# --- what is refused ----------------------------------------------------------------------------


def test_a_page_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.html").mkdir()
    there = tmp_path / "there.html"
    there.write_text("precious")
    (tmp_path / "dangling.html").symlink_to("nowhere")
    for path, remedy in {
        tmp_path / "page.png": "page.html",
        tmp_path / "folder.html": "",
        there: "--overwrite",
        tmp_path / "dangling.html": "--overwrite",
        tmp_path / "file" / "page.html": "",
        tmp_path / f"{'x' * 300}.html": "",
    }.items():
        with pytest.raises(ImageError) as caught:
            check_page(path, overwrite=False)
        assert str(caught.value).startswith(f"{path}: ")
        assert remedy in str(caught.value)
    check_page(there, overwrite=True)
    check_page(tmp_path / "new" / "folder" / "page.HTM", overwrite=False)
    assert there.read_text() == "precious"
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ImageError, match=r"page\.html: "):
        check_page(tmp_path / "locked" / "page.html", overwrite=False)


def test_a_full_disk_leaves_the_old_page(tmp_path, monkeypatch):
    one = pair(tmp_path / "in", noise(4, 4, 3))
    path = tmp_path / "page.html"
    path.write_text("old")

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ImageError, match=r"page\.html: .*No space"):
        write_page(path, [one], about="")
    assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "page.html"]


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path) -> Path:
    """Return a folder of two small photographs."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("kitten", "osprey"):
        with Image.open(EXAMPLES / f"{name}.png") as picture:
            picture.crop((200, 80, 260, 125)).save(folder / f"{name}.png")
    return folder


def test_the_command_writes_a_page(photos, tmp_path):
    page = tmp_path / "new" / "look.html"
    result = srup("upscale", photos, "--scale", 3, "--compare", page)
    assert (result.returncode, result.stderr) == (0, "")
    size = page.stat().st_size / 1e6
    assert result.stdout.splitlines()[-1] == f"{page}: 2 pictures compared, {size:.1f} MB"
    seen = Page(page)
    assert seen.pictures() == ["kitten.png", "osprey.png"]
    for index, name in enumerate(("kitten", "osprey")):
        target = tmp_path / "in_x3" / f"{name}_x3.png"
        np.testing.assert_array_equal(seen.arrays(index)["srup"], pixels(target, "RGB"))
    assert "small x3, fp32, onnx on CPU" in seen.text
    assert "60x45 → 180x135 pixels (x3)" in seen.text
    assert_nothing_left(page.parent, "look.html")


@pytest.mark.slow
def test_skipped_pictures_are_on_the_page(photos, tmp_path):
    page = tmp_path / "look.html"
    assert srup("upscale", photos).returncode == 0
    with Image.open(photos / "kitten.png") as picture:
        picture.rotate(90).save(photos / "new.png")
    result = srup("upscale", photos, "--skip-existing", "--compare", page, "--json")
    assert result.returncode == 0
    *pictures, _summary = (json.loads(line) for line in result.stdout.splitlines())
    assert [picture["source"] for picture in pictures] == [str(photos / "new.png")]
    assert result.stderr.splitlines()[-1].startswith(f"{page}: 3 pictures compared")
    seen = Page(page)
    assert seen.alts[0] == "new.png, nearest"
    assert seen.text.count("output of an earlier run") == 2


@pytest.mark.slow
def test_an_existing_page_is_refused_before_the_work_starts(photos, tmp_path):
    page = tmp_path / "look.html"
    page.write_text("precious")
    assert_refused(srup("upscale", photos, "--compare", page), str(page), "--overwrite")
    assert_nothing_left(photos.parent, "in", "kitten.png", "osprey.png", "look.html")
    assert page.read_text() == "precious"
    assert srup("upscale", photos, "--compare", page, "--overwrite").returncode == 0
    assert Page(page).alts


@pytest.mark.slow
def test_pages_that_make_no_sense_are_refused(photos, tmp_path):
    page = tmp_path / "look.html"
    assert_refused(srup("upscale", photos, "--compare", page, "--dry-run"), "--dry-run", code=2)
    assert_refused(srup("upscale", photos, "--compare", tmp_path / "look.png"), "look.html")
    assert_refused(
        srup("upscale", photos, "--compare", photos / "kitten.png" / "look.html"), "cannot be written"
    )
    assert_nothing_left(photos.parent, "in", "kitten.png", "osprey.png")


@pytest.mark.slow
def test_a_failed_picture_is_not_on_the_page(photos, tmp_path):
    page = tmp_path / "look.html"
    (photos / "kitten.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = srup("upscale", photos, "--compare", page)
    assert result.returncode == 1
    assert Page(page).pictures() == ["osprey.png"]
    page.unlink()
    (photos / "osprey.png").write_bytes(b"")
    result = srup("upscale", photos, "--compare", page, "--overwrite")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"Note: {page} was not written")
    assert not page.exists()


# --- in a browser -------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")

STATE = """(() => {
  const box = (element) => {
    const { x, y, width, height } = element.getBoundingClientRect();
    return [x, y, width, height];
  };
  const root = document.documentElement;
  const pair = document.querySelector(".pair:not([hidden])");
  const images = [...pair.children];
  const line = document.querySelector("#line");
  return {
    pairs: document.querySelectorAll(".pair:not([hidden])").length,
    facts: document.querySelector(".facts:not([hidden])").textContent,
    pair: box(pair),
    images: images.map(box),
    loaded: images.every((image) => image.complete && image.naturalWidth === Number(pair.dataset.width)),
    visible: images.filter((i) => getComputedStyle(i).visibility === "visible").map((i) => i.dataset.kind),
    clips: Object.fromEntries(images.map((i) => [i.dataset.kind, getComputedStyle(i).clipPath])),
    rendering: getComputedStyle(images[0]).imageRendering,
    line: box(line)[0] + 22,
    value: Number(line.getAttribute("aria-valuenow")),
    stage: box(document.querySelector("#stage")),
    labels: ["left", "right"].map((side) => document.querySelector(`#${side}-label`).textContent),
    zoom: document.querySelector("#zoom").textContent,
    scrolls: root.scrollWidth > innerWidth || root.scrollHeight > innerHeight,
  };
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Return a page of two pictures, the second larger than the window."""
    folder = tmp_path_factory.mktemp("browser")
    compared = []
    for name, size in (("kitten \N{CAT} <i>", (100, 80)), ("osprey", (450, 150))):
        with Image.open(EXAMPLES / f"{name.split()[0]}.png") as picture:
            lr = np.asarray(picture.crop((0, 0, *size)))
        compared.append(pair(folder, lr, scale=2, name=f"{name}.png"))
    write_page(folder / "page #1.html", compared, about="small x2")
    return folder / "page #1.html"


@pytest.fixture
def browser(request):
    with Browser(ratio=getattr(request, "param", 1)) as opened:
        opened.size(width=800, height=600)
        yield opened
        assert opened.errors == []
        assert {url.partition(":")[0] for url in opened.requests} <= {"file", "data"}
        assert sum(url.startswith("file:") for url in opened.requests) == 1


def state(browser: Browser) -> dict:
    """Return what is laid out, after checking what must always hold."""
    now = browser.run(STATE)
    now["zoom"] = now["zoom"].replace(TIMES, "x")
    assert now["pairs"] == 1
    assert now["loaded"]
    assert all(box == now["pair"] for box in now["images"]), "one over the other"
    assert not now["scrolls"]
    left, right = now["labels"]
    assert sorted(now["visible"]) == sorted([left, right])
    x, _, width, _ = now["pair"]
    cut = now["line"] - x
    assert insets(now["clips"][left]) == pytest.approx(
        [0, width - cut, 0, 0], abs=0.05
    )  # layout has 64ths of pixels
    assert insets(now["clips"][right]) == pytest.approx([0, 0, 0, cut], abs=0.05)
    return now


def insets(clip: str) -> list[float]:
    """Read `inset(...)` as top, right, bottom, left."""
    values = [float(word.removesuffix("px")) for word in clip.removeprefix("inset(").rstrip(")").split()]
    top, right, bottom, left = (values + [values[0]] * 4)[:4] if len(values) == 1 else (values * 2)[:4]
    if len(values) == 3:
        top, right, bottom, left = values[0], values[1], values[2], values[1]
    return [top, right, bottom, left]


def bare(browser: Browser) -> np.ndarray:
    """Return a screenshot without the line and the labels."""
    browser.run("document.querySelectorAll('#line, .label').forEach((e) => { e.style.display = 'none'; })")
    browser.settle()
    seen = browser.screenshot()
    browser.run("document.querySelectorAll('#line, .label').forEach((e) => { e.style.display = ''; })")
    return seen


@pytest.mark.slow
@needs_browser
def test_the_line_moves(browser, page):
    browser.open(page)
    before = state(browser)
    assert before["labels"] == ["bicubic", "srup"]
    assert before["value"] == 50
    x, y, width, height = before["pair"]
    assert before["line"] == pytest.approx(x + width / 2, abs=1)
    browser.drag(
        (before["line"] + 5, y + height / 2), (x + width / 4 + 5, y + 10)
    )  # by its grip, off the middle
    assert state(browser)["line"] == pytest.approx(x + width / 4, abs=1)
    browser.key("ArrowRight")
    assert state(browser)["value"] == 27
    browser.key("ArrowLeft")
    browser.key("ArrowLeft")
    assert state(browser)["value"] == 23
    browser.drag((x + width * 0.8, y + 20), (x + width * 0.9, y + 20))  # anywhere, as nothing can be panned
    assert state(browser)["line"] == pytest.approx(x + width * 0.9, abs=1)
    browser.drag((x + width * 0.9, y + 20), (790, y + 20))
    assert state(browser)["value"] == 100
    browser.key("Home")
    assert state(browser)["line"] == pytest.approx(x, abs=1)
    browser.key("End")
    assert state(browser)["line"] == pytest.approx(x + width, abs=1)


@pytest.mark.slow
@needs_browser
def test_both_sides_are_switched(browser, page):
    browser.open(page)
    browser.click('[data-side="left"][data-kind="nearest"]')
    assert state(browser)["labels"] == ["nearest", "srup"]
    browser.click('[data-side="right"][data-kind="bicubic"]')
    assert state(browser)["labels"] == ["nearest", "bicubic"]
    browser.click('[data-side="right"][data-kind="nearest"]')
    assert state(browser)["labels"] == ["bicubic", "nearest"]  # swapped
    pressed = "[...document.querySelectorAll('[aria-pressed=true][data-side]')].map((b) => b.textContent)"
    assert browser.run(pressed) == ["bicubic", "nearest"]
    browser.key("ArrowRight")  # the buttons do not keep the keys
    assert state(browser)["value"] == 52


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(("browser", "ratio"), [(r, r) for r in (1, 2, 1.5)], indirect=["browser"])
def test_pixels_on_the_screen_are_those_of_the_files(browser, page, ratio):
    browser.open(page)
    assert browser.run("devicePixelRatio") == ratio
    browser.click('[data-side="left"][data-kind="nearest"]')
    embedded = Page(page).arrays()
    for zoom in (1, 2, 4):
        browser.click(f'[data-zoom="{zoom}"]')
        now = state(browser)
        assert now["zoom"] == f"{zoom}x"
        assert now["rendering"] == "pixelated"
        assert now["pair"][2] == pytest.approx(200 * zoom / ratio, abs=0.05)
        seen = bare(browser)
        left, top = (round(value * ratio) for value in now["pair"][:2])
        stage = [round(value * ratio) for value in now["stage"]]
        rows = slice(max(top, stage[1]) - top, min(top + 160 * zoom, stage[1] + stage[3]) - top)
        columns = slice(max(left, 0) - left, min(left + 200 * zoom, stage[2]) - left)
        cut = round(now["line"] * ratio) - left
        large = {kind: array.repeat(zoom, 0).repeat(zoom, 1) for kind, array in embedded.items()}
        expected = np.hstack((large["nearest"][:, :cut], large["srup"][:, cut:]))[rows, columns]
        shown = seen[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop]
        np.testing.assert_array_equal(shown, expected)


@pytest.mark.slow
@needs_browser
def test_zoom_and_pan(browser, page):
    browser.open(page)
    browser.click("nav button:nth-child(2)")
    whole = state(browser)
    assert "osprey.png" in whole["facts"]
    assert whole["pair"][2] == pytest.approx(800, abs=1)  # 900 pixels in 800
    assert whole["rendering"] == "auto"
    assert whole["zoom"] == "89 %"
    browser.wheel(200, 300, -120)
    one = state(browser)
    assert (one["zoom"], one["rendering"]) == ("1x", "pixelated")
    browser.wheel(200, 300, -120)
    two = state(browser)
    assert two["zoom"] == "2x"
    under = [(200 - s["pair"][0]) / s["pair"][2] for s in (one, two)]
    assert under[0] == pytest.approx(under[1], abs=0.002)  # what is below the pointer stays there
    x, y = two["pair"][:2]
    browser.drag((150, 300), (110, 330))
    panned = state(browser)
    assert panned["pair"][:2] == [x - 40, y + 30]
    assert panned["line"] == two["line"]
    browser.key("ArrowRight", shift=True)
    assert state(browser)["pair"][0] == x - 100
    browser.drag((150, 300), (790, 590))
    browser.drag((150, 300), (790, 590))
    stage = state(browser)["stage"]
    assert state(browser)["pair"][:2] == stage[:2]  # no further than the corner
    for key, zoom in (("+", "3x"), ("4", "4x"), ("-", "3x"), ("1", "1x"), ("-", "89 %"), ("0", "89 %")):
        browser.key(key)
        assert state(browser)["zoom"] == zoom
    browser.click('[data-step="1"]')
    browser.click('[data-zoom="fit"]')
    assert state(browser)["pair"] == whole["pair"]
    browser.key("PageUp")
    assert "kitten \N{CAT} <i>.png" in state(browser)["facts"]
    assert state(browser)["zoom"] == "2x"  # the largest whole number that fits


@pytest.mark.slow
@needs_browser
def test_schemes_and_small_screens(browser, page):
    brightness = {}
    for scheme in ("light", "dark"):
        browser.scheme(scheme)
        browser.open(page) if scheme == "light" else browser.settle()
        brightness[scheme] = browser.screenshot()[-5:].mean()
    assert brightness["light"] > 200
    assert brightness["dark"] < 60
    browser.size(width=360, height=640, ratio=3, mobile=True)
    browser.settle()
    now = state(browser)
    assert now["stage"][3] > 200
    inside = "[...document.querySelectorAll('header .bar button')].every((b) => {"
    inside += "const r = b.getBoundingClientRect(); return r.left >= 0 && r.right <= innerWidth; })"
    assert browser.run(inside)
