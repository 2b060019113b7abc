"""The training loop: it learns, measures, ships what it measured, and starts only from what fits."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sr.errors import DataError, ModelError, TrainingError
from sr.network.checkpoint import load_weights, save_weights
from sr.network.model import trunk_state
from sr.upscale import Upscaler
from tests.training import (
    CPU,
    NETWORK,
    assert_same,
    metrics,
    silent,
    small_config,
    trained,
    without_times,
    write_pairs,
)
from train.config import TrainConfig
from train.distributed import Group
from train.evaluate import evaluate, upscale_with
from train.loop import Trainer
from train.state import load_state

pytestmark = pytest.mark.usefixtures("one_thread", "no_curves")

GATES = "blocks.0.attention.gate_mean"
Step = Callable[[Trainer], None]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Return the pair lists by scale."""
    folder = tmp_path_factory.mktemp("pairs")
    return {scale: write_pairs(folder / f"x{scale}.json", scale=scale) for scale in (2, 3)}


@pytest.fixture
def config(pairs: dict[int, Path], tmp_path: Path) -> TrainConfig:
    return small_config(pairs[2], tmp_path / "run")


class Watched(Trainer):
    """A run whose every step can be watched from outside."""

    after_step: Step

    def _train_step(self, *arguments: Any) -> Tensor:
        value = super()._train_step(*arguments)
        self.after_step(self)
        return value


def watched(config: TrainConfig, after_step: Step) -> Watched:
    trainer = Watched(config, group=CPU, log=silent)
    trainer.after_step = after_step
    trainer.run()
    return trainer


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# --- learning -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"model": replace(NETWORK, norm="batch", attention="none")},
        {"model": replace(NETWORK, asymmetric=False), "loss": "l2", "lr_schedule": "step"},
        {"max_grad_norm": 0.0, "loss": "smooth_l1"},
        {"loss": "charbonnier+0.1*fftloss", "fft_cutoff": 0.1},
        {"optimizer": "AdamW", "weight_decay": 1e-4, "ema": 0.9},
        {"optimizer": "SGD", "learning_rate": 0.1},
        {"optimizer": "Muon", "learning_rate": 0.02, "model": replace(NETWORK, norm="none")},
        {"amp": "bf16"},
        {"amp": "fp16"},
        {"model": replace(NETWORK, attention="local", norm="none"), "loss": "l1+3*luma"},
        {"stages": ("l1:4:batch=2", "l1:2:batch=4:patch=6", "l2:2:batch=16:patch=10")},
        {"degrade": ("restore", "clean=0.7")},
        {"model": replace(NETWORK, colour="YCbCr")},
        {"model": replace(NETWORK, colour="Y", img_channels=1)},
    ],
    ids=[
        "batch norm",
        "l2",
        "smooth_l1",
        "fft",
        "AdamW",
        "SGD",
        "Muon",
        "bf16",
        "fp16",
        "local",
        "grown",
        "degraded",
        "YCbCr",
        "Y",
    ],
)
def test_loss_falls_and_what_ships_upscales(
    config: TrainConfig, pairs: dict[int, Path], changes: dict[str, Any]
) -> None:
    config = replace(config, total_epochs=8, val_every=8, val_lists=(pairs[2],), **changes)
    trainer = Trainer(config, log=silent)  # on the GPU where there is one
    quality = trainer.run()
    losses = [record["loss"] for record in metrics(config)]
    assert len(losses) == 8
    assert losses[-1] < 0.6 * losses[0]
    assert {r["stage"].split(":")[0] for r in metrics(config)} >= {config.plan()[-1].loss}
    assert quality is not None

    with Upscaler(model=config.file("last.safetensors"), device="cpu") as upscaler:
        picture = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
        assert upscaler(picture).shape == (18, 22, 3)
        measured = evaluate(upscaler, pairs[2], scale=2)
    assert measured.psnr_y == pytest.approx(quality.psnr_y, abs=0.05)


