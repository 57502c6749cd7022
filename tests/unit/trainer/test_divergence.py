"""Divergence fires on explosions and not on noise."""

import random

import pytest

from trainer.divergence import DivergenceWatch
from trainer.errors import Diverged
from trainer.schedule import learning_rate
from trainer.spec import Parameters


def fed(watch: DivergenceWatch, losses: list[float]) -> DivergenceWatch:
    for loss in losses:
        watch.observe(loss, 1.0)
    return watch


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (float("inf"), 1.0), (2.0, float("inf"))])
def test_what_is_not_finite_diverges_at_once(loss: float, norm: float) -> None:
    with pytest.raises(Diverged):
        DivergenceWatch().observe(loss, norm)


def test_an_explosion_is_seen_within_ten_steps() -> None:
    draw = random.Random(0)
    watch = fed(DivergenceWatch(), [4.0 - step * 0.02 + draw.gauss(0, 0.1) for step in range(60)])
    with pytest.raises(Diverged, match=r"rose from 3\.\d+ to [67]"):
        fed(watch, [7.5 + draw.gauss(0, 0.1) for _ in range(10)])


@pytest.mark.parametrize("noise", [0.05, 0.5, 1.5])
def test_a_noisy_plateau_is_healthy(noise: float) -> None:
    draw = random.Random(1)
    for _ in range(20):
        fed(DivergenceWatch(), [3.0 + draw.gauss(0, noise) for _ in range(400)])


def test_a_rise_below_the_start_is_healthy() -> None:
    fed(DivergenceWatch(), [5.0] * 10 + [2.0] * 50 + [2.6] * 60)


def test_the_state_travels() -> None:
    losses = [3.0 + 0.001 * step for step in range(45)]
    watch = DivergenceWatch.restore(fed(DivergenceWatch(), losses).state())
    assert watch == fed(DivergenceWatch(), losses)
    with pytest.raises(Diverged):
        fed(watch, [9.0] * 12)


def test_schedules_start_and_end_where_they_should() -> None:
    for name, last in (("cosine", 0.0), ("linear", 0.0), ("constant", 1.0)):
        values = Parameters(learning_rate=1.0, warmup_ratio=0.1, lr_scheduler=name)
        rates = [learning_rate(values, step, 100) for step in range(101)]
        assert rates[0] == 0.0
        assert rates[10] == 1.0
        assert rates[100] == pytest.approx(last)
        assert rates[5] == 0.5
