"""What belongs to a project, what it may use, and what it uses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Row, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hpo_service.core.study_rules import TERMINAL
from hpo_service.storage.tables import ProjectQuota, Study

_ENDED = [str(state) for state in TERMINAL]
#: studies that confirm another one are a part of it; a training counts once it has ended, with all of its attempts
STANDINGS = text(
    """
    SELECT p.id AS project_id, p.name AS project,
           q.parallel_gpus, q.gpu_hours_month, q.studies, q.stored_bytes, q.used_bytes,
           (SELECT count(*) FROM hpo.studies s
             WHERE s.project_id = p.id AND s.deleted_at IS NULL AND s.parent_study_id IS NULL
               AND NOT s.state = ANY(:ended)) AS used_studies,
           (SELECT coalesce(sum(c.held * (s.resolved -> 'resources' ->> 'gpus_per_trial')::int), 0)
              FROM (SELECT study_id, count(*) AS held FROM hpo.slices
                     WHERE project_id = p.id AND state = 'running' GROUP BY study_id) c
              JOIN hpo.studies s ON s.id = c.study_id)
           + (SELECT coalesce(sum(coalesce((j.task -> 'trial' -> 'training' ->> 'ranks')::int, 1)), 0)
                FROM hpo.jobs j WHERE j.project_id = p.id AND j.state = 'running' AND j.kind = 'train_final')
           AS used_devices,
           (SELECT coalesce(sum((a.load_seconds + a.data_seconds + a.train_seconds + a.evaluate_seconds
                                 + a.snapshot_seconds + a.lost_seconds) * a.devices), 0)
              FROM hpo.attempts a
             WHERE a.project_id = p.id AND a.finished_at >= date_trunc('month', clock_timestamp(), 'UTC'))
           + (SELECT coalesce(sum(j.seconds), 0) FROM hpo.jobs j
               WHERE j.project_id = p.id AND j.kind = 'train_final'
                 AND j.finished_at >= date_trunc('month', clock_timestamp(), 'UTC'))
           AS used_seconds
      FROM hpo.projects p LEFT JOIN hpo.project_quotas q ON q.project_id = p.id
     WHERE (CAST(:project AS bigint) IS NULL OR p.id = :project)
       AND (NOT :limited OR q.parallel_gpus IS NOT NULL OR q.gpu_hours_month IS NOT NULL
            OR q.studies IS NOT NULL OR q.stored_bytes IS NOT NULL)
     ORDER BY p.id
    """
)
_NOTE_STORED = text(
    """
    INSERT INTO hpo.project_quotas (project_id, used_bytes)
    SELECT p.id, coalesce(sum(stored.size_bytes), 0)
      FROM hpo.projects p
      LEFT JOIN hpo.studies s ON s.project_id = p.id
      LEFT JOIN unnest(CAST(:studies AS bigint[]), CAST(:sizes AS bigint[])) AS stored(study_id, size_bytes)
             ON stored.study_id = s.id
     GROUP BY p.id
    ON CONFLICT (project_id) DO UPDATE SET used_bytes = excluded.used_bytes
    """
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a project may use at most; None: as much as there is."""

    parallel_gpus: int | None = None
    gpu_hours_month: float | None = None  #: of a calendar month, UTC
    studies: int | None = None  #: that have not ended
    stored_bytes: int | None = None  #: of snapshots


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A project, its limits, and what it uses of each. `stored_bytes` is None before anybody looked."""

    project_id: int
    project: str
    limits: Limits
    devices: int
    device_seconds_month: float
    studies: int
    stored_bytes: int | None


def optuna_study_ids(session: Session, project_id: int) -> Sequence[int]:
    """The project's studies by their ids in Optuna's tables; those that are not deleted and were opened."""
    query = select(Study.optuna_study_id).where(
        Study.project_id == project_id, Study.deleted_at.is_(None), Study.optuna_study_id.is_not(None)
    )
    return [number for number in session.scalars(query) if number is not None]


def find_quota(session: Session, project_id: int, *, lock: bool = False) -> ProjectQuota | None:
    """The project's limits and stored bytes. With `lock`, those who ask wait for each other in their transactions."""
    query = select(ProjectQuota).where(ProjectQuota.project_id == project_id)
    return session.scalars(query.with_for_update() if lock else query).one_or_none()


def open_studies(session: Session, project_id: int) -> int:
    """How many studies of the project have not ended; those that confirm another one are a part of it."""
    query = select(func.count()).where(
        Study.project_id == project_id,
        Study.deleted_at.is_(None),
        Study.parent_study_id.is_(None),
        Study.state.not_in(_ENDED),
    )
    return session.execute(query).scalar_one()


def set_limits(session: Session, project_id: int, limits: Mapping[str, float | None]) -> None:
    """Change those that are named."""
    values = {"project_id": project_id, **limits}
    added = insert(ProjectQuota).values(values)
    session.execute(added.on_conflict_do_update(index_elements=["project_id"], set_=values))


def note_stored(session: Session, size_bytes: Mapping[int, int]) -> None:
    """What the snapshots of every project take, from those of its studies."""
    known = {study_id: size for study_id, size in size_bytes.items() if study_id < 2**63}
    session.execute(_NOTE_STORED, {"studies": list(known), "sizes": list(known.values())})


def standing(session: Session, project_id: int) -> Standing:
    """What the project may use, and uses now."""
    return _standing(session.execute(STANDINGS, _asked(project_id)).one())


def standings(session: Session, *, limited: bool = False) -> list[Standing]:
    """The same of every project, the oldest first; with `limited`, of those that have a limit."""
    return [_standing(row) for row in session.execute(STANDINGS, _asked(None, limited=limited))]


def _asked(project_id: int | None, *, limited: bool = False) -> dict[str, object]:
    return {"project": project_id, "limited": limited, "ended": _ENDED}


def _standing(row: Row[tuple[object, ...]]) -> Standing:
    return Standing(
        project_id=row.project_id,
        project=row.project,
        limits=Limits(
            parallel_gpus=row.parallel_gpus,
            gpu_hours_month=row.gpu_hours_month,
            studies=row.studies,
            stored_bytes=row.stored_bytes,
        ),
        devices=int(row.used_devices),
        device_seconds_month=float(row.used_seconds),
        studies=row.used_studies,
        stored_bytes=row.used_bytes,
    )
