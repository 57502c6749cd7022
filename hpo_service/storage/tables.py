"""Tables of schema `hpo`. Parameters, values and trial states are not here: they live in schema `optuna` only.

Every table carries `project_id`. All times are the database's, with a time zone.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    Text,
    UniqueConstraint,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = "hpo"
DEFAULT_PROJECT_ID = 1
DISPATCHER_LEASE = "dispatcher"


class Base(DeclarativeBase):
    """Common column types and constraint names."""

    metadata = MetaData(
        schema=SCHEMA,
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        },
    )
    type_annotation_map = {  # noqa: RUF012
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
        int: BigInteger,
        str: Text,
    }


def _now() -> Mapped[datetime]:
    return mapped_column(server_default=func.clock_timestamp())


def _project() -> Mapped[int]:
    return mapped_column(ForeignKey("hpo.projects.id"))


class Project(Base):
    """A tenant. Row 1, `default`, is made by the first migration."""

    __tablename__ = "projects"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    promotion_approval: Mapped[bool] = mapped_column(server_default=false())  #: a second key has to approve promotions
    created_at: Mapped[datetime] = _now()


class ProjectQuota(Base):
    """What a project may use at most (None: as much as there is), and what its snapshots took when last looked at."""

    __tablename__ = "project_quotas"
    project_id: Mapped[int] = mapped_column(ForeignKey("hpo.projects.id"), primary_key=True)
    parallel_gpus: Mapped[int | None]
    gpu_hours_month: Mapped[float | None]
    studies: Mapped[int | None]  #: that have not ended
    stored_bytes: Mapped[int | None]
    used_bytes: Mapped[int | None]


class Study(Base):
    """What a user posted and where it stands. `optuna_study_id` is set by the dispatcher when it opens the study."""

    __tablename__ = "studies"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project()
    name: Mapped[str]
    parent_study_id: Mapped[int | None]  #: the study whose best this one confirms; made by the dispatcher
    spec: Mapped[dict[str, Any]]  #: as posted
    resolved: Mapped[dict[str, Any]]  #: preset expanded, paths and row counts resolved; PATCH changes this
    state: Mapped[str]
    message: Mapped[str] = mapped_column(server_default="")
    optuna_study_id: Mapped[int | None]
    check_job_id: Mapped[int | None]  #: the data check that its first slice waits for; None: it goes without
    decision_number: Mapped[int] = mapped_column(server_default=text("0"))
    memory: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))  #: what the strategy keeps
    forecast: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))  #: what it will cost, and when
    #: of the rows that all its trials see; None before its first result
    data_fingerprints: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    created_at: Mapped[datetime] = _now()
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("project_id", "id"),
        Index(
            "uq_studies_project_id_name_live",
            "project_id",
            "name",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        ForeignKeyConstraint(["project_id", "parent_study_id"], ["hpo.studies.project_id", "hpo.studies.id"]),
        Index(
            "uq_studies_parent_study_id_live",
            "parent_study_id",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )


class Intent(Base):
    """What the API asks the dispatcher to do, with a study or (no `study_id`) beside all. Done in order of `id`."""

    __tablename__ = "intents"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project()
    study_id: Mapped[int | None]
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    created_at: Mapped[datetime] = _now()
    done_at: Mapped[datetime | None]
    error: Mapped[str | None]  #: why the dispatcher could not do it

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "study_id"], ["hpo.studies.project_id", "hpo.studies.id"]),
        Index("ix_intents_open", "id", postgresql_where=text("done_at IS NULL")),
    )


class Slice(Base):
    """The unit of dispatch. `state`: waiting (no attempt runs), running, done, failed, dropped."""

    __tablename__ = "slices"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project()
    study_id: Mapped[int]
    optuna_trial_id: Mapped[int]
    trial_number: Mapped[int]
    until_examples: Mapped[int]
    state: Mapped[str]
    attempt: Mapped[int] = mapped_column(server_default=text("0"))  #: the current one; older ones are stale
    failures: Mapped[int] = mapped_column(server_default=text("0"))  #: attempts lost to dead workers, infra errors
    failures_by_cause: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    snapshots: Mapped[list[Any]] = mapped_column(server_default=text("'[]'::jsonb"))  #: SnapshotRef, newest first
    progress: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))  #: the last sign of life
    heard_at: Mapped[datetime | None]  #: when that came
    fold_losses: Mapped[list[Any] | None]  #: mean evaluation loss of each fold at the rung; None before it is reached
    created_at: Mapped[datetime] = _now()
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "study_id"], ["hpo.studies.project_id", "hpo.studies.id"]),
        UniqueConstraint("project_id", "id"),
        UniqueConstraint("study_id", "trial_number", "until_examples"),
        Index("ix_slices_open", "study_id", postgresql_where=text("state IN ('waiting', 'running')")),
        Index("ix_slices_study_id_id", "study_id", "id"),
    )


class _Consumed:
    """What an attempt took, or all attempts of a study together; of the peak it is the largest."""

    examples: Mapped[int] = mapped_column(server_default=text("0"))
    steps: Mapped[int] = mapped_column(server_default=text("0"))
    tokens: Mapped[int] = mapped_column(server_default=text("0"))
    flops: Mapped[float] = mapped_column(server_default=text("0"))
    train_flops: Mapped[float] = mapped_column(server_default=text("0"))
    train_hardware_flops: Mapped[float] = mapped_column(server_default=text("0"))
    load_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    data_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    train_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    evaluate_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    snapshot_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    lost_seconds: Mapped[float] = mapped_column(server_default=text("0"))  #: an estimate, see trainer.spec.Usage
    cost_usd: Mapped[float] = mapped_column(server_default=text("0"))
    peak_memory_bytes: Mapped[int] = mapped_column(server_default=text("0"))


class Attempt(_Consumed, Base):
    """One execution of a slice, with what it consumed."""

    __tablename__ = "attempts"
    slice_id: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project()
    worker_id: Mapped[int | None]
    outcome: Mapped[str | None]  #: None while it runs
    cause: Mapped[str | None]  #: of an attempt that was lost or failed through no fault of its trial (`Cause`)
    message: Mapped[str] = mapped_column(server_default="")
    predicted_seconds: Mapped[float | None]  #: device seconds that it was expected to take when it was dispatched
    started_at: Mapped[datetime] = _now()
    finished_at: Mapped[datetime | None]
    predicted_memory_bytes: Mapped[int | None]
    energy_joules: Mapped[float | None]
    devices: Mapped[int] = mapped_column(server_default=text("1"))
    peak_flops_per_second: Mapped[float | None]  #: of one device, dense, at the trial's dtype
    device: Mapped[str] = mapped_column(server_default="")
    dtype: Mapped[str] = mapped_column(server_default="")
    attention: Mapped[str] = mapped_column(server_default="")
    micro_batch: Mapped[int | None]

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "slice_id"], ["hpo.slices.project_id", "hpo.slices.id"]),
        Index("ix_attempts_project_id_finished_at", "project_id", "finished_at"),
    )


class StudyUsage(_Consumed, Base):
    """What the attempts of a study that have ended consumed, added up as each ends; no row before the first.

    `unknown_energies` and `unknown_peaks` count attempts that took time and do not know their part of the sum.
    """

    __tablename__ = "study_usage"
    study_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[int] = _project()
    unknown_energies: Mapped[int] = mapped_column(server_default=text("0"))
    unknown_peaks: Mapped[int] = mapped_column(server_default=text("0"))
    device_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    energy_joules: Mapped[float] = mapped_column(server_default=text("0"))
    available_flops: Mapped[float] = mapped_column(server_default=text("0"))

    __table_args__ = (ForeignKeyConstraint(["project_id", "study_id"], ["hpo.studies.project_id", "hpo.studies.id"]),)


class Job(Base):
    """Work on a worker that is not a trial, and its report. `state`: waiting (no attempt runs), running, done, failed.

    Ids come from the sequence of the slices, so that fencing tokens never collide. The newest job of a fingerprint
    answers for all that is asked with this fingerprint, unless it failed. `snapshots`, `progress` are of a training.
    """

    __tablename__ = "jobs"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[int] = _project()
    study_id: Mapped[int | None]  #: the study that asked first, if one did
    delivery_id: Mapped[int | None]  #: the delivery that it is a step of
    kind: Mapped[str]
    task: Mapped[dict[str, Any]]
    fingerprint: Mapped[str]
    state: Mapped[str]
    attempt: Mapped[int] = mapped_column(server_default=text("0"))  #: the current one; older ones are stale
    failures: Mapped[int] = mapped_column(server_default=text("0"))  #: attempts lost to dead workers, infra errors
    failures_by_cause: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    outcome: Mapped[str | None]  #: of the last attempt that ended
    message: Mapped[str] = mapped_column(server_default="")
    report: Mapped[dict[str, Any] | None]
    snapshots: Mapped[list[Any]] = mapped_column(server_default=text("'[]'::jsonb"))  #: SnapshotRef, newest first
    progress: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))  #: the last sign of life
    worker_id: Mapped[int | None]
    seconds: Mapped[float] = mapped_column(server_default=text("0"))  #: of all attempts
    cost_usd: Mapped[float] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = _now()
    started_at: Mapped[datetime | None]  #: of the current attempt
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "study_id"], ["hpo.studies.project_id", "hpo.studies.id"]),
        ForeignKeyConstraint(["project_id", "delivery_id"], ["hpo.deliveries.project_id", "hpo.deliveries.id"]),
        Index("ix_jobs_delivery_id", "delivery_id"),
        Index("ix_jobs_project_id_kind_fingerprint", "project_id", "kind", "fingerprint"),
        Index("ix_jobs_open", "id", postgresql_where=text("state IN ('waiting', 'running')")),
    )


class Worker(Base):
    """A worker process group. `state`: ready, draining, quarantined, gone.

    A quarantined worker's `places` (a device each, `node/device`) take no work until it is released.
    """

    __tablename__ = "workers"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project()
    executor: Mapped[str]
    name: Mapped[str]
    state: Mapped[str]
    node: Mapped[str] = mapped_column(server_default="")
    places: Mapped[list[Any]] = mapped_column(server_default=text("'[]'::jsonb"))
    device: Mapped[str] = mapped_column(server_default="")
    software: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    auto_dtype: Mapped[str] = mapped_column(server_default="")  #: what `model.dtype: auto` is there
    repeatable: Mapped[bool | None]  #: whether a step that it took twice gave the same bits; None: none was
    epoch: Mapped[int]  #: of the dispatcher that started it
    started_at: Mapped[datetime] = _now()
    gone_at: Mapped[datetime | None]
    message: Mapped[str] = mapped_column(server_default="")


class Event(Base):
    """What happened, written by the dispatcher only, so that ids commit in order."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project()
    study_id: Mapped[int | None]  #: None: of the service, not of one study
    trial_number: Mapped[int | None]
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = _now()

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "study_id"], ["hpo.studies.project_id", "hpo.studies.id"]),
        Index("ix_events_study_id_id", "study_id", "id"),
        Index(
            "ix_events_expected_improvement",
            "study_id",
            "id",
            postgresql_where=text("kind = 'slice.started' AND payload['numbers'] ? 'expected_improvement'"),
        ),
    )


