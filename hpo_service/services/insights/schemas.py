"""What the API answers about the search itself: its decisions, what mattered, what can still be gained."""

from datetime import datetime
from typing import Any, Literal

from hpo_service.services.studies.schemas import Document, EdgeDocument

DecisionOutcome = Literal["waiting", "running", "done", "failed", "dropped"]


class DecisionDocument(Document):
    """One decision: which slice was chosen, why, and what came of it."""

    number: int
    """Counts from 1 within the study."""
    decided_at: datetime
    trial_number: int
    from_examples: int
    """The rung that the trial was on; 0 of a new trial."""
    until_examples: int
    """The rung that the slice goes to."""
    rule: str | None
    """Which rule of the strategy decided; null if the strategy has only one."""
    reason: str
    numbers: dict[str, float | int | str | None]
    """The figures behind it, such as the expected improvement of the final loss, the predicted loss with its standard
    deviation, the cost in full trials, and the same of the runner-up."""
    outcome: DecisionOutcome
    """What became of the slice."""
    loss: float | None
    """The evaluation loss that it brought; null if there is none (yet)."""
    parameters: dict[str, Any]


class ImportanceDocument(Document):
    """How much a parameter mattered."""

    parameter: str
    share: float
    """The shares of all parameters sum to 1, whether they mattered or not."""
    beyond_chance: bool
    """Whether it scores higher than any parameter does in 19 shuffles of the losses; else its share may be chance."""
    best: Any
    """The value of the best trial; null if it does not use the parameter."""


class ImportancesDocument(Document):
    """Which parameters mattered (PED-ANOVA), the largest share first."""

    trials: int
    """Trials that were compared: all with a loss, at their last rung, with the curve of a middling trial taken off."""
    needed: int
    """There are no importances before so many trials have a loss."""
    importances: list[ImportanceDocument]
    unexplored: list[str]
    """Parameters of the space that had the same value in all compared trials: nothing is known of them."""
    edges: list[EdgeDocument]


class ObjectiveDocument(Document):
    """One of the things that a study is searched for."""

    name: str
    goal: Literal["minimize", "maximize"]


class ParetoPoint(Document):
    """A trial that no other one beats in all objectives."""

    trial_number: int
    provisional: bool
    """It has not reached its end: its loss is that of the rung it is at, and may still fall."""
    examples: int
    """The rung that the loss is from."""
    total_examples: int | None
    values: dict[str, float]
    """By objective."""
    parameters: dict[str, Any]


class ParetoDocument(Document):
    """The front over all trials with a loss, the lowest loss first."""

    objectives: list[ObjectiveDocument]
    trials: int
    """How many trials were compared."""
    items: list[ParetoPoint]
