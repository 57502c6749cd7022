"""The note on a trial's page in optuna-dashboard: how it ended, what it took, where more is told."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard._note import save_note_with_version

from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.formatting.values import duration
from hpo_service.reports.markdown import escaped

#: A page of the dashboard loads the notes of all trials at once.
_MOST_NOTES = 500
_ENDS = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def write(study: LiveStudy, number: int) -> None:
    """Call it once, when the trial has ended. Those of a confirmation and those far back in a large study have none."""
    if study.resolved.confirmation is not None or number >= _MOST_NOTES or study.optuna_study_id is None:
        return
    trial = study.trial(number)
    save_note_with_version(study.storage, study.optuna_study_id, trial._trial_id, 1, _body(study, trial))


def cost(usd: float, seconds: float, examples: int) -> str:
    """What was spent; the price only where one is known."""
    parts = [f"{usd:.4g} USD"] if usd else []
    return ", ".join([*parts, f"{duration(seconds)} on a device", f"{examples} examples"])


def _body(study: LiveStudy, trial: FrozenTrial) -> str:
    attrs = trial.user_attrs
    page = f"/studies/{quote(study.name)}"
    links = [
        f"[its page]({page}/trials/{trial.number})",
        f"[study]({page})",
        f"[report](/v1{page}/report)",
        f"[losses and attempts](/v1{page}/trials/{trial.number})",
        *([f"[MLflow]({study.mlflow_url})"] if study.mlflow_url else []),
    ]
    taken = cost(attrs.get("cost_usd", 0.0), attrs.get("seconds", 0.0), attrs.get("examples", 0))
    return "\n\n".join([_end(trial, attrs), f"Spent: {taken}.", " · ".join(links)])


def _end(trial: FrozenTrial, attrs: Mapping[str, Any]) -> str:
    losses = trial.intermediate_values
    reached = f", loss {losses[max(losses)]:.5g} after {max(losses)} examples" if losses else ""
    said = ": ".join(escaped(str(attrs[name])) for name in ("outcome", "message") if attrs.get(name))
    why = f". {said}" if said and trial.state is TrialState.FAIL else ""
    return f"**Trial {trial.number}** is {_ENDS[trial.state]}{reached}{why}."
