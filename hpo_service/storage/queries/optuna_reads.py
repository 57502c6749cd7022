"""What the API reads of Optuna's tables. One SQL statement each, so one consistent picture."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, func, select

from hpo_service.spec.trial_parameters import trained_with
from hpo_service.storage.optuna import read_frozen_trials
from hpo_service.storage.optuna.tables import trials


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """A trial as its reader sees it. `value` is its loss, `values` has its other objectives too.

    `params` are what was sampled, `parameters` all that the trainer was given; times are UTC.
    """

    trial_id: int
    number: int
    state: TrialState
    value: float | None
    values: Sequence[float] | None
    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    intermediate_values: Mapping[int, float]
    user_attrs: Mapping[str, Any]
    system_attrs: Mapping[str, Any]
    started_at: datetime | None
    finished_at: datetime | None

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """Empty before the trial begins."""
        return trained_with(self.params, self.user_attrs)


def read_trials(
    connection: Connection,
    optuna_study_id: int,
    *,
    after_number: int | None = None,
    limit: int | None = None,
    number: int | None = None,
    newest_first: bool = False,
) -> list[TrialRow]:
    """Trials by number: those behind `after_number`, at most `limit`, or just the one called `number`.

    With `newest_first` the highest numbers come first, and those behind a number are below it.
    """
    conditions = []
    if after_number is not None:
        conditions.append(trials.c.number < after_number if newest_first else trials.c.number > after_number)
    if number is not None:
        conditions.append(trials.c.number == number)
    found = read_frozen_trials(connection, optuna_study_id, *conditions, limit=limit, newest_first=newest_first)
    return [_row(trial) for trial in found]


def read_trials_called(connection: Connection, optuna_study_id: int, numbers: Collection[int]) -> list[TrialRow]:
    """The trials with these numbers."""
    found = read_frozen_trials(connection, optuna_study_id, trials.c.number.in_(numbers))
    return [_row(trial) for trial in found]


def count_by_state(connection: Connection, optuna_study_id: int) -> dict[TrialState, int]:
    """How many trials are in each state; states without a trial are 0."""
    count = func.count().label("trials")
    statement = select(trials.c.state, count).where(trials.c.study_id == optuna_study_id).group_by(trials.c.state)
    return dict.fromkeys(TrialState, 0) | {row.state: row.trials for row in connection.execute(statement)}


def _row(trial: FrozenTrial) -> TrialRow:
    return TrialRow(
        trial_id=trial._trial_id,
        number=trial.number,
        state=trial.state,
        value=trial.values[0] if trial.values else None,
        values=trial.values,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=dict(sorted(trial.intermediate_values.items())),
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
        started_at=_utc(trial.datetime_start),
        finished_at=_utc(trial.datetime_complete),
    )


def _utc(local: datetime | None) -> datetime | None:
    return None if local is None else local.astimezone(UTC)
