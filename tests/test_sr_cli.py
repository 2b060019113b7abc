"""The `srup` command as its user meets it: real files, what is printed, exit status."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from sr.cli import main
from sr.version import __version__

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


Answer = subprocess.CompletedProcess[str]


def srup(*arguments: object, cwd: Path = ROOT) -> Answer:
    """Run the command in this process; what it does not catch fails the test."""
    with contextlib.chdir(cwd):
        result = CliRunner(env={"COLUMNS": "80"}).invoke(
            main, [str(argument) for argument in arguments], prog_name="srup", catch_exceptions=False
        )
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


def srup_process(*arguments: object, **options: Any) -> Answer:
    """Run the command in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-m", "sr.cli", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, **options
    )


def assert_refused(result: Answer, *words: str, code: int = 1) -> None:
    """Check for one error line that holds `words`, the exit status, and no traceback."""
    assert result.returncode == code
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert result.stderr.splitlines()[-1] == errors[0]
    for word in words:
        assert word in errors[0]


def assert_nothing_left(folder: Path, *names: str) -> None:
    assert sorted(path.name for path in folder.rglob("*")) == sorted(names)


@pytest.fixture
def photo(tmp_path) -> Path:
    """Return a small photograph in a folder of its own."""
    path = tmp_path / "in" / "photo.png"
    path.parent.mkdir()
    with Image.open(EXAMPLES / "kitten.png") as picture:
        picture.crop((200, 120, 260, 165)).save(path)
    return path


def test_version_and_help():
    assert srup_process("--version").stdout.strip() == f"srup, version {__version__}"
    for command in ("upscale", "export", "train", "prepare", "eval", "info"):
        result = srup(command, "--help")
        assert result.returncode == 0
        assert "--help" in result.stdout


def test_a_file_in_the_place_of_a_command_gets_the_command_that_was_meant(photo):
    for name in (photo, "photo.jpg", photo.parent):
        result = srup(name, "--scale", 3)
        assert result.returncode == 2
        assert f"srup upscale {name} --scale 3" in result.stderr
    assert "srup upscale" not in srup("nonsense").stderr


def test_a_model_is_described_on_one_screen():
    lines = srup("info", "--model", "small").stdout.splitlines()
    assert 10 < len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert all(f"small x{scale}" in lines[0] for scale in (2, 3, 4))


@pytest.mark.parametrize(
    ("name", "content", "fact"),
    [
        ("notes.txt", b"hello", ".onnx"),
        pytest.param("other.pth", b"PK\x03\x04" + bytes(20), "state dict", marks=pytest.mark.slow),
        pytest.param("none.pth", None, "no such", marks=pytest.mark.slow),
    ],
)
def test_info_says_what_a_file_is_that_is_no_model(tmp_path, name, content, fact):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert_refused(srup("info", "--model", tmp_path / name), name, fact)


def test_help_has_whole_summaries_and_groups():
    listed = " ".join(srup("--help").stdout.split())
    assert "..." not in listed.partition("Commands:")[2]
    for command, heading in (("upscale", "Exact size:"), ("train", "Network:"), ("export", "Engines:")):
        assert heading in srup(command, "--help").stdout.splitlines()


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_picture_is_upscaled_beside_itself(photo, scale):
    result = (srup_process if scale == 3 else srup)("upscale", photo, "-s", scale)
    assert result.returncode == 0
    assert result.stderr == ""  # quiet when piped
    first, summary = result.stdout.splitlines()
    assert f"60x45 -> {60 * scale}x{45 * scale}" in first
    assert summary.startswith(f"1 of 1 picture, x{scale}")
    assert_nothing_left(photo.parent, "photo.png", f"photo_x{scale}.png")
    with Image.open(photo.parent / f"photo_x{scale}.png") as upscaled:
        assert (upscaled.size, upscaled.mode) == ((60 * scale, 45 * scale), "RGB")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_every_format_is_read_and_written(photo, tmp_path, suffix):
    source = tmp_path / f"source{suffix}"
    with Image.open(photo) as picture:
        picture.save(source, quality=95)
    target = tmp_path / f"target{suffix}"
    assert srup("upscale", source, "-o", target).returncode == 0
    with Image.open(target) as upscaled:
        assert upscaled.size == (120, 90)
        reference = np.asarray(upscaled.convert("RGB")).astype(int)
    assert srup("upscale", photo, "-o", tmp_path / "reference.png").returncode == 0
    with Image.open(tmp_path / "reference.png") as upscaled:
        assert np.abs(reference - np.asarray(upscaled)).mean() < 4  # JPEG is lossy
    assert_nothing_left(tmp_path, "in", "photo.png", source.name, target.name, "reference.png")


