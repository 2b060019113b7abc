"""The timetable of a run: which stage an epoch belongs to, and the learning rate of every step."""

import math
from pathlib import Path
from typing import Any

import pytest

from sr.errors import TrainingError
from sr.network.config import ModelConfig
from train.config import TrainConfig
from train.schedule import Schedule

RATE = 1e-2


def schedule(*, steps_per_epoch: int = 5, **settings: Any) -> Schedule:
    common = {"learning_rate": RATE, "warmup_steps": 0} | settings
    return Schedule(
        TrainConfig(model=ModelConfig(), train_list=Path("x2.json"), **({"batch_size": 16} | common)),
        patches_per_epoch=16 * steps_per_epoch,
    )


def rates(of: Schedule, *, beyond: int = 0) -> list[float]:
    return [of.learning_rate(step) for step in range(of.total_steps + beyond)]


def cosine(rate: float, steps: int) -> list[float]:
    return [rate * 0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]


def test_cosine_falls_from_the_rate_to_zero() -> None:
    one = schedule(total_epochs=4)
    assert rates(one) == pytest.approx(cosine(RATE, 20))
    assert one.learning_rate(0) == RATE
    assert one.learning_rate(20) == pytest.approx(0, abs=1e-18)
    assert one.learning_rate(25) == pytest.approx(0, abs=1e-18)  # a run that was made shorter


def test_warm_up_rises_linearly_over_the_schedule() -> None:
    plain, warm = schedule(total_epochs=4), schedule(total_epochs=4, warmup_steps=8)
    share = [min(1, (step + 1) / 8) for step in range(20)]
    assert rates(warm) == pytest.approx([s * r for s, r in zip(share, rates(plain), strict=True)])
    assert warm.learning_rate(0) == pytest.approx(RATE / 8)


def test_step_schedule_halves_after_so_many_epochs() -> None:
    steps = schedule(total_epochs=5, lr_schedule="step", lr_halve_step=2, steps_per_epoch=3)
    halvings = [0] * 6 + [1] * 6 + [2] * 3
    assert rates(steps) == pytest.approx([RATE / 2**n for n in halvings])
    assert steps.learning_rate(15) == pytest.approx(RATE / 4)


def test_stages_share_one_schedule() -> None:
    staged = schedule(stages=("l1:1", "l2:2", "charbonnier:1:frozen"), total_epochs=99)
    assert (staged.total_epochs, staged.total_steps) == (4, 20)
    assert rates(staged) == pytest.approx(cosine(RATE, 20))
    assert [staged.part(epoch).stage.loss for epoch in range(6)] == ["l1", "l2", "l2"] + ["charbonnier"] * 3


def test_stage_with_a_rate_begins_anew() -> None:
    staged = schedule(stages=("l1:2", "l2:2:lr=1e-3", "l1:1", "l2:1:lr=5e-4"), warmup_steps=4)
    warm = [min(1, (step + 1) / 4) for step in range(100)]
    parts = [(RATE, 10), (1e-3, 15), (5e-4, 5)]  # the third stage goes on with the rate of the second
    expected = [w * r for rate, steps in parts for w, r in zip(warm, cosine(rate, steps), strict=False)]
    assert rates(staged) == pytest.approx(expected)
    assert staged.learning_rate(30) == pytest.approx(0, abs=1e-18)


def test_halving_begins_anew_with_a_rate() -> None:
    staged = schedule(stages=("l1:3", "l2:3:lr=1e-3"), lr_schedule="step", lr_halve_step=2, steps_per_epoch=1)
    assert rates(staged) == pytest.approx([RATE, RATE, RATE / 2, 1e-3, 1e-3, 5e-4])


def test_first_stage_may_have_a_rate() -> None:
    staged = schedule(stages=("l1:2:lr=1e-3", "l2:2"))
    assert rates(staged) == pytest.approx(cosine(1e-3, 20))


def test_batch_and_patch_size_hold_until_a_stage_changes_them() -> None:
    grown = schedule(stages=("l1:2:batch=8:patch=32", "l1:1:batch=16", "l2:1", "l2:2:batch=64:patch=48"))
    found = [
        (p.batch_size, p.patch_size, p.steps_per_epoch, p.first_epoch, p.first_step) for p in grown.parts
    ]
    assert found == [(8, 32, 10, 0, 0), (16, 32, 5, 2, 20), (16, 32, 5, 3, 25), (64, 48, 2, 4, 30)]
    assert (grown.total_epochs, grown.total_steps) == (6, 34)
    assert [grown.first_step(epoch) for epoch in range(7)] == [0, 10, 20, 25, 30, 32, 34]


def test_first_stage_takes_the_sizes_of_the_run() -> None:
    grown = schedule(stages=("l1:1", "l1:1:batch=40"), batch_size=8, patch_size=20)
    assert [(p.batch_size, p.patch_size) for p in grown.parts] == [(8, 20), (40, 20)]


def test_one_schedule_of_the_rate_goes_through_stages_of_other_sizes() -> None:
    grown = schedule(stages=("l1:2:batch=8", "l1:2:batch=16", "l2:1:batch=80:lr=1e-3"))
    assert rates(grown) == pytest.approx([*cosine(RATE, 30), 1e-3])
    halved = schedule(stages=("l1:2:batch=8", "l1:2:batch=40"), lr_schedule="step", lr_halve_step=1)
    halvings = [0] * 10 + [1] * 10 + [2] * 2 + [3] * 2
    assert rates(halved) == pytest.approx([RATE / 2**n for n in halvings])


def test_stage_that_does_not_parse_is_refused() -> None:
    with pytest.raises(TrainingError, match="'l1:many'"):
        schedule(stages=("l1:many",))
