"""The study spec: what a user posts, what it resolves to, what it will take."""

from hpo_service.spec.confirmation import Candidate, ConfirmationPlan
from hpo_service.spec.estimate import Estimate, estimate
from hpo_service.spec.past import FEWEST_TRIALS, MOST_STUDIES, MOST_TRIALS, PastStudy, Traits, best_quarter
from hpo_service.spec.problems import problems_from
from hpo_service.spec.resolved import ResolvedBudget, ResolvedStudy, expand, resolve
from hpo_service.spec.similarity import similarity
from hpo_service.spec.study import (
    BudgetSettings,
    ConfirmSettings,
    Metadata,
    Resources,
    SamplerName,
    SearchSettings,
    StudySpec,
    parse_spec,
)

__all__ = [
    "FEWEST_TRIALS",
    "MOST_STUDIES",
    "MOST_TRIALS",
    "BudgetSettings",
    "Candidate",
    "ConfirmSettings",
    "ConfirmationPlan",
    "Estimate",
    "Metadata",
    "PastStudy",
    "ResolvedBudget",
    "ResolvedStudy",
    "Resources",
    "SamplerName",
    "SearchSettings",
    "StudySpec",
    "Traits",
    "best_quarter",
    "estimate",
    "expand",
    "parse_spec",
    "problems_from",
    "resolve",
    "similarity",
]
