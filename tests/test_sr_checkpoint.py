"""Weights files: what is saved comes back, and what is not ours is refused in one line."""

import contextlib
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sr.errors import ModelError
from sr.network.checkpoint import FORMAT, Weights, load_weights, save_weights
from sr.network.config import ModelConfig
from sr.network.model import SRNet

CONFIG = ModelConfig(scale=3, num_feats=8, num_blocks=1, attention="frozen", norm="batch")


def some_weights(config: ModelConfig = CONFIG) -> Weights:
    torch.manual_seed(0)
    return Weights(
        config=config,
        state=SRNet(config).state_dict(),
        training={"data": "ten photographs, größer", "steps": 7, "hours": 0.5, "pictures": None},
        preset="tiny",
        halo=11,
        licence="CC0-1.0",
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_weights(path, some_weights())
    return path


def rewrite(path: Path, **changes: str | None) -> None:
    """Change entries of the file's metadata; None removes one."""
    with safe_open(path, framework="pt") as archive:
        metadata = dict(archive.metadata())
        tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    entries = {name: value for name, value in (metadata | changes).items() if value is not None}
    save_file(tensors, path, entries)


def refused(path: Path) -> str:
    """Return the message with which loading is refused: one line that names the file first."""
    with pytest.raises(ModelError) as caught:
        load_weights(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


# --- round trip ---------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["weight", "batch", "none"])
@pytest.mark.parametrize("attention", ["dynamic", "frozen", "none"])
def test_everything_comes_back(tmp_path: Path, attention: Any, norm: Any) -> None:
    weights = some_weights(replace(CONFIG, attention=attention, norm=norm))
    path = tmp_path / "net.safetensors"
    save_weights(path, weights)
    loaded = load_weights(path)
    assert replace(loaded, state={}, sha256="") == replace(weights, state={})
    assert loaded.source == str(path)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert set(loaded.state) == set(weights.state)
    for name, value in weights.state.items():
        assert loaded.state[name].dtype == torch.float32
        assert torch.equal(loaded.state[name], value.float()), name

    original = SRNet(weights.config).eval()
    original.load_state_dict(weights.state)
    lr = torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(loaded.build()(lr), original(lr))


def test_halo_may_be_unmeasured(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(path, replace(some_weights(), halo=None))
    assert load_weights(str(path)).halo is None


def test_built_network_is_in_evaluation_mode(saved: Path) -> None:
    assert not load_weights(saved).build().training


def test_channels_last_tensors_are_saved(tmp_path: Path) -> None:
    weights = some_weights()
    model = SRNet(CONFIG)
    model.load_state_dict(weights.state)
    model.to(memory_format=torch.channels_last)
    assert not all(value.is_contiguous() for value in model.state_dict().values())
    path = tmp_path / "net.safetensors"
    save_weights(path, replace(weights, state=model.state_dict()))
    for name, value in load_weights(path).state.items():
        assert torch.equal(value, weights.state[name].float()), name


def test_file_can_be_read_without_us(saved: Path) -> None:
    with safe_open(saved, framework="numpy") as archive:
        metadata = archive.metadata()
        assert "base.weight" in set(archive.keys())
    assert metadata["format"] == FORMAT
    assert json.loads(metadata["config"])["scale"] == 3


# --- refused ------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "absent.safetensors")


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    refused(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.1, 0.5, 0.999])
def test_truncated_file(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(share * len(whole))])
    assert "safetensors" in refused(saved)


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n" + bytes(99), b"{}", random.Random(0).randbytes(999)]
)
def test_not_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    assert "safetensors" in refused(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "srup-weights-99"}])
def test_foreign_safetensors_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "bert.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata)
    assert "srup-weights-1" in refused(path)


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        "null",
        '{"depth": 3}',
        '{"scale": 0}',
        '{"num_feats": "many"}',
        '{"attention": "soft"}',
    ],
)
def test_wrong_configuration(saved: Path, config: str) -> None:
    rewrite(saved, config=config)
    refused(saved)


@pytest.mark.parametrize("entry", ["config", "training", "preset", "halo", "licence"])
def test_missing_metadata(saved: Path, entry: str) -> None:
    rewrite(saved, **{entry: None})
    assert entry in refused(saved)


@pytest.mark.parametrize("entry", ["training", "halo"])
def test_malformed_metadata(saved: Path, entry: str) -> None:
    rewrite(saved, **{entry: "}{"})
    refused(saved)


@pytest.mark.parametrize("changes", [{"num_blocks": 2}, {"num_feats": 16}, {"norm": "weight"}, {"scale": 2}])
def test_tensors_of_another_configuration(saved: Path, changes: dict[str, Any]) -> None:
    rewrite(saved, config=json.dumps(replace(CONFIG, **changes).to_dict()))
    with pytest.raises(ModelError, match="configuration") as caught:
        load_weights(saved).build()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{saved}: ")


def test_refused_weights_without_a_file_need_no_name() -> None:
    with pytest.raises(ModelError, match=r"^the weights .*configuration"):
        replace(some_weights(), config=replace(CONFIG, num_blocks=2)).build()


def test_colour_comes_back_and_older_files_are_read(saved: Path) -> None:
    config = CONFIG.to_dict()
    rewrite(saved, config=json.dumps(config | {"colour": "YCbCr"}))
    assert load_weights(saved).config == replace(CONFIG, colour="YCbCr")
    del config["colour"]
    rewrite(saved, config=json.dumps(config))
    assert load_weights(saved).config == CONFIG
    rewrite(saved, config=json.dumps(config | {"img_channels": 1}))
    assert load_weights(saved).config == replace(CONFIG, img_channels=1, colour="Y")


# --- nothing partial ----------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk(after_bytes: int) -> Iterator[None]:
    """Let the system refuse to write any file beyond a size, as a full disk would."""
    resource = pytest.importorskip("resource", reason="this system has no file size limit")
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))


def test_full_disk_leaves_the_old_file(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(OSError, match="large"), full_disk(after_bytes=1000):
        save_weights(saved, replace(some_weights(), preset="large"))
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_full_disk_leaves_no_new_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="large"), full_disk(after_bytes=1000):
        save_weights(tmp_path / "net.safetensors", some_weights())
    assert list(tmp_path.iterdir()) == []


def test_a_text_named_as_a_checkpoint_is_refused_without_advice_of_pytorch(tmp_path: Path) -> None:
    path = tmp_path / "junk.pt"
    path.write_text("hello")
    with pytest.raises(ModelError, match=r"junk\.pt") as caught:
        load_weights(path)
    assert "weights_only" not in str(caught.value)
