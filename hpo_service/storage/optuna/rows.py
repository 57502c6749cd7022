"""Rows that wait to be written into Optuna's tables, and the few statements that write them."""

import json
from collections import defaultdict
from collections.abc import Collection
from functools import cache
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy import Connection, Table, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert

from hpo_service.storage.optuna import tables
from hpo_service.storage.optuna.codec import encode_intermediate, encode_time, encode_value

_KEYS: dict[Table, tuple[str, ...]] = {
    tables.studies: ("study_id",),
    tables.study_directions: ("study_id", "objective"),
    tables.study_user_attributes: ("study_id", "key"),
    tables.study_system_attributes: ("study_id", "key"),
    tables.trials: ("trial_id",),
    tables.trial_params: ("trial_id", "param_name"),
    tables.trial_values: ("trial_id", "objective"),
    tables.trial_intermediate_values: ("trial_id", "step"),
    tables.trial_user_attributes: ("trial_id", "key"),
    tables.trial_system_attributes: ("trial_id", "key"),
}  # parents first: the order of writing

_Row = dict[str, Any]


class PendingRows:
    """The last version of every row that changed, in the order of their first appearance."""

    def __init__(self) -> None:
        self._rows: defaultdict[Table, dict[tuple[Any, ...], _Row]] = defaultdict(dict)
        self._deleted_studies: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._deleted_studies) or any(self._rows.values())

    def _put(self, table: Table, **row: object) -> None:
        self._rows[table][tuple(row[column] for column in _KEYS[table])] = row

    def study(self, study_id: int, name: str, directions: Collection[StudyDirection]) -> None:
        """A new study."""
        self._put(tables.studies, study_id=study_id, study_name=name)
        for objective, direction in enumerate(directions):
            self._put(tables.study_directions, study_id=study_id, objective=objective, direction=direction)

    def delete_study(self, study_id: int, trial_ids: Collection[int]) -> None:
        """Delete the study with all it owns, in the tables and here."""
        self._deleted_studies.add(study_id)
        for rows in self._rows.values():
            for key, row in list(rows.items()):
                if row.get("study_id") == study_id or row.get("trial_id") in trial_ids:
                    del rows[key]

    def attribute(self, table: Table, owner_id: int, key: str, value: object) -> None:
        """An attribute of a study or a trial; `table` says which."""
        owner = _KEYS[table][0]
        self._put(table, key=key, value_json=json.dumps(value), **{owner: owner_id})

    def trial(self, study_id: int, trial: FrozenTrial) -> None:
        """A trial's state, times and objective values."""
        trial_id = trial._trial_id
        self._put(
            tables.trials,
            trial_id=trial_id,
            number=trial.number,
            study_id=study_id,
            state=trial.state,
            datetime_start=encode_time(trial.datetime_start),
            datetime_complete=encode_time(trial.datetime_complete),
        )
        for objective, value in enumerate(trial.values or ()):
            stored, kind = encode_value(value)
            self._put(tables.trial_values, trial_id=trial_id, objective=objective, value=stored, value_type=kind)

    def trial_contents(self, trial: FrozenTrial) -> None:
        """All that a new trial was given: parameters, intermediate values, attributes."""
        trial_id = trial._trial_id
        for name, value in trial.params.items():
            distribution = trial.distributions[name]
            self.param(trial_id, name, distribution.to_internal_repr(value), distribution)
        for step, value in trial.intermediate_values.items():
            self.intermediate(trial_id, step, value)
        for key, value in trial.user_attrs.items():
            self.attribute(tables.trial_user_attributes, trial_id, key, value)
        for key, value in trial.system_attrs.items():
            self.attribute(tables.trial_system_attributes, trial_id, key, value)

    def param(self, trial_id: int, name: str, internal: float, distribution: BaseDistribution) -> None:
        """A parameter in Optuna's internal coding."""
        self._put(
            tables.trial_params,
            trial_id=trial_id,
            param_name=name,
            param_value=float(internal),
            distribution_json=distribution_to_json(distribution),
        )

    def intermediate(self, trial_id: int, step: int, value: float) -> None:
        """A value reported at a step."""
        stored, kind = encode_intermediate(value)
        self._put(
            tables.trial_intermediate_values,
            trial_id=trial_id,
            step=int(step),
            intermediate_value=stored,
            intermediate_value_type=kind,
        )

    def write(self, connection: Connection) -> None:
        """One statement for each table concerned; eleven more when studies are deleted."""
        if self._deleted_studies:
            _delete(connection, self._deleted_studies)
        for table in _KEYS:
            if rows := self._rows.get(table):
                _upsert(connection, table, list(rows.values()))


def _upsert(connection: Connection, table: Table, rows: list[_Row]) -> None:
    columns = list(rows[0])
    connection.execute(_upsert_statement(table), {name: [row[name] for row in rows] for name in columns})


@cache
def _upsert_statement(table: Table) -> Insert:
    """Takes one array a column: executemany would send one statement a row, because of ON CONFLICT."""
    key = _KEYS[table]
    names = [column.name for column in table.c if column.name in key or not column.primary_key]
    arrays = [bindparam(name, type_=ARRAY(table.c[name].type)) for name in names]
    given = func.unnest(*arrays).table_valued(*names, name="given").render_derived()
    statement = insert(table).from_select(names, select(*(given.c[name] for name in names)))
    changed = {name: statement.excluded[name] for name in names if name not in key}
    return statement.on_conflict_do_update(index_elements=key, set_=changed)


def _delete(connection: Connection, study_ids: Collection[int]) -> None:
    owned = select(tables.trials.c.trial_id).where(tables.trials.c.study_id.in_(study_ids))
    connection.execute(delete(tables.trial_heartbeats).where(tables.trial_heartbeats.c.trial_id.in_(owned)))
    for table in reversed(_KEYS):
        if "study_id" in table.c:
            connection.execute(delete(table).where(table.c.study_id.in_(study_ids)))
        else:
            connection.execute(delete(table).where(table.c.trial_id.in_(owned)))
