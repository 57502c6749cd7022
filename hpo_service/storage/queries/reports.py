"""What a report needs of all trials and attempts of a study, summed in the database however many there are."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

_POINTS = text(
    """
    SELECT t.number, t.state::text AS state, coalesce(a.value_json = '"paused"', false) AS paused,
           coalesce(last.step, 0) AS examples, last.loss
      FROM optuna.trials t
      LEFT JOIN optuna.trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'hpo_state'
      LEFT JOIN LATERAL (SELECT i.step, CASE WHEN i.intermediate_value_type = 'FINITE'
                                             THEN i.intermediate_value END AS loss
                           FROM optuna.trial_intermediate_values i WHERE i.trial_id = t.trial_id
                          ORDER BY i.step DESC LIMIT 1) AS last ON true
     WHERE t.study_id = :study
     ORDER BY t.number
    """
)
_FAILED_TRIALS = text(
    """
    SELECT coalesce(o.value_json::jsonb #>> '{}', 'unknown') AS outcome, count(*) AS trials, min(t.number) AS first,
           (array_agg(coalesce(m.value_json::jsonb #>> '{}', '') ORDER BY t.number))[1] AS message
      FROM optuna.trials t
      LEFT JOIN optuna.trial_user_attributes o ON o.trial_id = t.trial_id AND o.key = 'outcome'
      LEFT JOIN optuna.trial_user_attributes m ON m.trial_id = t.trial_id AND m.key = 'message'
     WHERE t.study_id = :study AND t.state = 'FAIL'
     GROUP BY outcome
     ORDER BY trials DESC, outcome
    """
)
_BAD_ATTEMPTS = text(
    """
    SELECT a.outcome, coalesce(a.cause, '') AS cause, count(*) AS attempts, coalesce(sum(a.cost_usd), 0) AS usd,
           coalesce(sum((a.load_seconds + a.data_seconds + a.train_seconds + a.evaluate_seconds + a.snapshot_seconds
                         + a.lost_seconds) * a.devices), 0) AS seconds
      FROM hpo.slices s
      JOIN hpo.attempts a ON a.slice_id = s.id AND a.project_id = s.project_id
     WHERE s.project_id = :project AND s.study_id = :study AND a.outcome <> 'done'
     GROUP BY a.outcome, a.cause
     ORDER BY attempts DESC, a.outcome, cause
    """
)
# A trial's speed is that of its own training, waiting for batches included: evaluations would come on top.
_SAVED = text(
    """
    WITH stopped AS (
      SELECT t.number, greatest(0, total.value_json::bigint - coalesce((SELECT max(i.step)
                                                                          FROM optuna.trial_intermediate_values i
                                                                         WHERE i.trial_id = t.trial_id), 0)) AS examples
        FROM optuna.trials t
        JOIN optuna.trial_user_attributes total ON total.trial_id = t.trial_id AND total.key = 'total_examples'
        LEFT JOIN optuna.trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'hpo_state'
       WHERE t.study_id = :optuna_study
         AND (t.state = 'PRUNED' OR t.state = 'RUNNING' AND a.value_json = '"paused"')),
    speed AS (
      SELECT s.trial_number AS number, sum((a.train_seconds + a.data_seconds) * a.devices) / sum(a.examples) AS seconds
        FROM hpo.slices s
        JOIN hpo.attempts a ON a.slice_id = s.id AND a.project_id = s.project_id
       WHERE s.project_id = :project AND s.study_id = :study
       GROUP BY s.trial_number
      HAVING sum(a.examples) > 0 AND sum(a.train_seconds) > 0)
    SELECT count(*) AS trials, coalesce(sum(stopped.examples), 0) AS examples,
           count(*) FILTER (WHERE speed.seconds IS NULL) AS unmeasured,
           coalesce(sum(stopped.examples * speed.seconds), 0) AS seconds
      FROM stopped LEFT JOIN speed USING (number)
     WHERE stopped.examples > 0
    """
)
_TIMELINE = text(
    """
    WITH held AS (
      SELECT w.name, w.node, extract(epoch FROM a.started_at) AS began,
             extract(epoch FROM coalesce(a.finished_at, clock_timestamp())) AS ended,
             CASE WHEN a.outcome IS NULL THEN 'running' WHEN a.outcome IN ('done', 'preempted') THEN a.outcome
                  ELSE 'failed' END AS kind
        FROM hpo.slices s
        JOIN hpo.attempts a ON a.slice_id = s.id AND a.project_id = s.project_id
        JOIN hpo.workers w ON w.id = a.worker_id
       WHERE s.project_id = :project AND s.study_id = :study),
    span AS (SELECT min(began) AS low, greatest(max(ended) - min(began), 1e-3) AS seconds FROM held)
    SELECT name, node, kind, count(*) AS attempts, min(began)::float AS began, max(ended)::float AS ended,
           sum(ended - began)::float AS seconds
      FROM held, span
     GROUP BY name, node, kind, floor((began - low) / seconds * :bins)
     ORDER BY name, node, began
    """
)
_SURROUNDINGS = text(
    """
    SELECT a.device, a.devices, a.dtype, a.attention, w.repeatable, coalesce(w.software, '{}'::jsonb) AS software,
           count(*) AS attempts
      FROM hpo.slices s
      JOIN hpo.attempts a ON a.slice_id = s.id AND a.project_id = s.project_id
      LEFT JOIN hpo.workers w ON w.id = a.worker_id
     WHERE s.project_id = :project AND s.study_id = :study AND a.outcome = 'done'
     GROUP BY a.device, a.devices, a.dtype, a.attention, w.repeatable, w.software
     ORDER BY attempts DESC
     LIMIT 20
    """
)


@dataclass(frozen=True, kw_only=True)
class TrialPoint:
    """A trial at its last rung. `loss` is None before the first one, and if it was not finite."""

    number: int
    state: str
    paused: bool
    examples: int
    loss: float | None


@dataclass(frozen=True, kw_only=True)
class FailedTrials:
    """Trials that failed in one way; `first` is the lowest number among them, with its message."""

    outcome: str
    trials: int
    first: int
    message: str


@dataclass(frozen=True, kw_only=True)
class BadAttempts:
    """Attempts that ended in one way other than done, and the device seconds that they took."""

    outcome: str
    cause: str
    attempts: int
    seconds: float
    usd: float


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What trials that were pruned or are paused did not train.

    `seconds` are device seconds at each trial's own measured speed; `unmeasured` trials had none and count as 0.
    """

    trials: int
    examples: int
    unmeasured: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Attempts of one kind that began close together on a worker. Times are UTC; `seconds` they took in all."""

    worker: str
    node: str
    kind: str
    attempts: int
    began: datetime
    ended: datetime
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What attempts that ended well ran on."""

    device: str
    devices: int
    dtype: str
    attention: str
    repeatable: bool | None
    software: Mapping[str, Any]
    attempts: int


def trial_points(connection: Connection, optuna_study_id: int) -> list[TrialPoint]:
    """Every trial by number, lean."""
    rows = connection.execute(_POINTS, {"study": optuna_study_id}).mappings()
    return [TrialPoint(**row) for row in rows]


def failed_trials(connection: Connection, optuna_study_id: int) -> list[FailedTrials]:
    """By outcome, the most frequent first."""
    return [FailedTrials(**row) for row in connection.execute(_FAILED_TRIALS, {"study": optuna_study_id}).mappings()]


def bad_attempts(session: Session, project_id: int, study_id: int) -> list[BadAttempts]:
    """By outcome and cause, the most frequent first."""
    rows = session.execute(_BAD_ATTEMPTS, {"project": project_id, "study": study_id}).mappings()
    return [BadAttempts(**row) for row in rows]


def saved(session: Session, project_id: int, study_id: int, optuna_study_id: int) -> Saved:
    """Against training the same trials to their end."""
    ids = {"project": project_id, "study": study_id, "optuna_study": optuna_study_id}
    row = session.execute(_SAVED, ids).one()
    return Saved(trials=row.trials, examples=int(row.examples), unmeasured=row.unmeasured, seconds=float(row.seconds))


def timeline(session: Session, project_id: int, study_id: int, *, bins: int) -> list[Stretch]:
    """By worker and time. What begins in the same of `bins` equal parts of the study's time is one stretch."""
    rows = session.execute(_TIMELINE, {"project": project_id, "study": study_id, "bins": bins})
    return [
        Stretch(
            worker=row.name,
            node=row.node,
            kind=row.kind,
            attempts=row.attempts,
            began=datetime.fromtimestamp(row.began, UTC),
            ended=datetime.fromtimestamp(row.ended, UTC),
            seconds=row.seconds,
        )
        for row in rows
    ]


def surroundings(session: Session, project_id: int, study_id: int) -> list[Surroundings]:
    """Devices and software, the most used first, at most twenty."""
    rows = session.execute(_SURROUNDINGS, {"project": project_id, "study": study_id}).mappings()
    return [Surroundings(**row) for row in rows]
