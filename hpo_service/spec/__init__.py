"""The study spec: what a user posts, what it resolves to, what it will take."""

from hpo_service.spec.estimate import Estimate, estimate
from hpo_service.spec.problems import problems_from
from hpo_service.spec.resolved import ResolvedBudget, ResolvedStudy, expand, resolve
from hpo_service.spec.study import (
    BudgetSettings,
    Metadata,
    Resources,
    SamplerName,
    SearchSettings,
    StudySpec,
    parse_spec,
)

__all__ = [
    "BudgetSettings",
    "Estimate",
    "Metadata",
    "ResolvedBudget",
    "ResolvedStudy",
    "Resources",
    "SamplerName",
    "SearchSettings",
    "StudySpec",
    "estimate",
    "expand",
    "parse_spec",
    "problems_from",
    "resolve",
]
