"""The invariants I1 to I14, restated for slices and attempts, as questions to the database with nothing as the answer.

Each query finds what breaks its sentence. All of them hold at every moment, since everything that belongs together is
one transaction, except those that say what is so once nothing is left to do (`settled`). I5 and I11 are about requests
and asked by those who make some; I12 and what snapshots hold on disk are below; that a study ends unaided (I14) is
waited for.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from optuna.distributions import json_to_distribution
from sqlalchemy import text
from sqlalchemy.orm import Session

from hpo_service.core.study_rules import COUNTED_CAUSES, TERMINAL, Cause
from hpo_service.spec import ResolvedStudy
from trainer.spec import Outcome, Parameters, SnapshotRef

#: (parameters, seed, rung, examples at the trial's end) -> the loss that the rung must have
ExpectedLoss = Callable[[Parameters, int, int, int], float]


@dataclass(frozen=True, kw_only=True)
class Invariant:
    """`query` finds what breaks the sentence; `settled`: it holds only once every study has ended."""

    id: str
    sentence: str
    query: str
    settled: bool = False


def _quoted(values: Iterable[object]) -> str:
    return ", ".join(f"'{value}'" for value in sorted(map(str, values)))


_ENDED = f"({_quoted(TERMINAL)})"
_COUNTED = f"({_quoted(COUNTED_CAUSES)})"
_FINISHED = "('COMPLETE', 'PRUNED', 'FAIL')"
_ENDS = "('trial.completed', 'trial.pruned', 'trial.failed')"
#: studies that users see, with their trials, and one attribute of a trial
_TRIALS = """
    hpo.studies s JOIN optuna.trials t ON t.study_id = s.optuna_study_id AND s.deleted_at IS NULL
