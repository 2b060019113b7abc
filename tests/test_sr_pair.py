"""Pairs of networks: how a partner is found, what lies between the two, and what a run says of it."""

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from deploy.export import ExportSpec, export_onnx
from sr.cli import main
from sr.errors import ModelError
from sr.image import open_picture
from sr.metrics import psnr_y
from sr.network.checkpoint import load_weights, save_weights
from sr.network.deployed import restored_weights
from sr.network.modelfile import shipped_onnx
from sr.network.pair import (
    STRENGTHS,
    Restores,
    blended,
    partner_of,
    partner_path,
    restored_file,
    restored_onnx,
)
from sr.upscale import Upscaler
from tests.pairs import TINY, write_onnx_pair, write_pair

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def onnx(folder) -> Path:
    return write_onnx_pair(folder)


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    return coarse.resize((128, 96), Image.Resampling.BICUBIC)


def upscaled(model: Path, picture: Image.Image, backend: str = "onnx", **settings) -> np.ndarray:
    with Upscaler(model=model, backend=backend, **settings) as upscaler:
        return np.asarray(upscaler(picture))


# --- the networks between two -------------------------------------------------------------------


def test_strength_0_is_the_base_and_1_the_partner_to_the_bit(onnx, photograph):
    base, partner = upscaled(onnx, photograph, restore=0), upscaled(partner_path(onnx), photograph)
    assert (base != partner).mean() > 0.5, "the two differ, or nothing is shown"
    np.testing.assert_array_equal(upscaled(onnx, photograph, restore=1), partner)
    assert blended(onnx, partner_path(onnx), 0.0) == onnx.read_bytes()
    assert restored_onnx(onnx, 0.0) == onnx


def test_a_strength_moves_the_output_evenly(onnx, photograph):
    outputs = [upscaled(onnx, photograph, restore=s).astype(float) for s in STRENGTHS]
    gone = [np.abs(output - outputs[0]).mean() for output in outputs]
    assert gone == sorted(gone)
    assert gone[1] > 0


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_every_backend_computes_the_same_network(onnx, photograph, backend):
    if backend == "openvino":
        pytest.importorskip("openvino")
    model = onnx.with_name("tiny_x2.safetensors") if backend == "torch" else onnx
    here, there = upscaled(onnx, photograph, restore=0.3), upscaled(model, photograph, backend, restore=0.3)
    assert np.abs(here.astype(int) - there).max() <= 1


@pytest.mark.slow
def test_an_export_between_two_is_what_is_interpolated(onnx, photograph, tmp_path):
    path = export_onnx(onnx.with_name("tiny_x2.safetensors"), tmp_path, ExportSpec(restore=0.5))
    assert path.name == "tiny-restore-0.5_x2_fp32_uint8.onnx"
    here, there = upscaled(path, photograph), upscaled(onnx, photograph, restore=0.5)
    assert np.abs(here.astype(int) - there).max() <= 1


def test_gates_are_folded_before_they_are_interpolated(tmp_path):
    """A gate multiplies weights: between two gated networks lies another one than between their parts."""
    base = write_pair(tmp_path, config=replace(TINY, attention="dynamic"))
    for path in (base, partner_path(base)):
        loaded = load_weights(path)
        frozen = replace(loaded, config=replace(loaded.config, attention="frozen"))
        save_weights(path, frozen)
    partner = load_weights(partner_path(base))
    restores = replace(Restores.from_dict(partner.restores, source=""), base_sha256=load_weights(base).sha256)
    save_weights(partner_path(base), replace(partner, restores=restores.to_dict()))
    assert restored_weights(base, 0.5).config.attention == "none"


def test_an_engine_is_built_from_a_file_that_is_written_once(onnx, tmp_path):
    path = restored_file(onnx, 0.5, tmp_path)
    assert path.parent == tmp_path
    before = path.stat().st_mtime_ns
    assert restored_file(onnx, 0.5, tmp_path) == path
    assert path.stat().st_mtime_ns == before
    assert path.read_bytes() == restored_onnx(onnx, 0.5)