def test_a_folder_is_mirrored_and_a_bad_picture_does_not_stop_it(photo, tmp_path):
    deep = photo.parent / "a b" / "ü"
    deep.mkdir(parents=True)
    shutil.copy(photo, deep / "emoji 🐈.png")
    (photo.parent / "bad.png").write_bytes(photo.read_bytes()[:900])
    (photo.parent / "notes.txt").write_text("not a picture")
    result = srup("upscale", photo.parent, "--scale", 2)
    assert result.returncode == 1
    error, *closing = result.stderr.splitlines()
    assert error.startswith(f"Error: {photo.parent / 'bad.png'}")
    assert closing == ["1 failed:", f"  {photo.parent / 'bad.png'}"]
    assert result.stdout.splitlines()[-1].startswith("2 of 3 pictures")
    outputs = sorted(p.relative_to(tmp_path / "in_x2") for p in (tmp_path / "in_x2").rglob("*.png"))
    assert outputs == [Path("a b/ü/emoji 🐈_x2.png"), Path("photo_x2.png")]
    # Once more into the input folder itself: what the first run wrote there is not an input.
    inside = photo.parent / "out"
    assert srup("upscale", photo.parent, "-o", inside).returncode == 1
    again = srup("upscale", photo.parent, "-o", inside, "--overwrite")
    assert again.stdout.splitlines()[-1].startswith("2 of 3")


@pytest.mark.slow
def test_an_existing_output_is_refused_then_replaced_then_skipped(photo, tmp_path):
    assert srup("upscale", photo.parent).returncode == 0
    target = tmp_path / "in_x2" / "photo_x2.png"
    before = target.read_bytes()
    target.write_bytes(b"precious")
    assert_refused(srup("upscale", photo.parent), str(target), "--overwrite", "--skip-existing")
    assert target.read_bytes() == b"precious"
    skipped = srup("upscale", photo.parent, "--skip-existing")
    assert (skipped.returncode, target.read_bytes()) == (0, b"precious")
    assert "1 picture skipped" in skipped.stdout
    assert srup("upscale", photo.parent, "--overwrite").returncode == 0
    assert target.read_bytes() == before
    assert_refused(
        srup("upscale", photo.parent, "--overwrite", "--skip-existing"), "exclude each other", code=2
    )


@pytest.mark.slow
def test_skipping_notices_a_picture_that_changed(photo, tmp_path):
    assert srup("upscale", photo.parent).returncode == 0
    with Image.open(photo) as picture:
        picture.rotate(180).save(photo)
    again = srup("upscale", photo.parent, "--skip-existing")
    assert again.stdout.splitlines()[-1].startswith("1 of 1 picture")
    assert "skipped" in srup("upscale", photo.parent, "--skip-existing").stdout


