"""Every invariant sees what breaks it, and a study that nothing happened to breaks none."""

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from tests.dispatching import make, post_study, state_of, turn_until
from tests.invariants import INVARIANTS, broken

_ONE_ATTEMPT = "(slice_id, attempt) = (SELECT slice_id, attempt FROM hpo.attempts ORDER BY slice_id LIMIT 1)"
_ONE_LOSS = "(trial_id, step) = (SELECT trial_id, min(step) FROM optuna.trial_intermediate_values GROUP BY 1 LIMIT 1)"
#: the invariant that must see it, a part of its sentence, the damage
DAMAGE = [
    ("I1", "has no unfinished trial", "UPDATE optuna.trials SET state = 'RUNNING' WHERE number = 1"),
    ("I1", "one event of its end", "DELETE FROM hpo.events WHERE kind = 'trial.completed'"),
    (
        "I1",
        "after its end",
        "INSERT INTO hpo.events (project_id, study_id, trial_number, kind, payload) "
        "VALUES (1, 1, 0, 'trial.paused', '{}')",
    ),
    ("I1", "ends once", "UPDATE hpo.studies SET state = 'running'"),
    ("I2", "current attempt is open", f"UPDATE hpo.attempts SET outcome = NULL WHERE {_ONE_ATTEMPT}"),
    (
        "I2",
        "worker that is gone",
        f"UPDATE hpo.attempts SET outcome = NULL WHERE {_ONE_ATTEMPT}; UPDATE hpo.workers SET state = 'gone'",
    ),
    ("I2", "at most one open slice", "UPDATE hpo.slices SET state = 'waiting' WHERE trial_number = 0"),
    ("I3", "without a gap", f"UPDATE hpo.attempts SET attempt = 7 WHERE {_ONE_ATTEMPT}"),
    ("I3", "at one place", "UPDATE hpo.attempts SET finished_at = finished_at + interval '1 hour'"),
    ("I3", "one attempt of a slice counts", f"UPDATE hpo.attempts SET outcome = 'preempted' WHERE {_ONE_ATTEMPT}"),
    ("I4", "has a loss at its rung", f"DELETE FROM optuna.trial_intermediate_values WHERE {_ONE_LOSS}"),
    ("I4", "told once", f"UPDATE optuna.trial_intermediate_values SET intermediate_value = 1 WHERE {_ONE_LOSS}"),
    ("I4", "rise from rung to rung", "UPDATE hpo.slices SET until_examples = -until_examples"),
    ("I5", "asked for once", "INSERT INTO hpo.intents (project_id, study_id, kind) VALUES (1, 1, 'create')"),
    (
        "I6",
        "no more trials",
        "UPDATE hpo.studies SET spec = '{}'; "
        "UPDATE hpo.studies SET resolved = jsonb_set(resolved, '{budget,max_trials}', '1')",
    ),
    ("I6", "at no moment", "UPDATE hpo.studies SET resolved = jsonb_set(resolved, '{budget,max_parallel}', '0')"),
    ("I7", "finite value", "UPDATE optuna.trial_values SET value = value + 1"),
    ("I8", "one snapshot", "UPDATE hpo.slices SET snapshots = '[]'"),
    ("I9", "numbered from 0", "UPDATE optuna.trials SET number = 99 WHERE number = 8"),
    ("I9", "name each other", "UPDATE optuna.trials SET number = 99 WHERE number = 0"),
    ("I9", "agrees with its state", "DELETE FROM optuna.trial_values"),
    ("I10", "known ways", f"UPDATE hpo.attempts SET outcome = 'vanished' WHERE {_ONE_ATTEMPT}"),
    ("I10", "count against a slice", "UPDATE hpo.slices SET failures = 1"),
    ("I14", "done or refused", "UPDATE hpo.intents SET done_at = NULL"),
]


def test_every_damage_is_seen(sessions: sessionmaker[Session]) -> None:
    study_id = post_study(sessions)
    dispatcher, _ = make(sessions)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    with sessions() as session:
        assert broken(session, settled=True) == []
    for name, part, statements in DAMAGE:
        with sessions() as session:
            for statement in statements.split("; "):
                session.execute(text(statement))
            found = broken(session, settled=True)
            session.rollback()
        assert any(sentence.startswith(f"{name}: ") and part in sentence for sentence in found), (name, part, found)
    unseen = {
        invariant.sentence
        for invariant in INVARIANTS
        if not any(name == invariant.id and part in invariant.sentence for name, part, _ in DAMAGE)
    }
    assert not unseen
