"""What a study varies: parse what the user wrote, code it for Optuna, sample, encode known points, extend.

No I/O and no state: a space is a value.
"""

from hpo_service.search_space.advice import advice
from hpo_service.search_space.core import Assignment, Infeasible, Suggest
from hpo_service.search_space.dimensions import (
    Categories,
    Constant,
    Derived,
    Dimension,
    FloatRange,
    Form,
    IntRange,
    NumberChoices,
)
from hpo_service.search_space.parsing import FACTS
from hpo_service.search_space.space import SearchSpace

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
