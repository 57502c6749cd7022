"""Divergence fires on explosions and not on noise."""

import random

import pytest

from trainer.common.errors import Diverged
from trainer.spec import Notice, Parameters
from trainer.training.divergence import DivergenceWatch, divergence_notice
from trainer.training.lr_schedule import learning_rate


def fed(watch: DivergenceWatch, losses: list[float]) -> DivergenceWatch:
    for loss in losses:
        watch.observe(loss, 1.0)
    return watch


def diverged(watch: DivergenceWatch, losses: list[float]) -> Notice:
    with pytest.raises(Diverged) as caught:
        fed(watch, losses)
    return divergence_notice(caught.value)


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (float("inf"), 1.0), (2.0, float("inf"))])
def test_what_is_not_finite_diverges_at_once(loss: float, norm: float) -> None:
    watch = fed(DivergenceWatch(), [2.0])
    with pytest.raises(Diverged) as caught:
        watch.observe(loss, norm)
    notice = divergence_notice(caught.value)
    assert notice.step == 2
    assert Notice.model_validate_json(notice.model_dump_json()) == notice


def test_an_explosion_is_seen_within_five_steps() -> None:
    draw = random.Random(0)
    watch = fed(DivergenceWatch(), [4.0 - step * 0.02 + draw.gauss(0, 0.1) for step in range(60)])
    notice = diverged(watch, [7.5 + draw.gauss(0, 0.1) for _ in range(5)])
    assert "exploded to 7." in notice.message
    assert (notice.kind, notice.step) == ("divergence", 65)
    assert notice.values["median"] < notice.values["band"] < 7 < notice.values["loss"]


def test_a_slower_explosion_is_seen_by_its_windows() -> None:
    draw = random.Random(0)
    watch = fed(DivergenceWatch(), [4.0 - step * 0.02 + draw.gauss(0, 0.1) for step in range(60)])
    notice = diverged(watch, [3.0 + 0.08 * step + draw.gauss(0, 0.1) for step in range(60)])
    assert "within 40 steps" in notice.message
    assert notice.values["start"] < notice.values["loss"]


def test_a_loss_above_its_start_for_long_diverges() -> None:
    """It rises too slowly for the windows, and settles above where it began."""
    draw = random.Random(2)
    losses = [2.0 + min(0.5, 0.002 * step) + draw.gauss(0, 0.02) for step in range(600)]
    notice = diverged(DivergenceWatch(), losses)
    assert "above its start" in notice.message
    assert "for 100 steps" in notice.message


def test_a_single_spike_is_told_and_forgotten() -> None:
    draw = random.Random(3)
    watch = fed(DivergenceWatch(), [3.0 + draw.gauss(0, 0.05) for _ in range(30)])
    fed(watch, [9.0, *(3.0 + draw.gauss(0, 0.05) for _ in range(60))])
    (spike,) = watch.take_spikes()
    assert (spike.kind, spike.step, spike.values["loss"]) == ("loss_spike", 31, 9.0)
    assert not watch.take_spikes()


def test_a_new_level_below_the_start_moves_the_band() -> None:
    watch = fed(DivergenceWatch(), [5.0] * 10 + [2.0] * 60 + [3.0] * 60)
    assert len(watch.take_spikes()) == 1
    fed(watch, [3.0] * 100)


def test_a_heavy_tail_is_healthy() -> None:
    """Single examples as batches: every tenth loss is twice or three times the others."""
    draw = random.Random(4)
    for _ in range(20):
        fed(DivergenceWatch(), [draw.choice([1.0] * 9 + [2.5]) * draw.lognormvariate(0, 0.3) for _ in range(400)])


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
    assert diverged(watch, [9.0] * 12).step == 50


def test_schedules_start_and_end_where_they_should() -> None:
    for name, last in (("cosine", 0.0), ("linear", 0.0), ("constant", 1.0)):
        values = Parameters(learning_rate=1.0, warmup_ratio=0.1, lr_scheduler=name)
        rates = [learning_rate(values, step, 100) for step in range(101)]
        assert rates[0] == 0.0
        assert rates[10] == 1.0
        assert rates[100] == pytest.approx(last)
        assert rates[5] == 0.5
