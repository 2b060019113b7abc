"""Weights of other programs: read safely, converted once, tiled exactly; or refused in one line."""

import importlib.util
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from deploy.verify import difference, tiles_match
from sr.cli import main
from sr.errors import ModelError, SrupError
from sr.image import Picture, read_picture, write_picture
from sr.network.checkpoint import FORMAT, TRAINING_FORMAT
from sr.network.foreign import statedict
from sr.network.foreign.convert import converted
from sr.network.foreign.describe import foreign_descriptor
from sr.network.foreign.exporting import _export, traced_sides, worst_difference
from sr.network.foreign.statedict import is_foreign_weights, read_state, stated_licence
from sr.network.foreign.torchnet import load_network
from sr.network.modelfile import SHIPPED_DIR, shipped_weights
from sr.upscale import Upscaler
from tests.architectures import SETTINGS, network, write_weights

pytestmark = [
    pytest.mark.usefixtures("model_cache"),
    pytest.mark.skipif(importlib.util.find_spec("spandrel") is None, reason="spandrel is not installed"),
]

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """Return part of a photograph, (160, 176, 3): multiples of what all networks take."""
    return read_picture(EXAMPLES / "kitten.png").pixels[100:260, 200:376]


# --- reading ------------------------------------------------------------------------------------


class Hostile:
    """Pickles as a call that writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["evil.pth", "evil.pt", "evil.ckpt"])
def test_a_pickle_that_executes_is_refused(tmp_path, name, legacy):
    path, mark = tmp_path / name, tmp_path / "executed"
    content = {"params": {"a.weight": torch.zeros(1)}, "x": Hostile(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert is_foreign_weights(path)
    with pytest.raises(ModelError, match=r"evil.*refused.*state.dict"):
        read_state(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the pickle does execute where it is allowed to"


@pytest.mark.slow
def test_the_command_refuses_it_in_one_line(tmp_path):
    path, mark = tmp_path / "evil.pth", tmp_path / "executed"
    path.write_bytes(pickle.dumps(Hostile(mark)))
    run = CliRunner().invoke(main, ["upscale", str(EXAMPLES / "kitten.png"), "--model", str(path)])
    assert run.exit_code == 1, run.output
    assert len(run.output.strip().splitlines()) <= 2, "a note of progress at most"
    assert "Error: " in run.output
    assert "evil.pth" in run.output
    assert not mark.exists()


def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "program.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(torch.nn.Conv2d(3, 3, 3), torch.zeros(1, 3, 8, 8)).save(path)
    with pytest.raises(ModelError, match=r"TorchScript.*state_dict"):
        read_state(path)


def test_an_archive_that_unpacks_to_more_is_refused(tmp_path):
    path, bomb = tmp_path / "plain.pth", tmp_path / "bomb.pth"
    torch.save({"a.weight": torch.zeros(2_000_000)}, path)
    with (
        zipfile.ZipFile(path) as plain,
        zipfile.ZipFile(bomb, "w", compression=zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    assert set(read_state(path)) == {"a.weight"}
    with pytest.raises(ModelError, match="unpacks"):
        read_state(bomb)


def test_a_tensor_larger_than_what_is_stored_is_refused(tmp_path):
    path = tmp_path / "wide.pth"
    torch.save({"net": {"a.weight": torch.zeros(1).expand(100_000, 100_000)}}, path)
    with pytest.raises(ModelError, match="claims"):
        read_state(path)


def test_dicts_that_refer_to_each_other_are_read_once(tmp_path):
    """Eighty levels, each of which has the next one twice: 2 to the 80th paths."""
    state: dict = {"a.weight": torch.zeros(3)}
    for _ in range(80):
        state = {"first": state, "second": state}
    torch.save(state, tmp_path / "x.pth")
    assert len(statedict.tensors_in(read_state(tmp_path / "x.pth"))) == 1


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}q\x00.", b"x" * 4096])
def test_what_is_no_file_of_weights_is_refused(tmp_path, content, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"x{suffix}"):
        load_network(path)


def test_our_own_files_are_told_apart_without_reading_them(tmp_path):
    assert not any(is_foreign_weights(path) for path in SHIPPED_DIR.iterdir())
    checkpoint, own = tmp_path / "last.pt", {"format": TRAINING_FORMAT}
    torch.save(own, checkpoint)
    assert not is_foreign_weights(checkpoint)
    torch.save({"a": torch.zeros(1)}, checkpoint)
    assert is_foreign_weights(checkpoint)
    assert FORMAT.startswith(statedict._OWN_WEIGHTS)
    assert TRAINING_FORMAT.encode().startswith(statedict._OWN_CHECKPOINT)
    assert shipped_weights(scale=2).suffix == ".safetensors"


def test_a_stated_licence_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"modelspec.license": "CC-BY-NC-4.0"})
    assert stated_licence(path) == "CC-BY-NC-4.0"
    assert stated_licence(write_weights(tmp_path / "x.pth", "Compact")) == ""


# --- networks -----------------------------------------------------------------------------------


def test_weights_that_no_architecture_has_are_refused(tmp_path):
    torch.save({"a.weight": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(ModelError, match=r"x\.pth.*architecture.*ONNX"):
        load_network(tmp_path / "x.pth")


def test_networks_of_four_channels_are_refused(tmp_path):
    path = write_weights(tmp_path / "rgba.pth", "Compact", num_in_ch=4, num_out_ch=4)
    with pytest.raises(ModelError, match=r"RGBA.*transparency"):
        load_network(path)


@pytest.mark.parametrize("architecture", ["Compact", "SPAN", "PLKSR"])
def test_a_converted_network_computes_what_pytorch_does_at_other_sizes(tmp_path, architecture):
    loaded = load_network(write_weights(tmp_path / "x.safetensors", architecture))
    sides = traced_sides(loaded, 0)[0]
    _export(loaded, tmp_path / "x.onnx", "legacy", sides, free=True)
    assert worst_difference(loaded, tmp_path / "x.onnx", sides, free=True) < 1e-4
    other = load_network(write_weights(tmp_path / "y.pth", architecture))
    with torch.no_grad():
        next(iter(other.module.parameters())).add_(0.1)
    assert worst_difference(other, tmp_path / "x.onnx", sides, free=True) > 1e-4, "the check can fail"


def test_what_is_loaded_is_what_was_saved(tmp_path):
    loaded = load_network(write_weights(tmp_path / "x.pth", "Compact"))
    image = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        expected = network("Compact")(image).clamp(0, 1)
        assert torch.equal(loaded.module(image), expected)
    assert expected.std() > 0.05, "not all of it is clipped"
    assert (loaded.scale, loaded.channels, loaded.architecture) == (4, 3, "RealESRGAN Compact")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", SETTINGS)
def test_an_architecture_works(tmp_path, photograph, architecture, monkeypatch):
    """Its tiles are exact, or a warning says that they are not; whole, it computes what PyTorch does."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # other tests convert some of these networks, too
    path = write_weights(tmp_path / "net.pth", architecture)
    phases: list[str] = []
    made = converted(path, progress=lambda phase, share: phases.append(phase))
    assert any("exporter" in phase for phase in phases)
    assert converted(path, progress=lambda phase, share: pytest.fail("converted again")) == made
    model = foreign_descriptor(made)
    assert model.ends.size is None, "right at other sizes than the traced one"
    with Upscaler(model=path, backend="onnx", device="cpu", tile=512) as upscaler:
        whole = upscaler(photograph)
        assert (upscaler.warning is None) == model.tiles_exact
    with torch.no_grad():
        lr = torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None] / 255
        expected = load_network(path).module(lr)[0].permute(1, 2, 0).mul(255).round().to(torch.uint8)
    against = difference(whole, expected.numpy())  # 1e-4 of the range turns some roundings
    assert against.max_levels <= 1
    assert against.psnr > 65
    if model.tiles_exact:
        with Upscaler(model=path, backend="onnx", device="cpu", tile=4 * model.halo) as upscaler:
            assert tiles_match(difference(upscaler(photograph), whole))


