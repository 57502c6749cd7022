"""Optuna's own tables, in schema `optuna`, as far as we read and write them.

Optuna creates and migrates them. A test compares every column with Optuna's models, so an upgrade that changes them
fails there and not in a user's database.
"""

import enum

from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import (
    Column,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    Sequence,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA = "optuna"

metadata = MetaData(schema=SCHEMA)


class TrialValueType(enum.Enum):
    """How an objective value is stored: infinities have no number."""

    FINITE = 1
    INF_POS = 2
    INF_NEG = 3


class TrialIntermediateValueType(enum.Enum):
    """How an intermediate value is stored: infinities and NaN have no number."""

    FINITE = 1
    INF_POS = 2
    INF_NEG = 3
    NAN = 4


def _enum(members: type[enum.Enum]) -> Enum:
    return Enum(members, name=members.__name__.lower(), schema=SCHEMA)


def _double(column: str) -> Column[float]:
    return Column(column, Float(53))


def _study_id(*, nullable: bool, index: bool | None = None) -> Column[int]:
    return Column("study_id", Integer, ForeignKey(f"{SCHEMA}.studies.study_id"), nullable=nullable, index=index)


def _trial_id(*, nullable: bool) -> Column[int]:
    return Column("trial_id", Integer, ForeignKey(f"{SCHEMA}.trials.trial_id"), nullable=nullable)


def _attributes(owner: str, owner_id: Column[int]) -> Table:
    name = f"{owner}_attributes"
    return Table(
        name,
        metadata,
        Column(f"{owner}_attribute_id", Integer, primary_key=True),
        owner_id,
        Column("key", String(512)),
        Column("value_json", Text),
        UniqueConstraint(owner_id.name, "key"),
    )


studies = Table(
    "studies",
    metadata,
    Column("study_id", Integer, primary_key=True),
    Column("study_name", String(512), index=True, unique=True, nullable=False),
)

study_directions = Table(
    "study_directions",
    metadata,
    Column("study_direction_id", Integer, primary_key=True),
    Column("direction", _enum(StudyDirection), nullable=False),
    _study_id(nullable=False),
    Column("objective", Integer, nullable=False),
    UniqueConstraint("study_id", "objective"),
)

study_user_attributes = _attributes("study_user", _study_id(nullable=True))
study_system_attributes = _attributes("study_system", _study_id(nullable=True))

trials = Table(
    "trials",
    metadata,
    Column("trial_id", Integer, primary_key=True),
    Column("number", Integer),
    _study_id(nullable=True, index=True),
    Column("state", _enum(TrialState), nullable=False),
    Column("datetime_start", DateTime),
    Column("datetime_complete", DateTime),
)

trial_user_attributes = _attributes("trial_user", _trial_id(nullable=True))
trial_system_attributes = _attributes("trial_system", _trial_id(nullable=True))

trial_params = Table(
    "trial_params",
    metadata,
    Column("param_id", Integer, primary_key=True),
    _trial_id(nullable=True),
    Column("param_name", String(512)),
    _double("param_value"),
    Column("distribution_json", Text),
    UniqueConstraint("trial_id", "param_name"),
)

trial_values = Table(
    "trial_values",
    metadata,
    Column("trial_value_id", Integer, primary_key=True),
    _trial_id(nullable=False),
    Column("objective", Integer, nullable=False),
    _double("value"),
    Column("value_type", _enum(TrialValueType), nullable=False),
    UniqueConstraint("trial_id", "objective"),
)

trial_intermediate_values = Table(
    "trial_intermediate_values",
    metadata,
    Column("trial_intermediate_value_id", Integer, primary_key=True),
    _trial_id(nullable=False),
    Column("step", Integer, nullable=False),
    _double("intermediate_value"),
    Column("intermediate_value_type", _enum(TrialIntermediateValueType), nullable=False),
    UniqueConstraint("trial_id", "step"),
)

trial_heartbeats = Table(
    "trial_heartbeats",
    metadata,
    Column("trial_heartbeat_id", Integer, primary_key=True),
    _trial_id(nullable=False),
    Column("heartbeat", DateTime, nullable=False),
    UniqueConstraint("trial_id"),
)

study_ids = Sequence("studies_study_id_seq", schema=SCHEMA)
trial_ids = Sequence("trials_trial_id_seq", schema=SCHEMA)
