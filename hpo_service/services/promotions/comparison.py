"""Reads the comparison of a trial with the baseline: one place, whoever tells it."""

from sqlalchemy.orm import Session

from hpo_service.search.best import Best
from hpo_service.services.promotions.verdict import Comparison, compare
from hpo_service.storage.queries import promotions
from hpo_service.storage.tables import Study


def read_comparison(session: Session, study: Study, best: Best) -> Comparison | None:
    """None without a baseline, and if the trial is the baseline itself."""
    found = best.improvement
    if found is None:
        return None
    if best.confirmed is not None:  # its interval is known
        return compare(best, (), ())
    ours, theirs = (
        promotions.folds_at(session, study.project_id, study.id, number, found.examples)
        for number in (best.trial_number, found.baseline_trial)
    )
    return compare(best, ours, theirs)
