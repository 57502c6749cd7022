"""The note on a confirmation's page in optuna-dashboard."""

from urllib.parse import quote

from hpo_service.confirmation.report import RunFacts, RunState, report, sentence
from hpo_service.dispatcher.memory import LiveStudy
from hpo_service.domain import TERMINAL
from hpo_service.spec.confirmation import CONFIRMATION_SUFFIX, ConfirmationPlan
from hpo_service.strategies.base import TrialStanding, TrialView

_STATES: dict[TrialStanding, RunState] = {"complete": "complete", "failed": "failed", "pruned": "failed"}


def confirmation_body(study: LiveStudy, plan: ConfirmationPlan) -> str:
    """What the runs are, and what they say so far."""
    parent = study.name.removesuffix(CONFIRMATION_SUFFIX)
    message = f": {study.message}" if study.message else ""
    found = report(plan, [_facts(study, trial) for trial in study.view().trials])
    return "\n\n".join(
        [
            f"**{study.name}** confirms the best trials of {parent}. It is {study.state}{message}.",
            f"**{sentence(found, over=study.state in TERMINAL)}**",
            "Every trial here is a run: a trial of the search (user attribute `candidate`), or the baseline, trained "
            "again from its start with a new `seed`, for initialization and data order. All candidates get the same "
            "seeds and all evaluation rows, so that losses can be compared in pairs; one clearly behind gets no more.",
            f"Means, spreads and intervals: [confirmation](/v1/studies/{quote(parent)}/confirmation).",
        ]
    )


def _facts(study: LiveStudy, trial: TrialView) -> RunFacts:
    assert trial.run is not None
    return RunFacts(
        trial_number=trial.number,
        candidate=trial.run.candidate,
        seed=trial.run.seed,
        state=_STATES.get(trial.standing, "running"),
        loss=trial.losses[trial.rung] if trial.standing == "complete" else None,
        folds=trial.fold_losses.get(trial.rung, ()),
        test_loss=study.trials()[trial.number].user_attrs.get("test_loss"),
    )