def test_a_dry_run_writes_nothing(photo, tmp_path):
    (photo.parent / "photo_x2.png").write_bytes(b"an earlier output")
    result = srup("upscale", photo.parent, "--dry-run", "--suffix", "_x2")
    target = tmp_path / "in_x2" / "photo_x2.png"
    assert result.stdout.splitlines()[:-1] == [f"{photo} -> {target}"]
    assert result.stdout.splitlines()[-1].startswith("1 picture to upscale; left out: ")
    as_json = srup("upscale", photo.parent, "--dry-run", "--json")
    planned, totals = (json.loads(line) for line in as_json.stdout.splitlines())
    assert planned == {"source": str(photo), "target": str(target), "replaces": False}
    assert totals["summary"]["to_upscale"] == 1
    assert sum(totals["summary"]["left_out"].values()) == 1
    assert not target.parent.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_dry_run_lists_no_work_that_would_fail_at_the_first_byte(photo):
    for name, content in {"empty.png": b"", "text.png": b"no picture"}.items():
        photo.with_name(name).write_bytes(content)
    os.mkfifo(photo.with_name("pipe.png"))
    result = srup("upscale", photo.parent, "--dry-run")
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1].startswith("1 picture to upscale")
    errors = result.stderr.splitlines()
    assert len(errors) == 3
    for name in ("empty.png", "text.png", "pipe.png"):
        assert any(line.startswith(f"Error: {photo.with_name(name)}: ") for line in errors)
    as_json = srup("upscale", photo.parent, "--dry-run", "--json").stdout.splitlines()
    assert json.loads(as_json[-1])["summary"]["refused"] == 3


def test_json_has_a_line_for_each_picture_and_a_summary(photo, tmp_path):
    (photo.parent / "zbad.png").write_bytes(b"no picture")
    (photo.parent / "notes.txt").touch()
    (photo.parent / "._photo.png").touch()
    result = srup("upscale", photo.parent, "--json", "--scale", 3)
    assert result.returncode == 1
    good, bad, last = (json.loads(line) for line in result.stdout.splitlines())
    assert good["source"] == str(photo)
    assert Path(good["target"]).is_file()
    assert (good["ok"], good["error"], good["width"], good["output_width"]) == (True, None, 60, 180)
    assert (good["output_height"], good["tiles"], good["backend"], good["scale"]) == (135, 1, "onnx", 3)
    assert (bad["ok"], bad["width"]) == (False, None)
    assert "zbad.png" in bad["error"]
    summary = last["summary"]
    assert (summary["done"], summary["failed"], summary["skipped"], summary["interrupted"]) == (
        1,
        1,
        0,
        False,
    )
    assert sorted(summary["left_out"].values()) == [1, 1]


def test_output_folder_and_format(photo, tmp_path):
    out = tmp_path / "new" / "folder"
    assert srup("upscale", photo, "-o", out, "--format", "webp").returncode == 0
    assert_nothing_left(out, "photo_x2.webp")


@pytest.mark.slow
def test_a_folder_with_a_slash_may_have_a_suffix(photo, tmp_path):
    assert srup("upscale", photo, "-o", f"{tmp_path}/2024.05.01/").returncode == 0
    assert_nothing_left(tmp_path / "2024.05.01", "photo_x2.png")
    assert_refused(srup("upscale", photo, "-o", tmp_path / "2024.06.01"), "2024.06.01", "'.01'")


@pytest.mark.slow
def test_outputs_may_go_beside_their_inputs(photo):
    shutil.copytree(photo.parent, photo.parent / "below")
    for words in ((), ("--skip-existing",)):
        result = srup("upscale", ".", "-o", ".", *words, cwd=photo.parent)
        assert result.returncode == 0, result.stderr
    assert "2 pictures skipped" in result.stdout
    names = {path.relative_to(photo.parent).as_posix() for path in photo.parent.rglob("*.png")}
    assert names == {"photo.png", "photo_x2.png", "below/photo.png", "below/photo_x2.png"}