"""
_HPO_STATE = (
    "(SELECT value_json FROM optuna.trial_user_attributes a WHERE a.trial_id = t.trial_id AND key = 'hpo_state')"
)

INVARIANTS = (
    Invariant(
        id="I1",
        sentence="a study that has ended has no unfinished trial and no open slice",
        query=f"""
        SELECT s.id, t.number FROM {_TRIALS} WHERE s.state IN {_ENDED} AND t.state::text NOT IN {_FINISHED}
        UNION ALL SELECT s.id, p.trial_number FROM hpo.studies s JOIN hpo.slices p ON p.study_id = s.id
         WHERE s.state IN {_ENDED} AND p.state IN ('waiting', 'running')""",
    ),
    Invariant(
        id="I1",
        sentence="a trial has one event of its end if it is finished, of the right kind, and none before",
        query=f"""
        SELECT s.id, t.number, t.state, array_agg(e.kind) FROM {_TRIALS}
          LEFT JOIN hpo.events e ON e.study_id = s.id AND e.trial_number = t.number AND e.kind IN {_ENDS}
         GROUP BY s.id, t.number, t.state
        HAVING array_agg(e.kind) <> ARRAY[CASE t.state::text WHEN 'COMPLETE' THEN 'trial.completed'
               WHEN 'PRUNED' THEN 'trial.pruned' WHEN 'FAIL' THEN 'trial.failed' END]""",
    ),
    Invariant(
        id="I1",
        sentence="nothing happens to a trial after its end",
        query=f"""
        SELECT e.study_id, e.trial_number, e.id, l.kind FROM hpo.events e JOIN hpo.events l
            ON l.study_id = e.study_id AND l.trial_number = e.trial_number AND l.id > e.id
         WHERE e.kind IN {_ENDS} AND (l.kind LIKE 'slice.%' OR l.kind IN ('trial.reported', 'trial.paused'))""",
    ),
    Invariant(
        id="I1",
        sentence="a study ends once",
        query=f"""
        SELECT s.id, s.state, count(e.id) FROM hpo.studies s LEFT JOIN hpo.events e ON e.study_id = s.id
           AND e.kind = 'study.state' AND e.payload ->> 'state' IN {_ENDED}
         GROUP BY s.id HAVING count(e.id) <> (s.state IN {_ENDED})::int""",
    ),
    Invariant(
        id="I2",
        sentence="a slice runs exactly if its current attempt is open, and no other attempt is",
        query="""
        SELECT p.id, p.state, p.attempt, count(a.attempt) FROM hpo.slices p
          LEFT JOIN hpo.attempts a ON a.slice_id = p.id AND a.outcome IS NULL
         GROUP BY p.id HAVING count(a.attempt) <> (p.state = 'running')::int
            OR coalesce(max(a.attempt), p.attempt) <> p.attempt""",
    ),
    Invariant(
        id="I2",
        sentence="no open attempt is on a worker that is gone",
        query="""
        SELECT a.slice_id, a.attempt, w.name FROM hpo.attempts a JOIN hpo.workers w ON w.id = a.worker_id
         WHERE a.outcome IS NULL AND w.state = 'gone'""",
    ),
    Invariant(
        id="I2",
        sentence="a trial has at most one open slice, and is said to run exactly if that runs",
        query=f"""
        SELECT s.id, t.number, t.state, {_HPO_STATE}, array_agg(p.state) FROM {_TRIALS}
          LEFT JOIN hpo.slices p ON p.study_id = s.id AND p.trial_number = t.number
           AND p.state IN ('waiting', 'running')
         GROUP BY s.id, t.number, t.trial_id, t.state
        HAVING count(p.id) > 1 OR (t.state::text <> 'RUNNING' AND count(p.id) > 0)
            OR (t.state::text = 'RUNNING' AND coalesce({_HPO_STATE} = '"running"', false)
                <> coalesce(bool_or(p.state = 'running'), false) AND NOT coalesce(bool_or(p.state = 'waiting'), false))
        """,
    ),
    Invariant(
        id="I3",
        sentence="attempts are numbered without a gap and the slice knows the last one",
        query="""
        SELECT p.id, p.attempt, count(a.attempt), max(a.attempt) FROM hpo.slices p
          LEFT JOIN hpo.attempts a ON a.slice_id = p.id
         GROUP BY p.id HAVING count(a.attempt) <> p.attempt OR coalesce(max(a.attempt), 0) <> p.attempt""",
    ),
    Invariant(
        id="I3",
        sentence="a trial is at one place at a time: of its attempts the next begins after the last has ended",
        query="""
        SELECT * FROM (SELECT p.study_id, p.trial_number, a.slice_id, a.attempt, a.started_at,
            lag(coalesce(a.finished_at, 'infinity')) OVER (PARTITION BY p.study_id, p.trial_number
                ORDER BY a.started_at, a.slice_id, a.attempt) AS ended
          FROM hpo.attempts a JOIN hpo.slices p ON p.id = a.slice_id) before WHERE started_at < ended""",
    ),
    Invariant(
        id="I3",
        sentence="one attempt of a slice counts: it is done exactly if its last attempt is, and no other is",
        query="""
        SELECT p.id, p.state, a.attempt, a.outcome FROM hpo.slices p JOIN hpo.attempts a ON a.slice_id = p.id
         WHERE (a.outcome IS NOT DISTINCT FROM 'done') <> (p.state = 'done' AND a.attempt = p.attempt)""",
    ),
    Invariant(
        id="I4",
        sentence="a slice is done exactly if its trial has a loss at its rung",
        query="""
        SELECT p.id, p.state, v.step FROM (SELECT p.* FROM hpo.slices p JOIN hpo.studies s ON s.id = p.study_id
                                            WHERE s.deleted_at IS NULL AND p.state = 'done') p
          FULL JOIN optuna.trial_intermediate_values v ON v.trial_id = p.optuna_trial_id AND v.step = p.until_examples
         WHERE p.id IS NULL OR v.step IS NULL""",
    ),
    Invariant(
        id="I4",
        sentence="every loss was told once, as it is kept",
        query="""
        SELECT p.id, v.intermediate_value, array_agg(e.payload ->> 'loss') FROM hpo.slices p
          JOIN optuna.trial_intermediate_values v ON v.trial_id = p.optuna_trial_id AND v.step = p.until_examples
          LEFT JOIN hpo.events e ON e.study_id = p.study_id AND e.trial_number = p.trial_number
           AND e.kind = 'trial.reported' AND (e.payload ->> 'examples')::bigint = p.until_examples
         GROUP BY p.id, v.intermediate_value
        HAVING count(e.id) <> 1 OR max((e.payload ->> 'loss')::float) <> v.intermediate_value""",
    ),
    Invariant(
        id="I4",
        sentence="the slices of a trial rise from rung to rung",
        query="""
        SELECT * FROM (SELECT id, until_examples, lag(until_examples) OVER (PARTITION BY study_id, trial_number
            ORDER BY id) AS before FROM hpo.slices) rungs WHERE until_examples <= before""",
    ),
    Invariant(
        id="I5",
        sentence="a study was asked for once, a confirmation by its parent only",
        query="""
        SELECT s.id, count(i.id) FROM hpo.studies s LEFT JOIN hpo.intents i ON i.study_id = s.id AND i.kind = 'create'
         GROUP BY s.id HAVING count(i.id) <> (s.parent_study_id IS NULL)::int""",
    ),
    Invariant(
        id="I6",
        sentence="a study has no more trials than its budget allows, or allowed before it was lowered",
        query=f"""
        SELECT s.id, count(*) FROM {_TRIALS} GROUP BY s.id
        HAVING count(*) > greatest((s.resolved -> 'budget' ->> 'max_trials')::int,
                                   (s.spec -> 'budget' ->> 'max_trials')::int,
               (SELECT max((e.payload -> 'budget' ->> 'max_trials')::int) FROM hpo.events e
                 WHERE e.study_id = s.id AND e.kind = 'study.changed'))""",
    ),
    Invariant(
        id="I6",
        sentence="at no moment did more slices of a study run than its budget allows",
        query="""
        SELECT s.id, a.slice_id, a.attempt, count(*) FROM hpo.studies s
          JOIN hpo.slices p ON p.study_id = s.id JOIN hpo.attempts a ON a.slice_id = p.id
          JOIN hpo.slices q ON q.study_id = s.id JOIN hpo.attempts b ON b.slice_id = q.id
           AND b.started_at <= a.started_at AND coalesce(b.finished_at, 'infinity') > a.started_at
         GROUP BY s.id, a.slice_id, a.attempt
        HAVING count(*) > (s.resolved -> 'budget' ->> 'max_parallel')::int""",
    ),
    Invariant(
        id="I7",
        sentence="a trial that is complete has a finite value, the loss of its last rung",
        query=f"""
        SELECT s.id, t.number, v.value, v.value_type FROM {_TRIALS}
          LEFT JOIN optuna.trial_values v ON v.trial_id = t.trial_id AND v.objective = 0
         WHERE t.state::text = 'COMPLETE' AND (v.value IS NULL OR v.value_type::text <> 'FINITE' OR v.value <>
               (SELECT intermediate_value FROM optuna.trial_intermediate_values i WHERE i.trial_id = t.trial_id
                 ORDER BY step DESC LIMIT 1))""",
    ),
    Invariant(
        id="I8",
        sentence="a rung that was reached has one snapshot, of a step at or past it or of the trial's end",
        query="""
        SELECT p.id, p.snapshots FROM hpo.slices p WHERE p.state = 'done' AND (jsonb_array_length(p.snapshots) <> 1
            OR (p.snapshots -> 0 ->> 'examples_seen')::bigint < p.until_examples)""",
    ),
    Invariant(
        id="I9",
        sentence="trials are numbered from 0 without a gap",
        query=f"""
        SELECT s.id, count(*), max(t.number) FROM {_TRIALS} GROUP BY s.id
        HAVING count(*) <> max(t.number) + 1 OR count(DISTINCT t.number) <> count(*)""",
    ),
    Invariant(
        id="I9",
        sentence="slices and Optuna's trials name each other",
        query="""
        SELECT p.id, p.trial_number, t.number FROM hpo.slices p JOIN hpo.studies s ON s.id = p.study_id
          LEFT JOIN optuna.trials t ON t.trial_id = p.optuna_trial_id AND t.study_id = s.optuna_study_id
         WHERE s.deleted_at IS NULL AND t.number IS DISTINCT FROM p.trial_number""",
    ),
    Invariant(
        id="I9",
        sentence="what we note at a trial agrees with its state in Optuna",
        query=f"""
        SELECT s.id, t.number, t.state, {_HPO_STATE} FROM {_TRIALS}
         WHERE (t.state::text IN {_FINISHED}) <> coalesce({_HPO_STATE} = '"ended"', false)
            OR (t.state::text IN ('COMPLETE', 'PRUNED'))
               <> EXISTS (SELECT 1 FROM optuna.trial_values v WHERE v.trial_id = t.trial_id)""",
    ),
    Invariant(
        id="I10",
        sentence="attempts end in one of the known ways, those that nobody is to blame for with their cause",
        query=f"""
        SELECT slice_id, attempt, outcome, cause FROM hpo.attempts
         WHERE outcome NOT IN ({_quoted(Outcome)}) OR cause NOT IN ({_quoted(Cause)})
            OR (cause IS NOT NULL) <> coalesce(outcome IN ('lost', 'infra_error'), false)""",
    ),
    Invariant(
        id="I10",
        sentence="only causes that may be the trial's doing count against a slice, and only so many times",
        query=f"""
        SELECT p.id, p.failures, count(a.attempt) FROM hpo.slices p JOIN hpo.studies s ON s.id = p.study_id
          LEFT JOIN hpo.attempts a ON a.slice_id = p.id AND a.cause IN {_COUNTED}
         GROUP BY p.id, s.resolved HAVING count(a.attempt) <> p.failures
            OR p.failures > (s.resolved -> 'resources' ->> 'max_attempts')::int""",
    ),
    Invariant(
        id="I14",
        sentence="everything that was asked for is done or refused, and every study has ended",
        query=f"""
        SELECT 'intent', id, kind FROM hpo.intents WHERE done_at IS NULL
        UNION ALL SELECT 'job', id, state FROM hpo.jobs WHERE state IN ('waiting', 'running')
        UNION ALL SELECT 'study', id, state FROM hpo.studies WHERE state NOT IN {_ENDED} AND state <> 'paused'""",
        settled=True,
    ),
)


def broken(session: Session, *, settled: bool = False) -> list[str]:
    """What breaks an invariant, a sentence each, in one consistent picture of the database."""
    if not session.in_transaction():
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    found = []
    for invariant in INVARIANTS:
        if settled or not invariant.settled:
            rows = session.execute(text(invariant.query)).all()
            found += [f"{invariant.id}: {invariant.sentence}, but {tuple(row)}" for row in rows[:3]]
    return found


def wrong_losses(session: Session, expected: ExpectedLoss) -> list[str]:
    """I13: losses that are not those of a trial which nothing happened to, to the last bit."""
    query = """
        SELECT s.resolved, t.number, v.step, v.intermediate_value AS loss,
               (SELECT json_object_agg(key, value_json::json)
                  FROM optuna.trial_user_attributes WHERE trial_id = t.trial_id) AS attributes,
               (SELECT coalesce(json_agg(json_build_array(param_name, param_value, distribution_json)), '[]')
                  FROM optuna.trial_params WHERE trial_id = t.trial_id) AS params
          FROM hpo.studies s JOIN optuna.trials t ON t.study_id = s.optuna_study_id
          JOIN optuna.trial_intermediate_values v ON v.trial_id = t.trial_id"""
    found = []
    for row in session.execute(text(query)):
        known = row.attributes | {
            name: json_to_distribution(distribution).to_external_repr(value) for name, value, distribution in row.params
        }
        parameters = Parameters.model_validate({name: known[name] for name in Parameters.model_fields})
        seed = int(known.get("seed") or ResolvedStudy.model_validate(row.resolved).training.seed)
        loss = expected(parameters, seed, row.step, known["total_examples"])
        if loss != row.loss:
            found.append(f"I13: trial {row.number} has the loss {row.loss!r} at {row.step} and should have {loss!r}")
    return found


def bad_snapshots(session: Session, root: Path, damaged: Mapping[str, object]) -> list[str]:
    """I7, I8: of every unfinished trial the newest snapshot, and of every complete one the last, verify on disk.

    What a test damaged itself (`damaged` paths) is left out.
    """
    query = """
        SELECT DISTINCT ON (p.study_id, p.trial_number) p.snapshots -> 0 AS ref FROM hpo.slices p
          JOIN hpo.studies s ON s.id = p.study_id AND s.deleted_at IS NULL
          JOIN optuna.trials t ON t.trial_id = p.optuna_trial_id
         WHERE jsonb_array_length(p.snapshots) > 0 AND (t.state::text = 'RUNNING' OR t.number = (
               SELECT b.number FROM optuna.trials b JOIN optuna.trial_values v ON v.trial_id = b.trial_id
                WHERE b.study_id = t.study_id AND b.state::text = 'COMPLETE' ORDER BY v.value, b.number LIMIT 1))
         ORDER BY p.study_id, p.trial_number, p.until_examples DESC"""
    refs = [SnapshotRef.model_validate(ref) for ref in session.scalars(text(query))]
    return [f"I8: {problem}" for ref in refs if ref.path not in damaged and (problem := _problem(root, ref))]


def _problem(root: Path, ref: SnapshotRef) -> str | None:
    manifest = root / ref.path / "manifest.json"
    if not manifest.is_file():
        return f"snapshot {ref.path} is not there"
    content = manifest.read_bytes()
    if sha256(content).hexdigest() != ref.digest:
        return f"the manifest of snapshot {ref.path} is another one"
    for name, digest in json.loads(content)["files"].items():
        file = manifest.with_name(name)
        if not file.is_file() or sha256(file.read_bytes()).hexdigest() != digest["sha256"]:
            return f"{name} of snapshot {ref.path} is damaged"
    return None


def spilled(session: Session, secrets: Iterable[str], logs: Iterable[Path]) -> list[str]:
    """I12: where a secret is written in clear, in a table or a log."""
    found = []
    tables = session.execute(
        text("SELECT table_schema || '.' || table_name FROM information_schema.tables WHERE table_schema = ANY(:own)"),
        {"own": ["hpo", "optuna"]},
    ).scalars()
    for table in list(tables):
        query = text(f"SELECT count(*) FROM {table} r WHERE position(:secret IN r::text) > 0")
        if any(session.execute(query, {"secret": secret}).scalar_one() for secret in secrets):
            found.append(f"I12: a secret is in table {table}")
    for log in logs:
        content = log.read_bytes()
        found += [f"I12: a secret is in {log.name}" for secret in secrets if secret.encode() in content]
    return found
