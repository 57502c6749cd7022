"""What is counted for operators, of all projects: a fixed number of statements, however many studies there are.

Totals are aggregated in the database. Events are read once each, after a cursor.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

from hpo_service.core.study_rules import TERMINAL
from hpo_service.storage.queries import tenants

#: the most studies that are told of one by one, and events that are read at once
MOST_STUDIES = 50
MOST_EVENTS = 20_000
#: workers beyond these are counted, but not told of one by one
MOST_WORKERS = 1_000
_LONGEST = timedelta(seconds=5)
_ENDED = [str(state) for state in TERMINAL]

_STUDIES = text(
    "SELECT state, count(*) AS studies FROM hpo.studies WHERE deleted_at IS NULL AND parent_study_id IS NULL GROUP BY 1"
)
_TRIALS = text(
    """
    SELECT lower(t.state::text) AS state, count(*) AS trials
      FROM optuna.trials t JOIN hpo.studies s ON s.optuna_study_id = t.study_id
     GROUP BY 1
    """
)
#: only of studies that live: a paused trial of an ended study is pruned
_PAUSED = text(
    """
    SELECT count(*)
      FROM hpo.studies s
      JOIN optuna.trials t ON t.study_id = s.optuna_study_id AND t.state = 'RUNNING'
      JOIN optuna.trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'hpo_state'
     WHERE s.deleted_at IS NULL AND NOT s.state = ANY(:ended) AND a.value_json = '"paused"'
    """
)
_OPEN = text(
    """
    SELECT 'slices' AS what, state, count(*) AS number, 0::float AS age_seconds
      FROM hpo.slices WHERE state IN ('waiting', 'running') GROUP BY 2
    UNION ALL
    SELECT 'jobs', state, count(*), 0 FROM hpo.jobs WHERE state IN ('waiting', 'running') GROUP BY 2
    UNION ALL
    SELECT 'intents', 'open', count(*),
           coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float
      FROM hpo.intents WHERE done_at IS NULL
    """
)
_WORKERS = text(
    """
    SELECT w.name, w.executor, w.state, count(*) OVER (PARTITION BY w.executor, w.state) AS alike, h.heard_at
      FROM hpo.workers w
      LEFT JOIN (SELECT a.worker_id, extract(epoch FROM max(coalesce(s.heard_at, a.started_at)))::float AS heard_at
                   FROM hpo.slices s JOIN hpo.attempts a ON a.slice_id = s.id AND a.attempt = s.attempt
                  WHERE s.state = 'running' GROUP BY 1) h ON h.worker_id = w.id
     WHERE w.state <> 'gone' ORDER BY w.id DESC LIMIT :most
    """
)
_LEADER = text(
    "SELECT epoch, expires_at > clock_timestamp() AS leads, extract(epoch FROM expires_at)::float AS expires_at"
    "  FROM hpo.leases WHERE name = 'dispatcher'"
)
_ATTEMPTS = text(
    """
    SELECT coalesce(nullif(device, ''), 'unknown') AS gpu_model, outcome, coalesce(cause, '') AS cause,
           count(*) AS attempts, sum(tokens)::float AS tokens, sum(cost_usd) AS usd,
           sum((load_seconds + data_seconds + train_seconds + evaluate_seconds + snapshot_seconds + lost_seconds)
               * devices) AS seconds,
           coalesce(sum(energy_joules), 0) AS joules,
           sum(train_flops) FILTER (WHERE recent) AS flops,
           sum((train_seconds + data_seconds) * devices * peak_flops_per_second) FILTER (WHERE recent)
               AS available_flops
      FROM (SELECT *, peak_flops_per_second IS NOT NULL
                      AND finished_at > clock_timestamp() - interval '1 hour' AS recent
              FROM hpo.attempts WHERE outcome IS NOT NULL) a
     GROUP BY 1, 2, 3
    """
)
_LIVE = text(
    """
    WITH live AS (
        SELECT s.id, p.name AS project, s.name AS study, s.optuna_study_id, s.resolved -> 'budget' AS budget
          FROM hpo.studies s JOIN hpo.projects p ON p.id = s.project_id
         WHERE s.deleted_at IS NULL AND s.parent_study_id IS NULL AND NOT s.state = ANY(:ended)
         ORDER BY s.id DESC LIMIT :most)
    SELECT live.project, live.study, live.budget,
           (SELECT count(*) FROM optuna.trials t WHERE t.study_id = live.optuna_study_id) AS trials,
           (SELECT min(v.value) FROM optuna.trials t JOIN optuna.trial_values v ON v.trial_id = t.trial_id
             WHERE t.study_id = live.optuna_study_id AND t.state = 'COMPLETE' AND v.objective = 0
               AND v.value_type = 'FINITE') AS best,
           coalesce(u.examples, 0) AS examples, coalesce(u.cost_usd, 0) AS usd,
           coalesce(u.device_seconds, 0) AS seconds
      FROM live LEFT JOIN hpo.study_usage u ON u.study_id = live.id
    """
)
_OUTBOX = text(
    """
    SELECT sink, results, greatest(0, (SELECT coalesce(max(id), 0) FROM hpo.events) - last_event_id) AS waiting
      FROM hpo.outbox_cursors ORDER BY sink
    """
)
_LAST_EVENT = text("SELECT coalesce(max(id), 0) FROM hpo.events")
_EVENTS = text(
    """
    SELECT e.id, e.kind, e.payload ->> 'outcome' AS outcome, e.payload ->> 'cause' AS cause,
           CASE WHEN e.kind IN ('trial.completed', 'trial.pruned', 'trial.failed') THEN
                (SELECT extract(epoch FROM e.created_at - min(s.created_at))::float FROM hpo.slices s
                  WHERE s.study_id = e.study_id AND s.trial_number = e.trial_number) END AS seconds,
           (e.payload ->> 'ask_seconds')::float AS ask_seconds,
           CASE WHEN e.kind = 'slice.started' THEN extract(epoch FROM e.created_at - coalesce(
                (SELECT a.finished_at FROM hpo.attempts a
                  WHERE a.slice_id = (e.payload ->> 'slice_id')::bigint
                    AND a.attempt = (e.payload ->> 'attempt')::int - 1),
                (SELECT s.created_at FROM hpo.studies s
                  WHERE s.id = e.study_id AND e.payload ->> 'decision_number' = '1')))::float END AS queue_seconds
      FROM (SELECT * FROM hpo.events WHERE id > :after ORDER BY id LIMIT :most) e
     ORDER BY e.id
    """
)


class Figures:
    """One look at the database, in one consistent picture that takes 5 s a statement at most."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        milliseconds = round(_LONGEST.total_seconds() * 1000)
        connection.execute(text(f"SET LOCAL statement_timeout = {milliseconds}"))

    def studies(self) -> dict[str, int]:
        """Studies that are not deleted, by state; confirmations are not counted."""
        return {row.state: row.studies for row in self._rows(_STUDIES)}

    def trials(self) -> dict[str, int]:
        """Trials of studies that are not deleted, by Optuna's state, those that are paused apart."""
        found = {row.state: row.trials for row in self._rows(_TRIALS)}
        paused = self._connection.execute(_PAUSED, {"ended": _ENDED}).scalar_one()
        return found | {"paused": paused, "running": found.get("running", 0) - paused}

    def open_work(self) -> Sequence[Row[Any]]:
        """Slices and jobs that wait or run, and intents that nobody has carried out, with the oldest one's age."""
        return self._rows(_OPEN)

    def workers(self) -> Sequence[Row[Any]]:
        """The newest workers that are not gone, and how many there are of the same executor and state."""
        return self._rows(_WORKERS, most=MOST_WORKERS)

    def leader(self) -> Row[Any] | None:
        """The dispatcher's lease; None before the first one."""
        return self._connection.execute(_LEADER).one_or_none()

    def attempts(self) -> Sequence[Row[Any]]:
        """What the attempts that ended consumed, by device, outcome and cause; FLOPs are those of the last hour."""
        return self._rows(_ATTEMPTS)

    def live_studies(self) -> Sequence[Row[Any]]:
        """The newest studies that have not ended: best loss, budget, what is spent of it."""
        return self._rows(_LIVE, ended=_ENDED, most=MOST_STUDIES)

    def standings(self) -> Sequence[Row[Any]]:
        """Projects that have a limit: what each may use, and uses."""
        return self._rows(tenants.STANDINGS, project=None, limited=True, ended=_ENDED)

    def outbox(self) -> Sequence[Row[Any]]:
        """Sinks, what became of their notices, how many events each has yet to be told, gaps between ids as well."""
        return self._rows(_OUTBOX)

    def last_event(self) -> int:
        """Id of the newest event, 0 if there is none."""
        return int(self._connection.execute(_LAST_EVENT).scalar_one())

    def events_after(self, event_id: int) -> Sequence[Row[Any]]:
        """The next events, in order; ids commit in order, so that none is missed."""
        return self._rows(_EVENTS, after=event_id, most=MOST_EVENTS)

    def _rows(self, statement: Any, **values: object) -> Sequence[Row[Any]]:  # noqa: ANN401
        return self._connection.execute(statement, values).all()
