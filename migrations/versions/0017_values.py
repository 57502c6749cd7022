"""Optuna's tables say what was trained: numeric choices as values (not places in a list), one attribute a parameter.

Until here a numeric choice was stored as its index, which could become negative, and a trial's resolved parameters as
one JSON object in the user attribute `parameters`, with the values behind the indexes beside it.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from alembic import op
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution, distribution_to_json
from sqlalchemy.dialects.postgresql import JSONB

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

Form = dict[str, Any]
"""Numeric choices as `resolved.space` has them: `values`, and before this revision `first_index`, after it `log`."""

_TRAINER_PARAMETERS = [
    "learning_rate",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "use_rslora",
    "use_dora",
    "init_lora_weights",
    "loraplus_lr_ratio",
    "neftune_noise_alpha",
    "optimizer",
    "effective_batch",
    "warmup_ratio",
    "weight_decay",
    "lr_scheduler",
    "decay_ratio",
    "epochs",
    "max_grad_norm",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
]

_TRIALS_OF_OURS = """
    SELECT t.trial_id FROM optuna.trials t JOIN hpo.studies s ON s.optuna_study_id = t.study_id
"""
_TO_VALUES = sa.text(
    """
    UPDATE optuna.trial_params p
       SET param_value = (CAST(:choices AS double precision[]))[CAST(p.param_value AS int) - :first + 1],
           distribution_json = :distribution
      FROM optuna.trials t WHERE t.trial_id = p.trial_id AND t.study_id = :study AND p.param_name = :name
    """
)
_TO_INDEXES = sa.text(
    """
    UPDATE optuna.trial_params p
       SET param_value = array_position(CAST(:choices AS double precision[]), p.param_value) - 1,
           distribution_json = :distribution
      FROM optuna.trials t WHERE t.trial_id = p.trial_id AND t.study_id = :study AND p.param_name = :name
    """
)
_FIXED = sa.text(
    """
    SELECT a.trial_system_attribute_id AS id, a.value_json
      FROM optuna.trial_system_attributes a JOIN optuna.trials t USING (trial_id)
     WHERE t.study_id = :study AND a.key = 'fixed_params'
    """
)
_SET_FIXED = sa.text(
    "UPDATE optuna.trial_system_attributes SET value_json = :value WHERE trial_system_attribute_id = :id"
)


def upgrade() -> None:
    """Apply."""
    connection = op.get_bind()
    for study_id, forms in _studies(connection, upwards=True):
        for name, form in forms.items():
            distribution = distribution_to_json(_span(form))
            known = {"study": study_id, "name": name, "choices": form["values"], "distribution": distribution}
            connection.execute(_TO_VALUES, {**known, "first": form["first_index"]})
        for row in connection.execute(_FIXED, {"study": study_id}).all():
            fixed = json.loads(row.value_json)
            for name in fixed.keys() & forms.keys():
                fixed[name] = forms[name]["values"][fixed[name] - forms[name]["first_index"]]
            connection.execute(_SET_FIXED, {"id": row.id, "value": json.dumps(fixed)})
    if _has_optunas_tables(connection):
        _to_single_attributes()


def downgrade() -> None:
    """Undo. Where choices were added below, indexes begin at 0 again, in all trials alike."""
    connection = op.get_bind()
    if _has_optunas_tables(connection):
        _to_one_attribute(connection)
    for study_id, forms in _studies(connection, upwards=False):
        for name, form in forms.items():
            distribution = distribution_to_json(IntDistribution(0, len(form["values"]) - 1))
            known = {"study": study_id, "name": name, "choices": form["values"], "distribution": distribution}
            connection.execute(_TO_INDEXES, known)
        for row in connection.execute(_FIXED, {"study": study_id}).all():
            fixed = json.loads(row.value_json)
            for name in fixed.keys() & forms.keys():
                fixed[name] = forms[name]["values"].index(fixed[name])
            connection.execute(_SET_FIXED, {"id": row.id, "value": json.dumps(fixed)})


def _has_optunas_tables(connection: sa.Connection) -> bool:
    return connection.scalar(sa.text("SELECT to_regclass('optuna.trial_params') IS NOT NULL")) is True


def _studies(connection: sa.Connection, *, upwards: bool) -> Iterator[tuple[int, dict[str, Form]]]:
    """Rewrite what our tables say of choices. Yields Optuna's id of each study, with its choices as they were."""
    for table, column, path in (("studies", "resolved", ()), ("intents", "payload", ("resolved",))):
        open_only = "" if table == "studies" else "WHERE kind = 'extend' AND done_at IS NULL"
        optuna_id = "optuna_study_id" if table == "studies" else "NULL"
        rows = connection.execute(
            sa.text(f"SELECT id, {column} AS document, {optuna_id} AS optuna_id FROM hpo.{table} {open_only}")  # noqa: S608
        ).all()
        change = sa.text(f"UPDATE hpo.{table} SET {column} = :document WHERE id = :id").bindparams(  # noqa: S608
            sa.bindparam("document", type_=JSONB)
        )
        for row in rows:
            resolved = row.document
            for key in path:
                resolved = resolved[key]
            forms = {
                name: dict(form)
                for name, form in resolved.get("space", {}).get("parameters", {}).items()
                if form["kind"] == "numbers"
            }
            if not forms:
                continue
            _rewrite(resolved, forms, upwards=upwards)
            connection.execute(change, {"id": row.id, "document": row.document})
            if row.optuna_id is not None:
                yield row.optuna_id, forms


