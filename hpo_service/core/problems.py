"""Everything that is wrong with a spec, gathered from one step after another, so that one answer tells all of it."""

from collections.abc import Iterator
from contextlib import contextmanager

from hpo_service.core.errors import InvalidSpec, Problem


class Problems:
    """What was found so far, in order; nothing is told twice of one place."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, *problems: Problem) -> None:
        """Keep those that are news: not of a place, or of one inside or around it, that something is known of."""
        known = [problem.pointer for problem in self.found]
        self.found += [problem for problem in problems if not any(_same_place(problem.pointer, one) for one in known)]

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep what the step inside complains about, and go on after it."""
        try:
            yield
        except InvalidSpec as error:
            self.add(*(error.problems or (Problem(detail=error.detail),)))

    def refuse(self) -> None:
        """Raise InvalidSpec if anything was found."""
        if not self.found:
            return
        first = self.found[0].detail
        detail = first if len(self.found) == 1 else f"the study spec has {len(self.found)} problems: {first}"
        raise InvalidSpec(detail, problems=self.found)


def _same_place(one: str, other: str) -> bool:
    return bool(one and other) and (one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/"))