def test_the_halo_is_the_larger_one_and_the_weights_are_told_apart(onnx):
    described = []
    for strength in (0, 0.5, 1):
        with Upscaler(model=onnx, backend="onnx", restore=strength) as upscaler:
            described.append(upscaler.backend.info.model)
    assert len({model.weights_sha256 for model in described}) == 3
    assert described[1].name == "tiny-restore-0.5"
    assert described[1].halo >= 9


# --- finding a partner --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "partner"),
    [
        ("small_x2.safetensors", "small-restore_x2.safetensors"),
        ("small_x3_fp16_uint8.onnx", "small-restore_x3_fp16_uint8.onnx"),
        ("my_x2net_x4.onnx", "my_x2net-restore_x4.onnx"),
        ("mine.onnx", "mine-restore.onnx"),
    ],
)
def test_a_partner_lies_beside_its_base(name, partner):
    assert partner_path(Path(name)).name == partner


def test_a_partner_of_other_weights_is_refused_and_never_taken_unasked(onnx, tmp_path, photograph):
    other = tmp_path / "other_x2_fp32_uint8.onnx"
    other.write_bytes(shipped_onnx(scale=2).read_bytes())
    partner_path(other).write_bytes(partner_path(onnx).read_bytes())
    with pytest.raises(ModelError, match=r"other-restore_x2.*other weights"):
        partner_of(other)
    with pytest.raises(ModelError, match="other weights"):
        upscaled(other, photograph, restore="auto")
    np.testing.assert_array_equal(upscaled(other, photograph), upscaled(other, photograph, restore=0))


@pytest.mark.parametrize("damage", ["", "{}", "onnx"])
def test_a_damaged_partner_is_named(onnx, tmp_path, damage):
    base = tmp_path / "tiny_x2.safetensors"
    base.write_bytes(onnx.with_name("tiny_x2.safetensors").read_bytes())
    partner_path(base).write_text(damage)
    with pytest.raises(ModelError, match="tiny-restore_x2"):
        partner_of(base)


def test_networks_of_different_structure_have_nothing_between_them(onnx):
    with pytest.raises(ModelError, match="another structure"):
        blended(onnx, shipped_onnx(scale=2), 0.5)


@pytest.mark.parametrize(
    "rows", [{"jpeg": [[90, 0], [50, 1]]}, {"jpeg": [[50, 2]]}, {"jpeg": [[50]]}, {"jpeg": "x"}, []]
)
def test_an_impossible_table_is_damage(rows):
    with pytest.raises(ModelError, match="damaged record"):
        Restores.from_dict({"base_sha256": "", "strengths": rows, "assumed": {}}, source="file")


# --- the strength of a picture ------------------------------------------------------------------


@pytest.mark.parametrize(("quality", "strength"), [(40, 1.0), (80, 0.5), (99, 0.0)])
def test_auto_takes_the_strength_of_the_file(onnx, tmp_path, photograph, quality, strength):
    path = tmp_path / "picture.jpg"
    photograph.save(path, quality=quality)
    with Upscaler(model=onnx, backend="onnx") as upscaler:
        result = upscaler.picture(open_picture(path))
    assert result.restored.strength == strength
    assert f"quality {quality}" in result.restored.why
    expected = upscaled(onnx, Image.open(path).convert("RGB"), restore=strength)
    np.testing.assert_array_equal(result.pixels, expected)


def test_what_was_restored_is_not_restored_again(onnx, tmp_path, photograph):
    path = tmp_path / "picture.jpg"
    photograph.save(path, quality=40)
    with Upscaler(model=onnx, backend="onnx", restore=1) as upscaler:
        once = upscaler.picture(open_picture(path))
        twice = upscaler.picture(once)
    np.testing.assert_array_equal(twice.pixels, upscaled(onnx, Image.fromarray(once.pixels), restore=0))
    assert twice.restored == once.restored


