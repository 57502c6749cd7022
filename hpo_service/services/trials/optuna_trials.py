"""Trials of a study as Optuna's tables know them, in the words of the API."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import optuna.trial
from sqlalchemy.orm import Session

from hpo_service.search.best import Best, Confirmed, best_trial, finite_losses, lead_over, leading, savings
from hpo_service.services.confirmations.read import confirmed_document
from hpo_service.services.studies.schemas import (
    BestDocument,
    ImprovementDocument,
    LeadDocument,
    LeaderDocument,
    SavingsDocument,
    TrialCounts,
)
from hpo_service.services.trials.schemas import TrialState
from hpo_service.storage.queries import optuna_reads
from hpo_service.storage.tables import Study

_PAUSED = "paused"
_STATES: dict[optuna.trial.TrialState, TrialState] = {
    optuna.trial.TrialState.WAITING: "WAITING",
    optuna.trial.TrialState.RUNNING: "RUNNING",
    optuna.trial.TrialState.COMPLETE: "COMPLETE",
    optuna.trial.TrialState.PRUNED: "PRUNED",
    optuna.trial.TrialState.FAIL: "FAIL",
}
COUNTERS = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


@dataclass(frozen=True)
class TrialFacts:
    """One trial."""

    row: optuna_reads.TrialRow

    @property
    def number(self) -> int:
        """Counts from 0 within the study."""
        return self.row.number

    @property
    def state(self) -> TrialState:
        """Optuna's."""
        return _STATES[self.row.state]

    @property
    def paused(self) -> bool:
        """Waits on a rung for its next slice."""
        return self.state == "RUNNING" and self.user_attrs.get("hpo_state") == _PAUSED

    @property
    def value(self) -> float | None:
        """The final loss; of a pruned trial there is none."""
        return self.row.value if self.state == "COMPLETE" else None

    @property
    def intermediate(self) -> Mapping[int, float]:
        """Loss by rung."""
        return self.row.intermediate_values

    @property
    def parameters(self) -> Mapping[str, Any]:
        """All that the trainer was given; empty before the trial begins."""
        return self.row.parameters

    @property
    def user_attrs(self) -> Mapping[str, Any]:
        """What the dispatcher wrote."""
        return self.row.user_attrs

    @property
    def started_at(self) -> datetime | None:
        """Start of its first slice."""
        return self.row.started_at

    @property
    def finished_at(self) -> datetime | None:
        """Its end."""
        return self.row.finished_at

    @property
    def total_examples(self) -> int | None:
        """Where it ends; None before it starts."""
        total = self.user_attrs.get("total_examples")
        return None if total is None else int(total)

    @property
    def examples_seen(self) -> int:
        """The highest rung that it reached."""
        return max(self.intermediate, default=0)


@dataclass(frozen=True)
class StudyFacts:
    """Trials of one study at one moment, all or those that lead, and the finalists of its confirmation.

    Where it is not all trials, `contenders` are those among which the leader is.
    """

    trials: Sequence[TrialFacts]
    confirmed: Sequence[Confirmed] = ()
    contenders: frozenset[int] | None = None

    @cached_property
    def counts(self) -> TrialCounts:
        """Trials by standing."""
        return TrialCounts(**Counter("paused" if trial.paused else COUNTERS[trial.state] for trial in self.trials))

    @cached_property
    def winner(self) -> Best | None:
        """The trial that one would use now."""
        return best_trial(self.trials, self.confirmed, self.contenders)

    @cached_property
    def leader(self) -> LeaderDocument | None:
        """The trial that is ahead of all others, and by how much of the best one."""
        first, best = leading(self.trials, self.contenders), self.winner
        if first is None or best is None:
            return None
        lead, losses = lead_over(first, best, self.trials), finite_losses(first)
        return LeaderDocument(
            trial_number=first.number,
            examples=max(losses),
            loss=losses[max(losses)],
            baseline=first.user_attrs.get("baseline") is True,
            complete=first.state == "COMPLETE",
            left_examples=max(0, int(first.user_attrs.get("total_examples", 0)) - max(losses)),
            ahead_of_best=None
            if lead is None or not lead.is_ahead
            else LeadDocument(
                examples=lead.examples,
                loss=lead.loss,
                best_loss=lead.other_loss,
                best_examples=lead.other_examples,
            ),
        )

    @cached_property
    def best(self) -> BestDocument | None:
        """The winner so far."""
        found = self.winner
        if found is None:
            return None
        better = found.improvement
        return BestDocument(
            trial_number=found.trial_number,
            loss=found.loss,
            examples=found.examples,
            provisional=found.provisional,
            parameters=dict(found.parameters),
            improvement=None
            if better is None
            else ImprovementDocument(
                baseline_trial=better.baseline_trial,
                examples=better.examples,
                baseline_examples=better.baseline_examples,
                baseline_loss=better.baseline_loss,
                loss=better.loss,
                difference=better.difference,
                relative=better.relative,
                seeds=better.seeds,
            ),
            confirmed=confirmed_document(found.confirmed),
        )

    @cached_property
    def savings(self) -> SavingsDocument:
        """What stopping early has saved."""
        saved = savings(self.trials)
        return SavingsDocument(examples=saved.examples, share=saved.share)


def read_facts(session: Session, study: Study) -> StudyFacts:
    """All trials of a study; none before the dispatcher has opened it. Takes seconds where there are ten thousand."""
    if study.optuna_study_id is None:
        return StudyFacts(())
    rows = optuna_reads.read_trials(session.connection(), study.optuna_study_id)
    return StudyFacts(tuple(TrialFacts(row) for row in rows))


def finite(value: float | None) -> float | None:
    """JSON has no infinities: None instead."""
    return value if value is not None and math.isfinite(value) else None
