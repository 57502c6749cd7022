"""What the dispatcher keeps in memory: a cache of live studies, thrown away and read again after any failed commit."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from hpo_service.core.study_rules import Spent, StudyState
from hpo_service.dispatcher.results import poison_slices
from hpo_service.search.pareto import measured
from hpo_service.search.pareto import values as objective_values
from hpo_service.search.strategies import build
from hpo_service.search.strategies.base import (
    Advance,
    Roster,
    Run,
    Start,
    Strategy,
    StudyView,
    TrialStanding,
    TrialView,
)
from hpo_service.search.strategies.ranking import CLOSING
from hpo_service.spec import ResolvedStudy
from hpo_service.spec.space import SearchSpace
from hpo_service.spec.trial_parameters import trained_with
from hpo_service.storage.optuna import StudyStorage
from hpo_service.storage.queries import attempts, dispatch, jobs
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Project, Slice, Study
from trainer.spec import DataFingerprints, Outcome, Parameters

PAUSED = "paused"
RUNNING = "running"


@dataclass(kw_only=True)
class LiveSlice:
    """An open slice: `running` under its current attempt, or waiting for the next one."""

    id: int
    trial_number: int
    optuna_trial_id: int
    until_examples: int
    attempt: int
    failures: int
    running: bool
    kills: int = 0  #: workers that ended while they ran it, perhaps because of it
    stop_sent: bool = False
    decision: Advance | Start | None = None  #: what it follows from, until its first attempt begins
    decision_number: int = 0  #: of that decision, from 1
    ask_seconds: float = 0.0  #: that it took to come to it
    predicted_seconds: float | None = None  #: device seconds of an attempt, as was expected when the slice was placed
    begun_at: float = field(default_factory=time.monotonic)  #: the current attempt, by this process's clock
    queued_seconds: float | None = None  #: before its worker began with it; None: nothing was heard of it yet

    @property
    def token(self) -> tuple[int, int]:
        """The fencing token of the current attempt."""
        return (self.id, self.attempt)


@dataclass(kw_only=True)
class LiveStudy:
    """One study that has not ended."""

    id: int
    project_id: int
    name: str
    optuna_name: str
    state: StudyState
    message: str
    resolved: ResolvedStudy
    decision_number: int
    spent: Spent
    storage: StudyStorage
    optuna_study_id: int | None
    mlflow_url: str | None = None  #: of the pages of the server that it is told to
    started_at: datetime | None = None  #: when it first ran, by the database's clock
    capped: bool = False  #: a cap is reached, so that its slices are asked to stop
    child_id: int | None = None  #: the study that confirms this one, whose search has ended
    search_ended: str | None = None  #: why, in the transaction in which it ends; the confirmation begins with it
    memory: dict[str, Any] = field(default_factory=dict)
    closing: str = ""  #: why nothing new is searched: a cap is near, what is left is for those that lead
    fold_losses: dict[int, dict[int, tuple[float, ...]]] = field(default_factory=dict)  #: by trial and rung
    data_fingerprints: DataFingerprints | None = None  #: of the rows that all its trials see; None before a result
    check_job_id: int | None = None
    awaits_check: bool = False  #: nothing is placed before the data check has ended
    slices: dict[int, LiveSlice] = field(default_factory=dict)
    noted: tuple[object, ...] = ()  #: what the note in optuna-dashboard was last written for
    noted_at: float = float("-inf")  #: when the best was last looked for, by this process's clock
    note_due: bool = True  #: something may have changed since
    forecast_at: float = float("-inf")  #: when its forecast was last written, by this process's clock
    idle: bool = False  #: the strategy waits for a result; asking again before one comes is useless
    heard: bool = False  #: something became known since its proposals were last told that they are outdated
    _roster: Roster | None = None
    _ladders: dict[float, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.adopt(self.resolved)

    def adopt(self, resolved: ResolvedStudy) -> None:
        """Take over a new spec (ranges or budget were extended)."""
        self.resolved = resolved
        self.space: SearchSpace = resolved.search_space()
        self.strategy: Strategy = build(resolved)
        self._roster = None
        self._ladders.clear()
        self.note_due = True

    @property
    def deterministic(self) -> bool:
        """Whether nothing may be prefetched."""
        return self.resolved.search.deterministic

    @property
    def searching(self) -> bool:
        """Whether it may start slices of its own; not while it is being confirmed."""
        return self.child_id is None

    def running(self) -> list[LiveSlice]:
        """Slices that a worker holds."""
        return [piece for piece in self.slices.values() if piece.running]

    def waiting(self) -> list[LiveSlice]:
        """Slices whose next attempt is due, oldest first."""
        return sorted((piece for piece in self.slices.values() if not piece.running), key=lambda piece: piece.id)

    def trials(self) -> list[FrozenTrial]:
        """All trials by number; not copies, so not to be changed."""
        if self.optuna_study_id is None:
            return []
        return self.storage.get_all_trials(self.optuna_study_id, deepcopy=False)

    def trial(self, number: int) -> FrozenTrial:
        """One trial; not a copy, so not to be changed. Raise IndexError if there is none."""
        if self.optuna_study_id is None:
            raise IndexError(f"study {self.name} has no trial {number} yet")
        return self.storage.trial_at(self.optuna_study_id, number)

    def trial_count(self) -> int:
        """How many trials there are, in whatever state."""
        return 0 if self.optuna_study_id is None else self.storage.count_trials(self.optuna_study_id)

    def view(self, slots: int = 1) -> StudyView:
        """What the strategy sees. Immutable, so that a proposal may read it on another thread."""
        return StudyView(
            seed=self.resolved.search.seed,
            decision_number=self.decision_number,
            max_trials=self.resolved.budget.max_trials,
            trials=self.roster(),
            ladder=self.resolved.ladder,
            slots=slots,
            memory=self.memory,
            objectives=self.resolved.search.objectives,
            closing=self.closing,
        )

    def roster(self) -> Roster:
        """All trials as the strategy sees them; only what changed since the last call is looked at again."""
        changed = self.storage.take_changed()
        if self._roster is not None and not changed:
            return self._roster
        rungs = {piece.trial_number: piece.until_examples for piece in self.running()}
        if self._roster is None:
            self._roster = Roster.of(self._trial_view(trial, rungs.get(trial.number)) for trial in self.trials())
        else:
            numbers = {self.storage.get_trial_number_from_id(trial_id) for trial_id in changed}
            self._roster = self._roster.changed(self._trial_view(self.trial(one), rungs.get(one)) for one in numbers)
        return self._roster

    def news(self) -> None:
        """Something became known: what the strategy said before, it may say differently now."""
        self.idle, self.heard = False, True

    def values(self, trial_number: int, loss: float) -> list[float]:
        """What Optuna is told of a trial: its loss, then its value of every other objective."""
        measures = measured(self.trial(trial_number).user_attrs)
        return objective_values(self.resolved.search.objectives, loss, measures)

    def _trial_view(self, trial: FrozenTrial, running_to: int | None) -> TrialView:
        return TrialView(
            number=trial.number,
            standing=_standing(trial),
            sampled=_sampled(trial),
            parameters=(parameters := trained_with(trial.params, trial.user_attrs)),
            losses=dict(trial.intermediate_values),
            ladder=self._ladder(parameters),
            baseline=bool(trial.user_attrs.get("baseline", False)),
            outcome=_outcome(trial),
            running_to=running_to,
            cost_per_example=self._cost_per_example(trial.user_attrs),
            fold_losses=dict(self.fold_losses.get(trial.number, {})),
            memory_bytes=trial.user_attrs.get("predicted_memory_bytes"),
            measures=measured(trial.user_attrs),
            run=_run(trial),
            enqueued_by=trial.user_attrs.get("enqueued_by", ""),
        )

    def _cost_per_example(self, attrs: Mapping[str, Any]) -> float | None:
        """Measured in seconds; in a deterministic study predicted in FLOPs, which no clock and no kill can change."""
        if self.deterministic:
            flops = attrs.get("flops_per_example")
            return None if flops is None else float(flops)
        examples = attrs.get("examples", 0)
        return float(attrs["seconds"]) * self.resolved.training.ranks / examples if examples else None

    def _ladder(self, parameters: Mapping[str, Any]) -> tuple[int, ...]:
        """Rungs follow from the epochs alone, so trials share them; none before the trial begins."""
        if not parameters:
            return ()
        epochs = parameters["epochs"]
        if epochs not in self._ladders:
            self._ladders[epochs] = self.resolved.trial_rungs(Parameters.model_validate(parameters))
        return self._ladders[epochs]


def _standing(trial: FrozenTrial) -> TrialStanding:
    if trial.state is TrialState.RUNNING:
        return "paused" if trial.user_attrs.get("hpo_state") == PAUSED else "running"
    standings: dict[TrialState, TrialStanding] = {
        TrialState.WAITING: "waiting",
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    return standings[trial.state]


def _sampled(trial: FrozenTrial) -> Mapping[str, Any]:
    """What is fixed of its parameters: of a waiting trial perhaps only some."""
    if trial.state is TrialState.WAITING:
        fixed: Mapping[str, Any] = trial.system_attrs.get("fixed_params", {})
        return fixed
    return dict(trial.params)


def _run(trial: FrozenTrial) -> Run | None:
    attrs = trial.user_attrs
    return Run(candidate=attrs["candidate"], seed=attrs["seed"]) if "candidate" in attrs else None


def _outcome(trial: FrozenTrial) -> Outcome | None:
    outcome = trial.user_attrs.get("outcome")
    return None if outcome is None else Outcome(outcome)


def open_slice(row: Slice) -> LiveSlice:
    """The live form of a slice's row."""
    return LiveSlice(
        id=row.id,
        trial_number=row.trial_number,
        optuna_trial_id=row.optuna_trial_id,
        until_examples=row.until_examples,
        attempt=row.attempt,
        failures=row.failures,
        running=row.state == "running",
        kills=poison_slices.kills(row.failures_by_cause),
    )


