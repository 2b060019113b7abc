"""ONNX files: graph, metadata, and equality with PyTorch."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnx
import onnxruntime
import torch
from click.testing import CliRunner
from onnx import TensorProto

from deploy.card import training_entries
from deploy.export import ExportSpec, export_files, export_onnx
from deploy.freezing import NOTABLE_LOSS_DB, freezing_cost
from deploy.verify import difference, tiles_match
from sr.cli import main
from sr.errors import ModelError
from sr.image import read_picture
from sr.network.checkpoint import Weights, load_weights, save_weights
from sr.network.config import ModelConfig
from sr.network.descriptor import ModelDescriptor
from sr.network.model import LocalGate, SRNet, frozen_attention
from sr.network.modelfile import SHIPPED, SHIPPED_DIR, shipped_onnx, shipped_scales, shipped_weights
from sr.upscale import Upscaler

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SPECS = {
    "uint8": ExportSpec(),
    "float32": ExportSpec(io="float32"),
    "fp16": ExportSpec(precision="fp16"),
    "dynamic": ExportSpec(attention="dynamic"),
}


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory) -> Path:
    """Return a weights file of a small network with live attention."""
    torch.manual_seed(0)
    config = ModelConfig(scale=3, num_feats=8, num_blocks=2)
    model = SRNet(config)
    model.train()
    for _ in range(20):  # moves the running mean of the gates away from where it starts
        model(torch.rand(2, 3, 12, 12))
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_weights(path, Weights(config, model.state_dict(), {"data": "noise"}, halo=5))
    return path


@pytest.fixture(scope="module")
def files(weights_file, tmp_path_factory) -> dict[str, Path]:
    """Return one export of each kind."""
    folder = tmp_path_factory.mktemp("onnx")
    return {name: export_onnx(weights_file, folder, spec) for name, spec in SPECS.items()}


@pytest.mark.parametrize("path", sorted(SHIPPED_DIR.glob("*.onnx")), ids=lambda path: path.stem)
def test_metadata_of_shipped_files_survive_being_read_and_written(path):
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert list(metadata_of(path).to_properties().items()) == list(properties.items())


def metadata_of(path: Path) -> ModelDescriptor:
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return ModelDescriptor.from_properties(properties, source=str(path))


@pytest.mark.parametrize("kind", SPECS)
def test_the_checker_accepts_the_file_and_its_opset_is_18_or_later(files, kind):
    model = onnx.load(files[kind])
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version >= 18 for entry in model.opset_import if entry.domain == ""] == [True]


@pytest.mark.parametrize("kind", ["uint8", "float32", "fp16"])
def test_no_weight_norm_and_no_attention_is_left(files, kind):
    kinds = Counter(node.op_type for node in onnx.load(files[kind]).graph.node)
    assert kinds["Conv"] == 1 + 2 * 3 + 2  # base, three a block, two of the upsampler
    forbidden = {"Sigmoid", "ReduceL2", "GlobalAveragePool", "Pow", "Sqrt", "Expand"}
    assert not forbidden & set(kinds)
    # The only reduction there may be is the one behind `finite`.
    assert kinds["ReduceMean"] == (1 if kind == "fp16" else 0)


def test_dynamic_attention_is_kept_when_asked_for(files):
    kinds = Counter(node.op_type for node in onnx.load(files["dynamic"]).graph.node)
    assert kinds["Sigmoid"] == kinds["ReduceMean"] == 2
    assert metadata_of(files["dynamic"]).attention == "dynamic"


@pytest.mark.parametrize("kind", ["uint8", "fp16", "dynamic"])
def test_uint8_goes_in_and_out_through_casts(files, kind):
    graph = onnx.load(files[kind]).graph
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.UINT8
    (first,) = [node for node in graph.node if "image" in node.input]
    (last,) = [node for node in graph.node if "upscaled" in node.output]
    assert first.op_type == last.op_type == "Cast"


def test_half_precision_is_in_the_body_only(files):
    model = onnx.shape_inference.infer_shapes(onnx.load(files["fp16"]))
    graph = model.graph
    types = {info.name: info.type.tensor_type.elem_type for info in graph.value_info}
    types |= {constant.name: constant.data_type for constant in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv":
            assert {types[name] for name in node.input} == {TensorProto.FLOAT16}
            assert {types[name] for name in node.output} == {TensorProto.FLOAT16}
        if node.op_type in ("Div", "Sub", "Mul", "Round", "Clip", "Abs", "ReduceMean"):
            assert types[node.output[0]] == TensorProto.FLOAT
    assert [output.name for output in graph.output] == ["upscaled", "finite"]


@pytest.mark.parametrize("kind", SPECS)
def test_axes_are_free_and_named(files, kind):
    (image,) = onnx.load(files[kind]).graph.input
    assert image.name == "image"
    names = [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim]
    assert names == (["N", 3, "H", "W"] if kind == "float32" else ["N", "H", "W", 3])


def test_metadata_says_what_the_file_is(files, weights_file):
    metadata = metadata_of(files["fp16"])
    weights = load_weights(weights_file)
    assert (metadata.scale, metadata.precision, metadata.io) == (3, "fp16", "uint8")
    assert metadata.attention == "frozen"
    assert metadata.receptive_field_radius == weights.config.receptive_field_radius == 9
    assert metadata.halo == 5
    assert metadata.weights_sha256 == weights.sha256
    assert metadata.training == {"data": "noise"}
    assert metadata.licence == "", "nobody stated one"


def test_licence_and_data_are_those_that_are_stated(weights_file, tmp_path):
    spec = ExportSpec(licence="CC-BY-4.0", data_note="my holiday")
    (path,) = export_files(str(weights_file), (), tmp_path, spec, cards=True)
    metadata = metadata_of(path)
    assert (metadata.licence, metadata.training["data"]) == ("CC-BY-4.0", "my holiday")
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert "CC-BY-4.0" in card
    assert "my holiday" in card
    headings = [line for line in card.splitlines() if line.startswith("## ")]
    assert headings[0] == "## Intended use and limits"


def test_the_command_states_licence_and_data(weights_file, tmp_path):
    stated = ["--licence", "CC-BY-4.0", "--data-note", "my holiday"]
    command = ["export", "--onnx", "--weights", str(weights_file), "-o", str(tmp_path / "out"), *stated]
    run = CliRunner().invoke(main, command)
    assert run.exit_code == 0, run.output
    (path,) = (tmp_path / "out").glob("*.onnx")
    assert (metadata_of(path).licence, metadata_of(path).training["data"]) == ("CC-BY-4.0", "my holiday")
    assert path.with_suffix(".md").exists()


def test_a_card_lists_earlier_trainings_by_how_many_runs_before_they_were():
    first = {"steps": 1, "degradation": {"jpeg": 0.5}}
    second = {"steps": 2, "beside": [{"steps": 4}, {"steps": 5}], "started_from": first}
    entries = dict(training_entries({"steps": 3, "started_from": second}))
    assert entries == {
        "steps": 3,
        "run before: steps": 2,
        "run before: averaged with run 1: steps": 4,
        "run before: averaged with run 2: steps": 5,
        "2 runs before: steps": 1,
        "2 runs before: degradation: jpeg": 0.5,
    }


def test_a_card_claims_no_licence_that_nobody_stated(weights_file, tmp_path):
    (path,) = export_files(str(weights_file), (), tmp_path, ExportSpec(), cards=True)
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert "Apache" not in card
    assert "--licence" in card
    assert metadata_of(path).weights_sha256 in card


def test_shipped_weights_keep_their_licence():
    for path in SHIPPED_DIR.glob("*.onnx"):
        assert metadata_of(path).licence == SHIPPED["small"].licence


def test_what_freezing_costs_is_said_where_it_matters(tmp_path):
    """Live gates that always equal their running mean lose nothing; with half that mean they do."""
    weights = load_weights(shipped_weights(scale=2))
    net = SRNet(replace(weights.config, attention="dynamic", norm="none")).eval()
    net.load_state_dict(weights.state, strict=False)
    with torch.no_grad():
        for block in net.blocks:
            mean = block.attention.gate_mean.fill_(0.8).flatten()
            block.attention.excite.weight.zero_()
            block.attention.excite.bias.copy_(torch.log(mean / (1 - mean)))
    assert abs(freezing_cost(net)) < 1e-3
    with torch.no_grad():
        for block in net.blocks:
            block.attention.gate_mean.mul_(0.5)
    assert freezing_cost(net) > NOTABLE_LOSS_DB
    trained = tmp_path / "net.safetensors"
    save_weights(trained, replace(weights, config=net.config, state=net.state_dict()))
    notes: list[str] = []
    export_onnx(trained, tmp_path, ExportSpec(), note=notes.append)
    assert [("net.safetensors" in note, "--attention dynamic" in note) for note in notes] == [(True, True)]
    export_onnx(trained, tmp_path, ExportSpec(attention="dynamic"), note=notes.append)
    assert len(notes) == 1, "live gates stay as they are"


def test_files_name_no_path_of_the_machine(files):
    here = str(Path(__file__).resolve().parent.parent).encode()
    for path in files.values():
        assert here not in path.read_bytes()
        assert b"site-packages" not in path.read_bytes()


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_onnx_runtime_computes_what_pytorch_does(scale):
    """The shipped files against the shipped weights, unfolded, on a photograph."""
    lr = read_picture(EXAMPLES / "colosseum.png").pixels
    with torch.inference_mode():
        batch = torch.tensor(lr).permute(2, 0, 1)[None].float() / 255
        expected = frozen_attention(load_weights(shipped_weights(scale=scale)).build())(batch)
    floats = run(shipped_onnx(scale=scale, io="float32"), batch.numpy())
    assert np.abs(floats - expected.numpy()).max() <= 1e-4
    levels = (expected * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    found = difference(run(shipped_onnx(scale=scale), lr[None]), levels)
    assert found.max_levels <= 1
    assert found.share <= 1e-3


@pytest.fixture(scope="module", params=[False, True], ids=["last block", "fusion"])
def local_weights(tmp_path_factory, request) -> Path:
    """Return a weights file of a network whose gates depend on each pixel."""
    torch.manual_seed(3)
    config = ModelConfig(
        scale=2, num_feats=8, num_blocks=2, attention="local", residual_scale=0.3, fusion=request.param
    )
    model = SRNet(config)
    for module in model.modules():
        if isinstance(module, LocalGate):
            torch.nn.init.normal_(module.conv.weight, std=0.3)
    if model.fuse is not None:
        torch.nn.init.normal_(model.fuse.weight, std=0.3)
    path = tmp_path_factory.mktemp("weights") / "local.safetensors"
    save_weights(path, Weights(config, model.state_dict()))
    return path


def test_local_gates_are_exported(local_weights, tmp_path):
    lr = read_picture(EXAMPLES / "kitten.png").pixels[:60, :80]
    path = export_onnx(local_weights, tmp_path, ExportSpec(io="float32"))
    assert metadata_of(path).attention == "local"
    assert metadata_of(path).tiles_exact
    batch = torch.tensor(lr).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        expected = load_weights(local_weights).build()(batch)
    assert np.abs(run(path, batch.numpy()) - expected.numpy()).max() <= 1e-4


def test_tiles_with_local_gates_equal_the_whole_picture(local_weights, tmp_path):
    lr = read_picture(EXAMPLES / "kitten.png").pixels[:90, :110]
    path = export_onnx(local_weights, tmp_path, ExportSpec())
    with (
        Upscaler(model=path, backend="onnx", tile=40) as tiled,
        Upscaler(model=path, backend="onnx", tile=110) as whole,
    ):
        assert tiled.tile_count(*lr.shape[:2]) > 4
        found = difference(tiled(lr), whole(lr))
        assert found.psnr > 60
        assert tiles_match(found)


@pytest.mark.parametrize("kind", ["uint8", "fp16", "dynamic"])
def test_sizes_that_were_not_exported_work(files, kind):
    lr = np.random.default_rng(0).integers(0, 256, (3, 1, 40, 3), np.uint8)
    assert run(files[kind], lr).shape == (3, 3, 120, 3)


def test_finite_marks_the_overflowed_pictures_of_a_batch(weights_file, tmp_path):
    """Inflated weights overflow half precision on a bright picture and not on a mid-grey one."""
    weights = load_weights(weights_file)
    state = dict(weights.state)
    name = "base.parametrizations.weight.original0"
    state[name] = state[name] * 1e7
    state["base.bias"] = state["base.bias"] * 0
    inflated = tmp_path / "inflated.safetensors"
    save_weights(inflated, Weights(weights.config, state))
    path = export_onnx(inflated, tmp_path, ExportSpec(precision="fp16"))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    black = np.zeros((2, 16, 16, 3), np.uint8)
    _, finite = session.run(None, {"image": black})
    assert finite.dtype == np.float32
    assert finite.tolist() == [0, 0]
    path = export_onnx(weights_file, tmp_path, ExportSpec(precision="fp16"))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.run(None, {"image": black})[1].tolist() == [1, 1]


def test_frozen_weights_cannot_be_exported_with_dynamic_attention(tmp_path):
    with pytest.raises(ModelError, match="dynamic attention"):
        export_onnx(shipped_weights(scale=2), tmp_path, ExportSpec(attention="dynamic"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_one_scale_and_a_preset_has_several(weights_file, tmp_path):
    with pytest.raises(ModelError, match="scale 3, not 2"):
        list(export_files(str(weights_file), [2], tmp_path, ExportSpec()))
    names = [path.name for path in export_files("small", [2, 4], tmp_path, ExportSpec())]
    assert names == ["small_x2_fp32_uint8.onnx", "small_x4_fp32_uint8.onnx"]
    with pytest.raises(ModelError, match=r"'small'.*scale 5"):
        list(export_files("small", [5], tmp_path, ExportSpec()))
    with pytest.raises(ModelError, match=r"missing\.safetensors"):
        list(export_files("missing.safetensors", [], tmp_path, ExportSpec()))


def test_every_shipped_file_was_made_from_the_shipped_weights():
    assert shipped_scales() == [2, 3, 4]
    for scale in shipped_scales():
        sha256 = load_weights(shipped_weights(scale=scale)).sha256
        for precision, io in (("fp32", "uint8"), ("fp32", "float32"), ("fp16", "uint8")):
            metadata = metadata_of(shipped_onnx(scale=scale, precision=precision, io=io))
            assert metadata.weights_sha256 == sha256
            assert (metadata.scale, metadata.precision, metadata.io) == (scale, precision, io)
            assert metadata.halo < metadata.receptive_field_radius


def run(path: Path, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["upscaled"], {"image": image})[0]