def _rewrite(resolved: dict[str, Any], forms: Mapping[str, Form], *, upwards: bool) -> None:
    """Change the forms of the space, and the points of a confirmation's candidates."""
    for name, form in forms.items():
        written = resolved["space"]["parameters"][name]
        if upwards:
            del written["first_index"]
            written["log"] = form["log"] = _is_geometric(form["values"])
        else:
            written.pop("log")
            written["first_index"] = form["first_index"] = 0
    for candidate in (resolved.get("confirmation") or {}).get("candidates", []):
        sampled = candidate["sampled"]
        for name in sampled.keys() & forms.keys():
            values, first = forms[name]["values"], forms[name]["first_index"]
            sampled[name] = values[sampled[name] - first] if upwards else values.index(sampled[name])


def _is_geometric(values: list[float]) -> bool:
    """Whether each of some ascending numbers is more than one and a half times the one before."""
    return len(values) > 1 and values[0] > 0 and all(high > 1.5 * low for low, high in pairwise(values))


def _span(form: Form) -> BaseDistribution:
    low, high = form["values"][0], form["values"][-1]
    if all(isinstance(value, int) for value in form["values"]):
        return IntDistribution(low, high, log=form["log"])
    return FloatDistribution(low, high, log=form["log"])


def _to_single_attributes() -> None:
    op.execute(
        f"""
        DELETE FROM optuna.trial_user_attributes u USING optuna.trial_params p
         WHERE p.trial_id = u.trial_id AND p.param_name = u.key AND u.trial_id IN ({_TRIALS_OF_OURS})
        """  # noqa: S608
    )
    op.execute(
        f"""
        INSERT INTO optuna.trial_user_attributes (trial_id, key, value_json)
        SELECT a.trial_id, e.key, CAST(e.value AS text)
          FROM optuna.trial_user_attributes a CROSS JOIN LATERAL json_each(CAST(a.value_json AS json)) e
         WHERE a.key = 'parameters' AND a.trial_id IN ({_TRIALS_OF_OURS})
           AND NOT EXISTS (
               SELECT FROM optuna.trial_params p WHERE p.trial_id = a.trial_id AND p.param_name = e.key)
        """  # noqa: S608
    )
    op.execute(
        f"""
        DELETE FROM optuna.trial_user_attributes WHERE key = 'parameters' AND trial_id IN ({_TRIALS_OF_OURS})
        """  # noqa: S608
    )


def _to_one_attribute(connection: sa.Connection) -> None:
    known = {"names": _TRAINER_PARAMETERS}
    connection.execute(
        sa.text(
            f"""
            INSERT INTO optuna.trial_user_attributes (trial_id, key, value_json)
            SELECT trial_id, 'parameters', CAST(json_object_agg(name, value) AS text) FROM (
                SELECT a.trial_id, a.key AS name, CAST(a.value_json AS json) AS value
                  FROM optuna.trial_user_attributes a WHERE a.key = ANY(:names)
                 UNION ALL
                SELECT p.trial_id, p.param_name,
                       CASE WHEN p.distribution_json LIKE '%CategoricalDistribution%'
                            THEN CAST(p.distribution_json AS json)
                                 -> 'attributes' -> 'choices' -> CAST(p.param_value AS int)
                            ELSE to_json(p.param_value) END
                  FROM optuna.trial_params p WHERE p.param_name = ANY(:names)
            ) AS one WHERE trial_id IN ({_TRIALS_OF_OURS}) GROUP BY trial_id
            """  # noqa: S608
        ),
        known,
    )
    connection.execute(
        sa.text(
            f"""
            DELETE FROM optuna.trial_user_attributes WHERE key = ANY(:names) AND trial_id IN ({_TRIALS_OF_OURS})
            """  # noqa: S608
        ),
        known,
    )
