"""What a study has spent, will have spent, and may spend."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hpo_service.console.frame import meter, moment
from hpo_service.formatting.html import Markup, join, tag
from hpo_service.formatting.values import duration
from hpo_service.services.studies.forecasts import ForecastDocument, RangeDocument
from hpo_service.services.studies.schemas import StudySummary


@dataclass(frozen=True, kw_only=True)
class Amount:
    """One thing that is spent. `cap` is None where it is not limited, `forecast` where nothing is expected.

    `digits` are those after the point.
    """

    title: str
    spent: float
    cap: float | None
    forecast: RangeDocument | None
    digits: int

    def text(self) -> str:
        """`3.10 → 8.20 of 10`, as far as it is known."""
        words = self._write(self.spent)
        if self.forecast is not None:
            words += f" → {self._write(self.forecast.expected)}"
        return words if self.cap is None else f"{words} of {self.cap:,.12g}"

    def about(self) -> str:
        """The same with its name and how sure it is."""
        words = f"{self.text()} {self.title}"
        if self.forecast is None:
            return words
        low, high = self._write(self.forecast.low), self._write(self.forecast.high)
        return f"{words}; the end is expected between {low} and {high}"

    def bar(self) -> Markup | None:
        """The same as a meter, where there is a cap."""
        if self.cap is None:
            return None
        expected = None if self.forecast is None else self.forecast.expected / self.cap
        return meter(self.spent / self.cap, self.about(), expected=expected)

    def _write(self, value: float) -> str:
        least = 10.0**-self.digits
        return f"<{least:g}" if 0 < value < least else f"{value:,.{self.digits}f}"


def amounts(study: StudySummary, budget: Mapping[str, Any], forecast: ForecastDocument | None) -> list[Amount]:
    """Trials always, the rest where it is limited or known."""
    spent = study.spent
    begun = study.trials.model_dump()
    known = [
        Amount(
            title="trials",
            spent=sum(begun.values()) - begun["waiting"],
            cap=budget["max_trials"],
            forecast=None,
            digits=0,
        ),
        Amount(
            title="GPU-hours",
            spent=spent.seconds / 3600,
            cap=budget["max_gpu_hours"],
            forecast=None if forecast is None else forecast.gpu_hours,
            digits=2,
        ),
    ]
    if budget["max_examples"] is not None:
        expected = None if forecast is None else forecast.examples
        known.append(
            Amount(title="examples", spent=spent.examples, cap=budget["max_examples"], forecast=expected, digits=0)
        )
    if spent.usd or budget["max_cost_usd"] is not None:
        expected = None if forecast is None else forecast.usd
        known.append(Amount(title="USD", spent=spent.usd, cap=budget["max_cost_usd"], forecast=expected, digits=2))
    return known


def spending(study: StudySummary, budget: Mapping[str, Any], forecast: ForecastDocument | None) -> Markup:
    """All amounts, one below the other, and when the study will end."""
    rows = [
        tag(
            "div",
            tag("span", amount.text(), title=amount.about()),
            tag("span", amount.title, class_="soft"),
            amount.bar(),
            class_="amount",
        )
        for amount in amounts(study, budget, forecast)
    ]
    return join(*rows, tag("div", *_end(study, budget, forecast), class_="soft"))


def _end(study: StudySummary, budget: Mapping[str, Any], forecast: ForecastDocument | None) -> list[Markup | str]:
    if study.finished_at is not None and study.started_at is not None:
        took = (study.finished_at - study.started_at).total_seconds()
        return [f"took {duration(took)}, ended ", moment(study.finished_at)]
    if forecast is not None:
        first, last = _until(forecast.earliest), _until(forecast.latest)
        return ["ends ", _until(forecast.ends_at), " (", first, "–", last, ")"]
    if budget["deadline"] is not None:
        return ["deadline ", moment(datetime.fromisoformat(budget["deadline"]))]
    return []


def _until(when: datetime) -> Markup:
    return tag("time", f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC", datetime=when.isoformat(), data_at="")