def test_loss_of_an_epoch_is_the_mean_over_its_patches(config: TrainConfig) -> None:
    losses: list[tuple[float, int]] = []

    class Noting(Trainer):
        def _train_step(self, batch: Any, *arguments: Any) -> Tensor:
            value = super()._train_step(batch, *arguments)
            losses.append((float(value), len(batch.lr)))
            return value

    config = replace(config, total_epochs=1, batch_size=7)  # 16 patches: 7, 7, 2
    Noting(config, group=CPU, log=silent).run()
    assert [size for _, size in losses] == [7, 7, 2]
    expected = sum(loss * size for loss, size in losses) / 16
    assert metrics(config)[0]["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}], ids=["weights", "average"])
def test_measuring_leaves_training_as_it_was(
    config: TrainConfig, pairs: dict[int, Path], changes: dict[str, Any]
) -> None:
    config = replace(config, model=replace(NETWORK, norm="batch"), **changes)
    unmeasured = trained(config)
    measured = trained(replace(config, save_subdir="measured", val_lists=(pairs[2],)))
    assert_same(measured.model.state_dict(), unmeasured.model.state_dict())
    assert_same(measured.shipped_model.state_dict(), unmeasured.shipped_model.state_dict())
    assert measured.model.training


def test_learning_rates_are_those_of_the_schedule(config: TrainConfig) -> None:
    used: list[float] = []
    config = replace(config, total_epochs=4, warmup_steps=8)
    trainer = watched(config, lambda t: used.append(t.optimizer.param_groups[0]["lr"]))
    assert used == [trainer.schedule.learning_rate(step) for step in range(16)]
    assert max(used) > 5 * min(used)
    reported = [record["learning_rate"] for record in metrics(config)]
    assert reported == [trainer.schedule.learning_rate(step) for step in (4, 8, 12, 16)]
    assert reported[-1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("changes", [{}, {"amp": "bf16", "ema": 0.9}], ids=["plain", "bf16"])
def test_workers_do_not_change_the_result(config: TrainConfig, changes: dict[str, Any]) -> None:
    config = replace(config, batch_size=5, **changes)
    states = []
    for workers in (0, 1, 3):
        run = replace(config, workers=workers, save_subdir=str(workers))
        states.append((trained(run).weights().state, [without_times(record) for record in metrics(run)]))
    for state, records in states[1:]:
        assert_same(state, states[0][0])
        assert records == states[0][1]


def test_same_settings_give_the_same_start_and_another_seed_another(config: TrainConfig) -> None:
    first, second, other = (
        Trainer(replace(config, seed=seed), group=CPU, log=silent).model.state_dict() for seed in (5, 5, 6)
    )
    assert_same(first, second)
    weights = "blocks.0.expand.1.parametrizations.weight.original1"
    assert not torch.equal(first[weights], other[weights])


def test_gradients_are_clipped_to_the_norm(config: TrainConfig) -> None:
    def norms(max_grad_norm: float) -> list[float]:
        found: list[float] = []

        def note(trainer: Trainer) -> None:
            grads = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
            found.append(float(torch.cat(grads).norm()))

        watched(
            replace(config, total_epochs=1, max_grad_norm=max_grad_norm, save_subdir=str(max_grad_norm)), note
        )
        return found

    free, clipped = norms(0), norms(0.01)
    assert min(free) > 0.1
    assert clipped == pytest.approx([0.01] * 4, rel=1e-3)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_optimizer_is_the_one_asked_for(config: TrainConfig, name: Any) -> None:
    trainer = Trainer(replace(config, optimizer=name, weight_decay=0.25), group=CPU, log=silent)
    assert type(trainer.optimizer) is getattr(torch.optim, name)
    settings = trainer.optimizer.param_groups[0]
    assert settings["weight_decay"] == 0.25
    assert settings["momentum"] == 0.9 if name == "SGD" else settings["betas"] == (0.9, 0.99)


def test_autocast_computes_the_network_in_bfloat16_and_the_loss_in_float32(config: TrainConfig) -> None:
    seen: list[tuple[torch.dtype, torch.dtype]] = []

    class Noting(Trainer):
        def _loss(self, stage: Any) -> Any:
            loss_of = super()._loss(stage)

            def noting(sr: Tensor, hr: Tensor) -> Tensor:
                seen.append((sr.dtype, hr.dtype))
                return loss_of(sr, hr)

            return noting

    trainer = Noting(replace(config, total_epochs=1, amp="bf16"), group=CPU, log=silent)
    dtypes: list[torch.dtype] = []
    trainer.model.base.register_forward_hook(lambda _, __, output: dtypes.append(output.dtype))
    trainer.run()
    assert dtypes == [torch.bfloat16] * 4
    assert seen == [(torch.float32, torch.float32)] * 4
    assert {value.dtype for value in trainer.model.state_dict().values()} == {torch.float32}


# --- the moving average -------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["weight", "batch"])
def test_what_ships_is_the_moving_average(config: TrainConfig, pairs: dict[int, Path], norm: Any) -> None:
    config = replace(config, model=replace(NETWORK, norm=norm), ema=0.7, val_lists=(pairs[2],))
    history: list[dict[str, Tensor]] = []
    trainer = watched(config, lambda t: history.append(copied(t.model)))

    expected = {name: value.double() for name, value in history[0].items()}
    for n, state in enumerate(history[1:], start=1):
        decay = min(0.7, (1 + n) / (10 + n))
        for name, value in state.items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    assert len(history) == 12
    shipped = load_weights(config.file("last.safetensors"))
    for name, value in expected.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(shipped.state[name].double(), value, atol=1e-6, rtol=1e-5)
    assert not torch.equal(shipped.state["base.bias"], history[-1]["base.bias"])
    assert shipped.training["ema"] == 0.7

    upscale = upscale_with(shipped.build())
    quality = metrics(config)[-1]["quality"][pairs[2].as_posix()]
    assert quality["psnr_y"] == pytest.approx(evaluate(upscale, pairs[2], scale=2).psnr_y, abs=1e-3)
    assert_same(trainer.model.state_dict(), history[-1])


def test_average_goes_on_through_stages_of_other_sizes(config: TrainConfig) -> None:
    config = replace(config, stages=("l1:2:batch=2", "l1:1:batch=8", "l2:1:lr=1e-3"), ema=0.9)
    history: list[dict[str, Tensor]] = []
    trainer = watched(config, lambda t: history.append(copied(t.model)))
    assert len(history) == 8 + 8 + 2 + 2
    expected = history[0]["base.bias"].double()
    for n, state in enumerate(history[1:], start=1):
        expected.lerp_(state["base.bias"].double(), 1 - min(0.9, (1 + n) / (10 + n)))
    shipped = trainer.shipped_model.state_dict()["base.bias"].double()
    torch.testing.assert_close(shipped, expected, atol=1e-6, rtol=1e-5)


# --- stages that grow ---------------------------------------------------------------------------


def test_each_stage_has_batches_and_patches_of_its_size(config: TrainConfig) -> None:
    shapes: list[tuple[int, ...]] = []

    class Noting(Trainer):
        def _train_step(self, batch: Any, *arguments: Any) -> Tensor:
            shapes.append(batch.hr.shape)
            return super()._train_step(batch, *arguments)

    config = replace(config, stages=("l1:1:batch=5:patch=6", "l1:1:batch=8", "l2:1:batch=16:patch=11"))
    Noting(config, group=CPU, log=silent).run()  # 16 patches an epoch
    of = [(5, 12), (5, 12), (5, 12), (1, 12), (8, 12), (8, 12), (16, 22)]
    assert shapes == [(count, side, side, 3) for count, side in of]
    records = metrics(config)
    assert [record["step"] for record in records] == [4, 6, 7]
    for record, patch in zip(records, (6, 6, 11), strict=True):
        assert record["lr_pixels_per_s"] == pytest.approx(record["images_per_s"] * patch**2, rel=0.01)


def test_patches_of_a_later_stage_that_are_too_large_are_refused_at_the_start(config: TrainConfig) -> None:
    with pytest.raises(DataError, match=r"patch.* 13"):
        Trainer(replace(config, stages=("l1:1", "l1:1:patch=13")), group=CPU, log=silent)


@pytest.mark.slow
def test_each_stage_is_compiled_once(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    # The backend that runs graphs as they are: what is counted is how often they are captured.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    counters = torch._dynamo.utils.counters
    # More shapes than torch's limit of recompilations; the last batch of 15 of 16 patches is short.
    config = replace(
        config,
        compile=True,
        model=replace(NETWORK, attention="none", norm="none"),
        stages=("l1:2:batch=15", *(f"l1:2:patch={side}" for side in range(4, 13))),
    )
    graphs: list[int] = []

    class Counting(Trainer):
        def _enter_stage(self) -> None:
            graphs.append(counters["stats"]["unique_graphs"])
            super()._enter_stage()

    counters.clear()
    trainer = Counting(config, group=CPU, log=silent)
    trainer.run()
    graphs.append(counters["stats"]["unique_graphs"])
    compiled = [after - before for before, after in pairwise(graphs)]
    assert sum(compiled) == 10  # once in the first epoch of each stage
    assert not counters["unimplemented"]
    plain = trained(replace(config, compile=False, save_subdir="plain"))
    assert_same(trainer.model.state_dict(), plain.model.state_dict())


# --- frozen gates -------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [0.0, 0.7])
def test_gates_freeze_where_a_stage_says_so(config: TrainConfig, pairs: dict[int, Path], ema: float) -> None:
    gates: list[Tensor] = []
    shipped_gates: list[Tensor] = []

    def note(trainer: Trainer) -> None:
        gates.append(trainer.model.state_dict()[GATES].clone())
        shipped_gates.append(trainer.shipped_model.state_dict()[GATES].clone())

    config = replace(config, stages=("l1:2", "charbonnier:2:frozen"), ema=ema, val_lists=(pairs[2],))
    lines: list[str] = []
    trainer = Watched(config, group=CPU, log=lines.append)
    trainer.after_step = note
    trainer.run()

    changes = [not torch.equal(a, b) for a, b in pairwise(gates)]
    assert changes[:7] == [True] * 7
    assert not any(changes[8:])
    assert torch.equal(gates[-1], shipped_gates[7])  # those of the average, if there is one
    assert torch.equal(gates[-1], shipped_gates[-1])
    assert torch.equal(gates[7], shipped_gates[7]) == (ema == 0)

    weights = load_weights(config.file("last.safetensors"))
    assert weights.config == replace(NETWORK, attention="frozen")
    records, name = metrics(config), pairs[2].as_posix()
    assert [record["stage"] for record in records] == ["l1:2"] * 2 + ["charbonnier:2:frozen"] * 2
    frozen = weights.training["frozen"]
    assert frozen["epoch"] == 2
    assert frozen["live"][name] == records[1]["quality"][name]["psnr_y"]
    assert frozen["fine_tuned"][name] == records[3]["quality"][name]["psnr_y"]
    assert frozen["at_once"][name] != frozen["live"][name]
    line = next(line for line in lines if line.startswith("froze the attention gates"))
    assert f"{frozen['live'][name]:.3f} -> {frozen['at_once'][name]:.3f} dB" in line


def test_rest_of_the_network_trains_on_with_frozen_gates(config: TrainConfig) -> None:
    states: list[dict[str, Tensor]] = []
    watched(
        replace(config, stages=("l1:1", "l1:2:frozen")),
        lambda t: states.append(copied(t.model)),
    )
    for name, value in states[4].items():  # the first step with frozen gates
        assert torch.equal(states[-1][name], value) == (".attention." in name), name


def test_cost_of_freezing_needs_no_validation_list(config: TrainConfig) -> None:
    config = replace(config, stages=("l1:1", "l1:1:frozen"))
    trained(config)
    weights = load_weights(config.file("last.safetensors"))
    assert weights.training["frozen"] == {"epoch": 1, "live": {}, "at_once": {}}


# --- starting from weights ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def init(pairs: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return weights that were trained for an epoch."""
    config = small_config(pairs[2], tmp_path_factory.mktemp("init"), total_epochs=1)
    trained(config)
    return config.file("last.safetensors")


def test_weights_of_the_same_scale_are_taken_whole(config: TrainConfig, init: Path) -> None:
    for path in (init, init.with_suffix(".pt")):
        trainer = Trainer(replace(config, init_weights=path), group=CPU, log=silent)
        assert_same(load_weights(init).state, trainer.model.state_dict())


def test_weights_of_another_scale_give_their_trunk(
    config: TrainConfig, init: Path, pairs: dict[int, Path]
) -> None:
    three = replace(config, model=replace(NETWORK, scale=3), train_list=pairs[3])
    fresh = Trainer(three, group=CPU, log=silent).model.state_dict()
    started = Trainer(replace(three, init_weights=init), group=CPU, log=silent).model.state_dict()
    given = trunk_state(load_weights(init).state)
    assert len(given) > 10
    assert_same(given, trunk_state(started))
    upsampler = [name for name in started if name not in given]
    assert_same({name: fresh[name] for name in upsampler}, {name: started[name] for name in upsampler})


def test_origin_of_the_weights_is_recorded_as_it_was_read(
    config: TrainConfig, init: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(init.read_bytes())
    config = replace(config, init_weights=own, total_epochs=1)
    trainer = Trainer(config, group=CPU, log=silent)
    own.unlink()  # e.g. the other run goes on and replaces it
    trainer.run()
    origin = load_weights(config.file("last.safetensors")).training["started_from"]
    assert origin["sha256"] == hashlib.sha256(init.read_bytes()).hexdigest()
    assert (origin["scale"], origin["attention"], origin["steps"]) == (2, "dynamic", 4)


@pytest.mark.parametrize(
    "changes",
    [{"num_feats": 16}, {"attention": "none"}, {"norm": "batch"}, {"asymmetric": False}],
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
        Trainer(other, group=CPU, log=silent)
    assert str(caught.value).startswith(f"{init}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"norm": "none", "attention": "local"},
        {"norm": "none", "fusion": True},
        {"norm": "weight", "fusion": True},
        {"norm": "batch", "attention": "none", "asymmetric": False},
    ],
    ids=["weight norm", "local", "fusion", "fusion, weight norm", "batch norm"],
)
def test_deeper_network_starts_close_to_the_shallower_one_and_all_of_it_learns(
    config: TrainConfig, model: dict[str, Any]
) -> None:
    config = replace(config, model=replace(NETWORK, num_blocks=2, **model))
    first = trained(replace(config, save_subdir="first", total_epochs=1))
    deeper = replace(config.model, num_blocks=5)
    lines: list[str] = []
    grown = Watched(
        replace(config, model=deeper, init_weights=first.config.file("last.safetensors"), total_epochs=2),
        group=CPU,
        log=lines.append,
    )
    assert any("2 blocks made into 5" in line for line in lines)
    lr = torch.rand(1, 3, 9, 11)
    first.model.eval()
    shallow, deep = first.model.trunk(lr), grown.model.eval().trunk(lr)
    for (
        block
    ) in first.model.blocks:  # what the blocks add is several times as much as what the growth changes
        block.residual_scale = 0.0
    added = shallow - first.model.trunk(lr)
    assert (deep - shallow).square().mean() < 0.1 * added.square().mean()

    grown.model.train()
    start = copied(grown.model)
    grown.after_step = lambda trainer: None
    grown.run()
    for name, value in grown.model.named_parameters():
        assert torch.isfinite(value).all(), name
        assert not torch.equal(value, start[name]), name
    origin = load_weights(grown.config.file("last.safetensors")).training["started_from"]
    assert origin["num_blocks"] == 2


def test_deeper_network_of_another_scale_takes_the_trunk(
    config: TrainConfig, init: Path, pairs: dict[int, Path]
) -> None:
    three = replace(NETWORK, scale=3, num_blocks=3)
    trainer = Trainer(
        replace(config, model=three, train_list=pairs[3], init_weights=init), group=CPU, log=silent
    )
    shallow = load_weights(init).build()  # of one block
    parts = [block.reduce[0].bias for block in trainer.model.blocks]
    torch.testing.assert_close(torch.stack(parts), shallow.blocks[0].reduce[0].bias.expand(3, -1) / 3)
    torch.testing.assert_close(trainer.model.base.weight, shallow.base.weight)


def test_blocks_are_joined_and_narrowed(config: TrainConfig) -> None:
    wide = replace(config, model=replace(NETWORK, norm="none"), save_subdir="wide")
    first = Trainer(wide, group=CPU, log=silent)
    pair = first.model.blocks[0].expand
    with torch.no_grad():  # kernels that need half of their width
        half = wide.model.mid // 2
        pair[0].weight[half:] = pair[0].weight[:half]
    first.save()
    shape = replace(wide.model, fusion=True, asym_width="lo")
    assert half <= shape.mid < wide.model.mid
    grown = Trainer(
        replace(config, model=shape, init_weights=wide.file("last.safetensors")), group=CPU, log=silent
    )
    lr = torch.rand(1, 3, 9, 11)
    torch.testing.assert_close(grown.model.eval()(lr), first.model.eval()(lr), atol=1e-5, rtol=0)


def test_shallower_network_is_refused(config: TrainConfig, init: Path) -> None:
    deep = replace(config, model=replace(NETWORK, num_blocks=2), init_weights=init, save_subdir="deep")
    Trainer(deep, group=CPU, log=silent).save()
    shallow = replace(config, init_weights=deep.file("last.safetensors"))
    with pytest.raises(TrainingError, match="network"):
        Trainer(shallow, group=CPU, log=silent)


def test_weight_norm_is_put_on_and_multiplied_in(config: TrainConfig, init: Path, tmp_path: Path) -> None:
    plain = replace(config, model=replace(NETWORK, norm="none"), init_weights=init)
    without = Trainer(plain, group=CPU, log=silent)
    without.save()
    saved = plain.file("last.safetensors")
    again = Trainer(replace(config, init_weights=saved), group=CPU, log=silent)
    lr = torch.rand(1, 3, 9, 11)
    expected = load_weights(init).build()(lr)
    for trainer, norm in ((without, "none"), (again, "weight")):
        assert trainer.model.config.norm == norm
        torch.testing.assert_close(trainer.model.eval()(lr), expected, atol=1e-6, rtol=0)


def test_missing_weights_are_named(config: TrainConfig, tmp_path: Path) -> None:
    absent = tmp_path / "absent.safetensors"
    with pytest.raises(ModelError, match=str(absent)):
        Trainer(replace(config, init_weights=absent), group=CPU, log=silent)


def test_weights_for_another_colour_space_are_refused(config: TrainConfig, init: Path) -> None:
    model = replace(NETWORK, colour="YCbCr")
    with pytest.raises(TrainingError, match=r"YCbCr.*--colour RGB"):
        Trainer(replace(config, model=model, init_weights=init), log=silent)


def test_weights_without_gates_stay_without(config: TrainConfig) -> None:
    plain = replace(config, model=replace(NETWORK, attention="none"), total_epochs=1)
    first = trained(plain)
    second = replace(
        config, init_weights=plain.file("last.safetensors"), total_epochs=2, save_subdir="second"
    )
    start = Trainer(second, group=CPU, log=silent)
    assert_same(copied(first.model), copied(start.model))
    trained(replace(second, total_epochs=1))
    resumed = Trainer(second, group=CPU, log=silent, resume=True)
    resumed.run()
    assert load_weights(second.file("last.safetensors")).config.attention == "none"


def test_frozen_weights_stay_frozen(config: TrainConfig, init: Path, tmp_path: Path) -> None:
    weights = load_weights(init)
    frozen = tmp_path / "frozen.safetensors"
    save_weights(frozen, replace(weights, config=replace(weights.config, attention="frozen")))
    config = replace(config, init_weights=frozen, total_epochs=1)
    trainer = trained(config)
    assert torch.equal(trainer.model.state_dict()[GATES], weights.state[GATES])
    assert load_weights(config.file("last.safetensors")).config.attention == "frozen"


# --- what cannot work ---------------------------------------------------------------------------


def test_loss_of_a_later_stage_is_read_at_the_start(config: TrainConfig) -> None:
    with pytest.raises(TrainingError, match="'l3'"):
        Trainer(replace(config, stages=("l1:1", "l3:1")), group=CPU, log=silent)


def test_batch_that_is_smaller_than_the_group(config: TrainConfig) -> None:
    group = Group(rank=0, world=5, local_rank=0, device=torch.device("cpu"))
    with pytest.raises(TrainingError, match=r"4 patches.* 5 processes"):
        Trainer(config, group=group, log=silent)


def test_pictures_of_another_scale_are_refused(config: TrainConfig, pairs: dict[int, Path]) -> None:
    with pytest.raises(DataError, match="24x24"):
        Trainer(replace(config, train_list=pairs[3]), group=CPU, log=silent)


def test_bad_validation_pictures_are_named_before_the_first_epoch(
    config: TrainConfig, pairs: dict[int, Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="absent"):
        Trainer(replace(config, val_lists=(tmp_path / "absent.json",)), group=CPU, log=silent)
    listed = tmp_path / "val.json"
    listed.write_text(json.dumps([{"HR": "absent-hr.png", "LR": "absent-lr.png"}]))
    with pytest.raises(DataError) as caught:
        Trainer(replace(config, val_lists=(listed, pairs[3])), group=CPU, log=silent)
    assert "absent-hr.png" in str(caught.value)
    assert "need 24x24" in str(caught.value)
    assert not config.run_dir.exists()


# --- divergence ---------------------------------------------------------------------------------


def test_run_stops_at_a_loss_that_is_not_finite(config: TrainConfig) -> None:
    config = replace(
        config,
        model=replace(NETWORK, norm="none"),
        optimizer="SGD",
        stages=("l1:1", "l2:1:lr=1e30"),
        learning_rate=1e-3,
        warmup_steps=1,
        max_grad_norm=0.0,
    )
    states: list[dict[str, Tensor]] = []
    with pytest.raises(TrainingError) as caught:
        watched(config, lambda t: states.append(copied(t.model)))
    message = str(caught.value)
    assert "\n" not in message
    step = len(states) - 1
    assert step in (5, 6)  # the fifth step, counted from 0, makes weights of 1e30
    assert f"at step {step} (epoch 2, batch {step - 3} of 4, of hr0-x2.png, hr1-x2.png)" in message
    assert str(config.file("diverged.pt")) in message

    last = load_state(config.file("last.pt"))
    assert (last["progress"]["epoch"], last["progress"]["step"]) == (1, 4)
    assert_same(last["model"], states[3])
    diverged = load_state(config.file("diverged.pt"))
    # The weights that led there: the step was not taken. Running means have seen the forward pass.
    weights = {name for name, _ in Trainer(config, group=CPU, log=silent).model.named_parameters()}
    assert_same(
        *({n: v for n, v in m.items() if n in weights} for m in (diverged["model"], states[step - 1]))
    )
    assert [record["epoch"] for record in metrics(config)] == [1]
    assert_same(load_weights(config.file("last.safetensors")).state, states[3])


def test_picture_names_of_a_batch_that_diverged_are_not_endless(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "many.json", scale=2, pictures=6, side=8)
    config = small_config(
        path, tmp_path, batch_size=48, optimizer="SGD", learning_rate=1e30, loss="l2", max_grad_norm=0.0
    )
    config = replace(config, model=replace(NETWORK, norm="none"), warmup_steps=1)
    with pytest.raises(TrainingError, match=r"hr0-x2\.png, hr1-x2\.png, hr2-x2\.png.* 3 more"):
        trained(config)