def test_orientation_profile_and_exif_survive(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with Image.open(EXAMPLES / "osprey.png") as picture:
        exif = picture.getexif()
        exif[0x0112], exif[0x010F] = 6, "maker"
        picture.crop((0, 0, 60, 40)).save(tmp_path / "a.jpg", exif=exif, icc_profile=profile, quality=95)
    assert srup("upscale", tmp_path / "a.jpg", "-o", tmp_path / "b.jpg").returncode == 0
    with Image.open(tmp_path / "b.jpg") as upscaled:
        assert upscaled.size == (80, 120)  # turned upright, once
        assert upscaled.getexif().get(0x0112, 1) == 1
        assert upscaled.getexif()[0x010F] == "maker"
        assert upscaled.info["icc_profile"] == profile


@pytest.mark.slow
def test_alpha_and_grey_are_kept(photo, tmp_path):
    with Image.open(photo) as picture:
        cut_out = picture.convert("RGBA")
        cut_out.paste((0, 0, 0, 0), (0, 0, 30, 45))
        cut_out.save(tmp_path / "cut.png")
        picture.convert("L").save(tmp_path / "grey.png")
    assert srup("upscale", tmp_path / "cut.png", tmp_path / "grey.png").returncode == 0
    with Image.open(tmp_path / "cut_x2.png") as upscaled:
        assert upscaled.mode == "RGBA"
        assert upscaled.getchannel("A").crop((0, 0, 58, 90)).getextrema() == (0, 0)
    with Image.open(tmp_path / "grey_x2.png") as upscaled:
        assert upscaled.mode == "L"
    result = srup("upscale", tmp_path / "cut.png", "-o", tmp_path / "cut.jpg")
    assert_refused(result, "cut.jpg", "transparency", ".png")


@pytest.mark.slow
def test_torch_and_onnx_agree(photo, tmp_path):
    for backend in ("torch", "onnx"):
        result = srup("upscale", photo, "--backend", backend, "-o", tmp_path / f"{backend}.png")
        assert result.returncode == 0
        assert f"(backend {backend}" in result.stdout
    with Image.open(tmp_path / "torch.png") as one, Image.open(tmp_path / "onnx.png") as other:
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


@pytest.mark.slow
def test_a_dynamic_model_says_so_and_runs_whole(photo, tmp_path):
    import torch

    from sr.network.checkpoint import Weights, save_weights
    from sr.network.config import ModelConfig
    from sr.network.model import SRNet

    torch.manual_seed(0)
    config = ModelConfig(num_feats=8, num_blocks=1)
    save_weights(tmp_path / "live.safetensors", Weights(config, SRNet(config).state_dict()))
    exported = srup(
        "export", "--onnx", "--weights", tmp_path / "live.safetensors", "--attention", "dynamic",
        "-o", tmp_path,
    )  # fmt: skip
    assert exported.returncode == 0
    model = tmp_path / "custom_x2_fp32_uint8_dynamic.onnx"
    result = srup("upscale", photo, "--model", model, "--tile", 40)
    assert result.returncode == 0
    assert "tiles" in result.stderr
    assert "1 tile," in result.stdout


@pytest.mark.slow
def test_info_describes_models_and_the_environment():
    environment = srup("info").stdout
    assert f"srup {__version__}" in environment
    assert "onnxruntime" in environment
    for arguments in (("small", "--scale", 2), ("base",)):
        described = srup("info", "--model", *arguments).stdout
        assert "parameters" in described
        assert "multiply-adds per lr pixel" in described
    assert_refused(srup("info", "--model", "enormous"), "no preset 'enormous'", "tiny, small, base, large")
    assert_refused(srup("info", "--model", "smal"), "no preset 'smal'", "did you mean small")


# --- what bad input gets ------------------------------------------------------------------------


@pytest.mark.slow
def test_missing_file_and_not_a_picture(tmp_path):
    assert_refused(srup("upscale", tmp_path / "none.png"), "none.png", "no such file or folder")
    (tmp_path / "text.png").write_text("hello")
    assert_refused(srup("upscale", tmp_path / "text.png"), "text.png")
    (tmp_path / "empty.png").touch()
    assert_refused(srup("upscale", tmp_path / "empty.png"), "empty.png")
    assert_nothing_left(tmp_path, "text.png", "empty.png")


@pytest.mark.slow
def test_names_are_looked_at_before_a_backend_is_opened(photo):
    """A backend may build an engine for minutes when it is opened; this one cannot be opened at all."""
    backend = ("--backend", "trt", "--device", "cpu")
    assert_refused(srup("upscale", photo, *backend), "runs on GPUs only")
    listed = srup("upscale", photo.parent, *backend, "--dry-run")
    assert (listed.returncode, listed.stdout.splitlines()[-1]) == (0, "1 picture to upscale")
    assert_refused(srup("upscale", photo.parent / "wrong.png", *backend), "wrong.png", "no such file")
    photo.with_name("photo_x2.png").touch()
    assert_refused(srup("upscale", photo, *backend), "exists already")
    nothing = srup("upscale", photo, *backend, "--skip-existing")
    assert (nothing.returncode, nothing.stderr) == (0, "")
    assert nothing.stdout == "0 pictures to upscale; 1 picture skipped, their outputs exist\n"


def test_a_dry_run_loads_no_runtime(photo):
    program = (
        "import sys; from sr.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, [n for n in ('onnxruntime', 'torch') if n in sys.modules])"
    )
    command = [sys.executable, "-c", program, "upscale", str(photo), "--scale", "2.5", "--dry-run"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.stdout.splitlines()[-1] == "0 []"


@pytest.mark.slow
def test_the_scale_of_a_model_is_known_before_it_is_opened(photo):
    onnx = ROOT / "sr" / "weights" / "small_x3_fp16_uint8.onnx"
    for model in (onnx, ROOT / "sr" / "weights" / "small_x4.safetensors"):
        listed = srup("upscale", photo, "--model", model, "--dry-run")
        assert f"photo_x{3 if model == onnx else 4}.png" in listed.stdout
    missing = srup("upscale", photo, "--model", "missing.onnx", "--scale", 2, "--dry-run")
    assert_refused(missing, "missing.onnx")


def test_folder_without_pictures(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert_refused(srup("upscale", tmp_path), str(tmp_path), "no pictures")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncated_picture(photo, tmp_path, suffix):
    whole = tmp_path / f"whole{suffix}"
    with Image.open(photo) as picture:
        picture.save(whole)
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    assert_refused(srup("upscale", cut), cut.name, "truncated")
    assert not (tmp_path / "cut_x2.png").exists()


def test_header_bomb_is_refused_before_decoding(tmp_path):
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 25_000, 20_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    data = zlib.compress(b"")
    body = struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + body + end)
    assert_refused(srup("upscale", tmp_path / "bomb.png"), "bomb.png", "25000x20000", "--max-pixels")
    (tmp_path / "small.png").write_bytes((EXAMPLES / "osprey.png").read_bytes())
    assert_refused(srup("upscale", tmp_path / "small.png", "--max-pixels", 1000), "small.png", "--max-pixels")


def test_kinds_of_pictures_that_used_to_be_trouble(photo, tmp_path):
    """16 bits, CMYK, animations and pages: each comes out whole, in its own kind."""
    small = Image.open(photo).convert("RGB").crop((0, 0, 20, 16))
    frames = [small, small.rotate(180)]
    deep = np.arange(320, dtype=np.uint16).reshape(16, 20) * 200
    Image.fromarray(deep).save(tmp_path / "deep.png")
    small.convert("CMYK").save(tmp_path / "cmyk.jpg")
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=70)
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    out = tmp_path / "out"
    names = ("deep.png", "cmyk.jpg", "moving.gif", "pages.tif")
    assert srup("upscale", *(tmp_path / name for name in names), "-o", out).returncode == 0
    with Image.open(out / "deep_x2.png") as picture:
        assert picture.mode.startswith("I;16")
        assert int(np.asarray(picture).max()) > 255 * 200
    with Image.open(out / "cmyk_x2.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", (40, 32))
    for name in ("moving_x2.gif", "pages_x2.tif"):
        with Image.open(out / name) as picture:
            assert (picture.n_frames, picture.size) == (2, (40, 32))


def test_palette_and_bilevel_pictures_come_out_right(photo, tmp_path):
    with Image.open(photo) as picture:
        picture.quantize(64).save(tmp_path / "palette.png")
        picture.convert("1").save(tmp_path / "bilevel.png")
    assert srup("upscale", tmp_path / "palette.png", tmp_path / "bilevel.png").returncode == 0
    with Image.open(tmp_path / "palette_x2.png") as upscaled:
        assert (upscaled.mode, upscaled.size) == ("RGB", (120, 90))
    with Image.open(tmp_path / "bilevel_x2.png") as upscaled:
        assert (upscaled.mode, upscaled.size) == ("L", (120, 90))


def test_a_format_that_cannot_hold_the_size(tmp_path):
    Image.new("RGB", (6000, 1)).save(tmp_path / "wide.png")
    result = srup("upscale", tmp_path / "wide.png", "--scale", 3, "-o", tmp_path / "wide.webp")
    assert_refused(result, "wide.webp", "18000x3", "16,383")


def test_an_output_that_cannot_be_written(photo, tmp_path):
    (tmp_path / "file").touch()
    assert_refused(srup("upscale", photo, "-o", tmp_path / "file" / "out.png"), "out.png")
    assert_refused(srup("upscale", photo, "-o", tmp_path / "a.psd"), "a.psd", "'.psd'", ".png")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="limits file sizes the Unix way")
