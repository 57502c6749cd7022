"""Every table of schema hpo, and the project `default`."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SCHEMA = "hpo"


def upgrade() -> None:
    """Apply."""
    _projects_and_access()
    _studies()
    _dispatch()
    _attempts()
    _jobs()
    op.execute("INSERT INTO hpo.projects (id, name) VALUES (1, 'default')")
    op.execute("SELECT setval(pg_get_serial_sequence('hpo.projects', 'id'), 1)")


def downgrade() -> None:
    """Undo."""
    for table in ("jobs", "attempts", "slices", "intents", "events", "workers", "studies", "leases"):
        op.drop_table(table, schema=_SCHEMA)
    for table in ("idempotency_keys", "browser_tokens", "api_keys", "projects"):
        op.drop_table(table, schema=_SCHEMA)


def _projects_and_access() -> None:
    _table("projects", _id(), _text("name"), _created(), sa.UniqueConstraint("name", name="uq_projects_name"))
    _table(
        "api_keys",
        _id(),
        _project("api_keys"),
        _text("label"),
        _text("secret_sha256"),
        _created(),
        _time("revoked_at", nullable=True),
    )
    _table(
        "browser_tokens",
        _text("token_sha256"),
        _project("browser_tokens"),
        _text("kind"),
        sa.Column("api_key_id", sa.BigInteger, _references("browser_tokens", "api_key_id", "api_keys"), nullable=False),
        _created(),
        _time("expires_at"),
        _time("used_at", nullable=True),
        key=("token_sha256",),
    )
    _table(
        "idempotency_keys",
        _project("idempotency_keys"),
        _text("key"),
        _text("request_sha256"),
        _number("status"),
        _json("body"),
        _created(),
        key=("project_id", "key"),
    )
    lease = (_text("name"), _project("leases"), _text("holder"), _number("epoch"), _time("expires_at"))
    _table("leases", *lease, key=("name",))


def _studies() -> None:
    _table(
        "studies",
        _id(),
        _project("studies"),
        _text("name"),
        _json("spec"),
        _json("resolved"),
        _text("state"),
        _text("message", default=""),
        _number("optuna_study_id", nullable=True),
        _number("check_job_id", nullable=True),
        _number("decision_number", default=0),
        _created(),
        _time("started_at", nullable=True),
        _time("finished_at", nullable=True),
        _time("deleted_at", nullable=True),
        sa.UniqueConstraint("project_id", "id", name="uq_studies_project_id_id"),
    )
    live = sa.text("deleted_at IS NULL")
    _index("uq_studies_project_id_name_live", "studies", ["project_id", "name"], where=live, unique=True)
    _table(
        "events",
        _id(),
        _project("events"),
        _number("study_id"),
        _number("trial_number", nullable=True),
        _text("kind"),
        _json("payload"),
        _created(),
        _of_study("events"),
    )
    _index("ix_events_study_id_id", "events", ["study_id", "id"])
    _table(
        "intents",
        _id(),
        _project("intents"),
        _number("study_id", nullable=True),
        _text("kind"),
        _json("payload", default="{}"),
        _created(),
        _time("done_at", nullable=True),
        _text("error", nullable=True),
        _of_study("intents"),
    )
    _index("ix_intents_open", "intents", ["id"], where=sa.text("done_at IS NULL"))


def _dispatch() -> None:
    _table(
        "workers",
        _id(),
        _project("workers"),
        _text("executor"),
        _text("name"),
        _text("state"),
        _text("device", default=""),
        _json("software", default="{}"),
        _number("epoch"),
        _time("started_at", now=True),
        _time("gone_at", nullable=True),
        _text("message", default=""),
    )
    unique = ("study_id", "trial_number", "until_examples")
    _table(
        "slices",
        _id(),
        _project("slices"),
        _number("study_id"),
        _number("optuna_trial_id"),
        _number("trial_number"),
        _number("until_examples"),
        _text("state"),
        _number("attempt", default=0),
        _number("failures", default=0),
        _json("snapshots", default="[]"),
        _json("progress", default="{}"),
        _created(),
        _time("finished_at", nullable=True),
        _of_study("slices"),
        sa.UniqueConstraint("project_id", "id", name="uq_slices_project_id_id"),
        sa.UniqueConstraint(*unique, name="uq_slices_study_id_trial_number_until_examples"),
    )
    _index("ix_slices_open", "slices", ["study_id"], where=sa.text("state IN ('waiting', 'running')"))


def _attempts() -> None:
    _table(
        "attempts",
        _number("slice_id"),
        _number("attempt"),
        _project("attempts"),
        _number("worker_id", nullable=True),
        _text("outcome", nullable=True),
        _text("message", default=""),
        _time("started_at", now=True),
        _time("finished_at", nullable=True),
        _number("examples", default=0),
        _number("steps", default=0),
        _number("tokens", default=0),
        _real("flops"),
        _real("train_flops"),
        _real("train_hardware_flops"),
        _real("load_seconds"),
        _real("data_seconds"),
        _real("train_seconds"),
        _real("evaluate_seconds"),
        _real("snapshot_seconds"),
        _real("cost_usd"),
        _number("peak_memory_bytes", default=0),
        _number("predicted_memory_bytes", nullable=True),
        _real("energy_joules", nullable=True),
        _number("devices", default=1),
        _real("peak_flops_per_second", nullable=True),
        _text("device", default=""),
        _text("attention", default=""),
        _number("micro_batch", nullable=True),
        _within_project("attempts", "slice_id", "slices"),
        key=("slice_id", "attempt"),
    )


def _jobs() -> None:
    """Ids are given by the caller, from the sequence of the slices."""
    _table(
        "jobs",
        _id(autoincrement=False),
        _project("jobs"),
        _number("study_id", nullable=True),
        _text("kind"),
        _json("task"),
        _text("fingerprint"),
        _text("state"),
        _number("attempt", default=0),
        _number("failures", default=0),
        _text("outcome", nullable=True),
        _text("message", default=""),
        _json("report", nullable=True),
        _number("worker_id", nullable=True),
        _real("seconds"),
        _real("cost_usd"),
        _created(),
        _time("started_at", nullable=True),
        _time("finished_at", nullable=True),
        _of_study("jobs"),
    )
    _index("ix_jobs_project_id_kind_fingerprint", "jobs", ["project_id", "kind", "fingerprint"])
    _index("ix_jobs_open", "jobs", ["id"], where=sa.text("state IN ('waiting', 'running')"))


def _table(name: str, *parts: sa.schema.SchemaItem, key: Sequence[str] = ("id",)) -> None:
    op.create_table(name, *parts, sa.PrimaryKeyConstraint(*key, name=f"pk_{name}"), schema=_SCHEMA)


def _index(
    name: str, table: str, columns: list[str], *, where: sa.TextClause | None = None, unique: bool = False
) -> None:
    op.create_index(name, table, columns, unique=unique, schema=_SCHEMA, postgresql_where=where)


def _references(table: str, column: str, target: str) -> sa.ForeignKey:
    return sa.ForeignKey(f"{_SCHEMA}.{target}.id", name=f"fk_{table}_{column}")


def _within_project(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    columns = [f"{_SCHEMA}.{target}.project_id", f"{_SCHEMA}.{target}.id"]
    return sa.ForeignKeyConstraint(["project_id", column], columns, name=f"fk_{table}_project_id_{column}")


def _of_study(table: str) -> sa.ForeignKeyConstraint:
    return _within_project(table, "study_id", "studies")


def _id(*, autoincrement: bool = True) -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger, nullable=False, autoincrement=autoincrement)


def _project(table: str) -> sa.Column[int]:
    return sa.Column("project_id", sa.BigInteger, _references(table, "project_id", "projects"), nullable=False)


def _text(name: str, *, nullable: bool = False, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable, server_default=default)


def _number(name: str, *, nullable: bool = False, default: int | None = None) -> sa.Column[int]:
    return sa.Column(
        name, sa.BigInteger, nullable=nullable, server_default=None if default is None else sa.text(f"{default}")
    )


def _real(name: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=nullable, server_default=None if nullable else sa.text("0"))


def _json(name: str, *, nullable: bool = False, default: str | None = None) -> sa.Column[object]:
    return sa.Column(name, JSONB, nullable=nullable, server_default=default and sa.text(f"'{default}'::jsonb"))


def _time(name: str, *, nullable: bool = False, now: bool = False) -> sa.Column[object]:
    default = sa.func.clock_timestamp() if now else None
    return sa.Column(name, TIMESTAMP(timezone=True), nullable=nullable, server_default=default)


def _created() -> sa.Column[object]:
    return _time("created_at", now=True)
