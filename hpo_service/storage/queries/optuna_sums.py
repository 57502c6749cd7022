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
     ORDER BY t.study_id, v.value, t.number
    """
)
_LEADERS = text(
    """
    SELECT DISTINCT ON (t.study_id) t.study_id, t.number
      FROM optuna.trials t
      JOIN optuna.trial_intermediate_values i ON i.trial_id = t.trial_id AND i.intermediate_value_type = 'FINITE'
     WHERE t.study_id = ANY(:studies) AND t.state <> 'FAIL'
     ORDER BY t.study_id, i.step DESC, i.intermediate_value, t.number
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
class TrialSums:
    """Of one study: trials by Optuna's state and whether they are paused, and what stopping early has saved.

    `leaders` are the numbers of the trials among which the best one is, and of the baseline. Examples `planned` are
    those of all trials trained to their end.
    """

    counts: dict[tuple[str, bool], int] = field(default_factory=dict)
    leaders: set[int] = field(default_factory=set)
    planned: int = 0
    saved: int = 0


def trial_sums(connection: Connection, optuna_study_ids: Sequence[int]) -> dict[int, TrialSums]:
    """By Optuna's id of the study."""
    leading = leaders(connection, optuna_study_ids)
    found = {study_id: TrialSums(leaders=leading[study_id]) for study_id in optuna_study_ids}
    for row in connection.execute(_STANDINGS, {"studies": list(optuna_study_ids)}):
        sums = found[row.study_id]
        sums.counts[row.state, row.paused] = row.trials
        sums.planned += int(row.planned)
        sums.saved += int(row.saved)
    return found


def leaders(connection: Connection, optuna_study_ids: Sequence[int]) -> dict[int, set[int]]:
    """Numbers of the trials among which the best one is, and of the baseline, by Optuna's id of the study."""
    found: dict[int, set[int]] = {study_id: set() for study_id in optuna_study_ids}
    for row in connection.execute(_COMPLETE, {"studies": list(found)}):
        found[row.study_id].add(row.number)
    without = [study_id for study_id, numbers in found.items() if not numbers]
    for statement, studies in ((_LEADERS, without), (_BASELINES, list(found))):
        for row in connection.execute(statement, {"studies": studies}):
            found[row.study_id].add(row.number)
    return found
