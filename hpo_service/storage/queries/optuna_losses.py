"""The losses of all trials of a study at all rungs, as lean as comparing trials allows."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

_LOSSES = text(
    """
    SELECT t.number, array_agg(i.step) AS steps, array_agg(i.intermediate_value) AS losses
      FROM optuna.trials t
      JOIN optuna.trial_intermediate_values i ON i.trial_id = t.trial_id
     WHERE t.study_id = :study AND t.state <> 'FAIL'
     GROUP BY t.number
    HAVING bool_and(i.intermediate_value_type = 'FINITE')
     ORDER BY t.number
    """
)


@dataclass(frozen=True)
class TrialLosses:
    """Loss by rung of one trial."""

    number: int
    losses: Mapping[int, float]


def read_losses(connection: Connection, optuna_study_id: int) -> list[TrialLosses]:
    """By trial, in order; without failed trials and those with a loss that is not finite."""
    rows = connection.execute(_LOSSES, {"study": optuna_study_id})
    return [TrialLosses(row.number, dict(zip(row.steps, row.losses, strict=True))) for row in rows]
