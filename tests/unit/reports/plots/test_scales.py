"""Places and ticks on plots."""

import pytest

from hpo_service.reports.plots.losses import ceiling, clipping
from hpo_service.reports.plots.parameters import parameter_axis
from hpo_service.reports.plots.scales import Scale, scale_over, short


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-3.0, 7.0, [-2, 0, 2, 4, 6]), (1.98, 2.04, [1.98, 2, 2.02, 2.04])],
)
def test_even_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert Scale(low=low, high=high, start=0, end=100).ticks() == pytest.approx(expected)


@pytest.mark.parametrize(("high", "expected"), [(2, [0, 1, 2]), (11, [0, 5, 10]), (9000, [0, 2000, 4000, 6000, 8000])])
def test_what_is_counted_has_whole_ticks(high: int, expected: list[float]) -> None:
    assert scale_over([0, high], 0, 100, whole=True).ticks() == expected


def test_logarithmic_ticks_lie_within_and_are_few() -> None:
    scale = Scale(low=1e-6, high=1e-1, start=0, end=100, log=True)
    assert scale.ticks(5) == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert Scale(low=2e-5, high=4e-5, start=0, end=100, log=True).ticks() == [2e-5]
    assert scale(1e-6) == 0
    assert scale(1e-1) == pytest.approx(100)
    assert scale(10**-3.5) == pytest.approx(50)


@pytest.mark.parametrize("values", [[], [2.0], [0.0], [-1.0, 1.0], [1e-300, 1e300]])
def test_every_scale_holds_its_values(values: list[float]) -> None:
    scale = scale_over(values, 10, 20)
    assert all(10 <= scale(value) <= 20 for value in values)
    assert all(10 <= scale(tick) <= 20 for tick in scale.ticks())
    assert scale(1e308) == 20


def test_numbers_on_axes_are_short() -> None:
    assert [short(value) for value in (0, 1e-5, 0.5, 1234, 2.5e7, -0.25)] == [
        "0", "1e-5", "0.5", "1,234", "2.5e7", "-0.25",
    ]  # fmt: skip


def test_parameters_are_on_a_scale_or_side_by_side() -> None:
    rates = parameter_axis("learning_rate", [10**-exponent for exponent in range(1, 9)], log=True)
    assert rates.scale is not None
    assert rates.scale.log
    few = parameter_axis("lora_r", [16, 4, 8, 4])
    assert [text for _, text in few.ticks] == ["4", "8", "16"]
    assert few.place(4) < few.place(8) < few.place(16)
    mixed = parameter_axis("target_modules", ["all-linear", ["q_proj"], True, None])
    assert len({mixed.place(value) for value in ("all-linear", ["q_proj"], True, None)}) == 4


def test_bad_losses_do_not_flatten_the_others_but_what_is_to_be_seen_is_seen() -> None:
    losses = [1.0, 1.1, 1.2, 1.3, 9.0]
    assert ceiling(losses) == pytest.approx(1.9)
    assert clipping(losses) == " 1 loss above 1.9 is drawn at the upper edge."
    assert ceiling(losses, seen=[2.5, 2.0]) == 2.5
    assert clipping(losses, seen=[9.0]) == ""
