"""The search space of a study, as the rest of the service sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from hpo_service.spec.space.core import Space
from hpo_service.spec.space.extension import extended_forms
from hpo_service.spec.space.known_point import known_point
from hpo_service.spec.space.parser import parse_space


@dataclass(frozen=True)
class SearchSpace(Space):
    """Pure and immutable, the same after a trip through JSON. Build one with `parse` or `from_json`."""

    @classmethod
    def parse(cls, space: Mapping[str, object], constraints: Sequence[str], facts: Mapping[str, int]) -> Self:
        """The space as a user wrote it.

        Names are parameters of the trainer. Another name is a helper quantity: it is sampled too, but only reaches the
        trainer through an expression that reads it. `facts` are the other names that expressions may read
        (`train_rows`, `hidden_size`).

        Raises:
            InvalidSpec: with one problem for everything that is wrong.
        """
        parsed = parse_space(space, constraints, facts)
        return cls(parsed.forms, parsed.constraints, parsed.facts)

    def point(self, values: Mapping[str, object], pointer: str = "") -> dict[str, Any]:
        """The sampled part of a known point (a baseline, an enqueued trial), which may be partial.

        Constants, derived values and parameters outside the space may be given if they agree with what the space says.

        Raises:
            InvalidSpec: a value is outside the space, disagrees, or belongs to a parameter that is not used there.
        """
        return known_point(self, values, pointer)

    def extend(self, changes: Mapping[str, Any]) -> Self:
        """The space with wider numeric ranges and more numeric choices.

        A change is `{low: …, high: …}` (either may be left out) or `{choices: […]}` with the old numbers and new ones
        below or above them.

        Raises:
            InvalidSpec: anything else; the remedy is a clone.
        """
        return type(self)(extended_forms(self, changes), self.constraints, self.facts)