def test_a_full_disk_leaves_nothing(photo):
    """A limit on file size stands for the full disk: the same short write."""
    import resource

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    result = srup_process("upscale", photo, preexec_fn=limit)
    assert_refused(result, "photo_x2.png", "cannot be written")
    assert_nothing_left(photo.parent, "photo.png")


def test_an_input_is_never_replaced(photo):
    before = photo.read_bytes()
    assert_refused(srup("upscale", photo, "-o", photo), "photo.png", "would replace the input")
    assert photo.read_bytes() == before


def test_two_inputs_with_one_output_name(photo):
    shutil.copy(photo, photo.with_suffix(".bmp"))
    result = srup("upscale", photo, photo.with_suffix(".bmp"))
    assert result.returncode == 0
    assert_nothing_left(photo.parent, "photo.png", "photo.bmp", "photo_png_x2.png", "photo_bmp_x2.png")


def test_a_folder_into_one_file(photo, tmp_path):
    result = srup("upscale", photo.parent, "-o", tmp_path / "all.png")
    assert_refused(result, "all.png", "-o")


def test_damaged_and_missing_models(photo, tmp_path):
    (tmp_path / "damaged.onnx").write_bytes(b"nothing")
    for name in ("damaged.onnx", "missing.onnx"):
        assert_refused(srup("upscale", photo, "--model", tmp_path / name), name)


