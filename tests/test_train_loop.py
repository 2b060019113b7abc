"""The training loop: it learns, resumes exactly, and refuses what does not belong to the run."""

import hashlib
import json
import math
import pickle
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sr.checkpoint import load_weights, save_weights
from sr.errors import DataError, ModelError, TrainingError
from sr.model import ModelConfig, trunk_state
from sr.resize import bicubic_resize
from train.config import TrainConfig
from train.evaluate import evaluate, upscale_with
from train.loop import Trainer

NETWORK = ModelConfig(scale=2, num_feats=8, num_blocks=1)


def write_pairs(folder: Path, *, scale: int) -> Path:
    """Write two smooth lr pictures of 12x12 px, their hr pictures and the list; return the list's path."""
    entries = []
    for seed in range(2):
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        hr = bicubic_resize(coarse, scale=2 * scale)
        for name, image in ((f"hr{seed}", hr), (f"lr{seed}", bicubic_resize(hr, scale=Fraction(1, scale)))):
            Image.fromarray(image).save(folder / f"{name}-x{scale}.png")
        entries.append({"HR": f"hr{seed}-x{scale}.png", "LR": f"lr{seed}-x{scale}.png"})
    path = folder / f"x{scale}.json"
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Return the pair lists by scale."""
    folder = tmp_path_factory.mktemp("pairs")
    return {scale: write_pairs(folder, scale=scale) for scale in (2, 3)}


@pytest.fixture
def config(pairs: dict[int, Path], tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        model=NETWORK,
        train_list=pairs[2],
        run_dir=tmp_path / "run",
        total_epochs=3,
        patches_per_picture=8,
        batch_size=4,
        patch_size=8,
        learning_rate=5e-3,
        warmup_steps=2,
        val_every=1,
        seed=1,
    )


def silent(_: str) -> None:
    pass


def trained(config: TrainConfig) -> Trainer:
    """Run to the end."""
    trainer = Trainer(config, log=silent)
    trainer.run()
    return trainer


def metrics(config: TrainConfig) -> list[dict[str, Any]]:
    text = (config.run_dir / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert set(first) == set(second)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


# --- learning -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"model": replace(NETWORK, norm="batch", attention="none")},
        {"model": replace(NETWORK, asymmetric=False), "loss": "l2", "lr_schedule": "step"},
        {"max_grad_norm": 0.0, "loss": "smooth_l1"},
    ],
    ids=["batch norm", "l2", "smooth_l1"],
)
def test_loss_falls(config: TrainConfig, changes: dict[str, Any]) -> None:
    config = replace(config, total_epochs=8, val_every=8, **changes)
    trained(config)
    losses = [record["loss"] for record in metrics(config)]
    assert len(losses) == 8
    assert losses[-1] < 0.6 * losses[0]


def test_run_writes_metrics_and_weights_and_returns_the_measurement(
    config: TrainConfig, pairs: dict[int, Path]
) -> None:
    config = replace(config, total_epochs=5, val_every=2, val_lists=(pairs[2],), data_note="two gradients")
    lines: list[str] = []
    trainer = Trainer(config, log=lines.append)
    quality = trainer.run()

    records = metrics(config)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5]
    assert [record["step"] for record in records] == [4, 8, 12, 16, 20]
    assert [pairs[2].as_posix() in record.get("quality", {}) for record in records] == [
        False,
        True,
        False,
        True,
        True,
    ]
    assert trainer.total_steps == 20

    weights = load_weights(config.run_dir / "weights.safetensors")
    assert weights.config == config.model
    assert weights.training["data"] == "two gradients"
    assert weights.training["steps"] == 20
    assert weights.training["pictures"] == 2
    assert_same(weights.state, {name: value.cpu() for name, value in trainer.model.state_dict().items()})

    assert quality is not None
    measured = evaluate(upscale_with(trainer.model), pairs[2], scale=2)
    assert quality == measured
    assert records[-1]["quality"][pairs[2].as_posix()]["psnr_y"] == measured.psnr_y
    assert measured.pictures == 2
    assert any(line.startswith("epoch 5/5") and f"{measured.psnr_y:.3f} dB" in line for line in lines)
    assert sorted(path.name for path in config.run_dir.iterdir()) == [
        "last.pt",
        "metrics.jsonl",
        "weights.safetensors",
    ]


def test_measuring_leaves_training_as_it_was(config: TrainConfig, pairs: dict[int, Path]) -> None:
    config = replace(config, model=replace(NETWORK, norm="batch"))
    unmeasured = trained(config)
    measured = trained(replace(config, run_dir=config.run_dir / "measured", val_lists=(pairs[2],)))
    assert_same(measured.model.state_dict(), unmeasured.model.state_dict())
    assert measured.model.training


def test_learning_rate_warms_up_and_falls_as_a_cosine(config: TrainConfig) -> None:
    config = replace(config, total_epochs=4, warmup_steps=8)
    trained(config)
    rates = [record["learning_rate"] for record in metrics(config)]
    cosine = [0.5 * (1 + math.cos(math.pi * epoch / 4)) for epoch in (1, 2, 3, 4)]
    warmth = [5 / 8, 1, 1, 1]  # the step after an epoch of four is the fifth of eight
    expected = [config.learning_rate * a * b for a, b in zip(cosine, warmth, strict=True)]
    assert rates == pytest.approx(expected, abs=1e-12)
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_learning_rate_halves_in_steps(config: TrainConfig) -> None:
    config = replace(config, total_epochs=5, lr_schedule="step", lr_halve_step=2, val_every=5)
    trained(config)
    rates = [record["learning_rate"] / config.learning_rate for record in metrics(config)]
    assert rates == pytest.approx([1, 0.5, 0.5, 0.25, 0.25])


def test_same_settings_give_the_same_start_and_another_seed_another(config: TrainConfig) -> None:
    first, second, other = (
        Trainer(replace(config, seed=seed), log=silent).model.state_dict() for seed in (5, 5, 6)
    )
    assert_same(first, second)
    weights = "blocks.0.expand.1.parametrizations.weight.original1"
    assert not torch.equal(first[weights], other[weights])


# --- resuming -----------------------------------------------------------------------------------


class Interrupted(Exception):
    """Stands for a power cut."""


def interrupt_in(config: TrainConfig, *, epoch: int) -> None:
    """Train, and be cut off in `epoch` before anything of it is saved."""

    def log(line: str) -> None:
        if line.startswith(f"epoch {epoch}/"):
            raise Interrupted

    with pytest.raises(Interrupted):
        Trainer(config, log=log).run()


def resumed(config: TrainConfig) -> Trainer:
    trainer = Trainer(config, log=silent)
    trainer.resume()
    return trainer


@pytest.mark.skipif(torch.cuda.is_available(), reason="bit for bit on the CPU only")
@pytest.mark.parametrize("norm", ["weight", "batch"])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(config: TrainConfig, norm: Any) -> None:
    config = replace(config, model=replace(NETWORK, norm=norm))
    whole = trained(config)

    cut = replace(config, run_dir=config.run_dir.with_name("cut"))
    interrupt_in(cut, epoch=2)
    trainer = resumed(cut)
    assert (trainer.epoch, trainer.step) == (1, 4)
    trainer.run()

    assert_same(trainer.model.state_dict(), whole.model.state_dict())
    ours, theirs = trainer.optimizer.state_dict()["state"], whole.optimizer.state_dict()["state"]
    assert list(ours) == list(theirs)
    for index, state in theirs.items():
        assert_same(ours[index], state)
    for record, expected in zip(metrics(cut), metrics(config), strict=True):
        assert {**record, "seconds": 0} == {**expected, "seconds": 0}
    weights = [load_weights(run.run_dir / "weights.safetensors") for run in (cut, config)]
    assert_same(weights[0].state, weights[1].state)


def test_finished_run_has_nothing_left_to_do(config: TrainConfig) -> None:
    before = trained(config).model.state_dict()
    trainer = resumed(config)
    trainer.run()
    assert trainer.step == trainer.total_steps
    assert_same(
        {n: v.cpu() for n, v in before.items()}, {n: v.cpu() for n, v in trainer.weights().state.items()}
    )


def test_run_can_be_moved_and_made_longer(config: TrainConfig) -> None:
    trained(config)
    moved = replace(config, run_dir=config.run_dir.with_name("moved"), total_epochs=4, val_every=3)
    config.run_dir.rename(moved.run_dir)
    trainer = resumed(moved)
    assert (trainer.epoch, trainer.step) == (3, 12)
    trainer.run()
    assert [record["epoch"] for record in metrics(moved)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 1e-3}, ["learning_rate", "0.005", "0.001"]),
        ({"batch_size": 8}, ["batch_size was 4, is 8"]),
        ({"seed": 7}, ["seed was 1, is 7"]),
        ({"loss": "l2"}, ["loss was l1, is l2"]),
        ({"freeze_attention": True}, ["freeze_attention"]),
        ({"model": replace(NETWORK, num_blocks=2)}, ["model", "num_blocks"]),
        ({"seed": 7, "patch_size": 6}, ["seed was 1, is 7", "patch_size was 8, is 6"]),
    ],
)
def test_other_settings_are_refused_and_named(
    config: TrainConfig, changes: dict[str, Any], named: list[str]
) -> None:
    config.run_dir.mkdir()
    Trainer(config, log=silent).save()
    message = refused(replace(config, **changes))
    assert "other settings" in message
    assert all(part in message for part in named)


def refused(config: TrainConfig) -> str:
    """Return the message with which resuming is refused: one line that names the file first."""
    trainer = Trainer(config, log=silent)
    with pytest.raises(TrainingError) as caught:
        trainer.resume()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{config.run_dir / 'last.pt'}: ")
    return message


def test_missing_checkpoint(config: TrainConfig) -> None:
    assert "no checkpoint to resume from" in refused(config)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated_checkpoint(config: TrainConfig, share: float) -> None:
    config.run_dir.mkdir()
    Trainer(config, log=silent).save()
    path = config.run_dir / "last.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "not a readable checkpoint" in refused(config)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"text\n", bytes(100), b"\x80\x02}q\x00."])
def test_foreign_bytes(config: TrainConfig, content: bytes) -> None:
    config.run_dir.mkdir()
    (config.run_dir / "last.pt").write_bytes(content)
    refused(config)


@pytest.mark.parametrize(
    "content", [{"state_dict": {}}, [1, 2], torch.zeros(3), {"format": "srup-training-0"}]
)
def test_checkpoint_of_another_program(config: TrainConfig, content: Any) -> None:
    config.run_dir.mkdir()
    torch.save(content, config.run_dir / "last.pt")
    assert "not a training checkpoint of srup" in refused(config)


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("how", ["pickle", "torch", "torch legacy", "inside a checkpoint"])
def test_pickled_code_is_not_executed(config: TrainConfig, tmp_path: Path, how: str) -> None:
    witness, path = tmp_path / "executed", config.run_dir / "last.pt"
    config.run_dir.mkdir()
    bomb: Any = Malicious(witness)
    if how == "pickle":
        path.write_bytes(pickle.dumps(bomb, protocol=2))  # the one that torch takes without a warning
    elif how == "inside a checkpoint":
        Trainer(config, log=silent).save()
        torch.save(torch.load(path, weights_only=True) | {"model": bomb}, path)
    else:
        torch.save(bomb, path, _use_new_zipfile_serialization=how == "torch")
    assert "not a readable checkpoint" in refused(config)
    assert not witness.exists()

    with path.open("rb") as file:  # the same file is a bomb where it is trusted
        pickle.load(file) if how == "pickle" else torch.load(file, weights_only=False)
    assert witness.exists()


# --- stopping -----------------------------------------------------------------------------------


def test_loss_that_is_not_finite_stops_the_run_and_names_the_step(config: TrainConfig) -> None:
    config = replace(config, learning_rate=1e30, warmup_steps=0)
    trainer = Trainer(config, log=silent)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+ ") as caught:
        trainer.run()
    assert "\n" not in str(caught.value)
    assert 1 <= trainer.step < trainer.total_steps, "the first step starts from fine weights"
    assert f"at step {trainer.step} " in str(caught.value)
    assert not list(config.run_dir.glob("*.pt")), "diverged weights are not worth a checkpoint"


def test_divergence_leaves_the_last_checkpoint_as_it_was(config: TrainConfig) -> None:
    trainer = Trainer(replace(config, total_epochs=1, val_every=1), log=silent)
    trainer.run()
    before = {path.name: path.read_bytes() for path in config.run_dir.iterdir()}
    with torch.no_grad():
        trainer.model.base.bias.fill_(math.nan)
    trainer.config = replace(trainer.config, total_epochs=2)
    with pytest.raises(TrainingError, match="the loss is nan"):
        trainer.run()
    assert {path.name: path.read_bytes() for path in config.run_dir.iterdir()} == before


# --- starting from other weights ----------------------------------------------------------------


@pytest.fixture
def init(config: TrainConfig) -> Path:
    """Return the weights of a finished run."""
    first = replace(config, run_dir=config.run_dir.with_name("first"), total_epochs=1)
    trained(first)
    return first.run_dir / "weights.safetensors"


def test_weights_of_the_same_scale_are_taken_whole(config: TrainConfig, init: Path) -> None:
    trainer = Trainer(replace(config, init_weights=init), log=silent)
    assert_same(load_weights(init).state, {n: v.cpu() for n, v in trainer.model.state_dict().items()})


def test_weights_of_another_scale_give_their_trunk(
    config: TrainConfig, init: Path, pairs: dict[int, Path]
) -> None:
    three = replace(config, model=replace(NETWORK, scale=3), train_list=pairs[3])
    fresh = Trainer(three, log=silent).model.state_dict()
    started = Trainer(replace(three, init_weights=init), log=silent).model.state_dict()
    given = trunk_state(load_weights(init).state)
    assert len(given) > 10
    assert_same(given, {n: v.cpu() for n, v in trunk_state(started).items()})
    upsampler = [name for name in started if name not in given]
    assert_same({name: fresh[name] for name in upsampler}, {name: started[name] for name in upsampler})


def test_origin_of_the_weights_is_recorded_as_it_was_read(config: TrainConfig, init: Path) -> None:
    sha256 = hashlib.sha256(init.read_bytes()).hexdigest()
    config = replace(config, init_weights=init, total_epochs=1)
    trainer = Trainer(config, log=silent)
    init.unlink()  # e.g. the other run goes on and replaces it
    trainer.run()
    assert load_weights(config.run_dir / "weights.safetensors").training["started_from"]["sha256"] == sha256


@pytest.mark.parametrize(
    "changes",
    [{"num_feats": 16}, {"num_blocks": 2}, {"attention": "none"}, {"norm": "none"}, {"asymmetric": False}],
    ids=str,
)
@pytest.mark.parametrize("scale", [2, 3])
def test_weights_of_another_network_are_refused(
    config: TrainConfig, init: Path, pairs: dict[int, Path], scale: int, changes: dict[str, Any]
) -> None:
    other = replace(
        config, model=replace(NETWORK, scale=scale, **changes), train_list=pairs[scale], init_weights=init
    )
    with pytest.raises(TrainingError) as caught:
        Trainer(other, log=silent)
    assert str(caught.value).startswith(f"{init}: ")
    assert "\n" not in str(caught.value)


def test_missing_weights_are_named(config: TrainConfig, tmp_path: Path) -> None:
    absent = tmp_path / "absent.safetensors"
    with pytest.raises(ModelError, match=str(absent)):
        Trainer(replace(config, init_weights=absent), log=silent)


def test_frozen_gates_stay_while_the_rest_trains(config: TrainConfig, init: Path) -> None:
    before = load_weights(init)
    gates = "blocks.0.attention.gate_mean"
    assert not torch.equal(before.state[gates], torch.full_like(before.state[gates], 0.5))
    config = replace(config, init_weights=init, freeze_attention=True)
    trained(config)
    after = load_weights(config.run_dir / "weights.safetensors")
    assert after.config == replace(NETWORK, attention="frozen")
    for name, value in before.state.items():
        assert torch.equal(after.state[name], value) == (".attention." in name), name

    unfrozen = replace(config, freeze_attention=False, run_dir=config.run_dir.with_name("unfrozen"))
    trained(unfrozen)
    moved = load_weights(unfrozen.run_dir / "weights.safetensors").state[gates]
    assert not torch.equal(moved, before.state[gates])


def test_frozen_run_is_resumed_frozen(config: TrainConfig, init: Path) -> None:
    config = replace(config, init_weights=init, freeze_attention=True)
    interrupt_in(config, epoch=2)
    trainer = resumed(config)
    trainer.run()
    assert trainer.epoch == 3
    assert trainer.model.config.attention == "frozen"


def test_frozen_weights_can_be_the_start_of_a_frozen_network(config: TrainConfig, init: Path) -> None:
    weights = load_weights(init)
    save_weights(init, replace(weights, config=replace(weights.config, attention="frozen")))
    frozen = replace(config, model=replace(NETWORK, attention="frozen"), init_weights=init, total_epochs=1)
    gates = "blocks.0.attention.gate_mean"
    assert torch.equal(trained(frozen).model.state_dict()[gates].cpu(), weights.state[gates])


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"total_epochs": 0}, "total_epochs is 0"),
        ({"patches_per_picture": 0}, "patches_per_picture is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"val_every": 0}, "val_every is 0"),
        ({"learning_rate": 0.0}, "learning rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning rate is nan"),
        ({"lr_schedule": "linear"}, "'linear'"),
    ],
)
def test_impossible_settings_are_named(config: TrainConfig, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(TrainingError, match=named):
        replace(config, **changes)


def test_unknown_loss_names_those_there_are(config: TrainConfig) -> None:
    with pytest.raises(TrainingError, match="'l3'; the losses are l1, l2, smooth_l1"):
        Trainer(replace(config, loss="l3"), log=silent)


def test_too_few_patches_for_one_batch(config: TrainConfig) -> None:
    with pytest.raises(TrainingError, match="2 pictures x 8 patches do not fill one batch of 17"):
        Trainer(replace(config, batch_size=17), log=silent)


def test_pictures_of_another_scale_are_refused(config: TrainConfig, pairs: dict[int, Path]) -> None:
    with pytest.raises(DataError, match="need 24x24 for scale 2"):
        Trainer(replace(config, train_list=pairs[3]), log=silent)
