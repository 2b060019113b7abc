"""Networks of other programs as files of ours: the same pixels, our ends; fp16 only where it is close."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper

from deploy.card import model_card
from deploy.engines.build import check_model
from deploy.engines.models import engine_models
from deploy.foreign import onnx_from_others
from deploy.triton.repository import RepositorySpec, write_repository
from deploy.verify import difference, tiles_match
from sr.backends.ort import read_metadata
from sr.backends.tensorrt.spec import EngineSpec
from sr.backends.tensorrt.store import EngineStore
from sr.cli import main
from sr.errors import EngineError, ModelError
from sr.image import read_picture
from sr.network.ends import Conventions
from sr.network.foreign.describe import is_others
from sr.network.modelfile import shipped_onnx
from sr.upscale import Upscaler
from tests.foreign import Convention, foreign_network, write_network

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
pytestmark = pytest.mark.usefixtures("model_cache")

CPU = {"backend": "onnx", "device": "cpu"}


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """Return part of a photograph, (90, 110, 3)."""
    return read_picture(EXAMPLES / "kitten.png").pixels[100:190, 200:310]


@pytest.mark.parametrize(
    ("convention", "precision", "io"),
    [
        (Convention(), "fp32", "uint8"),
        (Convention(low=-1.0, order="BGR", layout="NHWC", clipped=True), "fp32", "uint8"),
        (Convention(high=255.0, scale=3), "fp32", "float32"),
        (Convention(), "fp16", "uint8"),
        (Convention(dtype=TensorProto.FLOAT16), "fp16", "uint8"),
    ],
    ids=["usual", "unusual", "float32 ends", "fp16 made", "fp16 given"],
)
def test_an_exported_file_gives_the_same_picture(tmp_path, photograph, convention, precision, io):
    source = write_network(tmp_path / "4x_foo.onnx", convention, order=convention.order)
    model, _ = onnx_from_others(source, precision=precision, io=io, licence="CC0-1.0")
    exported = tmp_path / "exported.onnx"
    exported.write_bytes(model.SerializeToString())
    found = read_metadata(exported)
    assert found.ours
    assert (found.io, found.precision, found.scale) == (io, precision, convention.scale)
    assert (found.name, found.licence) == ("4x_foo", "CC0-1.0")
    assert found.halo == read_metadata(source).halo
    with Upscaler(model=source, **CPU) as upscaler:
        expected = upscaler(photograph)
    with Upscaler(model=exported, **CPU, tile=4 * found.halo) as upscaler:
        made = upscaler(photograph)
        assert upscaler.tile_count(90, 110) > 1
    if precision == "fp32":
        assert tiles_match(difference(made, expected))
    else:
        assert difference(made, expected).psnr > 50


def test_fp16_is_refused_where_it_is_not_close(tmp_path):
    """The same network, whose input goes through factors that half precision does not have."""
    model = foreign_network(Convention())
    (image,) = (info.name for info in model.graph.input)
    for name, value in (("tiny", 1e-9), ("huge", 1e9)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    for node in model.graph.node:
        node.input[:] = ["back" if name == image else name for name in node.input]
    there = onnx.helper.make_node("Mul", [image, "tiny"], ["there"])
    nodes = [there, onnx.helper.make_node("Mul", ["there", "huge"], ["back"]), *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    path = tmp_path / "far.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"far\.onnx.*dB.*--precision fp32"):
        onnx_from_others(path, precision="fp16")


def test_fp16_is_refused_where_the_architecture_is_not_known_to_work(tmp_path):
    model = foreign_network(Convention())
    onnx.helper.set_model_props(model, {"half": "no"})
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"net\.onnx.*architecture.*--precision fp32"):
        onnx_from_others(tmp_path / "net.onnx", precision="fp16")


@pytest.mark.parametrize(
    ("convention", "fact"),
    [
        (Convention(channels=1), "one channel"),
        (Convention(padded=False), "border"),
    ],
)
def test_what_a_file_of_ours_cannot_say_is_refused(tmp_path, convention, fact):
    with pytest.raises(ModelError, match=rf"net\.onnx.*{fact}.*--model"):
        onnx_from_others(write_network(tmp_path / "net.onnx", convention))


SIZES = {
    "one size, one at a time": (Convention(size=(64, 80), batch=1), "80x64 only"),
    "one size": (Convention(size=(64, 64)), "64x64 only"),
    "multiples": (Convention(group=4), "multiples of 4"),
}


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize(("precision", "io"), [("fp32", "uint8"), ("fp16", "uint8"), ("fp32", "float32")])
def test_sizes_that_a_network_takes_go_with_the_exported_file(tmp_path, photograph, kind, precision, io):
    convention, words = SIZES[kind]
    source = write_network(tmp_path / "net.onnx", convention)
    model, described = onnx_from_others(source, precision=precision, io=io)
    exported = tmp_path / "exported.onnx"
    exported.write_bytes(model.SerializeToString())
    found, theirs = read_metadata(exported), read_metadata(source)
    assert found == replace(described, training=found.training)
    assert found.sizes == theirs.sizes == words
    assert (found.minimum, found.multiple) == (theirs.minimum, theirs.multiple)
    assert (found.ends.size, found.ends.batch) == (convention.size, convention.batch)
    with Upscaler(model=source, **CPU) as upscaler:
        expected = upscaler(photograph)
    with Upscaler(model=exported, **CPU, tile=64) as upscaler:
        made = upscaler(photograph)
        assert upscaler.tile_count(90, 110) > 1
        assert upscaler(photograph[:7, :9]).shape == (14, 18, 3), "continued to what the network takes"
    assert difference(made, expected).psnr > (50 if precision == "fp16" else 80)
    shown = CliRunner().invoke(main, ["info", "--model", str(exported)])
    assert words in shown.output
    assert words in model_card(found, file_name="exported.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["SwinIR", "SAFMN"])
def test_tiles_of_an_exported_window_network_are_on_its_grid(tmp_path, architecture):
    if importlib.util.find_spec("spandrel") is None:
        pytest.skip("spandrel is not installed")
    from tests.architectures import write_weights

    photograph = read_picture(EXAMPLES / "kitten.png").pixels[50:290, 100:360]
    source = write_weights(tmp_path / "net.pth", architecture)
    exported = tmp_path / "exported.onnx"
    exported.write_bytes(onnx_from_others(source)[0].SerializeToString())
    found = read_metadata(exported)
    assert found.multiple == 8
    assert found.tiles_exact
    with Upscaler(model=source, **CPU) as upscaler:
        expected = upscaler(photograph)
    with Upscaler(model=exported, **CPU, tile=max(48, 4 * found.halo)) as upscaler:
        made = upscaler(photograph)
        tiles = upscaler.grid(240, 260)
        assert len(tiles) > 1
        assert all(span.start % 8 == span.length % 8 == 0 for span in (*tiles.rows, *tiles.columns))
    assert tiles_match(difference(made, expected))


@pytest.mark.parametrize("kind", SIZES)
def test_servers_refuse_networks_of_some_sizes_and_engines_some_of_them(tmp_path, kind):
    convention, words = SIZES[kind]
    source = write_network(tmp_path / "net.onnx", convention)
    exported = tmp_path / "exported.onnx"
    exported.write_bytes(onnx_from_others(source)[0].SerializeToString())
    spec = EngineSpec(2, "fp32", tile=333)
    if convention.size == (64, 80):
        with pytest.raises(EngineError, match=rf"exported\.onnx.*{words}.*--backend onnx"):
            check_model(exported, spec.fitted_to(read_metadata(exported)))
    else:
        fitting = spec.fitted_to(check_model(exported, spec.fitted_to(read_metadata(exported))))
        assert fitting.tile == (64 if convention.size else 332)
        with pytest.raises(EngineError, match=rf"exported\.onnx.*{words}.*--tile {fitting.tile} "):
            check_model(exported, spec)
    with pytest.raises(ModelError, match=SIZES[kind][1]):
        list(write_repository(RepositorySpec(str(exported)), tmp_path / "repo"))


STATED = Conventions((0.0, 255.0), "BGR")
OPTIONS = ["--model-range", "0..255", "--model-order", "BGR"]


def by_command(source: Path, folder: Path) -> Path:
    run = CliRunner().invoke(
        main, ["export", "--onnx", "--weights", str(source), *OPTIONS, "-o", str(folder)]
    )
    assert run.exit_code == 0, run.output
    return next(folder.glob("*.onnx"))


def for_engines(source: Path, folder: Path) -> Path:
    ((_, path),) = engine_models(str(source), (), "fp32", folder, conventions=STATED)
    return path


def for_servers(source: Path, folder: Path) -> Path:
    command = ["export", "--triton", "--weights", str(source), *OPTIONS, "-o", str(folder)]
    run = CliRunner().invoke(main, command)
    assert run.exit_code == 0, run.output
    return next(folder.rglob("model.onnx"))


@pytest.mark.parametrize("exported", [by_command, for_engines, for_servers])
@pytest.mark.parametrize("kind", ["onnx", pytest.param("pth", marks=pytest.mark.slow)])
def test_an_exported_file_computes_with_the_stated_conventions(tmp_path, photograph, exported, kind):
    others: tuple[Conventions | None, ...] = (Conventions((0.0, 255.0)), Conventions(order="BGR"))
    if kind == "onnx":
        source = write_network(tmp_path / "net.onnx", Convention())
    else:
        if importlib.util.find_spec("spandrel") is None:
            pytest.skip("spandrel is not installed")
        from tests.architectures import write_weights

        source, others = write_weights(tmp_path / "net.pth", "Compact"), (None,)
    made = []
    file = exported(source, tmp_path / "out")
    for model, conventions in ((file, None), (source, STATED), *((source, each) for each in others)):
        with Upscaler(model=model, **CPU, conventions=conventions) as upscaler:
            made.append(upscaler(photograph[:40, :48]))
    assert tiles_match(difference(made[0], made[1]))
    assert not any(tiles_match(difference(made[0], other)) for other in made[2:])


@pytest.mark.parametrize("command", [["export", "--onnx", "--weights"], ["info", "--model"]])
@pytest.mark.parametrize("options", [OPTIONS[:2], OPTIONS[2:]])
@pytest.mark.parametrize("ours", ["small", str(shipped_onnx(scale=2))])
def test_conventions_of_our_own_networks_cannot_be_stated(command, options, ours):
    run = CliRunner().invoke(main, [*command, ours, *options])
    assert run.exit_code == 2, run.output
    assert options[0] in run.output
    assert "other programs" in run.output


def test_stated_conventions_are_described(tmp_path):
    source = write_network(tmp_path / "net.onnx", Convention())
    shown = CliRunner().invoke(main, ["info", "--model", str(source), *OPTIONS])
    assert shown.exit_code == 0, shown.output
    assert "BGR, 0 to 255" in shown.output
    missing = CliRunner().invoke(main, ["info", *OPTIONS])
    assert missing.exit_code == 2
    assert "--model" in missing.output


def test_our_own_files_are_no_others():
    assert not is_others(shipped_onnx(scale=2))


def test_the_command_writes_file_and_card(tmp_path):
    source = write_network(tmp_path / "4x_foo.onnx", Convention(scale=4))
    command = ["export", "--onnx", "--weights", str(source), "-o", str(tmp_path / "out")]
    run = CliRunner().invoke(main, command)
    assert run.exit_code == 0, run.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "4x_foo_x4_fp32_uint8.md",
        "4x_foo_x4_fp32_uint8.onnx",
    ]
    assert "4x_foo.onnx" in (tmp_path / "out" / "4x_foo_x4_fp32_uint8.md").read_text()
    refused = CliRunner().invoke(main, [*command, "--scale", "2"])
    assert refused.exit_code == 1
    assert "--scale" in refused.output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("convention", "precision", "tile", "batch"),
    [
        (Convention(), "fp16", 333, 4),
        (Convention(), "fp32", 333, 4),
        (Convention(size=(64, 64), batch=1), "fp16", 64, 1),
        (Convention(size=(64, 64)), "fp32", 64, 4),
        (Convention(group=4), "fp16", 332, 4),
    ],
    ids=["fp16", "fp32", "one size, one at a time", "one size", "multiples of 4"],
)
def test_an_engine_is_built_from_it(tmp_path, convention, precision, tile, batch):
    pytest.importorskip("tensorrt_rtx")
    source = write_network(tmp_path / "2x_foo.onnx", convention)
    command = ["export", "--trt-rtx", "--gpu", "rtx4090", "--weights", str(source), "-o", str(tmp_path)]
    run = CliRunner().invoke(main, [*command, "--precision", precision, "--tile", "333"])
    assert run.exit_code == 0, run.output
    (engine,) = EngineStore(tmp_path).list()
    assert engine.manifest.identity.spec == EngineSpec(2, precision, tile, batch, targets=(89,))
