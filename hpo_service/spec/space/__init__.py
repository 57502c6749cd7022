"""What a study varies: parse what the user wrote, sample, check known points, extend.

No I/O and no state: a space is a value.
"""

from hpo_service.spec.space.advice import advice
from hpo_service.spec.space.core import Assignment, Infeasible, Suggest
from hpo_service.spec.space.dimensions import (
    Categories,
    Constant,
    Derived,
    Dimension,
    FloatRange,
    Form,
    IntRange,
    NumberChoices,
)
from hpo_service.spec.space.parser import FACTS
from hpo_service.spec.space.space import SearchSpace

__all__ = [
    "FACTS",
    "Assignment",
    "Categories",
    "Constant",
    "Derived",
    "Dimension",
    "FloatRange",
    "Form",
    "Infeasible",
    "IntRange",
    "NumberChoices",
    "SearchSpace",
    "Suggest",
    "advice",
]
