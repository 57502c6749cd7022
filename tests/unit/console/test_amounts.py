"""What a study has spent and will have spent."""

from datetime import timedelta

import pytest

from hpo_service.console.amounts import amounts, spending
from hpo_service.services.studies.forecasts import ForecastDocument, RangeDocument
from tests.reported import START, Page, spent, study

BUDGET = {"max_trials": 12, "max_gpu_hours": 10.0, "max_examples": None, "max_cost_usd": None, "deadline": None}


def forecast() -> ForecastDocument:
    hours, none = RangeDocument(low=3.0, expected=4.0, high=6.5), RangeDocument(low=0.0, expected=0.0, high=0.0)
    ends = [START + timedelta(hours=number) for number in (3, 4, 6)]
    return ForecastDocument(
        examples=none, gpu_hours=hours, usd=none, earliest=ends[0], ends_at=ends[1], latest=ends[2], slices_at_once=1,
        made_at=START,
    )  # fmt: skip


def test_amounts_as_far_as_they_are_known() -> None:
    running = study(spent=spent(seconds=7200.0, usd=0.0), trials={"complete": 3, "running": 1, "waiting": 2})
    written = {amount.title: amount.text() for amount in amounts(running, BUDGET, forecast())}
    assert written == {"trials": "4 of 12", "GPU-hours": "2.00 → 4.00 of 10"}
    without = {amount.title: amount.text() for amount in amounts(study(), BUDGET | {"max_examples": 900}, None)}
    assert without == {"trials": "4 of 12", "GPU-hours": "2.00 of 10", "examples": "900 of 900", "USD": "4.50"}


def test_the_range_is_told_on_hovering() -> None:
    hours = amounts(study(), BUDGET, forecast())[1]
    assert hours.about() == "2.00 → 4.00 of 10 GPU-hours; the end is expected between 3.00 and 6.50"
    bar = Page(str(hours.bar()))
    assert ("style", "width: 20.0%") in bar.attributes
    assert ("style", "width: 40.0%") in bar.attributes


@pytest.mark.parametrize(("seconds", "words"), [(0.0, "0.00"), (1.0, "<0.01"), (36.0, "0.01"), (3.6e7, "10,000.00")])
def test_little_is_not_nothing(seconds: float, words: str) -> None:
    budget = BUDGET | {"max_gpu_hours": None}
    hours = amounts(study(spent=spent(seconds=seconds)), budget, None)[1]
    assert (hours.text(), hours.bar()) == (words, None)


def test_a_study_that_has_ended_says_how_long_it_took() -> None:
    assert "took 2.0 h, ended 2026-11-25 12:00 UTC" in Page(spending(study(), BUDGET, None)).text
