"""Networks in YCbCr and luma, deployed: files, tiles and backends take RGB and know nothing of it."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnx
import onnxruntime
import torch
from onnx import TensorProto

from deploy.export import ExportSpec, export_onnx
from deploy.verify import MAX_TILING_LEVELS, MAX_TILING_SHARE, difference
from sr.backends.ort import read_metadata
from sr.errors import ModelError
from sr.image import read_picture
from sr.network.checkpoint import Weights, load_weights, save_weights
from sr.network.colour import RGBNet
from sr.network.config import COLOUR_CHANNELS, ModelConfig
from sr.network.descriptor import KEY_PREFIX, ModelDescriptor
from sr.network.model import SRNet
from sr.network.modelfile import shipped_onnx
from sr.upscale import Upscaler

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SPECS = {
    "uint8": ExportSpec(),
    "float32": ExportSpec(io="float32"),
    "fp16": ExportSpec(precision="fp16"),
    "fp16 float32": ExportSpec(precision="fp16", io="float32"),
}
SCALES = {"YCbCr": 2, "Y": 3}


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """Return a part of a photograph in colour, 150x170 uint8 RGB."""
    return np.ascontiguousarray(read_picture(EXAMPLES / "osprey.png").pixels[30:180, 120:290])


@pytest.fixture(scope="module", params=SCALES)
def weights_file(request, tmp_path_factory) -> Path:
    """Return weights of a small network in another colour space than RGB."""
    torch.manual_seed(0)
    colour: Any = request.param
    config = ModelConfig(
        scale=SCALES[colour],
        img_channels=COLOUR_CHANNELS[colour],
        colour=colour,
        num_feats=16,
        num_blocks=2,
        attention="frozen",
    )
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_weights(path, Weights(config, SRNet(config).state_dict()))
    return path


@pytest.fixture(scope="module")
def files(weights_file, tmp_path_factory) -> dict[str, Path]:
    """Return one export of each kind."""
    folder = tmp_path_factory.mktemp("onnx")
    return {name: export_onnx(weights_file, folder, spec) for name, spec in SPECS.items()}


def run(path: Path, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    results = dict(
        zip((o.name for o in session.get_outputs()), session.run(None, {"image": image}), strict=True)
    )
    assert np.all(results.get("finite", 1))
    return results["upscaled"]


def reference(weights_file: Path, lr: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """Return what the trained network makes of a picture: floats (1, 3, sH, sW) and levels (sH, sW, 3)."""
    batch = torch.tensor(lr).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        floats = RGBNet(load_weights(weights_file).build())(batch)
    return floats, (floats * 255).round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).numpy()


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SPECS)
def test_pictures_are_rgb_of_any_size(files, kind):
    model = onnx.load(files[kind])
    onnx.checker.check_model(model, full_check=True)
    (image,) = model.graph.input
    names = [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim]
    assert names == (["N", 3, "H", "W"] if "float32" in kind else ["N", "H", "W", 3])
    scale, wide = read_metadata(files[kind]).scale, "float32" in kind
    for count, height, width in ((1, 1, 1), (3, 2, 40), (2, 31, 5)):
        shape = (count, 3, height, width) if wide else (count, height, width, 3)
        lr = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        sr = run(files[kind], lr.astype(np.float32) / 255 if wide else lr)
        height, width = height * scale, width * scale
        assert sr.shape == ((count, 3, height, width) if wide else (count, height, width, 3))


@pytest.mark.parametrize("kind", SPECS)
def test_the_file_says_its_colour_space(files, weights_file, kind):
    metadata, config = read_metadata(files[kind]), load_weights(weights_file).config
    assert (metadata.colour, metadata.channels) == (config.colour, config.img_channels)
    assert metadata.receptive_field_radius == config.receptive_field_radius


@pytest.mark.parametrize("kind", ["fp16", "fp16 float32"])
def test_half_precision_is_in_convolutions_only(files, kind):
    graph = onnx.shape_inference.infer_shapes(onnx.load(files[kind])).graph
    types = {info.name: info.type.tensor_type.elem_type for info in (*graph.value_info, *graph.output)}
    types |= {constant.name: constant.data_type for constant in graph.initializer}
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["Resize"] == (1 if read_metadata(files[kind]).colour == "Y" else 0)
    assert kinds["Conv"] == 1 + 2 * 3 + 2
    for node in graph.node:
        if node.op_type == "Conv":
            assert {types[name] for name in node.input} == {TensorProto.FLOAT16}
        if node.op_type in ("Mul", "Sub", "Resize", "Abs", "ReduceMean"):
            assert types[node.output[0]] == TensorProto.FLOAT


def test_onnx_runtime_computes_what_pytorch_does(files, weights_file, photograph):
    floats, levels = reference(weights_file, photograph)
    batch = (photograph.astype(np.float32) / 255).transpose(2, 0, 1)[None]
    assert np.abs(run(files["float32"], batch) - floats.numpy()).max() <= 1e-4
    found = difference(run(files["uint8"], photograph[None])[0], levels)
    assert found.max_levels <= 1
    assert found.share <= 1e-3
    assert difference(run(files["fp16"], photograph[None])[0], levels).max_levels <= 5
    assert np.abs(run(files["fp16 float32"], batch) - floats.numpy()).max() <= 2e-2


def test_finite_is_0_where_the_network_overflows(weights_file, tmp_path):
    weights = load_weights(weights_file)
    state = dict(weights.state)
    name = "base.parametrizations.weight.original0"
    state[name] = state[name] * 1e7
    save_weights(tmp_path / "inflated.safetensors", replace(weights, state=state))
    path = export_onnx(tmp_path / "inflated.safetensors", tmp_path, ExportSpec(precision="fp16"))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.run(None, {"image": np.zeros((2, 16, 16, 3), np.uint8)})[1].tolist() == [0, 0]


# --- metadata -----------------------------------------------------------------------------------


def test_files_without_a_colour_space_are_rgb():
    properties = shipped_properties()
    properties.pop(KEY_PREFIX + "colour", None)
    assert ModelDescriptor.from_properties(properties, source="old.onnx").colour == "RGB"


def test_one_channel_files_without_a_colour_space_are_refused():
    properties = shipped_properties() | {KEY_PREFIX + "img_channels": "1"}
    properties.pop(KEY_PREFIX + "colour", None)
    with pytest.raises(ModelError, match=r"grey\.onnx: .*srup export"):
        ModelDescriptor.from_properties(properties, source="grey.onnx")


def shipped_properties() -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(shipped_onnx(scale=2)).metadata_props}


# --- tiles and backends -------------------------------------------------------------------------


def test_tiles_equal_the_whole_picture_on_every_backend(files, weights_file, photograph):
    _, levels = reference(weights_file, photograph)
    for backend, model in (("onnx", files["uint8"]), ("torch", weights_file)):
        results = {}
        for tile in (40, 1000):
            with Upscaler(backend=backend, device="cpu", model=model, tile=tile, batch=3) as upscaler:
                assert (len(upscaler.grid(*photograph.shape[:2])) > 1) == (tile == 40)
                results[tile] = upscaler(photograph)
        found = difference(results[40], results[1000])
        assert found.max_levels <= MAX_TILING_LEVELS
        assert found.share <= MAX_TILING_SHARE
        against_trained = difference(results[1000], levels)
        assert against_trained.max_levels <= 1
        assert against_trained.share <= 1e-3


def test_grey_pictures_stay_grey(files, photograph):
    grey = photograph[:40, :50, 1]
    with Upscaler(backend="onnx", device="cpu", model=files["uint8"]) as upscaler:
        upscaled = upscaler(grey)
        assert upscaled.shape == (40 * upscaler.scale, 50 * upscaler.scale)
        if upscaler.backend.info.model.colour == "Y":
            coloured = upscaler(np.repeat(grey[:, :, None], 3, axis=2))
            found = difference(coloured, np.repeat(upscaled[:, :, None], 3, axis=2))
            assert found.max_levels <= 1
            assert found.share <= 1e-3


def test_evaluation_during_training_takes_rgb(weights_file, photograph):
    from train.evaluate import upscale_with

    _, levels = reference(weights_file, photograph)
    assert np.array_equal(upscale_with(load_weights(weights_file).build())(photograph), levels)
