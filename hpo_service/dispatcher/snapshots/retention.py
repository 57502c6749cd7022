"""Which snapshots are still needed, and which of the others go first. What is here deletes nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hpo_service.core.study_rules import TERMINAL, StudyState
from hpo_service.search.best import ranking
from hpo_service.spec import ResolvedStudy
from hpo_service.storage.queries.optuna_reads import TrialRow, read_trials
from hpo_service.storage.queries.promotions import promoted_trials
from hpo_service.storage.tables import Slice, Study
from trainer.snapshots.stores.base import StoredSnapshot
from trainer.spec import SnapshotRef

#: snapshots of an unfinished trial that stay, newest first: as many as a worker is offered to resume from
_RESUMABLE_SNAPSHOTS = 4
_OPEN = ("waiting", "running")


@dataclass(frozen=True, kw_only=True)
class Retention:
    """What stays: the adapters of the best `keep_best` trials of a study, and at most `max_bytes` in all (None: any).

    What a live study can resume, what was promoted, and the best trial of any study stay whatever `max_bytes` says.
    """

    keep_best: int = 3
    max_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class StudyNeeds:
    """Paths in the snapshot store that one study needs.

    Snapshots in `open_rungs` (<study>/<trial>/<rung>) are being written. `resumable` may be gone on from. `best` are
    the newest snapshots of its best trials, best first, `promoted` those of trials that were promoted. `ended_at`
    orders ended studies by their end; None: live.
    """

    open_rungs: frozenset[str] = frozenset()
    resumable: frozenset[str] = frozenset()
    best: tuple[str, ...] = ()
    promoted: frozenset[str] = frozenset()
    ended_at: float | None = None


@dataclass(frozen=True)
class _Facts:
    number: int
    state: str
    value: float | None
    intermediate: Mapping[int, float]
    parameters: Mapping[str, Any]
    user_attrs: Mapping[str, Any]


def read_needs(session: Session, keep_best: int) -> dict[int, StudyNeeds]:
    """What every study needs that was not deleted, in one consistent picture if the transaction gives one."""
    studies = session.scalars(select(Study).where(Study.deleted_at.is_(None))).all()
    confirmed = {study.parent_study_id: _candidates(study) for study in studies if study.parent_study_id is not None}
    return {study.id: _needs(session, study, keep_best, confirmed.get(study.id, [])) for study in studies}


def superfluous(
    stored: Sequence[StoredSnapshot], needs: Mapping[int, StudyNeeds], max_bytes: int | None
) -> list[StoredSnapshot]:
    """What may go, in the order in which it goes. Studies that `needs` does not know are left alone.

    First what nobody needs. If the rest is more than `max_bytes`: of the ended studies, oldest first, all but the best
    trial's, worst first.
    """
    gone = [snapshot for snapshot in stored if not _is_needed(snapshot, needs.get(snapshot.study_id))]
    if max_bytes is None:
        return gone
    leaving = {snapshot.path for snapshot in gone}
    left = {snapshot.path: snapshot for snapshot in stored if snapshot.path not in leaving}
    total = sum(snapshot.size_bytes for snapshot in left.values())
    ended = [study for study in needs.values() if study.ended_at is not None]
    for study in sorted(ended, key=lambda study: study.ended_at or 0.0):
        for path in reversed(study.best[1:]):
            if total > max_bytes and path in left and path not in study.promoted:
                snapshot = left.pop(path)
                total -= snapshot.size_bytes
                gone.append(snapshot)
    return gone


def _is_needed(snapshot: StoredSnapshot, study: StudyNeeds | None) -> bool:
    if study is None:
        return True
    needed = (study.resumable, study.best, study.promoted)
    return snapshot.rung in study.open_rungs or any(snapshot.path in paths for paths in needed)


def _candidates(confirmation: Study) -> list[int]:
    """The searched trials that are trained again: any of them may turn out to be the best."""
    plan = ResolvedStudy.model_validate(confirmation.resolved).confirmation
    return [] if plan is None else [candidate.trial_number for candidate in plan.candidates]


def _needs(session: Session, study: Study, keep_best: int, candidates: Sequence[int]) -> StudyNeeds:
    slices = session.scalars(
        select(Slice).where(Slice.study_id == study.id).order_by(Slice.until_examples.desc(), Slice.id)
    ).all()
    trials: list[TrialRow] = []
    if study.optuna_study_id is not None:
        trials = read_trials(session.connection(), study.optuna_study_id)
    ranked = [found.trial_number for found in ranking([_facts(trial) for trial in trials], keep_best)]
    wanted = dict.fromkeys([*ranked, *candidates])
    best = [path for number in wanted for path in _snapshots(slices, number)[:1]]
    promoted = frozenset(
        path for number in promoted_trials(session, study.id) for path in _snapshots(slices, number)[:1]
    )
    needs = StudyNeeds(best=tuple(best), promoted=promoted)
    if StudyState(study.state) in TERMINAL:
        return replace(needs, ended_at=study.finished_at.timestamp() if study.finished_at else 0.0)
    unfinished = [trial.number for trial in trials if not trial.state.is_finished()]
    return replace(
        needs,
        open_rungs=frozenset(
            f"{study.id}/{row.optuna_trial_id}/{row.until_examples}" for row in slices if row.state in _OPEN
        ),
        resumable=frozenset(
            path for number in unfinished for path in _snapshots(slices, number)[:_RESUMABLE_SNAPSHOTS]
        ),
    )


def _snapshots(slices: Iterable[Slice], trial_number: int) -> list[str]:
    """Of the trial, newest first; `slices` are sorted so."""
    return [
        SnapshotRef.model_validate(snapshot).path
        for row in slices
        if row.trial_number == trial_number
        for snapshot in row.snapshots
    ]


def _facts(trial: TrialRow) -> _Facts:
    return _Facts(
        trial.number, trial.state.name, trial.value, trial.intermediate_values, trial.parameters, trial.user_attrs
    )