def test_a_restored_picture_of_16_bits(folder, tmp_path, photograph):
    deep = np.asarray(photograph).astype(np.uint16) * 257
    model = folder / "tiny_x2.safetensors"
    with Upscaler(model=model, backend="torch", restore=1) as upscaler:
        result = upscaler(deep)
    eight = upscaled(model, photograph, "torch", restore=1)
    assert np.abs(result / 257 - eight).max() <= 1


def test_few_networks_stay_open(onnx, tmp_path, photograph):
    with Upscaler(model=onnx, backend="onnx") as upscaler:
        for quality in (40, 75, 80, 88, 99, 40):
            photograph.save(tmp_path / "picture.jpg", quality=quality)
            upscaler.picture(open_picture(tmp_path / "picture.jpg"))
        assert len(upscaler.backends) <= 3


# --- the command line ---------------------------------------------------------------------------


def run(*arguments) -> tuple[int, list[str]]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output.splitlines()


@pytest.fixture
def pictures(tmp_path, photograph) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    photograph.save(folder / "a.jpg", quality=40)
    photograph.save(folder / "b.jpg", quality=99)
    photograph.save(folder / "c.png")
    return folder


def test_a_folder_says_what_was_chosen_and_why(onnx, pictures, tmp_path):
    arguments = ("upscale", pictures, "-o", tmp_path / "out", "--model", onnx, "--backend", "onnx")
    code, lines = run(*arguments, "--json")
    assert code == 0
    records = [json.loads(line) for line in lines]
    chosen = {Path(record["source"]).name: record["restore"] for record in records[:-1]}
    assert chosen == {"a.jpg": 1.0, "b.jpg": 0.0, "c.png": 0.0}
    assert "quality 40" in records[0]["restore_why"]
    assert records[-1]["summary"]["restored"] == {"0": 2, "1": 1}
    code, lines = run(*arguments, "--overwrite", "--restore", "0.25")
    assert code == 0
    assert any("3 at 0.25" in line for line in lines)


def test_scale_1_restores_without_enlarging(pictures, photograph, tmp_path):
    out = tmp_path / "out"
    code, lines = run("upscale", pictures, "-o", out, "--scale", "1", "--json")
    assert code == 0
    strengths = {Path(record["source"]).name: record["restore"] for record in map(json.loads, lines[:-1])}
    assert strengths["a.jpg"] > 0
    assert strengths["c.png"] == 0
    original = np.asarray(photograph)
    for name in strengths:
        with Image.open(pictures / name) as before, Image.open(out / f"{Path(name).stem}_x1.png") as after:
            damaged, made = np.asarray(before), np.asarray(after)
        if strengths[name]:
            assert psnr_y(made, original, scale=1) > psnr_y(damaged, original, scale=1) + 0.3
        else:
            np.testing.assert_array_equal(made, damaged)


def test_between_networks_that_have_nothing_between_them_there_are_two_strengths(tmp_path, photograph):
    model = write_onnx_pair(tmp_path, steps=1)
    for backend in ("onnx", "openvino"):
        with pytest.raises(ModelError, match="0 or 1"):
            upscaled(model, photograph, backend, restore=0.5)
    with pytest.raises(ModelError, match="0 or 1"):
        restored_onnx(model, 0.25)
    restores = partner_of(model).restores
    assert restores.available == (0, 1)
    assert [restores.strength("jpeg", quality) for quality in (40, 70, 99)] == [1, 1, 0]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_network_of_scale_1_returns_its_picture(precision, photograph):
    with Upscaler(scale=1, model=shipped_onnx(scale=1, precision=precision), restore=0) as upscaler:
        np.testing.assert_array_equal(np.asarray(upscaler(photograph)), np.asarray(photograph))
    assert run("info", "--model", "small", "--scale", "1")[1][0].split() == ["model", "small", "x1"]