@pytest.mark.parametrize(
    ("name", "content", "remedy"),
    [
        ("net.pth", b"PK\x03\x04 as torch.save writes it", "state dict"),
        pytest.param("old.pth", b"\x80\x02}q\x00", "state dict", marks=pytest.mark.slow),
        ("x2.engine", b"anything", "--backend trt"),
        ("x2.bin", b"ftrt and so on", "--backend trt"),
        ("notes.txt", b"hello", ".safetensors"),
    ],
)
def test_other_files_given_as_models_are_answered_as_what_they_are(photo, tmp_path, name, content, remedy):
    (tmp_path / name).write_bytes(content)
    assert_refused(srup("upscale", photo, "--model", tmp_path / name, "--dry-run"), name, remedy)


def test_a_scale_without_weights_is_reached_by_two_networks(photo):
    result = srup("upscale", photo, "--scale", 5)
    assert result.returncode == 0
    assert "60x45 -> 300x225" in result.stdout


def test_evaluating_a_scale_without_weights(tmp_path):
    assert_refused(
        srup("eval", "--list", tmp_path / "x5.json", "--scale", 5), "scale 5", "2, 3, 4", "srup train"
    )


def test_devices_and_backends_never_fall_back(photo):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    result = srup("upscale", photo, "--backend", "onnx", "--device", "cuda")
    assert_refused(result, "CUDAExecutionProvider", "onnxruntime-gpu")


@pytest.mark.parametrize(
    "arguments",
    [
        ("upscale",),
        ("upscale", "a.png", "--scale", "two"),
        ("upscale", "a.png", "--tile", "0"),
        ("upscale", "a.png", "--halo", "wide"),
        ("upscale", "a.png", "--backend", "tpu"),
        ("export",),
        ("nonsense",),
    ],
)
def test_wrong_usage_is_exit_status_2(arguments):
    result = srup(*arguments)
    assert result.returncode == 2
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr


def test_tile_too_small_for_the_halo(photo):
    assert_refused(srup("upscale", photo, "--tile", 4), "tile 4", "--tile")
