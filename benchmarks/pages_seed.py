"""A study as it is after days: ten thousand trials, ten losses each, with every slice, attempt and event of theirs."""

import random

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from benchmarks.dispatch import EXAMPLES_A_RUNG, NAME, RUNGS, study_spec
from hpo_service.spec.space import SearchSpace
from hpo_service.spec.trial_parameters import fixed_attributes
from hpo_service.storage.database import session_factory
from hpo_service.storage.optuna import StudyStorage
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Attempt, Study, StudyUsage

_SLICES = text(
    """
    INSERT INTO hpo.slices (project_id, study_id, optuna_trial_id, trial_number, until_examples, state, attempt)
    SELECT :project, :study, t.trial_id, t.number, rung * :examples,
           CASE WHEN rung = :rungs AND t.number >= :trials - :running THEN 'running' ELSE 'done' END, 1
      FROM optuna.trials t CROSS JOIN generate_series(1, :rungs) AS rung
     WHERE t.study_id = :optuna ORDER BY rung, t.number
    """
)
_ATTEMPTS = text(
    """
    INSERT INTO hpo.attempts (slice_id, attempt, project_id, worker_id, outcome, finished_at, examples, steps, tokens,
                              flops, train_flops, train_seconds, evaluate_seconds, cost_usd, peak_memory_bytes,
                              energy_joules, peak_flops_per_second)
    SELECT id, 1, project_id, :worker, 'done', now(), 100, 10, 10000, 1e12, 9e11, 10, 1, 0.01, 1000000000, 3000, 1e14
      FROM hpo.slices WHERE study_id = :study AND state = 'done'
     UNION ALL
    SELECT id, 1, project_id, :worker, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL
      FROM hpo.slices WHERE study_id = :study AND state = 'running'
    """
)
_EVENTS = text(
    """
    INSERT INTO hpo.events (project_id, study_id, trial_number, kind, payload)
    SELECT s.project_id, s.study_id, s.trial_number, kind.name,
           CASE kind.name
           WHEN 'slice.started' THEN jsonb_build_object('slice_id', s.id, 'attempt', 1, 'reason', 'a new trial',
                'until_examples', s.until_examples, 'parameters', p.sampled, 'worker', 'seed',
                'decision_number', s.id, 'numbers', '{}'::jsonb)
           WHEN 'trial.reported' THEN jsonb_build_object('examples', s.until_examples, 'loss', 2.0, 'seconds', 11.0)
           ELSE jsonb_build_object('reason', 'it waits on its rung', 'loss', 2.0) END
      FROM hpo.slices s
     CROSS JOIN LATERAL (
        SELECT jsonb_object_agg(param_name, param_value) AS sampled
          FROM optuna.trial_params WHERE trial_id = s.optuna_trial_id
     ) AS p
     CROSS JOIN (VALUES (1, 'slice.started'), (2, 'trial.reported'), (3, 'trial.paused')) AS kind (place, name)
     WHERE s.study_id = :study AND (s.state = 'done' OR kind.place = 1)
     ORDER BY s.id, kind.place
    """
)
_WORKER = text(
    """
    INSERT INTO hpo.workers (project_id, executor, name, state, epoch) VALUES (:project, 'fake', 'seed', 'ready', 0)
    RETURNING id
    """
)


def seed(engine: Engine, trials: int, running: int) -> None:
    """Four in ten trials complete, four pruned, the rest paused but the last `running` ones, which run."""
    document, resolved = study_spec("asha", "random", 2 * trials, running)
    with session_factory(engine).begin() as session:
        optuna_id = _trials(session, resolved.search_space(), trials, running)
        study = Study(
            project_id=DEFAULT_PROJECT_ID,
            name=NAME,
            spec=document,
            resolved=resolved.model_dump(mode="json"),
            state="running",
            optuna_study_id=optuna_id,
        )
        session.add(study)
        session.flush()
        connection = session.connection()
        worker = connection.execute(_WORKER, {"project": DEFAULT_PROJECT_ID}).scalar_one()
        known = {"project": DEFAULT_PROJECT_ID, "study": study.id, "optuna": optuna_id, "worker": worker}
        known |= {"trials": trials, "running": running, "rungs": RUNGS, "examples": EXAMPLES_A_RUNG}
        for statement in (_SLICES, _ATTEMPTS, _EVENTS):
            connection.execute(statement, known)
        _add_up(connection, study.id)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as plain:
        plain.execute(text("ANALYZE"))


def _trials(session: Session, space: SearchSpace, trials: int, running: int) -> int:
    """Optuna's part; returns Optuna's id of the study."""
    source = random.Random(0)
    distributions = space.distributions()
    connection = session.connection()
    with StudyStorage.load(connection, []).changes(connection) as storage:
        study_id = storage.create_new_study([StudyDirection.MINIMIZE], NAME)
        for number in range(trials):
            point = space.sample(lambda name: space.spread(name, source.random()))
            runs = number >= trials - running
            losses = {
                EXAMPLES_A_RUNG * (rung + 1): source.uniform(2, 3) + 1 / (rung + 1) for rung in range(RUNGS - runs)
            }
            trial = _trial(number, losses, runs=runs)
            trial.params = dict(point.sampled)
            trial.distributions = {key: distributions[key] for key in point.sampled}
            trial.user_attrs |= fixed_attributes(point)
            storage.create_new_trial(study_id, trial)
    return study_id


def _trial(number: int, losses: dict[int, float], *, runs: bool) -> FrozenTrial:
    kind = number % 10
    state = TrialState.RUNNING if runs or kind >= 8 else TrialState.COMPLETE if kind < 4 else TrialState.PRUNED
    standing = "running" if runs else "paused" if state is TrialState.RUNNING else "ended"
    return create_trial(
        state=state,
        value=None if state is TrialState.RUNNING else losses[max(losses)],
        user_attrs={
            "hpo_state": standing,
            "total_examples": (RUNGS + 1) * EXAMPLES_A_RUNG,
            "baseline": number == 0,
            "seconds": 110.0,
            "examples": len(losses) * EXAMPLES_A_RUNG,
            "cost_usd": 0.1,
        },
        intermediate_values=losses,
    )


def _add_up(connection: Connection, study_id: int) -> None:
    """The sums of the attempts: each used the same."""
    names = [column.name for column in StudyUsage.__table__.c if column.name in Attempt.__table__.c]
    sums = ", ".join(f"sum({name})" for name in names if name != "project_id")
    kept = ", ".join(name for name in names if name != "project_id")
    connection.execute(
        text(
            f"INSERT INTO hpo.study_usage (study_id, project_id, device_seconds, available_flops, {kept}) "
            f"SELECT :study, min(project_id), sum(train_seconds + evaluate_seconds), sum(train_seconds) * 1e14, {sums} "
            "FROM hpo.attempts WHERE slice_id IN (SELECT id FROM hpo.slices WHERE study_id = :study)"
        ),
        {"study": study_id},
    )
