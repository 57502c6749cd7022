"""What a list of studies says of their trials, summed in the database: no trial is read but those that lead."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

_STANDINGS = text(
    """
    SELECT study_id, state, paused, count(*) AS trials, coalesce(sum(total), 0) AS planned,
           coalesce(sum(greatest(0, total - reached)), 0) AS saved
      FROM (SELECT t.study_id, t.state::text AS state, coalesce(a.value_json = '"paused"', false) AS paused,
                   CASE WHEN t.state NOT IN ('WAITING', 'FAIL') THEN total.value_json::bigint END AS total,
                   CASE WHEN t.state = 'PRUNED' OR t.state = 'RUNNING' AND a.value_json = '"paused"'
                        THEN coalesce((SELECT max(step) FROM optuna.trial_intermediate_values i
                                        WHERE i.trial_id = t.trial_id), 0) END AS reached
              FROM optuna.trials t
              LEFT JOIN optuna.trial_user_attributes total ON total.trial_id = t.trial_id
                                                          AND total.key = 'total_examples'
              LEFT JOIN optuna.trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'hpo_state'
             WHERE t.study_id = ANY(:studies)) AS trials
     GROUP BY study_id, state, paused
    """
)
_COMPLETE = text(
    """
    SELECT DISTINCT ON (t.study_id) t.study_id, t.number
      FROM optuna.trials t
      JOIN optuna.trial_values v ON v.trial_id = t.trial_id AND v.objective = 0 AND v.value_type = 'FINITE'
     WHERE t.study_id = ANY(:studies) AND t.state = 'COMPLETE'
       AND NOT EXISTS (SELECT FROM optuna.trial_user_attributes a
                        WHERE a.trial_id = t.trial_id AND a.key = 'baseline' AND a.value_json = 'true')
     ORDER BY t.study_id, v.value, t.number
    """
)
_CONTENDERS = text(
    """
    SELECT best.study_id, best.number
      FROM (SELECT DISTINCT ON (t.study_id, i.step) t.study_id, i.step, t.number, t.trial_id
              FROM optuna.trials t
              JOIN optuna.trial_intermediate_values i ON i.trial_id = t.trial_id
                                                     AND i.intermediate_value_type = 'FINITE'
             WHERE t.study_id = ANY(:studies) AND t.state <> 'FAIL'
               AND NOT EXISTS (SELECT FROM optuna.trial_intermediate_values n
                                WHERE n.trial_id = t.trial_id AND n.intermediate_value_type <> 'FINITE')
             ORDER BY t.study_id, i.step, i.intermediate_value, t.number) AS best
     WHERE NOT EXISTS (SELECT FROM optuna.trial_intermediate_values i
                        WHERE i.trial_id = best.trial_id AND i.step > best.step)
    """
)
_BASELINES = text(
    """
    SELECT t.study_id, min(t.number) AS number
      FROM optuna.trials t
      JOIN optuna.trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'baseline' AND a.value_json = 'true'
     WHERE t.study_id = ANY(:studies)
     GROUP BY t.study_id
    """
)


@dataclass(kw_only=True)
class Leaders:
    """Numbers of the trials among which the best one of a study is, and of the baseline.

    `contenders` are those that are the best of all at their own highest rung: one of them is the leader.
    """

    numbers: set[int] = field(default_factory=set)
    contenders: set[int] = field(default_factory=set)


@dataclass(kw_only=True)
class TrialSums:
    """Of one study: trials by Optuna's state and whether they are paused, and what stopping early has saved.

    Examples `planned` are those of all trials trained to their end.
    """

    counts: dict[tuple[str, bool], int] = field(default_factory=dict)
    leaders: Leaders = field(default_factory=Leaders)
    planned: int = 0
    saved: int = 0


def trial_sums(
    connection: Connection, optuna_study_ids: Sequence[int], *, always_contenders: bool
) -> dict[int, TrialSums]:
    """By Optuna's id of the study; contenders as in `leaders`."""
    leading = leaders(connection, optuna_study_ids, always_contenders=always_contenders)
    found = {study_id: TrialSums(leaders=leading[study_id]) for study_id in optuna_study_ids}
    for row in connection.execute(_STANDINGS, {"studies": list(optuna_study_ids)}):
        sums = found[row.study_id]
        sums.counts[row.state, row.paused] = row.trials
        sums.planned += int(row.planned)
        sums.saved += int(row.saved)
    return found


def leaders(
    connection: Connection, optuna_study_ids: Sequence[int], *, always_contenders: bool = True
) -> dict[int, Leaders]:
    """By Optuna's id of the study. Contenders may be left out where a searched trial was trained to its end."""
    found = {study_id: Leaders() for study_id in optuna_study_ids}
    for row in connection.execute(_COMPLETE, {"studies": list(found)}):
        found[row.study_id].numbers.add(row.number)
    wanted = [study_id for study_id, known in found.items() if always_contenders or not known.numbers]
    for row in connection.execute(_CONTENDERS, {"studies": wanted}):
        found[row.study_id].contenders.add(row.number)
    for row in connection.execute(_BASELINES, {"studies": list(found)}):
        found[row.study_id].numbers.add(row.number)
    return found
