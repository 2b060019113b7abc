"""Measurements of networks that the user names: of other programs, one or several in turn, or trained."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("onnx")

from benchmarks import halo, parity, quality, throughput
from benchmarks.lib.limits import Peaks
from benchmarks.lib.models import named_model
from sr.network.modelfile import shipped_weights
from tests.foreign import Convention, write_network

pytestmark = pytest.mark.usefixtures("model_cache")

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with networks, and a photograph of 140x132 in `hr`."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "hr").mkdir()
    with Image.open(EXAMPLES / "kitten.png") as picture:
        picture.convert("RGB").crop((150, 100, 290, 232)).save(folder / "hr" / "crop.png")
    write_network(folder / "2x_foo.onnx", Convention())
    write_network(folder / "1x_bar.onnx", Convention(scale=1))
    write_network(folder / "fixed.onnx", Convention(size=(64, 80), batch=1))
    return folder


@pytest.fixture(autouse=True)
def peaks(monkeypatch):
    monkeypatch.setattr("benchmarks.throughput.cpu_peaks", lambda: Peaks(200e9, "given", 30e9, "given"))


def answer(script, *arguments: object) -> Result:
    return CliRunner().invoke(script.main, [str(argument) for argument in arguments])


def test_throughput_of_another_program_s_network(folder):
    words = (
        "--size 24x16 --rounds 1 --device cpu --backend srup-onnx --backend onnxruntime --backend torch-eager"
    )
    run = answer(throughput, "--model", folder / "2x_foo.onnx", *words.split())
    assert run.exit_code == 0, run.output
    assert "x2, 1 of 24x16, fp32, cpu: " in run.output
    assert re.search(r"onnxruntime .* MP/s, .* of the peak", run.output)
    assert re.search(r"torch-eager: .*2x_foo\.onnx", run.output), "ONNX does not run in PyTorch"
    refused = answer(throughput, "--model", folder / "2x_foo.onnx", "--scale", "2")
    assert refused.exit_code == 2


def test_engines_agree_on_it_and_its_work_is_counted(folder):
    spec = throughput.Spec(("srup-onnx", "onnxruntime", "openvino"), rounds=1, peaks=Peaks(1e9, "", 1e9, ""))
    named = named_model(folder / "2x_foo.onnx")
    (case,) = throughput.run(size=(16, 24), device="cpu", spec=spec, named=named)["cases"]
    assert len(case["rows"]) >= 2
    assert all(row["differs_by_levels"] <= 1 for row in case["rows"])
    convolutions = 3 * 8 + 8 * 8 + 8 * 12  # of 3x3, then the one that repeats pixels, 1x1
    assert case["gmacs"] == round(16 * 24 * (9 * convolutions + 3 * 12) / 1e9, 3)


@pytest.mark.slow
def test_a_size_that_a_network_does_not_take_is_named(folder):
    run = answer(
        throughput,
        *("--model", folder / "fixed.onnx", "--size", "24x16", "--rounds", "1", "--device", "cpu"),
        *("--backend", "onnxruntime", "--backend", "srup-onnx"),
    )
    assert run.exit_code == 0, run.output
    assert re.search(r"onnxruntime: .*fixed\.onnx.*--size 80x64", run.output)
    assert "srup-onnx  " in run.output, "which fits pictures to it"


def test_parity_of_another_program_s_network(folder):
    run = answer(
        parity,
        folder / "hr" / "crop.png",
        "--model",
        folder / "2x_foo.onnx",
        "--backend",
        "onnx",
        "--backend",
        "torch",
    )
    assert run.exit_code == 0, run.output
    assert re.search(r"x2 onnx +cpu +fp32 tiled", run.output)
    assert re.search(r"not run: torch cpu fp32: .*2x_foo\.onnx", run.output)
    named = named_model(folder / "2x_foo.onnx")
    result = parity.run([folder / "hr" / "crop.png"], backends=["onnx"], precisions=["fp32"], named=named)
    assert "ONNX Runtime" in result["reference"]
    assert result["model"]["sha256"] == named.descriptor.weights_sha256[:12]
    json.dumps(result, allow_nan=False)


@pytest.mark.slow
def test_parity_of_weights_is_with_pytorch(folder):
    if importlib.util.find_spec("spandrel") is None:
        pytest.skip("spandrel is not installed")
    from tests.architectures import write_weights

    path = write_weights(folder / "2x_net.pth", "Compact", num_feat=12, upscale=2)
    run = answer(
        parity, folder / "hr" / "crop.png", "--model", path, "--backend", "onnx", "--backend", "torch"
    )
    assert run.exit_code == 0, run.output
    assert re.search(r"x2 onnx +cpu +fp32 tiled", run.output)
    assert re.search(r"x2 torch +cpu +fp32 whole +equal", run.output)


@pytest.mark.slow
def test_quality_of_networks_in_turn(folder):
    one, two = folder / "1x_bar.onnx", folder / "2x_foo.onnx"
    run = answer(quality, f"Crop={folder / 'hr'}", "--model", one, "--model", two)
    assert run.exit_code == 0, run.output
    assert re.search(r"Crop +x2 bicubic +\d", run.output)
    assert re.search(r"Crop +x2 1x_bar\.onnx \+ 2x_foo\.onnx \d\d\.\d+ dB", run.output)
    refused = answer(quality, f"Crop={folder / 'hr'}", "--model", one)
    assert refused.exit_code == 1
    assert re.search(r"1x_bar\.onnx.*--degrade", refused.output), "which keeps the size"


def test_halo_of_another_program_s_network(folder):
    crop, two = folder / "hr" / "crop.png", folder / "2x_foo.onnx"
    run = answer(halo, "--model", two, crop)
    assert run.exit_code == 0, run.output
    (found,) = re.findall(r"crop\.png: halo (\d+)", run.output)
    assert 1 <= int(found) <= 3, "three convolutions of 3x3"
    assert f"srup uses {named_model(two).descriptor.halo}" in run.output
    assert answer(halo, "--model", two, crop, "--write").exit_code == 2
    fixed = answer(halo, "--model", folder / "fixed.onnx", crop)
    assert fixed.exit_code == 1
    assert "one size" in fixed.output


@pytest.mark.slow
def test_halo_of_weights_of_ours_is_written(folder, tmp_path):
    weights = tmp_path / "own.safetensors"
    weights.write_bytes(shipped_weights(scale=2).read_bytes())
    run = answer(halo, "--model", weights, folder / "hr" / "crop.png", "--write")
    assert run.exit_code == 0, run.output
    assert re.search(r"halo \d+ with a margin of 2; receptive-field radius 27", run.output)
