"""INT8 files: quantised and float parts, closeness to float32, metadata."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnx
import onnxruntime
import torch

from deploy.export import ExportSpec, export_onnx
from deploy.quantize import (
    CALIBRATION_PICTURES,
    CALIBRATION_PX,
    INSIDE_BLOCKS,
    QuantizeSpec,
    calibration_pictures,
    quantized,
)
from sr.backends.ort import OrtBackend, read_metadata
from sr.cli import main
from sr.errors import ModelError
from sr.image import read_picture
from sr.metrics import psnr
from sr.network.checkpoint import Weights, save_weights
from sr.network.config import ModelConfig, preset_config
from sr.network.model import SRNet
from sr.network.modelfile import shipped_onnx, shipped_scales, shipped_weights

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "osprey.png"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Return a folder with four parts of a photograph, of different sizes and kinds."""
    folder = tmp_path_factory.mktemp("lr")
    photograph = Image.open(EXAMPLE).convert("RGB")
    for index, kind in enumerate(("RGB", "RGB", "L", "RGB")):
        side = 40 + 50 * index
        photograph.crop((80 * index, 30, 80 * index + side, 30 + side)).convert(kind).save(
            folder / f"{index}.png"
        )
    return folder


def convolutions(model: onnx.ModelProto) -> dict[str, bool]:
    """Return for each convolution, by the name of its weights, whether these are 8-bit integers."""
    makers = {node.output[0]: node for node in model.graph.node}
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            maker = makers.get(node.input[1])
            source = maker.input[0] if maker else node.input[1]
            name = source.removesuffix("_quantized")
            found[name] = stored[source] == onnx.TensorProto.INT8
    return found


@pytest.mark.parametrize("scale", shipped_scales())
def test_shipped_files_compute_8_bits_inside_the_blocks_and_nowhere_else(scale):
    found = convolutions(onnx.load(shipped_onnx(scale=scale, precision="int8")))
    blocks = preset_config("small").num_blocks
    assert len(found) == 3 * blocks + 4, "and the base, the fusion, and two of the upsampler"
    assert {name for name, is_int8 in found.items() if is_int8} == {
        f"net.blocks.{block}.{layer}.weight" for block in range(blocks) for layer in ("expand.1", "reduce.0")
    }


@pytest.mark.parametrize("scale", shipped_scales())
def test_shipped_files_are_of_the_shipped_weights(scale):
    int8, fp32 = (read_metadata(shipped_onnx(scale=scale, precision=kind)) for kind in ("int8", "fp32"))
    assert int8.weights_sha256 == fp32.weights_sha256
    assert (int8.precision, int8.io) == ("int8", "uint8")
    assert int8.halo == int8.receptive_field_radius


def test_weights_have_7_bits(tmp_path):
    """Sums of two products of 8 bits overflow 16 bits, in which older processors add them up."""
    for tensor in onnx.load(shipped_onnx(scale=2, precision="int8")).graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4:
            assert np.abs(onnx.numpy_helper.to_array(tensor).astype(int)).max() <= 64


@pytest.mark.slow
def test_one_command_exports_an_int8_file(pictures, tmp_path):
    """Of a network as it leaves the training, with live attention."""
    torch.manual_seed(0)
    config = ModelConfig(scale=2, num_feats=8, num_blocks=1)
    weights = tmp_path / "net.safetensors"
    save_weights(weights, Weights(config, SRNet(config).state_dict(), {}, halo=2))
    words = ["export", "--onnx", "--precision", "int8", "--weights", weights, "--calibrate", pictures]
    answer = CliRunner().invoke(main, list(map(str, [*words, "-o", tmp_path])))
    assert answer.exit_code == 0, answer.output
    file = tmp_path / "custom_x2_int8_uint8.onnx"
    assert answer.output.splitlines() == [f"{file}  {file.stat().st_size / 1e6:.2f} MB"]
    found = convolutions(onnx.load(file))
    assert list(found.values()) == [False, False, True, True, False, False]
    metadata = read_metadata(file)
    assert (metadata.precision, metadata.halo) == ("int8", config.receptive_field_radius)


@pytest.mark.slow
def test_more_than_the_blocks_costs_more(pictures):
    """Why the readers of trunk and picture stay float."""
    model, given = onnx.load(shipped_onnx(scale=3)), calibration_pictures(pictures)
    before = model.SerializeToString()
    part = read_picture(EXAMPLE).pixels[None, 100:160, 100:200]
    with OrtBackend(shipped_onnx(scale=3), device="cpu") as backend:
        (expected,) = backend.run([part])
    apart = []
    for layers in (INSIDE_BLOCKS, r"net\.blocks\..*"):
        made = quantized(model, given, QuantizeSpec(layers=layers, method="minmax"))
        assert all(
            is_int8 == bool(re.fullmatch(layers, name)) for name, is_int8 in convolutions(made).items()
        )
        session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"image": part})
        apart.append(psnr(found[0], expected[0]))
    assert apart[0] > apart[1] + 3
    assert model.SerializeToString() == before, "the model given stays as it is"


def test_calibration_takes_pictures_from_all_over_the_folder(tmp_path, pictures):
    given = calibration_pictures(pictures)
    assert {picture.shape for picture in given} == {(CALIBRATION_PX, CALIBRATION_PX, 3)}
    assert np.array_equal(given[0][:40, :40], read_picture(pictures / "0.png").pixels)
    for index in range(3 * CALIBRATION_PICTURES):
        Image.new("RGB", (2, 2), (index, 0, 0)).save(tmp_path / f"{index:03}.png")
    reds = [int(picture[0, 0, 0]) for picture in calibration_pictures(tmp_path)]
    assert reds == list(range(0, 3 * CALIBRATION_PICTURES, 3))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match="calibrat"):
        calibration_pictures(empty)


def test_exports_that_cannot_be_int8_are_refused(pictures, tmp_path):
    for spec in (ExportSpec("int8"), ExportSpec("int8", "float32", calibration=pictures)):
        with pytest.raises(ModelError, match=r"int8.*uint8"):
            export_onnx(shipped_weights(scale=2), tmp_path, spec)
    with pytest.raises(ModelError, match="bf16"):
        export_onnx(shipped_weights(scale=2), tmp_path, ExportSpec("bf16"))
    with pytest.raises(ModelError, match="convolution"):
        quantized(onnx.load(shipped_onnx(scale=2)), [], QuantizeSpec(layers="nothing"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["--onnx", "--precision", "int8"],
        ["--onnx", "--calibrate", "."],
        ["--trt-rtx", "--precision", "int8", "--calibrate", "."],
        ["--onnx", "--precision", "int8", "--calibrate", ".", "--io", "float32"],
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(words):
    answer = CliRunner().invoke(main, ["export", *words])
    assert answer.exit_code == 2
    assert "int8" in answer.output
