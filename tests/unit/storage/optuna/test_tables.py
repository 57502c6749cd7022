"""Our table definitions against Optuna's own models: an Optuna upgrade that changes its schema fails here."""

import pytest
from optuna.storages._rdb.models import BaseModel
from sqlalchemy import Column, Enum, Table, UniqueConstraint

from hpo_service.storage.optuna import tables as optuna_tables

NOT_OURS = {"version_info"}  # Optuna's bookkeeping of its own schema

OPTUNAS: dict[str, Table] = dict(BaseModel.metadata.tables)


def shape(column: Column[object]) -> dict[str, object]:
    kind = column.type
    return {
        "type": type(kind).__name__,
        "length": getattr(kind, "length", None),
        "precision": getattr(kind, "precision", None),
        "timezone": getattr(kind, "timezone", None),
        "enum": (kind.name, kind.enums) if isinstance(kind, Enum) else None,
        "nullable": column.nullable,
        "primary_key": column.primary_key,
        "index": bool(column.index),
        "unique": bool(column.unique),
        "refers_to": sorted(key.target_fullname.removeprefix("optuna.") for key in column.foreign_keys),
    }


def unique_columns(table: Table) -> set[tuple[str, ...]]:
    return {
        tuple(column.name for column in constraint.columns)
        for constraint in table.constraints
        if isinstance(constraint, UniqueConstraint)
    }


def test_every_table_of_optuna_is_defined() -> None:
    ours = {table.name for table in optuna_tables.metadata.tables.values()}
    assert ours == set(OPTUNAS) - NOT_OURS


@pytest.mark.parametrize("name", sorted(set(OPTUNAS) - NOT_OURS))
def test_columns_are_optunas(name: str) -> None:
    ours, theirs = optuna_tables.metadata.tables[f"optuna.{name}"], OPTUNAS[name]
    assert {column.name: shape(column) for column in ours.c} == {column.name: shape(column) for column in theirs.c}
    assert [column.name for column in ours.c] == [column.name for column in theirs.c]
    assert unique_columns(ours) == unique_columns(theirs)
