"""Parity: what it measures, and that it fails when it should."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from benchmarks import parity
from deploy.engines.build import build_engine
from deploy.verify import MAX_LOSS_DB
from sr.backends.gpus import visible_gpus
from sr.backends.parity import MIN_PSNR_DB
from sr.errors import BackendError
from sr.image import read_picture
from sr.resize import bicubic_resize
from sr.upscale import Upscaler
from train.prepare.make import PrepareSpec, prepare

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="module")
def crop(tmp_path_factory) -> Path:
    """Return a photograph of 160x144, which is cut into four tiles."""
    path = tmp_path_factory.mktemp("crop") / "hr" / "crop.png"
    path.parent.mkdir()
    with Image.open(EXAMPLES / "kitten.png") as picture:
        picture.convert("RGB").crop((150, 100, 310, 244)).save(path)
    return path


@pytest.fixture(scope="module")
def pairs(crop, tmp_path_factory) -> Path:
    """Return a list of one pair at x2."""
    folder = tmp_path_factory.mktemp("val") / "Crops"
    (made,) = prepare(PrepareSpec(crop.parent, scales=(2,), output=folder, whole=True)).lists
    return made.path


def measured(*arguments: object) -> Result:
    return CliRunner().invoke(parity.main, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_every_backend_of_this_machine_passes_and_the_rest_is_named(crop, pairs):
    result = parity.run([crop, pairs], scales=[2])
    assert result["passed"]
    rows = {(r["backend"], r["device"], r["precision"], r["tiling"]): r for r in result["rows"]}
    assert rows["torch", "cpu", "fp32", "whole"]["psnr_db"] is None, "the reference equals itself"
    for tiling in ("whole", "tiled"):
        assert rows["onnx", "cpu", "fp32", tiling]["max_levels"] <= 1
        # ONNX Runtime on the CPU rounds the weights to half, so something must differ.
        assert MIN_PSNR_DB["fp16"] <= rows["onnx", "cpu", "fp16", tiling]["psnr_db"] < MIN_PSNR_DB["fp32"]
        assert 0 < rows["onnx", "cpu", "fp16", tiling]["share"] < 0.1
    if not visible_gpus():
        lacking = {(row["backend"], row["device"], row["precision"]) for row in result["not_run"]}
        assert {("trt", "cuda", "fp16"), ("trt-rtx", "cuda", "fp16"), ("torch", "cuda", "fp32")} <= lacking
        assert all(row["why"] for row in result["not_run"])
    json.dumps(result, allow_nan=False)


def test_lists_are_scored_against_the_truth(pairs):
    result = parity.run([pairs], backends=["onnx"])
    assert {row["scale"] for row in result["rows"]} == {2}
    scores = {row["case"]: row for row in result["sets"]}
    assert {row["set"] for row in result["sets"]} == {"Crops"}
    hr = read_picture(next((pairs.parent / "x2" / "HR").glob("*.png"))).pixels
    lr = read_picture(next((pairs.parent / "x2" / "LR").glob("*.png"))).pixels
    with Upscaler(scale=2, backend="torch", device="cpu") as upscaler:
        expected = parity.psnr_y(upscaler(lr), hr, scale=2)
    assert scores["reference"]["psnr_y"] == expected
    assert abs(scores["onnx cpu fp16"]["loss_db"]) < MAX_LOSS_DB["fp16"]
    assert scores["onnx cpu fp32"]["psnr_y"] == pytest.approx(expected, abs=1e-3)


def test_a_backend_that_is_off_fails_and_says_where(crop, monkeypatch):
    """A case that gives bicubic must not pass for the network."""

    def bicubic(case, scale, samples, *, tiled):
        if (case.backend, case.device) == ("onnx", "cpu"):
            return (bicubic_resize(sample.lr, scale=scale) for sample in samples)
        return outputs(case, scale, samples, tiled=tiled)

    outputs = parity.outputs
    monkeypatch.setattr(parity, "outputs", bicubic)
    result = measured(crop, "--backend", "onnx", "--precision", "fp16", "--scale", 2)
    assert result.exit_code == 1
    assert result.stdout.count("x2 onnx    cpu ") == result.stdout.count("TOO FAR OFF") == 2


def test_seams_fail(crop, monkeypatch):
    """Tiles that are 80 dB from the reference but differ from the whole by several levels do not pass."""
    outputs = parity.outputs

    def seamed(case, scale, samples, *, tiled):
        for image in outputs(case, scale, samples, tiled=tiled):
            if tiled:
                image = image.copy()
                image[100, 100] ^= 4
            yield image

    monkeypatch.setattr(parity, "outputs", seamed)
    (whole, tiled) = parity.run([crop], backends=["torch"], scales=[2])["rows"][:2]
    assert whole["passed"]
    assert tiled["psnr_db"] > MIN_PSNR_DB["fp32"]
    assert tiled["tiles_max_levels"] == 4
    assert not tiled["passed"]


@pytest.mark.parametrize("content", [None, "{}", "["], ids=["missing", "no list", "no JSON"])
def test_a_bad_list_is_one_line(tmp_path, content):
    path = tmp_path / "list.json"
    if content is not None:
        path.write_text(content)
    result = measured(path)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {path}")


def test_a_list_of_sizes_that_do_not_fit_is_refused(tmp_path):
    for name, side in (("hr", 33), ("lr", 16)):
        Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "list.json").write_text('[{"HR": "hr.png", "LR": "lr.png"}]')
    result = measured(tmp_path / "list.json")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path / 'hr.png'}: ")


def test_missing_engines_are_built(monkeypatch):
    """Without a builder in the request, a missing engine would be an error."""
    requests = []

    def refusing(name, request):
        requests.append(request)
        raise BackendError(name)

    monkeypatch.setattr(parity, "open_backend", refusing)
    with pytest.raises(BackendError):
        parity.Case("trt", "cuda", "fp16").open(2, 128)
    assert [request.builder for request in requests] == [build_engine]


@pytest.mark.gpu
def test_every_backend_of_a_gpu_passes(crop):
    result = parity.run([crop])
    assert result["passed"], list(parity.lines(result))
    assert any(row["device"] == "cuda" for row in result["rows"]), result["not_run"]
