"""Everything that a report on a study says, as one object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from hpo_service.exporters import Rendered
from hpo_service.services.insights.schemas import ImportancesDocument
from hpo_service.services.promotions.verdict import Comparison
from hpo_service.services.studies.schemas import BestDocument, StudyDocument
from hpo_service.services.studies.spec_schemas import DataCheckDocument
from hpo_service.storage.queries.reports import BadAttempts, FailedTrials, Saved, Stretch, Surroundings, TrialPoint


@dataclass(frozen=True, kw_only=True)
class ReportedTrial:
    """A trial that is drawn. `standing` is one of the names of `TrialCounts`; `losses` are finite, by rung."""

    number: int
    standing: str
    baseline: bool
    parameters: Mapping[str, Any]
    losses: Mapping[int, float]
    total_examples: int | None

    @property
    def complete(self) -> bool:
        """It was trained to its end."""
        return self.standing == "complete"

    @property
    def loss(self) -> float | None:
        """At the last rung whose loss was finite."""
        return self.losses[max(self.losses)] if self.losses else None


class Drawn(Protocol):
    """What plots of losses are made of: all trials in short, those that are drawn, and the best one."""

    @property
    def points(self) -> Sequence[TrialPoint]:
        """All trials of the study."""

    @property
    def trials(self) -> Sequence[ReportedTrial]:
        """At most a few hundred of them."""

    @property
    def best(self) -> BestDocument | None:
        """The winner so far."""


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """A study at one moment. `points` are all of its trials, `trials` at most a few hundred of them.

    `comparison` is the best trial against the baseline, `verdict` the same in words. `exports` are the best parameters
    in every format, by its name.
    """

    made_at: datetime
    version: str
    study: StudyDocument
    comparison: Comparison | None
    verdict: str
    exports: Mapping[str, Rendered]
    importances: ImportancesDocument
    points: Sequence[TrialPoint]
    trials: Sequence[ReportedTrial]
    failed: Sequence[FailedTrials]
    bad_attempts: Sequence[BadAttempts]
    saved: Saved
    timeline: Sequence[Stretch]
    surroundings: Sequence[Surroundings]
    data_check: DataCheckDocument

    @property
    def best(self) -> BestDocument | None:
        """The winner so far."""
        return self.study.best

    @property
    def winner(self) -> ReportedTrial | None:
        """The same among `trials`."""
        return None if self.best is None else self.trial(self.best.trial_number)

    @property
    def baseline(self) -> ReportedTrial | None:
        """Trial 0 of most studies."""
        return next((trial for trial in self.trials if trial.baseline), None)

    def trial(self, number: int) -> ReportedTrial | None:
        """The trial of this number, if it is among those that are drawn."""
        return next((trial for trial in self.trials if trial.number == number), None)
