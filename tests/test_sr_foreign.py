"""Other people's networks: probed right, tiled exactly, refused where they must not run."""

import contextlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from deploy.verify import difference, tiles_match
from sr.backends.base import tile_memory
from sr.backends.ort import read_metadata
from sr.cli import main
from sr.errors import BackendError, ModelError, TilingError
from sr.image import Picture, read_picture, write_picture
from sr.network.ends import Conventions, Ends
from sr.network.foreign import describe
from sr.network.foreign.checks import check_graph
from sr.network.foreign.depth import Depth, smallest_fitting
from sr.network.foreign.describe import foreign_descriptor, is_foreign
from sr.network.foreign.graph import Graph, read_graph
from sr.network.foreign.halo import measure_halo
from sr.network.foreign.probe import probe
from sr.network.foreign.session import ForeignSession
from sr.network.modelfile import SHIPPED_DIR, shipped_onnx
from sr.upscale import Upscaler
from tests.foreign import Convention, foreign_network, write_network

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PLAIN = Convention()

pytestmark = pytest.mark.usefixtures("model_cache")

CONVENTIONS = {
    "usual": PLAIN,
    "x1": Convention(scale=1),
    "x3": Convention(scale=3),
    "x4": Convention(scale=4),
    "0 to 255": Convention(high=255.0),
    "-1 to 1": Convention(low=-1.0, clipped=True),
    "0 to 255, clipped": Convention(high=255.0, clipped=True),
    "BGR": Convention(order="BGR"),
    "BGR, 0 to 255": Convention(order="BGR", high=255.0),
    "NHWC": Convention(layout="NHWC"),
    "NHWC, uint8": Convention(layout="NHWC", dtype=TensorProto.UINT8, high=255.0),
    "half": Convention(dtype=TensorProto.FLOAT16),
    "uint8": Convention(dtype=TensorProto.UINT8, high=255.0),
    "fixed size": Convention(size=(64, 80), batch=1),
    "one at a time": Convention(batch=1),
    "cropped": Convention(padded=False),
    "cropped, fixed size": Convention(padded=False, size=(70, 70)),
    "grey": Convention(channels=1),
    "in groups": Convention(group=4),
}


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """Return part of a photograph, (150, 170, 3)."""
    return read_picture(EXAMPLES / "kitten.png").pixels[100:250, 200:370]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Return what writes a network of a convention, once."""
    folder = tmp_path_factory.mktemp("foreign")

    def written(name: str) -> Path:
        path = folder / f"4x_{list(CONVENTIONS).index(name)}.onnx"
        return path if path.exists() else write_network(path, CONVENTIONS[name])

    return written


# --- probing ------------------------------------------------------------------------------------


# Probing one takes half a second; these have among them another order, range, layout, type and multiple.
QUICK = ("BGR, 0 to 255", "NHWC, uint8", "in groups")
each_convention = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CONVENTIONS]
)


@each_convention
def test_a_convention_is_found(network, name):
    convention = CONVENTIONS[name]
    stated = Conventions(order="BGR") if convention.order == "BGR" else None
    model = read_metadata(network(name), stated=stated)
    ends = model.ends
    assert model.scale == convention.scale
    assert (ends.layout, ends.order, ends.channels) == (
        convention.layout,
        convention.order,
        convention.channels,
    )
    assert (ends.black, ends.white) == (convention.low, convention.high)
    assert ends.batch == convention.batch
    lost = 0 if convention.padded else convention.convolutions
    assert ends.border >= lost
    assert ends.border * model.scale - ends.crop == lost * model.scale
    size = convention.size
    assert ends.size == (None if size is None else (size[0] - 2 * ends.border, size[1] - 2 * ends.border))
    assert model.multiple == convention.group
    assert model.tiles_exact
    assert model.halo >= convention.convolutions * convention.group * 0.75
    assert not model.ours


@each_convention
def test_tiles_equal_the_whole_picture(network, photograph, name):
    path = network(name)
    halo = read_metadata(path).halo
    with Upscaler(model=path, backend="onnx", device="cpu", tile=max(40, 4 * halo)) as upscaler:
        tiled = upscaler(photograph)
        assert upscaler.tile_count(*photograph.shape[:2]) > 3
        assert upscaler.warning is None
    scale = CONVENTIONS[name].scale
    assert tiled.shape == (150 * scale, 170 * scale, 3)
    if CONVENTIONS[name].size is None:
        with Upscaler(model=path, backend="onnx", device="cpu", tile=200) as upscaler:
            assert upscaler.tile_count(*photograph.shape[:2]) == 1
            whole = upscaler(photograph)
    else:  # the same network, with free sizes
        free = write_network(path.with_name(f"free_{path.name}"), replace(CONVENTIONS[name], size=None))
        with Upscaler(model=free, backend="onnx", device="cpu", tile=200) as upscaler:
            whole = upscaler(photograph)
    assert tiles_match(difference(tiled, whole))


@pytest.mark.slow
def test_conventions_that_differ_only_in_form_give_the_same_picture(network, photograph):
    """The same network behind other ends; half precision and levels round once more."""
    with Upscaler(model=network("usual"), backend="onnx", device="cpu") as upscaler:
        expected = upscaler(photograph)
    for name in ("0 to 255", "NHWC", "one at a time", "fixed size"):
        with Upscaler(model=network(name), backend="onnx", device="cpu") as upscaler:
            assert tiles_match(difference(upscaler(photograph), expected)), name
    for name in ("half", "uint8"):
        with Upscaler(model=network(name), backend="onnx", device="cpu") as upscaler:
            assert difference(upscaler(photograph), expected).max_levels <= 2, name


def test_too_small_a_halo_would_show(network, photograph):
    """Shows that the comparison of tiles can fail."""
    with Upscaler(model=network("usual"), backend="onnx", device="cpu", tile=40, halo=0) as upscaler:
        seamed = upscaler(photograph)
    with Upscaler(model=network("usual"), backend="onnx", device="cpu", tile=200) as upscaler:
        assert not tiles_match(difference(seamed, upscaler(photograph)))


@pytest.mark.slow
def test_networks_that_see_the_whole_picture_are_said_to(tmp_path, photograph):
    path = write_network(tmp_path / "pooled.onnx", Convention(mixed=True))
    model = read_metadata(path)
    assert not model.tiles_exact
    shown = CliRunner().invoke(main, ["info", "--model", str(path)]).output
    assert "".join(model.notes).replace(" ", "") in "".join(shown.split()), "all of it, in several lines"
    with Upscaler(model=path, backend="onnx", device="cpu", tile=128) as upscaler:
        assert upscaler.tile_count(*photograph.shape[:2]) == 1, "small enough to be run whole"
        assert upscaler.warning is not None
        assert "GlobalAveragePool" in upscaler.warning
        assert "levels" in upscaler.warning


@pytest.mark.slow
def test_measuring_ends_when_patience_does(tmp_path):
    """Convolutions over groups of 16 px see further than the smallest pictures; larger ones take long."""
    path = write_network(tmp_path / "deep.onnx", Convention(group=16))
    phases = []

    def progress(phase: str, share: float) -> None:
        phases.append(phase)

    hurried = foreign_descriptor(path, cache=tmp_path / "a", progress=progress, patience=0.0)
    assert not hurried.tiles_exact
    assert "24 px" in hurried.notes[0]
    assert "levels" in hurried.notes[0]
    assert "96 px" in phases[-1]
    assert foreign_descriptor(path, cache=tmp_path / "a", patience=0.0) == hurried
    patient = foreign_descriptor(path, cache=tmp_path / "a", patience=600.0)
    assert patient.tiles_exact
    assert 24 < patient.halo <= 80
    assert patient.notes == ()
    assert foreign_descriptor(path, cache=tmp_path / "a", patience=0.0) == patient, "what is known is kept"


@pytest.mark.slow
def test_a_halo_that_memory_does_not_allow_is_cut_and_said(tmp_path, photograph, monkeypatch):
    path = write_network(tmp_path / "deep.onnx", Convention(group=16), made="for small memory")
    model = read_metadata(path)
    with Upscaler(model=path, backend="onnx", device="cpu") as upscaler:
        whole = upscaler(photograph)
        assert upscaler.spec.halo == model.halo
        assert upscaler.spec.tile >= 8 * model.halo, "tiles are large enough that most of them is kept"
    monkeypatch.setattr("sr.backends.ort.available_memory", lambda: 3 * tile_memory(model, 128**2))
    with Upscaler(model=path, backend="onnx", device="cpu") as upscaler:
        assert (upscaler.spec.tile, upscaler.spec.halo) == (128, 32)
        assert f"halo of {model.halo} px" in str(upscaler.warning)
        assert f"tiles of {4 * model.halo} px" in str(upscaler.warning)
        assert difference(upscaler(photograph), whole).psnr > 30
    with pytest.raises(TilingError, match="smaller --halo"):
        Upscaler(model=path, backend="onnx", device="cpu", tile=128)


@pytest.mark.slow
def test_one_picture_goes_on_where_four_take_too_long(tmp_path, monkeypatch):
    """Seconds are pixels here, and large pictures take four for each: more than the first run tells."""
    path, seconds = write_network(tmp_path / "deep.onnx", Convention(group=16)), 0.0
    session = ForeignSession(path)
    probed, run = probe(session, path, Conventions()), session.upscaled

    def upscaled(ends: Ends, picture: np.ndarray) -> np.ndarray:
        nonlocal seconds
        pixels = picture.shape[0] * picture.shape[1]
        seconds += pixels * (4 if pixels > 64**2 else 1)
        return run(ends, picture)

    monkeypatch.setattr(session, "upscaled", upscaled)
    monkeypatch.setattr("sr.network.foreign.halo.time.perf_counter", lambda: seconds)
    found = measure_halo(session, probed, lambda phase, share: None, patience=1e6)
    assert found.exact
    assert found.largest == 192**2
    assert seconds < 1e6
    seconds = 0.0
    hurried = measure_halo(session, probed, lambda phase, share: None, patience=2e5)
    assert hurried.cut_short
    assert 2e5 < hurried.needed < 4e5


def test_roundings_among_few_values_are_chance():
    """Figures of Real-ESRGAN x4plus, a crop of 336 px: of the innermost values, 5 differ."""
    found = [Depth(1, 154, 602112), Depth(1, 48, 442368), Depth(1, 26, 307200), Depth(1, 5, 49152)]
    assert smallest_fitting(found) == 2, "the smallest that meets the contract itself"
    assert smallest_fitting([*found, Depth(1, 7, 12288)]) is None, "more than chance explains"
    assert smallest_fitting([*found, Depth(2, 1, 12288)]) is None, "no rounding"


def test_what_was_found_before_memory_ran_out_is_kept(tmp_path, monkeypatch):
    path = write_network(tmp_path / "deep.onnx", Convention(group=16))
    session = ForeignSession(path)
    probed, run = probe(session, path, Conventions()), session.upscaled

    def upscaled(ends: Ends, picture: np.ndarray) -> np.ndarray:
        if len(picture) > 96:
            raise MemoryError
        return run(ends, picture)

    monkeypatch.setattr(session, "upscaled", upscaled)
    found = measure_halo(session, probed, lambda phase, share: None, patience=600)
    assert (found.exact, found.tried, found.cut_short, found.largest) == (False, 24, False, 96**2)


@pytest.mark.slow
def test_more_patience_is_what_the_note_says(tmp_path, monkeypatch):
    path = write_network(tmp_path / "deep.onnx", Convention(group=16), made="for this test")
    monkeypatch.setattr(describe, "_PATIENCE_SECONDS", 0.0)
    outputs = []
    for options in ([], ["--patience", "10"], []):
        run = CliRunner().invoke(main, ["info", "--model", str(path), *options])
        assert run.exit_code == 0, run.output
        outputs.append(" ".join(run.stdout.split()))
    assert "picture no" in outputs[0]
    assert re.search(r"--patience [1-9]\b", outputs[0]), "a minute or some"
    assert "picture yes" in outputs[1]
    assert outputs[2] == outputs[1], "what was measured is what upscaling finds"


@pytest.mark.parametrize("model", [[], ["--model", "small"]])
def test_patience_is_for_networks_of_other_programs(model):
    run = CliRunner().invoke(main, ["info", *model, "--patience", "10"])
    assert run.exit_code == 2, run.output
    assert "--patience" in run.output


def test_stated_conventions_are_not_probed(network):
    stated = Conventions(value_range=(-1.0, 1.0), order="BGR")
    ends = foreign_descriptor(network("usual"), stated=stated).ends
    assert (ends.black, ends.white, ends.order) == (-1.0, 1.0, "BGR")


def test_the_order_of_channels_is_rgb_unless_it_is_stated(tmp_path, photograph):
    """BGR in a file behaves as the same network for RGB does, once that is known."""
    made = []
    for name, convention, stated in (
        ("right", Convention(), {}),
        ("unstated", Convention(order="BGR"), {}),
        ("stated", Convention(order="BGR", high=255.0), {"order": "BGR", "range": "0..255"}),
    ):
        path = write_network(tmp_path / f"{name}.onnx", convention, **stated)
        ends = read_metadata(path).ends
        assert (ends.order, ends.white) == (stated.get("order", "RGB"), convention.high)
        with Upscaler(model=path, backend="onnx", device="cpu") as upscaler:
            made.append(upscaler(photograph[:40, :40]))
    assert tiles_match(difference(made[0], made[2]))
    assert not tiles_match(difference(made[0], made[1]))


def test_a_file_is_probed_once(network, tmp_path):
    path, phases = network("usual"), []

    def progress(phase: str, share: float) -> None:
        phases.append(phase)

    first = foreign_descriptor(path, cache=tmp_path, progress=progress)
    assert len(phases) > 1
    assert len(list(tmp_path.iterdir())) == 1
    phases.clear()
    assert foreign_descriptor(path, cache=tmp_path, progress=progress) == first
    assert phases == [], "nothing was run"


def test_files_of_ours_are_no_foreign_ones():
    assert not any(is_foreign(path) for path in SHIPPED_DIR.iterdir())
    with pytest.raises(ModelError, match=r"missing\.onnx"):
        read_metadata(Path("missing.onnx"))


# --- pictures -----------------------------------------------------------------------------------


def test_grey_alpha_and_16_bits_go_through(network, photograph):
    with Upscaler(model=network("usual"), backend="onnx", device="cpu") as upscaler:
        coloured = upscaler(photograph)
        wide = upscaler(photograph.astype(np.uint16) * 257)
        grey = upscaler(photograph[..., 1])
        alpha = np.full(photograph.shape[:2], 255, np.uint8)
        alpha[:40] = 0
        made = upscaler.picture(Picture(photograph, alpha))
    assert wide.dtype == np.uint16
    assert np.abs(wide / 257 - coloured).max() <= 0.51
    assert grey.shape == coloured.shape[:2]
    assert made.alpha is not None
    assert (made.alpha[:70] == 0).all()
    assert (made.alpha[90:] == 255).all()


def test_16_bits_are_refused_by_networks_of_8(network):
    with (
        Upscaler(model=network("uint8"), backend="onnx", device="cpu") as upscaler,
        pytest.raises(BackendError, match="16"),
    ):
        upscaler(np.zeros((8, 8, 3), np.uint16))


def test_pictures_smaller_than_a_network_takes_are_continued(network):
    for name in ("in groups", "fixed size", "cropped"):
        with Upscaler(model=network(name), backend="onnx", device="cpu") as upscaler:
            assert upscaler(np.full((3, 5, 3), 90, np.uint8)).shape == (6, 10, 3)


def test_the_command_upscales_and_describes(network, tmp_path, photograph):
    write_picture(tmp_path / "in.png", Picture(photograph[:40, :50]))
    model = str(network("0 to 255"))
    run = CliRunner().invoke(main, ["upscale", str(tmp_path / "in.png"), "--model", model])
    assert run.exit_code == 0, run.output
    assert read_picture(tmp_path / "in_x2.png").pixels.shape == (80, 100, 3)
    shown = CliRunner().invoke(main, ["info", "--model", model])
    assert shown.exit_code == 0, shown.output
    for fact in ("255", "NCHW", "RGB", "x2", "none stated"):
        assert fact in shown.output


def test_conventions_can_be_stated_on_the_command_line(network, tmp_path, photograph):
    write_picture(tmp_path / "in.png", Picture(photograph[:20, :24]))
    source, model = str(tmp_path / "in.png"), ["--model", str(network("usual"))]
    stated = ["--model-range", "0..255", "--model-order", "BGR"]
    for index, options in enumerate(([], stated)):
        output = ["-o", str(tmp_path / f"{index}.png")]
        run = CliRunner().invoke(main, ["upscale", source, *model, *options, *output])
        assert run.exit_code == 0, run.output
    made = [read_picture(tmp_path / f"{index}.png").pixels for index in range(2)]
    assert not np.array_equal(*made)
    for wrong in (["--model-range", "1..0"], ["--model-range", "0..255"]):  # no range; no model
        run = CliRunner().invoke(main, ["upscale", source, *wrong])
        assert run.exit_code == 2, run.output
        assert "--model-range" in run.output


def test_no_torch_and_no_onnx_package_is_needed(network):
    program = (
        "import sys; from pathlib import Path; from sr.backends.ort import read_metadata;"
        f"read_metadata(Path({str(network('usual'))!r}));"
        "sys.exit(bool({'torch', 'onnx'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- refusals -----------------------------------------------------------------------------------


def saved(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname", "link.bin"])
def test_tensors_outside_the_folder_are_refused(tmp_path, location):
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(10_000))
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    model = foreign_network(PLAIN)
    tensor = model.graph.initializer[2]
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    with pytest.raises(ModelError, match="outside"):
        foreign_descriptor(saved(model, folder / "net.onnx"))


def test_tensors_in_the_folder_are_read(tmp_path):
    model = foreign_network(PLAIN)
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    assert foreign_descriptor(tmp_path / "net.onnx").scale == 2
    (tmp_path / "net.bin").unlink()
    with pytest.raises(ModelError, match=r"net\.bin"):
        foreign_descriptor(tmp_path / "net.onnx")


def test_custom_operators_are_refused(tmp_path):
    model = foreign_network(PLAIN)
    model.graph.node[0].domain = "org.example"
    model.opset_import.append(helper.make_opsetid("org.example", 1))
    with pytest.raises(ModelError, match=r"net\.onnx.*org\.example"):
        foreign_descriptor(saved(model, tmp_path / "net.onnx"))


def with_node(operator: str, *constants: list[int] | list[float], **attributes: object) -> onnx.ModelProto:
    """Return a network whose output goes through a further operator, with constants as its other inputs."""
    model = foreign_network(PLAIN)
    names = []
    for index, values in enumerate(constants):
        dtype = TensorProto.FLOAT if values and isinstance(values[0], float) else TensorProto.INT64
        names.append(f"extra{index}" if values else "")
        if values:
            model.graph.initializer.append(helper.make_tensor(names[-1], dtype, [len(values)], values))
    output = model.graph.output[0]
    model.graph.node.append(helper.make_node(operator, [output.name, *names], ["end"], **attributes))
    output.name = "end"
    return model


@pytest.mark.parametrize("ours", [False, True])
def test_loops_are_refused_wherever_they_are(tmp_path, ours):
    """A loop without end inside a branch; what calls itself a file of ours is checked too."""
    model = with_node("If")
    forever = helper.make_node("Loop", ["", "true", "x"], ["y"], body=helper.make_graph([], "body", [], []))
    branch = helper.make_graph([forever], "branch", [], [])
    model.graph.node[-1].attribute.append(helper.make_attribute("then_branch", branch))
    if ours:
        helper.set_model_props(model, onnx_properties(shipped_onnx(scale=2)))
    path = saved(model, tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"net\.onnx.*Loop"):
        Upscaler(model=path, backend="onnx", device="cpu")


def onnx_properties(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def with_functions(calls: dict[str, list[str]]) -> onnx.ModelProto:
    """Return a network with functions, each of which calls others, or operators, in turn."""
    model = foreign_network(PLAIN)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    for name, called in calls.items():
        nodes = [
            helper.make_node(each, ["x"], [f"y{at}"], domain="local" if each in calls else "")
            for at, each in enumerate(called)
        ]
        model.functions.append(helper.make_function("local", name, ["x"], ["y0"], nodes, opsets))
    model.opset_import.append(opsets[1])
    model.graph.node.append(helper.make_node("f0", [model.graph.output[0].name], ["unused"], domain="local"))
    return model


def test_functions_that_expand_without_end_are_refused_without_a_run(tmp_path):
    doubling = {f"f{at}": [f"f{at + 1}"] * 2 for at in range(40)} | {"f40": ["Relu"]}
    for calls, fact in ((doubling, "nodes"), ({"f0": ["f1"], "f1": ["Relu", "f0"]}, "calls itself")):
        path = saved(with_functions(calls), tmp_path / "net.onnx")
        with pytest.raises(ModelError, match=rf"net\.onnx.*refused.*{fact}"):
            check_graph(read_graph(path), path)
    path = saved(with_functions({"f0": ["f1", "f1"], "f1": ["Relu"]}), tmp_path / "net.onnx")
    check_graph(read_graph(path), path)


def test_graphs_nested_too_deep_and_of_too_many_parts_are_refused(tmp_path):
    graph = helper.make_graph([], "innermost", [], [])
    for _ in range(20):
        branch = helper.make_node("If", ["c"], ["y"], then_branch=graph)
        graph = helper.make_graph([branch], "outer", [], [])
    model = with_node("If")
    model.graph.node[-1].attribute.append(helper.make_attribute("then_branch", graph))
    path = saved(model, tmp_path / "deep.onnx")
    with pytest.raises(ModelError, match=r"deep\.onnx.*nested"):
        read_graph(path)
    node = helper.make_node("Relu", ["x"], ["x"]).SerializeToString()
    field = bytes([0x0A, len(node)]) + node
    for name, content in (("nodes", field * 100_001), ("parts", b"\x08\x01" * 600_000)):
        length, at = len(content), bytearray()
        while length:
            at.append(length & 0x7F | (0x80 if length > 0x7F else 0))
            length >>= 7
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(b"\x3a" + bytes(at) + content)
        with pytest.raises(ModelError, match=rf"{name}\.onnx.*refused.*{name}"):
            read_graph(path)


def test_sparse_tensors_and_names_that_no_file_has_are_refused(tmp_path):
    model = foreign_network(PLAIN)
    values = helper.make_tensor("huge", TensorProto.FLOAT, [1], [1.0])
    place = helper.make_tensor("at", TensorProto.INT64, [1], [5])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, place, [2**31, 2**31]))
    path = saved(model, tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"net\.onnx.*sparse"):
        foreign_descriptor(path)
    for location in ("a\0b", "x" * 5000):
        with pytest.raises(ModelError, match=r"net\.onnx.*no name of a file"):
            check_graph(Graph(external=[location]), path)


@pytest.mark.slow
def test_a_tensor_that_claims_more_than_it_stores_is_refused(tmp_path):
    model = foreign_network(PLAIN)
    model.graph.initializer[2].dims[:] = [2**20, 2**20, 3, 3]
    with pytest.raises(ModelError, match=r"net\.onnx") as refused:
        foreign_descriptor(saved(model, tmp_path / "net.onnx"))
    assert "\n" not in str(refused.value)


def test_enormous_constants_are_refused_without_a_run(tmp_path):
    for model in (
        with_node("Tile", [1, 1, 100_000, 100_000]),
        with_node("Resize", [], [1.0, 1.0, 9000.0, 9000.0], mode="nearest"),
        with_node("Expand", [1, 3, 1_000_000, 1_000_000]),
    ):
        path = saved(model, tmp_path / "net.onnx")
        with pytest.raises(ModelError, match="refused"):
            check_graph(read_graph(path), path)


def test_growth_in_small_steps_is_refused_in_bounded_memory(tmp_path):
    """No single constant is enormous: the child process meets its limit, this one does not."""
    model = foreign_network(PLAIN)
    output, last = model.graph.output[0], model.graph.output[0].name
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, 16.0, 16.0])
    model.graph.initializer.append(scales)
    for step in range(6):
        model.graph.node.append(
            helper.make_node("Resize", [last, "", "scales"], [f"grown{step}"], mode="nearest")
        )
        last = f"grown{step}"
    output.name = last
    with pytest.raises(ModelError, match=r"net\.onnx"):
        foreign_descriptor(saved(model, tmp_path / "net.onnx"))


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x08\x07" * 40, b"\x3a\xff\xff\xff\xff\x0f"])
def test_what_is_no_onnx_file_is_refused(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"net\.onnx"):
        read_graph(path)
    with pytest.raises(ModelError, match=r"net\.onnx"):
        Upscaler(model=path, backend="onnx", device="cpu")


def test_damaged_files_are_refused_or_read_as_a_graph(tmp_path):
    """Whatever byte is lost or changed: no other error than ours."""
    whole, rng = foreign_network(PLAIN).SerializeToString(), np.random.default_rng(0)
    path = tmp_path / "net.onnx"
    for _ in range(300):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 4):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(1, len(whole))])
        with contextlib.suppress(ModelError):
            check_graph(read_graph(path), path)


def test_the_reader_counts_operators_as_onnx_does():
    for path in sorted(SHIPPED_DIR.glob("*.onnx")):
        graph, model = read_graph(path), onnx.load(path).graph
        assert graph.operators.total() == len(model.node)
        assert set(graph.operators) == {node.op_type for node in model.node}
        assert [info.name for info in graph.inputs] == [info.name for info in model.input]


@pytest.mark.parametrize(
    ("model", "fact"),
    [
        (foreign_network(Convention(channels=4)), "RGBA"),
        (with_node("ReduceMean", axes=[1], keepdims=1), "shape"),
        (with_node("ReduceMean", axes=[2, 3], keepdims=1), "factor"),
    ],
    ids=["four channels", "one channel out", "no picture out"],
)
def test_what_does_not_upscale_pictures_is_refused(tmp_path, model, fact):
    with pytest.raises(ModelError, match=rf"net\.onnx.*{fact}"):
        foreign_descriptor(saved(model, tmp_path / "net.onnx"))
