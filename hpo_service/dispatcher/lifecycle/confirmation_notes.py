"""The note on a confirmation's page in optuna-dashboard."""

from urllib.parse import quote

from hpo_service.core.study_rules import TERMINAL, StudyState
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.search.best import Confirmed
from hpo_service.search.confirmation.report import report
from hpo_service.search.confirmation.runs import RunFacts, run_facts
from hpo_service.search.confirmation.sentence import sentence
from hpo_service.spec.confirmation import CONFIRMATION_SUFFIX, ConfirmationPlan


def confirmation_body(study: LiveStudy, plan: ConfirmationPlan) -> str:
    """What the runs are, and what they say so far."""
    parent = study.name.removesuffix(CONFIRMATION_SUFFIX)
    message = f": {study.message}" if study.message else ""
    found = report(plan, recorded_runs(study))
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


def finalists(child: LiveStudy | None) -> tuple[Confirmed, ...]:
    """Of a confirmation that has ended well; none before, as the API has it."""
    if child is None or child.resolved.confirmation is None or child.state is not StudyState.COMPLETED:
        return ()
    return report(child.resolved.confirmation, recorded_runs(child)).finalists


def recorded_runs(study: LiveStudy) -> list[RunFacts]:
    """Those that have begun, of a study that confirms another one."""
    return [
        run_facts(
            trial.number,
            trial.state.name,
            trial.user_attrs,
            trial.intermediate_values,
            study.fold_losses.get(trial.number, {}),
        )
        for trial in study.trials()
    ]