def load_study(session: Session, row: Study, mlflow_url: str | None) -> LiveStudy:
    """Read one study with its trials and open slices. Its notes link to `mlflow_url`."""
    project = session.scalars(select(Project.name).where(Project.id == row.project_id)).one()
    connection: Connection = session.connection()
    study_ids = [] if row.optuna_study_id is None else [row.optuna_study_id]
    study = LiveStudy(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        optuna_name=row.name if row.project_id == DEFAULT_PROJECT_ID else f"{project}/{row.name}",
        state=StudyState(row.state),
        message=row.message,
        resolved=ResolvedStudy.model_validate(row.resolved),
        decision_number=row.decision_number,
        spent=dispatch.spent(session, row.id),
        storage=StudyStorage.load(connection, study_ids),
        optuna_study_id=row.optuna_study_id,
        mlflow_url=mlflow_url,
        started_at=row.started_at,
        child_id=dispatch.confirmation_of(session, row.id),
        memory=dict(row.memory),
        closing=row.memory.get(CLOSING, ""),
        fold_losses=attempts.fold_losses(session, row.project_id, row.id),
        data_fingerprints=(
            None if row.data_fingerprints is None else DataFingerprints.model_validate(row.data_fingerprints)
        ),
        check_job_id=row.check_job_id,
        awaits_check=row.check_job_id is not None and not _is_checked(session, row.project_id, row.check_job_id),
    )
    study.slices = {piece.id: open_slice(piece) for piece in dispatch.open_slices(session, [row.id])}
    return study


def _is_checked(session: Session, project_id: int, job_id: int) -> bool:
    """Whether the check has ended well: its end and what it means for an open study are one transaction."""
    job = jobs.find(session, project_id, job_id)
    return job is not None and job.state == "done"


def load_studies(session: Session, mlflow_url: str | None) -> dict[int, LiveStudy]:
    """All live studies, oldest first."""
    return {row.id: load_study(session, row, mlflow_url) for row in dispatch.live_studies(session)}
