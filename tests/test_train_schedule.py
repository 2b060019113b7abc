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
        TrainConfig(model=ModelConfig(), train_list=Path("x2.json"), **common),
        steps_per_epoch=steps_per_epoch,
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
    assert [staged.stage(epoch).loss for epoch in range(6)] == ["l1", "l2", "l2"] + ["charbonnier"] * 3


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


def test_stage_that_does_not_parse_is_refused() -> None:
    with pytest.raises(TrainingError, match="'l1:many'"):
        schedule(stages=("l1:many",))
