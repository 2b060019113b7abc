"""A Triton model repository: configurations that Triton's own definitions accept, and plans that fit."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

pytest.importorskip("tritonclient")

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from deploy.triton.plans import CONTAINERS, SUPPORT_MATRIX, served_plans
from deploy.triton.repository import RepositorySpec, write_repository
from deploy.verify import difference
from sr.backends.ort import read_metadata
from sr.cli import main
from sr.errors import EngineError, ModelError, TilingError
from sr.image import DEFAULT_MAX_PIXELS
from sr.network.descriptor import ModelDescriptor
from sr.network.modelfile import shipped_onnx, shipped_scales
from sr.upscale import Upscaler
from sr.version import __version__
from tests.foreign import Convention, write_network
from tests.plans import write_plan

NUMPY_TYPES = {"tensor(uint8)": model_config_pb2.TYPE_UINT8, "tensor(float)": model_config_pb2.TYPE_FP32}


def written(folder: Path, **settings) -> dict[str, tuple[model_config_pb2.ModelConfig, str]]:
    """Write a repository; return configuration and note of each model by its name."""
    models = {}
    for model in write_repository(RepositorySpec(**settings), folder):
        text = (model.folder / "config.pbtxt").read_text(encoding="utf-8")
        config = text_format.Parse(text, model_config_pb2.ModelConfig())  # an unknown field is an error
        assert config.name == model.folder.name
        models[model.folder.name] = (config, model.note)
    return models


def fp16_plan(folder: Path, **changes) -> Path:
    return write_plan(folder, onnx=shipped_onnx(scale=2, precision="fp16"), **changes)


def parameters(config: model_config_pb2.ModelConfig) -> dict[str, str]:
    return {name: value.string_value for name, value in config.parameters.items()}


def assert_same_tensors(config: model_config_pb2.ModelConfig, onnx: Path) -> None:
    """Check names, types and shapes of a configuration against the graph; the batch axis is not in dims."""
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    for ours, theirs in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [(tensor.name, tensor.data_type) for tensor in ours] == [
            (tensor.name, NUMPY_TYPES[tensor.type]) for tensor in theirs
        ]
        for tensor, of_graph in zip(ours, theirs, strict=True):
            shape = [size if isinstance(size, int) else -1 for size in of_graph.shape[1:]]
            assert list(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims) == shape


def test_every_shipped_scale_has_an_engine_and_a_tiled_model(tmp_path):
    models = written(tmp_path)
    assert set(models) == {f"srup{kind}_x{scale}" for kind in ("", "_tiled") for scale in shipped_scales()}
    for scale in shipped_scales():
        config, _ = models[f"srup_x{scale}"]
        assert config.backend == "onnxruntime"
        assert config.max_batch_size > 1
        assert config.HasField("dynamic_batching")
        onnx = tmp_path / f"srup_x{scale}" / "1" / "model.onnx"
        assert onnx.read_bytes() == shipped_onnx(scale=scale).read_bytes()
        assert_same_tensors(config, onnx)


def test_the_tiled_model_knows_its_engine_its_tiles_and_its_limits(tmp_path):
    config, note = written(tmp_path, scales=(2,), tile=128, halo=-1)["srup_tiled_x2"]
    descriptor = read_metadata(shipped_onnx(scale=2))
    assert parameters(config) == {
        "engine": "srup_x2",
        "exact": "",
        "tile": "128",
        "halo": str(descriptor.receptive_field_radius),
        "in_flight": "16",
        "max_pixels": str(DEFAULT_MAX_PIXELS),
        "max_bytes": str(512 * 2**20),
        "version": __version__,
    }
    assert __version__ in note
    assert config.backend == "python"
    assert config.max_batch_size == 0
    assert all(tensor.optional for tensor in config.input)
    stored = json.loads((tmp_path / "srup_tiled_x2" / "1" / "model.json").read_bytes())
    known = ModelDescriptor.from_properties(stored, source="model.json")
    assert (known.weights_sha256, known.scale) == (descriptor.weights_sha256, 2)
    compile((tmp_path / "srup_tiled_x2" / "1" / "model.py").read_text(encoding="utf-8"), "model.py", "exec")


def test_plans_for_several_gpus_are_one_model(tmp_path):
    plans = (
        fp16_plan(tmp_path, content=b"for an L4"),
        fp16_plan(tmp_path, content=b"for an H100", gpu="NVIDIA H100, SM90", batch=2, tile=256),
    )
    models = written(tmp_path / "repo", scales=(2,), plans=plans)
    config, note = models["srup_x2_trt"]
    assert config.platform == "tensorrt_plan"
    assert dict(config.cc_model_filenames) == {"8.9": "sm89.plan", "9.0": "sm90.plan"}
    files = {path.name: path.read_bytes() for path in (tmp_path / "repo" / "srup_x2_trt" / "1").iterdir()}
    assert files == {"sm89.plan": b"for an L4", "sm90.plan": b"for an H100"}
    assert config.max_batch_size == 2
    (group,) = config.instance_group
    assert group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    graphs = config.optimization.cuda.graph_spec
    assert [graph.batch_size for graph in graphs] == [1, 2]
    assert all(list(graph.input["image"].dim) == [256, 256, 3] for graph in graphs)
    assert_same_tensors(config, shipped_onnx(scale=2, precision="fp16"))
    assert parameters(config)["tensorrt"] == "10.13.3.9"
    assert parameters(config)["container"] == "nvcr.io/nvidia/tritonserver:25.10-py3"
    assert "10.13.3.9" in note
    assert "25.10" in note


def test_tiles_go_to_the_plan_and_what_overflows_to_the_fp32_model(tmp_path):
    models = written(tmp_path / "repo", scales=(2,), plans=(fp16_plan(tmp_path),))
    given = parameters(models["srup_tiled_x2"][0])
    assert (given["engine"], given["exact"]) == ("srup_x2_trt", "srup_x2")
    stored = json.loads((tmp_path / "repo" / "srup_tiled_x2" / "1" / "model.json").read_bytes())
    assert ModelDescriptor.from_properties(stored, source="").precision == "fp16"


def test_a_plan_in_fp32_has_no_second_output(tmp_path):
    plan = write_plan(tmp_path, onnx=shipped_onnx(scale=2), precision="fp32")
    config, _ = written(tmp_path / "repo", scales=(2,), plans=(plan,))["srup_x2_trt"]
    assert_same_tensors(config, shipped_onnx(scale=2))


def test_a_compatible_plan_is_for_all_gpus_and_the_server_must_be_told(tmp_path):
    plan = fp16_plan(tmp_path, compatible=True, gpu="Ampere or later")
    config, note = written(tmp_path / "repo", scales=(2,), plans=(plan,))["srup_x2_trt"]
    assert config.default_model_filename == "model.plan"
    assert not config.cc_model_filenames
    assert "version-compatible=true" in note


@pytest.mark.parametrize("version", [*CONTAINERS, "11.4.0"])
def test_the_container_has_the_tensorrt_of_the_plan(tmp_path, version):
    (plans,) = served_plans([fp16_plan(tmp_path, built_by=f"{version}.1")])
    release = CONTAINERS.get(version)
    assert (f":{release}-py3" if release else SUPPORT_MATRIX) in plans.container
    assert release or f"{version}.1" in plans.container


def refused_rtx(folder: Path) -> tuple[Path, ...]:
    return (fp16_plan(folder, module="tensorrt_rtx", gpu="", targets=(89,)),)


def refused_truncated(folder: Path) -> tuple[Path, ...]:
    plan = fp16_plan(folder)
    plan.write_bytes(b"pl")
    return (plan,)


def refused_without_manifest(folder: Path) -> tuple[Path, ...]:
    plan = fp16_plan(folder)
    plan.with_suffix(".json").unlink()
    return (plan,)


def refused_versions(folder: Path) -> tuple[Path, ...]:
    return (fp16_plan(folder), fp16_plan(folder, gpu="NVIDIA H100, SM90", built_by="10.14.1.48"))


def refused_same_gpu(folder: Path) -> tuple[Path, ...]:
    return (fp16_plan(folder), fp16_plan(folder, gpu="NVIDIA L40S, SM89"))


def refused_other_weights(folder: Path) -> tuple[Path, ...]:
    return (write_plan(folder, onnx=shipped_onnx(scale=3, precision="fp16")),)


def refused_scale(folder: Path) -> tuple[Path, ...]:
    return (write_plan(folder, onnx=shipped_onnx(scale=3, precision="fp16"), scale=3),)


def refused_windows(folder: Path) -> tuple[Path, ...]:
    return (fp16_plan(folder, platform="Windows AMD64"),)


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        (refused_rtx, ["TensorRT-RTX", "srup export --trt"]),
        (refused_truncated, ["truncated", "srup export --trt"]),
        (refused_without_manifest, ["manifest"]),
        (refused_versions, ["10.14.1.48", "10.13.3.9"]),
        (refused_same_gpu, ["same GPUs"]),
        (refused_other_weights, ["small_x2_fp16_uint8.onnx"]),
        (refused_scale, ["x3", "--scale"]),
        (refused_windows, ["Windows", "Linux"]),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, make, facts):
    plans = make(tmp_path / "plans")
    with pytest.raises(EngineError) as failure:
        list(write_repository(RepositorySpec(scales=(2,), plans=plans), tmp_path / "repo"))
    for fact in facts:
        assert fact in str(failure.value)
    assert not (tmp_path / "repo").exists()


def test_only_fp32_files_with_uint8_ends_are_served(tmp_path):
    for file in (shipped_onnx(scale=2, precision="fp16"), shipped_onnx(scale=2, io="float32")):
        with pytest.raises(ModelError, match=re.escape(str(file))):
            list(write_repository(RepositorySpec(str(file)), tmp_path / "repo"))


def test_networks_of_other_programs_get_ends_of_ours(tmp_path):
    path = write_network(tmp_path / "other.onnx", Convention())
    models = written(tmp_path / "repo", weights=str(path))
    assert {name.partition("_")[0] for name in models} == {"other"}
    (served,) = (tmp_path / "repo").glob("*/1/model.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 72, 3), np.uint8)
    with Upscaler(model=path, backend="onnx") as theirs, Upscaler(model=served, backend="onnx") as ours:
        assert difference(ours(pixels), theirs(pixels)).max_levels <= 1


def test_models_of_other_weights_have_the_name_of_their_file(tmp_path):
    own = tmp_path / "my net_x2_fp32_uint8.onnx"
    own.write_bytes(shipped_onnx(scale=2).read_bytes())
    assert set(written(tmp_path / "repo", weights=str(own))) == {"my_net_x2", "my_net_tiled_x2"}
    written(tmp_path / "repo", scales=(3,))
    assert len(list((tmp_path / "repo").iterdir())) == 4, "models of other names stay"


def test_tiles_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(TilingError):
        list(write_repository(RepositorySpec(scales=(2,), tile=32), tmp_path / "repo"))
    plan = fp16_plan(tmp_path, tile=128)
    with pytest.raises(EngineError, match="128"):
        list(write_repository(RepositorySpec(scales=(2,), plans=(plan,), tile=256), tmp_path / "repo"))
    config, _ = written(tmp_path / "repo", scales=(2,), plans=(plan,))["srup_tiled_x2"]
    assert parameters(config)["tile"] == "128"


def test_all_pictures_have_tiles_of_one_shape(tmp_path):
    from sr.tiling import TileSpec, tile_grid

    given = parameters(written(tmp_path, scales=(2,))["srup_tiled_x2"][0])
    spec = TileSpec(tile=int(given["tile"]), halo=int(given["halo"]), equalise=False)
    rng = np.random.default_rng(0)
    sizes = rng.integers(spec.tile, 1000, (50, 2))
    grids = [tile_grid(int(height), int(width), spec) for height, width in sizes]
    assert {(grid.tile_height, grid.tile_width) for grid in grids} == {(spec.tile, spec.tile)}


# --- the command ----------------------------------------------------------------------------------


def test_the_command_writes_a_repository_and_says_what_the_server_needs(tmp_path):
    plan = fp16_plan(tmp_path)
    arguments = ["--scale", "2", "--plan", str(plan), "--tile", "128", "--halo", "exact", "--batch", "2"]
    result = CliRunner().invoke(main, ["export", "--triton", *arguments, "-o", str(tmp_path / "repo")])
    assert result.exit_code == 0, result.output
    models = sorted(path.name for path in (tmp_path / "repo").iterdir())
    assert models == ["srup_tiled_x2", "srup_x2", "srup_x2_trt"]
    assert [Path(line.split()[0]).name for line in result.output.splitlines()] == [
        models[1],
        models[2],
        models[0],
    ]
    assert "tritonserver:25.10-py3" in result.output
    text = (tmp_path / "repo" / "srup_tiled_x2" / "config.pbtxt").read_text(encoding="utf-8")
    given = parameters(text_format.Parse(text, model_config_pb2.ModelConfig()))
    radius = read_metadata(shipped_onnx(scale=2)).receptive_field_radius
    assert (given["tile"], given["halo"]) == ("128", str(radius))


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["--triton"], "-o"),
        (["--triton", "--trt", "-o", "repo"], "--plan"),
        (["--triton", "--trt-rtx", "-o", "repo"], "--trt-rtx"),
        (["--triton", "--precision", "fp16", "-o", "repo"], "--precision"),
        (["--triton", "--io", "float32", "-o", "repo"], "--io"),
        (["--triton", "--compatible", "-o", "repo"], "--compatible"),
        (["--onnx", "--plan", "x.plan"], "--triton"),
        (["--trt", "--halo", "exact"], "--triton"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(arguments, fact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["export", *arguments])
    assert result.exit_code == 2
    assert fact in result.output
    assert not list(tmp_path.iterdir())


def test_a_plan_of_tensorrt_rtx_is_one_line_with_the_reason(tmp_path):
    (plan,) = refused_rtx(tmp_path)
    result = CliRunner().invoke(
        main, ["export", "--triton", "--plan", str(plan), "-o", str(tmp_path / "repo")]
    )
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert plan.name in line
    assert "TensorRT-RTX" in line
