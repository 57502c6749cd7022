"""Read Optuna's tables into FrozenTrials: one statement for any number of trials, so one consistent picture."""

import json
from dataclasses import dataclass
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy import JSON, ColumnElement, Connection, Row, ScalarSelect, Select, Table, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from hpo_service.storage.optuna import tables
from hpo_service.storage.optuna.codec import decode_distribution, decode_time, decode_value
from hpo_service.storage.optuna.tables import studies, trials


def _owned(table: Table, owner: Table, *columns: str) -> ScalarSelect[Any]:
    """All rows of `table` that belong to the row of `owner`, as a JSON array of arrays in the order of writing."""
    (row_id,) = table.primary_key
    (owner_id,) = owner.primary_key
    row = func.json_build_array(*(table.c[column] for column in columns))
    gathered = func.json_agg(aggregate_order_by(row, row_id), type_=JSON)
    return select(gathered).where(table.c[owner_id.name] == owner_id).correlate(owner).scalar_subquery()


def _trials_statement() -> Select[Any]:
    return select(
        trials.c.trial_id,
        trials.c.number,
        trials.c.state,
        trials.c.datetime_start,
        trials.c.datetime_complete,
        _owned(tables.trial_params, trials, "param_name", "param_value", "distribution_json").label("params"),
        _owned(tables.trial_values, trials, "objective", "value", "value_type").label("objectives"),
        _owned(tables.trial_intermediate_values, trials, "step", "intermediate_value", "intermediate_value_type").label(
            "intermediate"
        ),
        _owned(tables.trial_user_attributes, trials, "key", "value_json").label("user_attrs"),
        _owned(tables.trial_system_attributes, trials, "key", "value_json").label("system_attrs"),
    )


_TRIALS = _trials_statement()
_STUDY = select(
    studies.c.study_name,
    _owned(tables.study_directions, studies, "objective", "direction").label("directions"),
    _owned(tables.study_user_attributes, studies, "key", "value_json").label("user_attrs"),
    _owned(tables.study_system_attributes, studies, "key", "value_json").label("system_attrs"),
)


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """What Optuna knows of a study apart from its trials."""

    name: str
    directions: list[StudyDirection]
    user_attrs: dict[str, Any]
    system_attrs: dict[str, Any]


def read_study(connection: Connection, study_id: int) -> StudyFacts:
    """Raise KeyError if there is no such study."""
    row = connection.execute(_STUDY.where(studies.c.study_id == study_id)).one_or_none()
    if row is None:
        raise KeyError(f"No study with study_id {study_id} exists.")
    return StudyFacts(
        name=row.study_name,
        directions=[StudyDirection[name] for _, name in sorted(row.directions)],
        user_attrs=_attributes(row.user_attrs),
        system_attrs=_attributes(row.system_attrs),
    )


def read_frozen_trials(
    connection: Connection,
    study_id: int,
    *conditions: ColumnElement[bool],
    limit: int | None = None,
    newest_first: bool = False,
) -> list[FrozenTrial]:
    """The study's trials by number, equal to those that RDBStorage returns. Conditions are on columns of `trials`.

    With `newest_first` the highest numbers come first.
    """
    order = trials.c.number.desc() if newest_first else trials.c.number
    statement = _TRIALS.where(trials.c.study_id == study_id, *conditions).order_by(order).limit(limit)
    return [_frozen(row) for row in connection.execute(statement)]


def _frozen(row: Row[Any]) -> FrozenTrial:
    params, distributions = {}, {}
    for name, value, text in row.params or ():
        distributions[name] = decode_distribution(text)
        params[name] = distributions[name].to_external_repr(float(value))
    values = [decode_value(value, kind) for _, value, kind in sorted(row.objectives or ())]
    return FrozenTrial(
        trial_id=row.trial_id,
        number=row.number,
        state=row.state,
        value=None,
        values=values or None,
        datetime_start=decode_time(row.datetime_start),
        datetime_complete=decode_time(row.datetime_complete),
        params=params,
        distributions=distributions,
        user_attrs=_attributes(row.user_attrs),
        system_attrs=_attributes(row.system_attrs),
        intermediate_values={step: decode_value(value, kind) for step, value, kind in row.intermediate or ()},
    )


def _attributes(pairs: list[tuple[str, str]] | None) -> dict[str, Any]:
    return {key: json.loads(text) for key, text in pairs or ()}