class OutboxCursor(Base):
    """How far a sink has told the events: up to `last_event_id`, in order.

    `identity` is what a receiver knows this outbox by, among others with the same numbers.
    """

    __tablename__ = "outbox_cursors"
    sink: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project()
    identity: Mapped[str] = mapped_column(server_default=text("(gen_random_uuid())::text"))
    last_event_id: Mapped[int]
    results: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))  #: of tries, by their end
    moved_at: Mapped[datetime] = _now()


class ApiKey(Base):
    """A key `hpo_key_<id>_<secret>`; only the SHA-256 of the secret is kept (256 random bits need no slow hash).

    That of a person who logs in with an identity provider has a `subject` and no secret: browser sessions use it.
    """

    __tablename__ = "api_keys"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project()
    label: Mapped[str]
    secret_sha256: Mapped[str]
    subject: Mapped[str | None]  #: SHA-256 of who it is, and at which provider
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime] = _now()
    expires_at: Mapped[datetime | None]  #: None: never
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]  #: to the minute

    __table_args__ = (UniqueConstraint("project_id", "subject"),)


class BrowserToken(Base):
    """A one-time login link or a browser session. `kind`: login, session."""

    __tablename__ = "browser_tokens"
    token_sha256: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project()
    kind: Mapped[str]
    api_key_id: Mapped[int] = mapped_column(ForeignKey("hpo.api_keys.id"))
    created_at: Mapped[datetime] = _now()
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class IdempotencyKey(Base):
    """A remembered answer: the same key with the same body gets it again."""

    __tablename__ = "idempotency_keys"
    project_id: Mapped[int] = mapped_column(ForeignKey("hpo.projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    status: Mapped[int]
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = _now()


class Lease(Base):
    """Who leads. `epoch` grows with every change of holder; every write of a dispatcher checks it."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project()
    holder: Mapped[str]
    epoch: Mapped[int]
    expires_at: Mapped[datetime]