def test_outputs_of_another_strength_are_not_up_to_date(onnx, pictures, tmp_path):
    arguments = ("upscale", pictures, "-o", tmp_path / "out", "--model", onnx, "--backend", "onnx")
    assert run(*arguments)[0] == 0
    skipped = json.loads(run(*arguments, "--skip-existing", "--json")[1][-1])["summary"]
    assert skipped["skipped"] == 3
    again = json.loads(run(*arguments, "--skip-existing", "--json", "--restore", "1")[1][-1])["summary"]
    assert (again["skipped"], again["done"]) == (0, 3)


def test_the_page_shows_none_and_all_of_the_restoration(onnx, pictures, tmp_path):
    page, out = tmp_path / "page.html", tmp_path / "out"
    model = ("--model", onnx, "--backend", "onnx")
    assert run("upscale", pictures, "-o", out, *model, "--compare", page)[0] == 0
    kinds = re.findall(r'data-side="left" data-kind="([^"]+)"', page.read_text("utf-8"))
    assert kinds == ["nearest", "bicubic", "restore 0", "restore 1", "srup"]
    shown = dict(re.findall(r'data-kind="([^"]+)" alt="a.jpg.*?base64,([^"]+)"', page.read_text("utf-8")))
    with Image.open(pictures / "a.jpg") as picture:
        none, full = (upscaled(onnx, picture, restore=strength) for strength in (0, 1))
    for kind, expected in (("restore 0", none), ("restore 1", full), ("srup", full)):
        with Image.open(io.BytesIO(base64.b64decode(shown[kind]))) as image:
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), expected)


@pytest.mark.parametrize("given", ["2", "-1", "nan", "much"])
def test_an_impossible_strength_is_wrong_usage(pictures, given):
    code, lines = run("upscale", pictures, "--restore", given)
    assert code == 2
    assert "--restore" in lines[-1]


def test_a_model_without_a_partner_says_so_in_one_line(pictures, tmp_path):
    model = tmp_path / "plain_x2.onnx"
    model.write_bytes(shipped_onnx(scale=2).read_bytes())
    for given in ("auto", "0.5"):
        code, lines = run("upscale", pictures, "--model", model, "--restore", given)
        assert (code, len(lines)) == (1, 1)
        assert "plain_x2.onnx" in lines[0]
    assert not pictures.with_name("in_x2").exists()


def test_without_a_partner_nothing_is_said_of_it(pictures, tmp_path):
    model = tmp_path / "plain_x2.onnx"
    model.write_bytes(shipped_onnx(scale=2).read_bytes())
    _, lines = run("upscale", pictures, "--model", model, "--json")
    assert not any("restore" in line for line in lines)


def test_info_knows_partners(onnx):
    assert any("tiny-restore" in line for line in run("info", "--model", onnx)[1])
    assert any(line.startswith("restores") for line in run("info", "--model", partner_path(onnx))[1])


@pytest.mark.slow
def test_int8_needs_a_file_for_each_strength(folder, tmp_path, photograph):
    pictures = tmp_path / "lr"
    pictures.mkdir()
    photograph.save(pictures / "a.png")
    weights = folder / "tiny_x2.safetensors"
    for each, strength in ((weights, 0.0), (partner_path(weights), 0.0), (weights, 0.5)):
        export_onnx(each, tmp_path, ExportSpec(precision="int8", calibration=pictures, restore=strength))
    base = tmp_path / "tiny_x2_int8_uint8.onnx"
    half = tmp_path / "tiny-restore-0.5_x2_int8_uint8.onnx"
    assert restored_onnx(base, 0.5) == half
    np.testing.assert_array_equal(upscaled(base, photograph, restore=0.5), upscaled(half, photograph))
    with pytest.raises(ModelError, match=r"--restore 0\.25"):
        upscaled(base, photograph, restore=0.25)
