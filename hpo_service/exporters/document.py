"""The best parameters of a study as one document, with where they come from."""

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from hpo_service.search.best import Best
from hpo_service.spec import ResolvedStudy
from trainer.spec import Parameters, TrialFile

METRIC = "eval_loss"


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """What is known of a study beyond its trials. A digest that nobody computed is None."""

    name: str
    project: str = "default"
    strategy: str = ""
    seed: int | None = None
    base_digest: str | None = None
    train_digest: str | None = None
    eval_digest: str | None = None


def best_document(study: StudyFacts, best: Best, resolved: ResolvedStudy, *, now: datetime | None = None) -> TrialFile:
    """What `python -m trainer run` takes to train the best trial again."""
    return TrialFile(
        kind="BestParams",
        metadata={"name": study.name, "project": study.project},
        model=resolved.model,
        data=resolved.data,
        parameters=Parameters.model_validate(dict(best.parameters)),
        training=resolved.training,
        provenance=_provenance(study, best, resolved, now or datetime.now(UTC)),
    )


def _losses(best: Best) -> dict[str, Any]:
    """What the trial reached. With new seeds it is a mean, which is not what a run with the search's seed repeats."""
    known, searched = best.confirmed, best.searched
    if known is None:
        return {"loss": best.loss}
    return {
        "confirmed_loss": known.mean,
        "confirmed_seeds": known.seeds,
        "confirmed_spread": known.spread,
        "confirmed_difference": known.difference,
        "confirmed_half_width": known.half_width,
        "test_loss": known.test_loss,
        "searched_loss": None if searched is None else searched.loss,
        "searched_examples": None if searched is None else searched.examples,
    }


def _compared(best: Best) -> dict[str, Any]:
    """Both losses over the seeds that both have (0: the search's one), so that their difference is the one told."""
    found = best.improvement
    if found is None:
        return {}
    return {
        "compared_loss": found.loss,
        "compared_seeds": found.seeds,
        "compared_examples": found.examples,
        "baseline_loss": found.baseline_loss,
        "baseline_examples": found.baseline_examples,
    }


def _provenance(study: StudyFacts, best: Best, resolved: ResolvedStudy, now: datetime) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "study": study.name,
        "trial": best.trial_number,
        "metric": METRIC,
        **_losses(best),
        "examples": best.examples,
        "provisional": best.provisional,
        **_compared(best),
        "strategy": study.strategy or None,
        "search_seed": study.seed,
        "dtype_device": resolved.dtype_device or None,
        "train_rows": resolved.train_rows,
        "base_digest": study.base_digest,
        "train_digest": study.train_digest,
        "eval_digest": study.eval_digest,
        "date": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "generator": f"hpo-service {version('hpo-service')}",
    }
    return {name: value for name, value in facts.items() if value is not None}