@pytest.mark.slow
def test_pytorch_runs_the_weights_themselves(tmp_path, photograph):
    path = write_weights(tmp_path / "net.pth", "Compact")
    made = []
    for backend in ("torch", "onnx"):
        with Upscaler(model=path, backend=backend, device="cpu") as upscaler:
            assert upscaler.backend.info.name == backend
            made.append(upscaler(photograph))
            wide = upscaler(photograph.astype(np.uint16) * 257)
            assert np.abs(wide / 257 - made[-1]).max() <= 0.51
    assert tiles_match(difference(*made))


@pytest.mark.slow
def test_a_network_beyond_the_memory_is_refused(tmp_path):
    """A state dict of a few kilobytes whose names claim an enormous network."""
    state = network("Compact").state_dict()
    state["body.0.weight"] = torch.zeros(1).expand(2**20, 3, 3, 3)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(SrupError, match=r"x\.pth"):
        converted(tmp_path / "x.pth")


# --- chains -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_upscales_with_weights(tmp_path, photograph):
    write_picture(tmp_path / "in.png", Picture(photograph))
    path = write_weights(tmp_path / "4x_net.pth", "Compact")
    run = CliRunner().invoke(main, ["upscale", str(tmp_path / "in.png"), "--model", str(path)])
    assert run.exit_code == 0, run.output
    assert read_picture(tmp_path / "in_x4.png").pixels.shape == (640, 704, 3)
    shown = CliRunner().invoke(main, ["info", "--model", str(path)])
    assert "4x_net x4" in shown.output
